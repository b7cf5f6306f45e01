"""How a daemon ends whatever is under way when it is told to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast_daemon.leaving import EX_SOFTWARE

PROGRAM = """
import asyncio, sys
from asyncio.subprocess import PIPE
from holdfast_daemon.leaving import and_leave

async def ask():
    process = await asyncio.create_subprocess_exec("sleep", "300", stdout=PIPE)
    try:
        await process.communicate()
    finally:
        process.kill()
        await process.wait()
        print("ended")

async def main():
    asking = asyncio.create_task(ask())
    for _ in range(int(sys.argv[1])):
        await asyncio.sleep(0)

asyncio.run(and_leave(main()))
"""


def run(turns: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(turns)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
def test_a_program_that_is_just_being_started_holds_up_no_stop(turns: int) -> None:
    """PK-05: it waited for ever, until the service manager killed it."""
    done = run(turns)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_started_is_ended_first() -> None:
    """PK-05: what a task has to let go of is let go of."""
    assert run(1000).stdout == "ended\n"


STUCK = """
import asyncio, logging, sys
from holdfast_daemon.leaving import and_leave, at_latest

logging.basicConfig()

async def for_good():
    await asyncio.Future()

async def stubborn():
    while True:
        try:
            await for_good()
        except asyncio.CancelledError:
            pass

async def main():
    held = asyncio.create_task(stubborn(), name="held")
    await asyncio.sleep(0)
    at_latest(float(sys.argv[1]))
    held.cancel()
    await held

asyncio.run(and_leave(main()))
"""


def test_a_stop_that_hangs_is_given_up_and_says_where() -> None:
    """PK-05: in place of a daemon that neither serves nor ends."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK, "0.5"],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == EX_SOFTWARE
    assert "the stop hangs, and is given up after 0.5 s" in done.stderr
    (held,) = [line for line in done.stderr.splitlines() if "task held" in line]
    assert held.endswith(" for_good")
    assert " stubborn > " in held
    assert "thread" in done.stderr


def test_one_that_ends_in_time_is_not_given_up() -> None:
    """PK-05: the limit holds up nobody."""
    program = PROGRAM.replace("    asking =", "    at_latest(30)\n    asking =")
    program = program.replace("import and_leave", "import and_leave, at_latest")
    done = subprocess.run(
        [sys.executable, "-c", program, "1000"], check=False, timeout=20
    )
    assert done.returncode == 0


def test_a_log_that_hangs_holds_up_no_stop() -> None:
    """PK-05: a terminal that was stopped, a disk that is gone."""
    stopped = """
class Stopped(logging.Handler):
    def emit(self, record):
        threading.Event().wait()

logging.getLogger().addHandler(Stopped())
"""
    program = STUCK.replace("logging.basicConfig()", stopped)
    program = program.replace("import asyncio,", "import asyncio, threading,")
    program = program.replace("    held.cancel()\n", "    logging.error('held')\n")
    done = subprocess.run(
        [sys.executable, "-c", program, "0.5"], check=False, timeout=20
    )
    assert done.returncode == EX_SOFTWARE
