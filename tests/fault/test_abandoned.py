"""What a host ends by itself, because nobody looked at it for long, and what not."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Tools

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

LONG = 10
LIMITS = f"{QUICK}kept_abandoned_seconds = {LONG}\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    place = tmp_path / "sshd"
    with Sshd(place, options={"SetEnv": f"HOME={place}"}) as one:
        yield one


def room(host: Sshd, ident: str) -> Path:
    return host.directory / ".cache" / "holdfast" / "kept" / ident


async def long_after(place: Path) -> None:
    """Wait until it was looked at so long ago that nobody seems to want it."""
    await soon(
        lambda: time.time() - int((place / "seen").read_text()) > LONG, "time goes"
    )


async def somebody_begins(ssh: Tools) -> None:
    """Have the host look for what nobody wants any more."""
    await ssh.told("ssh_session_open", target="box", durability="remote")


async def test_a_durable_command_that_is_followed_is_wanted(host: Sshd) -> None:
    """NF-10: one that ran for two weeks was killed once anything else was begun."""
    with served(host, limits=LIMITS) as world:
        async with tools(world) as ssh:
            job = await ssh.start("while :; do sleep 1; done", durable=True)
            await long_after(room(host, job))
            await somebody_begins(ssh)
            told = await ssh.read(job, offset=0)
            assert told["status"] == "running", told
            await ssh.told("ssh_job_stop", job_id=job)


async def test_a_session_was_looked_at_until_its_link_was_lost(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-08: a quiet one whose laptop is closed for a night is not ended by others."""
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=LIMITS) as far,
        served(host, limits=LIMITS) as near,
    ):
        async with tools(far) as ssh, tools(near) as other:
            opened = await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            place = room(host, opened["session_id"])
            await somebody_begins(other)
            await long_after(place)
            proxy.refuse()
            await asyncio.to_thread(proxy.rst)
            await soon(
                lambda: not list((place / "out.readers").iterdir()), "nobody reads it"
            )
            await somebody_begins(other)
            assert (place / "shpid").exists()
            await long_after(place)
            await somebody_begins(other)
            assert not place.exists()
