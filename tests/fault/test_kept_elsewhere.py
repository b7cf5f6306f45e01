"""Hosts that are no Linux: what is kept there, by what their own programs tell."""

from __future__ import annotations

import os
import signal
import subprocess
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from fakes.links import Collector
from fakes.watch import moment
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(90)

SHELLS = ["dash", "bash --posix"]
PARTS = ("quick.sh", "pump.sh", "standing.sh")
# As macOS tells them: the first moves with each step of the clock, the second does not.
SYSCTL = """#!/bin/sh
case $2 in
kern.boottime) echo "{ sec = $(cat "${0%/*}/booted"), usec = 5 } Sun Nov 22 02:00:00" ;;
kern.bootsessionuuid) echo 6D5C0E0A-6D0F-4E3A-9A53-1C1B6C1A7F00 ;;
esac
"""
# It ends with the bare number of a signal, as those of FreeBSD and macOS do.
BSD_SCRIPT = """#!/bin/sh
[ "$1 $2" = "-q /dev/null" ] || exit 1
shift 2
exec /usr/bin/python3 -c 'import os, pty, sys
sys.exit(abs(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:]))))' "$@"
"""


def put(directory: Path, name: str, text: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)


def told(shell: str, words: str, place: Path, **env: str) -> str:
    """Return what the host's words say in `place` on a machine without /proc."""
    folder = resources.files("holdfast_daemon.kept") / "host"
    text = "".join((folder / name).read_text("utf-8") for name in PARTS)
    given = {"PATH": f"{place}/bin:/usr/bin:/bin", "HOME": str(place), **env}
    done = subprocess.run(
        [*shell.split(), "-c", text.replace("/proc/", "/none/") + words, "x", "look"],
        cwd=place,
        env=given,
        capture_output=True,
        check=True,
        timeout=20,
    )
    return done.stdout.decode()


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "300"]) as one:
        yield one.pid
        one.kill()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_clock_that_is_set_restarts_no_host(
    tmp_path: Path, sleeper: int, shell: str
) -> None:
    """SE-06, NF-10: all that a Mac kept was lost once its clock had been corrected."""
    put(tmp_path / "bin", "sysctl", SYSCTL)
    (tmp_path / "bin" / "booted").write_text("1785713468")
    told(shell, f"boot_id >boot; note pump {sleeper}\n", tmp_path)
    (tmp_path / "bin" / "booted").write_text("1785713469")
    assert told(shell, 'state; echo "$hf_state $hf_why"\n', tmp_path) == "running \n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_machine_that_travels_keeps_its_shells(
    tmp_path: Path, sleeper: int, shell: str
) -> None:
    """SE-06: what was kept in one time zone was taken for killed in the next."""
    told(shell, f"boot_id >boot; note pump {sleeper}\n", tmp_path, TZ="UTC0")
    words = 'state; echo "$hf_state $hf_why"\n'
    assert told(shell, words, tmp_path, TZ="JST-9") == "running \n"


@pytest.mark.parametrize("shell", SHELLS)
def test_what_got_the_number_of_a_reader_is_not_ended(
    tmp_path: Path, sleeper: int, shell: str
) -> None:
    """SE-08: a Mac lost its power under a reader, whose number is another's by now."""
    (tmp_path / "out").write_bytes(b"said\n")
    (tmp_path / "out.readers").mkdir()
    (tmp_path / "out.readers" / str(sleeper)).write_text(f"{sleeper}\n")
    with subprocess.Popen(
        ["tail", "-c", "+1", "-f", "out"], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as real:
        (tmp_path / "out.readers" / str(real.pid)).write_text(f"{real.pid}\n")
        told(shell, "cut_readers ./out\n", tmp_path)
        assert real.wait(10) < 0
    assert (
        Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    )
    assert not list((tmp_path / "out.readers").iterdir())


@pytest.mark.needs_sshd
async def test_a_signal_is_no_exit_code_of_its_number(tmp_path: Path) -> None:
    """SE-11: a shell that was killed on a Mac was told to have ended with code 9."""
    put(tmp_path / "bin", "script", BSD_SCRIPT)
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    async with kept_on(tmp_path, path=path) as kept:
        standing, _ = await kept.start("sone", "script")
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        sink = Collector()
        command = "echo go; sleep 300"
        line = await runs.start("sone", 1, new_nonce(), family, command, sink)
        await sink.wait_for(b"go")
        os.kill(kept.number("sone", "shpid"), signal.SIGKILL)
        end = await line.ended()
        assert (end.exit_code, end.shell_ended) == (128 + signal.SIGKILL, True)

        async def exited() -> bool:
            return (await kept.keeper.look("sone")).state == "exited"

        while not await exited():
            await moment()
        standing = await kept.keeper.look("sone")
        assert standing.exit_code == 128 + signal.SIGKILL
