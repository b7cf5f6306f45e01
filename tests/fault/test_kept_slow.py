"""Hosts on which something that is about to happen takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.gate import Gate
from fakes.kept import Kept, kept_on
from fakes.links import Collector
from fakes.watch import soon
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.kept import runs as kept_runs
from holdfast_daemon.kept import script, wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from holdfast_daemon.kept.wrapper import Family

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]

HOST = Path(script.__file__).parent / "host"


def runs_of(kept: Kept) -> Runs:
    asking = kept.keeper.asking
    return Runs(asking.pool, asking.host, asking.limits)


async def primed(kept: Kept) -> Family:
    standing, _ = await kept.start("sone", "script")
    family = wrapper.family(standing.shell)
    await runs_of(kept).prime("sone", family)
    return family


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


def relay_of(kept: Kept) -> int:
    """Return who brings the shell what is typed."""
    holder = str(kept.number("sone", "pid"))
    for entry in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = entry.read_text().rpartition(") ")
        if name.endswith("(script") and rest.split()[3] == holder:
            return int(entry.parent.name)
    raise AssertionError(kept.processes())


async def test_what_is_brought_late_is_not_behind_an_open_quote(tmp_path: Path) -> None:
    """SE-02: a busy host has it on its way yet; it was told never to run."""
    async with kept_on(tmp_path) as kept, asyncio.timeout(60):
        family = await primed(kept)
        runs, relay = runs_of(kept), relay_of(kept)
        os.kill(relay, signal.SIGSTOP)
        try:
            await soon(lambda: state_of(relay) == "T", "it stands still")
            line = await runs.start(
                "sone", 1, new_nonce(), family, "(exit 3)", Collector()
            )
            assert not await runs.seen("sone", 1)
        finally:
            os.kill(relay, signal.SIGCONT)
        end = await line.ended()
        assert (end.not_begun, end.exit_code) == (False, 3), end


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash"])
async def test_a_shell_that_an_open_quote_kept_from_its_part_takes_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """SE-02: it took no command ever after, though the quote was given up."""
    async with kept_on(tmp_path) as kept, asyncio.timeout(80):
        standing, nonce = await kept.start("sone", "script", shell=shell)
        runs, family = runs_of(kept), wrapper.family(standing.shell)
        line, sink = await kept.attach("sone", nonce)
        await line.write(b"echo 'op''en'; echo 'half\n")
        await sink.wait_for(b"> ")
        monkeypatch.setattr(kept_runs, "_START_SECONDS", 1)
        with pytest.raises(StateError, match="open quote") as refused:
            await runs.prime("sone", family)
        assert refused.value.reason is Reason.SESSION_BUSY
        await line.write(b"\x03")
        await sink.wait_for(b"^C")
        ready = kept.room / "sone" / "r" / "ready"
        while not ready.exists():
            # what is typed at an interrupt may be lost with it: once more, as people do
            with contextlib.suppress(StateError):
                await runs.prime("sone", family)
        run = await runs.start("sone", 1, new_nonce(), family, "(exit 3)", Collector())
        assert (await run.ended()).exit_code == 3
        line.close()


async def test_an_end_that_is_being_written_down_is_waited_for(tmp_path: Path) -> None:
    """SE-11, NF-09: who came back just then was told that its code is lost."""
    programs, gate, held = tmp_path / "bin", Gate(tmp_path / "gate"), tmp_path / "held"
    programs.mkdir()
    slow = programs / "mv"
    slow.write_text(
        '#!/bin/sh\n/bin/mv "$@" || exit\n'
        f'case $3 in rc) echo >"{held}"; {gate.wait} ;; esac\n'
    )
    slow.chmod(0o755)
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    async with kept_on(tmp_path / "home", path=path) as kept, asyncio.timeout(60):
        family, runs, nonce = await primed(kept), runs_of(kept), new_nonce()
        line = await runs.start("sone", 1, nonce, family, "exit 7", Collector())
        await soon(held.exists, "its shell has ended")
        line.close()
        line = await runs.follow("sone", 1, nonce, (0, 0), Collector())
        await line.begun(20)
        gate.open()
        end = await line.ended()
        assert (end.exit_code, end.lost) == (7, None), end


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash"])
@pytest.mark.parametrize(("pump", "code"), [("true", 75), ("false", 70)])
def test_who_looks_meanwhile_is_not_told_that_it_is_lost(
    tmp_path: Path, shell: str, pump: str, code: int
) -> None:
    """SE-11: as long as somebody lives who writes it down, and no longer."""
    (tmp_path / "o.readers").mkdir()
    (tmp_path / "e.readers").mkdir()
    text = (HOST / "quick.sh").read_text() + (
        f"hf_run=. hf_out=1 hf_err=1\nstate() {{ hf_state=exited; }}\n"
        f"living() {{ {pump}; }}\nhands_on() {{ true; }}\n"
        f"kill() {{ true; }}\nattend\n"
    )
    done = subprocess.run(
        [*shell.split(), "-c", text, "holdfast", "look"],
        input=b"look\n",
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == code, done.stderr
