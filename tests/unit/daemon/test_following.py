"""Who follows a kept command looks for its host again as soon as that is back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from fakes.watch import moment
from holdfast_daemon.connection.pauses import Pauses
from holdfast_daemon.connection.renewal import Renewal
from holdfast_daemon.errors import DaemonError, LinkError, NeedsError, Reason
from holdfast_daemon.exec import durable, following
from holdfast_daemon.exec.following import Following
from holdfast_daemon.exec.kept import Kept
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.kept.run_line import RunEnd
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.session import remote
from holdfast_daemon.session.kept_run import KeptRun
from holdfast_daemon.session.remote import Key, RemoteShell
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.run_line import RunLine
    from holdfast_daemon.kept.runs import Runs

LOST = RunEnd(lost="the link was lost", gone=True)


class _Spool:
    end = 0
    full = False

    def bytes_of(self, stream: object) -> int:  # noqa: ARG002
        return 0


class _Job:
    id = "jone"
    principal = ""
    verdict = None
    running = True
    interrupt: Any = None
    asked = False
    request = SimpleNamespace(command="true")
    spool = _Spool()

    def __init__(self) -> None:
        self.kept = Kept("nonce", "ident", begun=True)
        self.stop_lock = asyncio.Lock()
        self.ends: list[Any] = []

    def add_note(self, text: str) -> None:
        """Nobody reads it."""

    def sent(self) -> None:
        """It is there."""

    def settle(self, end: Any) -> None:
        self.ends.append(end)


class _Line:
    def __init__(self, end: RunEnd, seconds: float = 0) -> None:
        self.end = end
        self.seconds = seconds

    async def ended(self) -> RunEnd:
        await asyncio.sleep(self.seconds)
        return self.end

    def pause(self) -> None:
        """Read no more."""

    def close(self) -> None:
        """Leave."""

    def forget(self) -> bool:
        """Its time is over."""
        return False


class _Keeper:
    """A host that is back once it is asked for anything."""

    host = Host(name="box", hostname="box", user="me")

    def __init__(self, runs: _Runs) -> None:
        self.runs = runs
        self.asking = _site()

    def __call__(self, *_: Any) -> Self:
        return self

    async def program(self, ident: str) -> str:  # noqa: ARG002
        return "/bin/sh"

    async def signal(self, *_: Any) -> Any:
        self.runs.back = True
        return SimpleNamespace(sent="sent")


class _Runs:
    """A host that is away until it is said to be back."""

    def __init__(self) -> None:
        self.back = False
        self.tries = 0

    flaps = 0
    silent = 0.0
    dropped = 0
    trouble: DaemonError = LinkError(Reason.HOST_UNREACHABLE, "it is away")

    async def drop(self, ident: str, number: int) -> None:  # noqa: ARG002
        self.dropped = number

    def __call__(self, *_: Any) -> Self:
        return self

    async def latest(self, ident: str) -> None:
        """Nothing ran there before."""

    async def start(self, *_: Any, **__: Any) -> _Line:
        return _Line(LOST)

    def prepare(self, ident: str, number: int) -> None:
        """Nobody waits there for what comes next."""

    async def settle(self, *_: Any) -> bool:
        return True

    async def seen(self, *_: Any) -> bool:
        return True

    async def follow(self, *_: Any, **__: Any) -> _Line:
        self.tries += 1
        if self.tries <= self.flaps:
            return _Line(LOST, self.silent)
        await asyncio.sleep(0)
        if not self.back:
            raise self.trouble
        return _Line(RunEnd(exit_code=0))


def follows(runs: _Runs) -> Following:
    return Following(cast("Runs", runs), cast("Job", _Job()), cast("Site", _site()))


async def turns() -> None:
    """Let everybody go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_word_that_the_host_is_back_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whenever it comes: it is not used up by a pause that is over anyway."""
    monkeypatch.setattr(following, "_FIRST", 60.0)
    runs = _Runs()
    one = follows(runs)
    task = asyncio.create_task(one.until_end(cast("RunLine", _Line(LOST))))
    await turns()
    one.nudge()
    await turns()
    assert runs.tries == 1
    runs.back = True
    one.nudge()
    async with asyncio.timeout(12):
        assert (await task).exit_code == 0
    assert runs.tries == 2


async def test_one_that_pauses_tries_again_when_this_machine_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NF-09: a durable command is there again at once."""
    monkeypatch.setattr(following, "_FIRST", 60.0)
    runs, site = _Runs(), _site()
    one = Following(cast("Runs", runs), cast("Job", _Job()), site)
    task = asyncio.create_task(one.until_end(cast("RunLine", _Line(LOST))))
    await turns()
    runs.back = True
    site.pool.pauses.end()
    async with asyncio.timeout(12):
        assert (await task).exit_code == 0


async def test_a_link_that_is_lost_now_and_then_is_looked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host that is back is, also where its command has nothing to say meanwhile."""
    monkeypatch.setattr(following, "_FIRST", 0.001)
    monkeypatch.setattr(following, "_LASTING_SECONDS", 0.01)
    runs = _Runs()
    runs.flaps, runs.silent, runs.back = 16, 0.02, True
    async with asyncio.timeout(40):
        assert (await follows(runs).until_end()).exit_code == 0
    assert runs.tries == runs.flaps + 1


def _site() -> Any:
    limits = SimpleNamespace(
        stop_grace_seconds=5,
        kept_bytes=1 << 20,
        kept_abandoned_seconds=60,
        agent_seconds=1.0,
    )
    return SimpleNamespace(
        pool=SimpleNamespace(pauses=Pauses(), renewal=Renewal(), find=lambda _: None),
        limits=limits,
        host=Host(name="box", hostname="box", user="me", identity_agent="none"),
        keep=None,
    )


async def test_a_host_is_left_alone_while_the_disk_here_takes_nothing(
    tmp_path: Path,
) -> None:
    """SE-02: each new line brings more than is taken, and memory has its limit."""
    blocked = tmp_path / "job"
    await asyncio.to_thread(blocked.write_text, "a file in the way")
    runs, job = _Runs(), _Job()
    spool = Spool(
        blocked, limit_bytes=1 << 20, segment_bytes=1 << 16, backlog_bytes=1 << 16
    )
    job.spool = cast("Any", spool)
    one = Following(cast("Runs", runs), cast("Job", job), _site())
    one.received(Stream.OUT, b"x" * (1 << 16))
    assert not await spool.sync()
    runs.back = True
    task = asyncio.create_task(one.until_end(cast("RunLine", _Line(LOST))))
    one.nudge()
    await turns()
    assert (runs.tries, spool.backlog) == (0, 1 << 16)
    await asyncio.to_thread(blocked.unlink)
    async with asyncio.timeout(40):
        while spool.backlog:
            await spool.sync()
        assert (await task).exit_code == 0
    assert runs.tries == 1


async def test_a_stop_that_reaches_the_host_finds_the_end_of_a_durable_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NF-10: who follows it looks again then, and need not come to its next try."""
    runs = _Runs()
    monkeypatch.setattr(following, "_FIRST", 60.0)
    monkeypatch.setattr(durable, "Runs", runs)
    monkeypatch.setattr(durable, "Keeper", _Keeper(runs))
    job = _Job()
    task = asyncio.create_task(durable.run(cast("Job", job), _site()))
    await turns()
    assert runs.tries == 1
    async with asyncio.timeout(12):
        assert await job.interrupt(("INT",)) == ""
        await task
    assert job.ends[0].exit_code == 0


async def test_a_signal_that_reaches_the_host_finds_the_end_of_a_session_s_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SE-02: so it is with one in a shell, which may be attached meanwhile."""
    runs = _Runs()
    monkeypatch.setattr(following, "_FIRST", 60.0)
    monkeypatch.setattr(remote, "Runs", runs)
    monkeypatch.setattr(remote, "Keeper", _Keeper(runs))
    nobody = SimpleNamespace(away=None, back=None, ended=None)
    shell = RemoteShell(
        _site(), Key("sone", "x"), cast("Any", nobody), cast("Any", _Spool()),
        on_skipped=lambda _: None,
    )  # fmt: skip
    task = asyncio.create_task(shell.run(cast("Job", _Job())))
    await turns()
    shell_follower = cast("Any", shell)._follower
    shell_follower.away = ""
    async with asyncio.timeout(12):
        await shell.interrupt("INT")
        assert (await task).end.exit_code == 0
    assert runs.tries == 1


async def test_a_host_is_told_to_forget_by_another_way_where_the_line_is_gone() -> None:
    """NF-10: its output was on our disk only after the line had waited long enough."""
    runs, job = _Runs(), _Job()
    runs.back = True
    run = KeptRun(cast("Runs", runs), cast("Job", job), _site())
    async with asyncio.timeout(12):
        assert (await run.follow()).end.exit_code == 0
        await run.forget()
    assert runs.dropped == job.kept.number


REFUSAL = NeedsError(Reason.AUTH_FAILED, "refused", metadata={"tried": "publickey"})
ASKS = NeedsError(Reason.LOGIN_NEEDED, "it asks for: a code")
NO_KEY = NeedsError(Reason.AUTH_FAILED, "no key", metadata={"tried": ""})


@pytest.mark.parametrize("trouble", [REFUSAL, ASKS, NO_KEY])
async def test_nothing_that_was_refused_is_offered_again(
    monkeypatch: pytest.MonkeyPatch, trouble: DaemonError
) -> None:
    """AU-05, NF-07: nor is a telephone rung twice; an agent may get its keys later."""
    monkeypatch.setattr(following, "_FIRST", 0.0)
    monkeypatch.setattr(following, "_MOST", 0.0)
    runs, site = _Runs(), _site()
    runs.trouble = trouble
    looks = 0

    def find(_: Host) -> object:
        nonlocal looks
        looks += 1
        return runs.back and trouble is REFUSAL

    site.pool.find = lambda host: find(host) or None
    one = Following(cast("Runs", runs), cast("Job", _Job()), site)
    task = asyncio.create_task(one.until_end(cast("RunLine", _Line(LOST))))
    async with asyncio.timeout(40):
        while looks < 4 and runs.tries < 4:
            await moment()
        assert (runs.tries == 1) is (trouble is not NO_KEY), runs.tries
        before = runs.tries
        one.nudge()
        while runs.tries == before:
            await moment()
        # somebody logs in, or the configuration names another key, and may have one
        runs.back = True
        if trouble is ASKS:
            other: Host = replace(site.host, identity_files=("another",))

            async def renewed(_: Host) -> Host:
                return other

            site.pool.renewal.ask = renewed
        assert (await task).exit_code == 0
