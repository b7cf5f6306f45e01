"""`holdfast exec --durable` whose daemon or link goes while its host begins it."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import served
from fakes.watch import until
from fakes.world import PATIENCE, program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def command(host: Sshd) -> str:
    return f"echo ran >>{host.directory}/runs; echo out; exit 4"


def runs(host: Sshd) -> str:
    """Return what the command left, however often it ran."""
    file = host.directory / "runs"
    return file.read_text() if file.exists() else ""


def refused(code: int | None, printed: bytes) -> dict[str, Any]:
    """Return the error of a call that printed one."""
    assert code == 255, printed
    error = json.loads(printed)["error"]
    assert isinstance(error, dict)
    return error


def left(code: int | None, printed: bytes) -> str:
    """Return the job of a call that was left alone with it, and promised nothing."""
    assert code == 255, printed
    told = json.loads(printed)
    if "error" not in told:
        # the daemon was still there to say it
        assert (told["ok"], told["status"]) == (False, "running")
        assert "before it knew whether its host began it" in told["note"]
        return str(told["job_id"])
    error = told["error"]
    assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
    assert f"holdfast job {error['job_id']} --follow" in error["hint"]
    return str(error["job_id"])


@contextmanager
def asked(
    host: Sshd, directory: Path
) -> Generator[tuple[World, Proxy, subprocess.Popen[bytes]]]:
    """Have a durable command asked for while the link carries nothing.

    Yields the daemon, the link, and who asks.
    """
    words = ["--json", "exec", "--durable", "-n", "box", command(host)]
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, directory / "config")) as world,
    ):
        world.cli("exec", "box", "true")
        proxy.freeze()
        with subprocess.Popen(
            [program("holdfast"), *words], env=world.environment, stdout=subprocess.PIPE
        ) as asking:
            try:
                until(lambda: world.cli_json("jobs", "--running")["jobs"], "a job")
                # from then on it may begin, once the link carries that
                files = world.state / "jobs"
                until(lambda: [*files.glob("*/job.json")], "it is on the disk")
                yield world, proxy, asking
            finally:
                asking.kill()


def test_a_stdin_that_does_not_end_is_told(host: Sshd) -> None:
    """IN-08: all of it is the command's input, so nothing ran and nothing was said."""
    with served(host) as world:
        words = ["exec", "--durable", "box", "cat; exit 5"]
        with subprocess.Popen(
            [program("holdfast"), *words],
            env=world.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as asking:
            assert asking.stderr is not None
            said = asking.stderr.readline()
            assert b"until stdin ends" in said
            assert b"-n" in said
            out, err = asking.communicate(b"typed", timeout=PATIENCE)
        assert (asking.returncode, out) == (5, b"typed")
        told = world.cli(*words, stdin=b"piped", check=False)
        assert (told.returncode, told.stdout) == (5, b"piped")
        assert b"until stdin ends" not in told.stderr + err


@pytest.mark.parametrize(
    ("place", "count", "code"),
    [("exec.durable.recorded", 0, 255), ("exec.durable.begun", 1, 4)],
)
def test_a_daemon_that_crashes_as_it_begins_it(
    host: Sshd, place: str, count: int, code: int
) -> None:
    """NF-10, NF-20: whether it ran is not known, and the way to know it is told."""
    with served(host) as world:
        world.stop()
        world.start(HOLDFAST_FAILPOINT=place, HOLDFAST_TESTING="1")
        done = world.cli(
            "--json", "exec", "--durable", "box", command(host), check=False
        )
        error = refused(done.returncode, done.stdout)
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        assert "holdfast jobs" in error["hint"]
        (job,) = world.cli_json("jobs")["jobs"]
        told = world.cli("job", job["job_id"], "--follow", check=False)
        assert (told.returncode, told.stdout) == (code, b"out\n" * count), told
        assert runs(host) == "ran\n" * count


def test_a_daemon_that_stops_while_its_host_may_have_begun_it(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-10: it had a job's id, which says nothing of whether that ran."""
    with asked(host, tmp_path) as (world, proxy, asking):
        assert world.stop() == 0
        printed, _ = asking.communicate(timeout=PATIENCE)
        job_id = left(asking.returncode, printed)
        proxy.heal()
        told = world.cli("job", job_id, "--follow", check=False)
        began = bool(runs(host))
        expected = (4, b"out\n") if began else (255, b"")
        assert (told.returncode, told.stdout) == expected, told
        assert runs(host) in ("", "ran\n")


def test_a_link_that_goes_while_its_host_may_have_begun_it(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-09, NF-10: it is asked whether it ran: that, or the command's end, is told."""
    with asked(host, tmp_path) as (_, proxy, asking):
        proxy.rst()
        proxy.heal()
        printed, _ = asking.communicate(timeout=PATIENCE)
        if runs(host):
            told = json.loads(printed)
            assert (asking.returncode, told["exit_code"]) == (4, 4), told
            assert (told["stdout"], runs(host)) == ("out\n", "ran\n")
        else:
            error = refused(asking.returncode, printed)
            assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "no")
            assert "never" in error["message"]
