"""`holdfast service` where no service is installed: the daemon that clients started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes import strays
from fakes.barred import apart
from fakes.world import PATIENCE, World, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture
def environment(short_path: Path) -> Iterator[dict[str, str]]:
    """Yield a user's environment with the standard places; who serves it is ended."""
    runtime = short_path / "run"
    runtime.mkdir(mode=0o700)
    plain = World(short_path).environment.items()
    given = {name: value for name, value in plain if not name.startswith("HOLDFAST_")}
    given |= {"HOME": str(short_path), "XDG_RUNTIME_DIR": str(runtime)}
    yield given
    for pid in strays.naming(runtime):
        os.kill(pid, signal.SIGTERM)
    strays.none_left(runtime, PATIENCE)


@pytest.fixture
def bare(short_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a user for whom no runtime directory was made."""
    home = short_path / "home"
    home.mkdir(mode=0o700)
    plain = World(short_path).environment.items()
    given = {name: value for name, value in plain if not name.startswith("HOLDFAST_")}
    yield given | {"HOME": str(home)}
    for pid in strays.naming(short_path):
        os.kill(pid, signal.SIGTERM)
    strays.none_left(short_path, PATIENCE)


def ran(
    environment: dict[str, str], *words: str, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*before, program("holdfast"), "--json", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=5 * PATIENCE,
        check=False,
    )


def cli(environment: dict[str, str], *words: str, before: Sequence[str] = ()) -> Any:
    return json.loads(ran(environment, *words, before=before).stdout)


def test_a_daemon_that_does_not_answer_is_taken_over_from(
    environment: dict[str, str],
) -> None:
    """PK-04: docs/service.md says so; without a service the silent one just stayed."""
    stuck = cli(environment, "status")["pid"]
    os.kill(stuck, signal.SIGSTOP)
    try:
        told = cli(environment, "service", "restart", "--now")
        assert told["ok"], told
        assert f"process {stuck}, which did not answer, was ended" in told["done"]
        assert told["daemon"]["pid"] != stuck
        assert cli(environment, "status")["pid"] == told["daemon"]["pid"]
    finally:
        if stuck in strays.naming(Path(environment["XDG_RUNTIME_DIR"])):
            os.kill(stuck, signal.SIGKILL)


def test_one_that_does_not_answer_is_told_of(environment: dict[str, str]) -> None:
    """PK-04: what the manager knows is told all the same; there was no document."""
    stuck = cli(environment, "status")["pid"]
    os.kill(stuck, signal.SIGSTOP)
    try:
        done = ran(environment, "service", "status")
    finally:
        os.kill(stuck, signal.SIGCONT)
    told = json.loads(done.stdout)
    assert (done.returncode, told["daemon"], told["installed"]) == (1, None, False)
    assert any(note.startswith("the daemon is not known: ") for note in told["notes"])


def test_it_means_the_daemon_of_the_clients(bare: dict[str, str]) -> None:
    """PK-04, NF-19: as root in a container, in cron, under su: no /run/user/UID.

    A restart made that directory; from then on every new client looked there.
    """
    before, runtime = apart(), Path(f"/run/user/{os.getuid()}")
    there = runtime.exists()
    pid = cli(bare, "status", before=before)["pid"]
    stands = cli(bare, "service", "status", before=before)
    assert stands["daemon"], stands
    assert stands["daemon"]["pid"] == pid
    for verb in ("restart", "upgrade"):
        told = cli(bare, "service", verb, before=before)
        assert told["ok"], told
        assert (told["before"]["pid"], told["daemon"]["pid"] != pid) == (pid, True)
        pid = cli(bare, "status", before=before)["pid"]
        assert pid == told["daemon"]["pid"]
    assert runtime.exists() == there


@pytest.mark.parametrize("verb", ["restart", "status", "install"])
def test_a_socket_of_its_own_is_refused(
    environment: dict[str, str], short_path: Path, verb: str
) -> None:
    """PK-04: the daemon of other places is not ended in place of the one meant."""
    pid = cli(environment, "status")["pid"]
    other = short_path / "other" / "x.sock"
    error = cli(environment, "--socket", str(other), "service", verb)["error"]
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert "--socket" in error["message"]
    assert cli(environment, "status")["pid"] == pid
