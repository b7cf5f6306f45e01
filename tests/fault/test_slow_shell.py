"""A login shell that was slow once is not taken for a strange one for ever."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from fakes.links import find_host, make_pool
from fakes.sshd import Sshd
from fakes.watch import moment, soon
from holdfast_daemon.connection import inquiry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from holdfast_daemon.connection.lease import Lease

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(60)]


@asynccontextmanager
async def leased(directory: Path, shell: Path) -> AsyncGenerator[Lease]:
    """Yield a lease of a connection to a host where everybody gets this script."""
    with Sshd(directory, options={"ForceCommand": f"/bin/sh {shell}"}) as sshd:
        host = await find_host(sshd.config)
        async with (
            make_pool(probe_seconds=2) as pool,
            await pool.lease(host) as lease,
        ):
            yield lease


async def test_a_shell_that_did_not_answer_in_time_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-02, NF-09: a busy minute of a host is no fact about its connection."""
    monkeypatch.setattr(inquiry, "_DOUBT_SECONDS", 0.0)
    busy, shell = tmp_path / "busy", tmp_path / "shell"
    busy.touch()
    shell.write_text(
        f'while [ -e "{busy}" ]; do sleep 0.02; done\n'
        'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    async with leased(tmp_path / "sshd", shell) as lease:
        assert (await lease.facts()).family == "other"
        link = lease.link
        busy.unlink()
        async with asyncio.timeout(40):
            while (await lease.facts()).family != "posix":
                await moment()
        assert lease.link is link


async def test_a_shell_that_never_answers_is_asked_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-02: who waits for a command there waits for no question each time."""
    monkeypatch.setattr(inquiry, "_DOUBT_SECONDS", 1000.0)
    asked, shell = tmp_path / "asked", tmp_path / "shell"
    shell.write_text(f'echo >>"{asked}"\nexec sleep 60\n')
    async with leased(tmp_path / "sshd", shell) as lease:
        for _ in range(3):
            assert (await lease.facts()).family == "other"
        await soon(asked.exists, "it is asked at all")
        assert asked.read_text() == "\n"
