"""Everything at once for a long time, with a fault now and then: nothing is left of it.

HOLDFAST_SOAK_MINUTES says for how long (`make soak`: 30; a day is 1440), with four
faults a minute; the ordinary suite takes seconds. HOLDFAST_SOAK_PAUSE says how many
seconds are between two, HOLDFAST_SOAK_SEED what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes import services
from fakes.proxy import Proxy
from fakes.sshd import Sshd, descendants
from fakes.tools import Tools, served, tools
from fakes.watch import descriptors, moment, soon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from fakes.tools import Result
    from fakes.world import World

LONG = "HOLDFAST_SOAK_MINUTES" in os.environ
SECONDS = float(os.environ.get("HOLDFAST_SOAK_MINUTES", "0.07")) * 60
SEED = int(os.environ.get("HOLDFAST_SOAK_SEED", "23"))
# Between two faults; some come in a shorter run, too.
PAUSE = float(os.environ.get("HOLDFAST_SOAK_PAUSE", min(15.0, SECONDS / 5)))
WARM = 20.0 if LONG else 2.0
# What a fault may take until the host is there again.
FAULT = min(3.0, PAUSE / 3)
WORKERS = 4
PATIENCE = 60.0
MIB = 1024 * 1024
GROWTH = 16 * MIB
BLOCK = 200_000
LOG_CHARS = 20_000
JOBS = 10
AMISS = {"INTERNAL", "INVALID_ARGUMENT"}
RAN = {"no", "yes", "unknown"}
LIMITS = (
    "stop_grace_seconds = 0.4\nkeepalive_seconds = 1\nkeepalive_misses = 2\n"
    "connect_timeout_seconds = 3\nlogin_pause_seconds = 0.05\n"
    "login_pause_max_seconds = 1\nchannel_open_seconds = 3\nreap_seconds = 0.2\n"
    f"jobs_kept = {JOBS}\nsession_keep_seconds = 0.5\nforward_keep_seconds = 0.5\n"
    "request_id_seconds = 10\n"
)

pytestmark = [
    pytest.mark.needs_sshd,
    pytest.mark.timeout(WARM + SECONDS + 4 * PATIENCE),
]


class AmissError(AssertionError):
    """Something succeeded, and was wrong."""


class Worker:
    """One client that does this and that, and knows what must come of it."""

    def __init__(self, world: World, place: Path, number: int, echo: int) -> None:
        """Work below `place`, and forward to port `echo` of the host."""
        self._world = world
        self._echo = echo
        self._number = number
        self._dice = random.Random(SEED * 100 + number)
        self._here = place / f"here{number}"
        self._there = place / f"there{number}"
        self._here.mkdir()
        self._there.mkdir()
        self._ssh: Tools | None = None
        self._stack = contextlib.AsyncExitStack()
        self._session = ""
        self._busy_since: float | None = None
        self.did: Counter[str] = Counter()
        self._works: list[Callable[[Tools], Awaitable[None]]] = [
            self._exec,
            self._exec,
            self._much,
            self._background,
            self._durable,
            self._run,
            self._run,
            self._typed,
            self._file,
            self._copy,
            self._sync,
            self._forward,
            self._reconnect,
        ]

    async def work(self, until: float) -> None:
        """Do one thing after the other until then."""
        while time.monotonic() < until:
            ssh = await self._shim()
            work = self._dice.choice(self._works)
            try:
                await work(ssh)
            except _RefusedError as refused:
                self.did[refused.reason] += 1
                self._look_how_busy(refused.reason)
                if refused.reason == "DAEMON_UNAVAILABLE":
                    await moment()
            else:
                self.did[work.__name__[1:]] += 1

    def _look_how_busy(self, reason: str) -> None:
        """Its session is its own, and what it runs there ends at once."""
        if reason != "SESSION_BUSY":
            return
        now = time.monotonic()
        self._busy_since = self._busy_since or now
        self._must(now - self._busy_since < PATIENCE, f"{self._session} stays busy")

    async def each(self) -> None:
        """Do each thing once; all goes well."""
        ssh = await self._shim()
        for work in dict.fromkeys(self._works):
            if work != self._reconnect:
                await work(ssh)

    async def close(self) -> None:
        """End what it began, but for what outlives its client."""
        if self._session:
            ssh = await self._shim()
            await ssh.call("ssh_session_close", session=self._session, force=True)
            self._session = ""
        await self._stack.aclose()
        self._ssh = None

    def kill(self) -> None:
        """Kill its shim, as an editor's crash does."""
        if self._ssh is not None:
            self._ssh.wire.process.kill()

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Have its shim stand still."""
        process = None if self._ssh is None else self._ssh.wire.process
        if process is None or process.returncode is not None:
            yield
            return
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)

    async def _shim(self) -> Tools:
        if self._ssh is not None and self._ssh.wire.process.returncode is not None:
            self._ssh = None
            await self._stack.aclose()
        if self._ssh is None:
            name = f"worker-{self._number}"
            self._ssh = await self._stack.enter_async_context(
                tools(self._world, "--no-autostart", client=name)
            )
        return self._ssh

    async def _told(self, ssh: Tools, tool: str, **arguments: Any) -> Result:
        """Call a tool; it may refuse, for a reason that it tells."""
        try:
            result = await ssh.call(tool, **arguments)
        except (AssertionError, ConnectionError) as lost:
            if ssh.wire.process.returncode is None:
                await asyncio.wait_for(ssh.wire.process.wait(), PATIENCE)
            raise _RefusedError("SHIM_KILLED") from lost
        told: Result = result["structuredContent"]
        if result.get("isError"):
            error = told["error"]
            if error["reason"] in AMISS or error["ran"] not in RAN:
                raise AmissError(f"{tool}: {error}")
            raise _RefusedError(error["reason"])
        return told

    async def _ended(self, ssh: Tools, told: Result) -> Result:
        """Wait for a job's end; one that its host knows nothing of is a refusal."""
        while told["status"] in {"running", "queued"}:
            told = await self._told(
                ssh, "ssh_job_read", job_id=told["job_id"], wait_seconds=10
            )
        if told["status"] == "lost":
            raise _RefusedError("LOST")
        return told

    def _must(self, right: object, said: object) -> None:
        if not right:
            raise AmissError(
                {k: str(v)[:80] for k, v in said.items()}
                if isinstance(said, dict)
                else said
            )

    async def _exec(self, ssh: Tools) -> None:
        code = self._dice.randrange(3)
        told = await self._told(ssh, "ssh_exec", command=f"echo hi; exit {code}")
        told = await self._ended(ssh, told)
        self._must((told["exit_code"], told["stdout"]) == (code, "hi\n"), told)

    async def _much(self, ssh: Tools) -> None:
        # one process, whose end is its own: some are killed
        told = await self._told(ssh, "ssh_exec", command=f"printf %0{BLOCK}d 0")
        told = await self._ended(ssh, told)
        # its end may have come, and the last of its output been cut off: that is told
        whole = told["stdout_bytes"] == BLOCK or "was lost" in told.get("note", "")
        self._must(told["exit_code"] == 0 and whole, told)

    async def _background(self, ssh: Tools) -> None:
        told = await self._told(ssh, "ssh_exec", command="sleep 60", wait_seconds=0)
        told = await self._told(ssh, "ssh_job_stop", job_id=told["job_id"])
        self._must(told["status"] in {"cancelled", "lost", "running"}, told)
        await self._ended(ssh, told)

    async def _durable(self, ssh: Tools) -> None:
        code = self._dice.randrange(3)
        told = await self._told(
            ssh, "ssh_exec", command=f"echo hi; exit {code}", durable=True
        )
        told = await self._ended(ssh, told)
        self._must((told["exit_code"], told["stdout"]) == (code, "hi\n"), told)

    async def _opened(self, ssh: Tools) -> str:
        told = await self._told(
            ssh, "ssh_session_open", target="box", session_name=f"s{self._number}"
        )
        self._session = told["session_id"]
        return self._session

    async def _run(self, ssh: Tools) -> None:
        session = await self._opened(ssh)
        word = f"w{self._dice.randrange(1000)}"
        told = await self._told(
            ssh, "ssh_session_run", session=session, command=f"echo {word}; (exit 3)"
        )
        told = await self._ended(ssh, told)
        self._busy_since = None
        right = (told["exit_code"], told["stdout"]) == (3, f"{word}\n")
        gone = told["exit_code"] is None or "shell ended" in told.get("note", "")
        self._must(right or gone, told)
        if self._dice.random() < 0.3:
            self._session = ""
            await self._told(ssh, "ssh_session_close", session=session, force=True)

    async def _typed(self, ssh: Tools) -> None:
        session = await self._opened(ssh)
        word = f"t{self._dice.randrange(1000)}"
        await self._told(
            ssh,
            "ssh_session_write",
            session=session,
            input=f"echo {word[0]}''{word[1:]}\n",
            until=word,
            wait_seconds=2,
        )

    async def _file(self, ssh: Tools) -> None:
        path = str(self._there / "file")
        text = f"one {self._dice.random()}\ntwo\n"
        await self._told(
            ssh,
            "ssh_file_write",
            target="box",
            path=path,
            content=text,
            mode="overwrite",
        )
        edits = [{"old": "two", "new": "three"}]
        await self._told(ssh, "ssh_file_edit", target="box", path=path, edits=edits)
        told = await self._told(ssh, "ssh_file_read", target="box", path=path)
        self._must(text.replace("two", "three") in told["content"], told)

    async def _copy(self, ssh: Tools) -> None:
        data = self._dice.randbytes(BLOCK)
        (self._here / "data").write_bytes(data)
        for way, source, to in (
            ("upload", self._here / "data", self._there / "copied"),
            ("download", self._there / "copied", self._here / "back"),
        ):
            told = await self._told(
                ssh,
                "ssh_copy",
                target="box",
                direction=way,
                sources=[str(source)],
                destination=str(to),
                overwrite=True,
            )
            told = await self._ended(ssh, told)
            if told["status"] != "exited":
                raise _RefusedError("COPY_FAILED")
            found = hashlib.sha256(to.read_bytes()).digest()
            self._must(found == hashlib.sha256(data).digest(), told)

    async def _sync(self, ssh: Tools) -> None:
        source = self._here / "tree"
        source.mkdir(exist_ok=True)
        (source / f"f{self._dice.randrange(20)}").write_bytes(self._dice.randbytes(99))
        told = await self._told(
            ssh,
            "ssh_sync",
            target="box",
            direction="upload",
            source=f"{source}/",
            destination=f"{self._there}/tree",
        )
        told = await self._ended(ssh, told)
        if told["status"] != "exited":
            raise _RefusedError("SYNC_FAILED")

    async def _forward(self, ssh: Tools) -> None:
        told = await self._told(
            ssh,
            "ssh_forward_open",
            target="box",
            direction="local",
            local_port=0,
            remote_host="127.0.0.1",
            remote_port=self._echo,
        )
        data = self._dice.randbytes(BLOCK)
        try:
            back = await asyncio.to_thread(services.exchange, told["listen"], data)
        except OSError:
            back = b""
        await self._told(ssh, "ssh_forward_close", forward=told["forward_id"])
        if back != data:
            self._must(data.startswith(back), "a forward changed what it carried")
            raise _RefusedError("FORWARD_CUT")

    async def _reconnect(self, ssh: Tools) -> None:
        if self._dice.random() < 0.2:
            await self._told(ssh, "ssh_disconnect", target="box", force=True)
        await self._told(ssh, "ssh_connect", target="box")


class _RefusedError(Exception):
    """It was not done, and why is told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Faults:
    """Breaks something now and then.

    Attributes:
        at_it: Held while something is broken.
    """

    def __init__(
        self, world: World, proxy: Proxy, sshd: Sshd, workers: list[Worker]
    ) -> None:
        self._world = world
        self._proxy = proxy
        self._sshd = sshd
        self._workers = workers
        self._dice = random.Random(SEED)
        self._ways = [
            self._rst,
            self._fin,
            self._freeze,
            self._throttle,
            self._refuse,
            self._flaky,
            self._storm,
            self._kill_connection,
            self._kill_shim,
            self._stop_shim,
            self._sleep,
        ]
        self._restarts = [self._kill_daemon, self._restart_daemon, self._cut_and_kill]
        self.made: Counter[str] = Counter()
        self.at_it = asyncio.Lock()

    async def make(self) -> None:
        """Go on until cancelled; each comes about equally often.

        No daemon is ended in the second half: one that keeps more and more shows it.
        """
        half = time.monotonic() + SECONDS / 2
        left: list[Callable[[], Awaitable[None]]] = []
        while True:
            await asyncio.sleep(PAUSE * self._dice.uniform(0.5, 1.5))
            if not left:
                young = time.monotonic() < half
                ways = self._ways + (self._restarts if young else [])
                left = self._dice.sample(ways, len(ways))
            way = left.pop()
            if way in self._restarts and time.monotonic() > half:
                continue
            async with self.at_it:
                await way()
            self.made[way.__name__[1:]] += 1

    async def _rst(self) -> None:
        await asyncio.to_thread(self._proxy.rst)

    async def _fin(self) -> None:
        await asyncio.to_thread(self._proxy.fin)

    async def _for_a_while(self) -> None:
        await asyncio.sleep(FAULT)
        await asyncio.to_thread(self._proxy.heal)

    async def _freeze(self) -> None:
        await asyncio.to_thread(self._proxy.freeze)
        await self._for_a_while()

    async def _throttle(self) -> None:
        await asyncio.to_thread(self._proxy.throttle, 50_000)
        await self._for_a_while()

    async def _refuse(self) -> None:
        self._proxy.refuse()
        await asyncio.to_thread(self._proxy.rst)
        await self._for_a_while()

    async def _flaky(self) -> None:
        self._proxy.flaky(0.5)
        await asyncio.to_thread(self._proxy.rst)
        await self._for_a_while()

    async def _storm(self) -> None:
        for _ in range(5):
            await asyncio.to_thread(self._proxy.rst)
            await asyncio.sleep(self._dice.random() * FAULT / 5)

    async def _kill_connection(self) -> None:
        # there may be none just now
        some = sorted(descendants(self._sshd.pid))
        for pid in self._dice.sample(some, k=min(1, len(some))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _kill_shim(self) -> None:
        self._dice.choice(self._workers).kill()

    async def _stop_shim(self) -> None:
        """An editor that stands still: what it is told waits."""
        with self._dice.choice(self._workers).held():
            await asyncio.sleep(FAULT)

    async def _sleep(self) -> None:
        """The machine of the daemon is put to sleep, and wakes."""
        os.kill(self._world.pid, signal.SIGSTOP)
        await asyncio.sleep(FAULT)
        os.kill(self._world.pid, signal.SIGCONT)

    async def _kill_daemon(self) -> None:
        await asyncio.to_thread(self._world.kill)
        await asyncio.to_thread(self._world.start)

    async def _restart_daemon(self) -> None:
        assert await asyncio.to_thread(self._world.stop) == 0
        await asyncio.to_thread(self._world.start)

    async def _cut_and_kill(self) -> None:
        """What the link broke off, the daemon can't mend any more."""
        await asyncio.to_thread(self._proxy.rst)
        await asyncio.sleep(self._dice.random() * 0.3)
        await self._kill_daemon()


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def files(place: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(place))


def kept(home: Path) -> list[Path]:
    """Return what the host keeps of ours."""
    found = list((home / ".cache").rglob("*"))
    room = home / ".cache" / "holdfast" / "kept"
    # A name is taken for an hour, so that words which come too late begin nothing.
    taken = {path.parent for path in found if path.name == "seen"}
    taken -= {path.parent for path in found if path.name != "seen"}
    if not any(path.parent == room for path in taken):
        return found
    ours = {room.parent, room, *taken, *room.glob("holder-*.sh")}
    return [one for one in found if not {one, one.parent} & taken and one not in ours]


def remains(home: Path) -> str:
    """Return what is kept, with the words of its small files."""
    lines = []
    for path in sorted(kept(home)):
        text = path.read_bytes()[:200] if path.is_file() else b""
        lines.append(f"{path.relative_to(home)} {text!r}")
    return "\n".join(lines)


async def test_nothing_is_left_of_a_mixed_load_with_faults(tmp_path: Path) -> None:
    """Issue 6 point 8: descriptors, tasks, threads, files and memory as before."""
    home = tmp_path / "home"
    place = tmp_path / "place"
    home.mkdir()
    place.mkdir()
    options = {"SetEnv": f"HOME={home}", "MaxStartups": "100"}
    with (
        contextlib.ExitStack() as stack,
        Sshd(tmp_path / "sshd", options=options) as sshd,
        Proxy(sshd.port, seed=SEED) as proxy,
        served(
            proxy.config(sshd, tmp_path / "config"),
            limits=LIMITS,
            more=f'local_roots = ["{place}"]\nlog_level = "debug"\n',
        ) as world,
    ):
        # each its own, as equal forwards are one
        echoes = [
            stack.enter_context(services.serve(services.echo)) for _ in range(WORKERS)
        ]
        workers = [Worker(world, place, n, echo) for n, echo in enumerate(echoes)]
        await asyncio.gather(*(one.each() for one in workers))
        await load(workers, WARM)
        await settled(world, workers, proxy, sshd, home)
        before = await stands(world)
        faults = Faults(world, proxy, sshd, workers)
        breaking = asyncio.create_task(faults.make())
        loading = asyncio.create_task(load(workers, SECONDS))
        await asyncio.wait({loading, breaking}, return_when=asyncio.FIRST_COMPLETED)
        if breaking.done():
            breaking.result()
        await loading
        async with faults.at_it:
            breaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await breaking
        proxy.heal()
        done = sum((one.did for one in workers), Counter())
        print(f"\nfaults {dict(faults.made)}\ndone {dict(done)}")  # noqa: T201
        await settled(world, workers, proxy, sshd, home)
        await back_to(world, before)


async def load(workers: list[Worker], seconds: float) -> None:
    """Have them all work for so long."""
    until = time.monotonic() + seconds
    await asyncio.gather(*(one.work(until) for one in workers))


async def settled(
    world: World, workers: list[Worker], proxy: Proxy, sshd: Sshd, home: Path
) -> None:
    """End all there is, and wait until it is gone."""
    for one in workers:
        await one.close()
    async with tools(world, "--no-autostart", client="last") as ssh:
        for row in (await ssh.told("ssh_session_list"))["sessions"]:
            await ssh.told("ssh_session_close", session=row["session_id"], force=True)
        for row in (await ssh.told("ssh_forward_list"))["forwards"]:
            await ssh.told("ssh_forward_close", forward=row["forward_id"])
        running = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
        for row in running:
            await ssh.told("ssh_job_stop", job_id=row["job_id"])
        # what was closed while its host was away is told over the next connection
        await ssh.told("ssh_exec", target="box", command="true")
        try:
            await soon(lambda: not kept(home), "nothing is kept", PATIENCE)
        except AssertionError as error:
            error.add_note(f"the daemon says {world.log.read_text()[-LOG_CHARS:]}")
            error.add_note(f"the host keeps {remains(home)}")
            raise
        await ssh.told("ssh_disconnect", target="box", force=True)
    await soon(lambda: not proxy.connections, "no connection is left")
    await soon(lambda: not descendants(sshd.pid), "no process is left", PATIENCE)


async def stands(world: World) -> dict[str, int]:
    """Return what the daemon holds now."""
    told = await asyncio.to_thread(world.cli_json, "--no-autostart", "status")
    return {
        "tasks": told["tasks"],
        "memory": told["memory_bytes"],
        "descriptors": descriptors(world.pid),
        "threads": threads(world.pid),
        "files": files(world.state),
    }


async def back_to(world: World, before: dict[str, int]) -> None:
    """Wait until it holds no more than before."""
    # Threads of pools come as they are needed, and stay. Of the jobs that are kept each
    # may have printed something, or not.
    slack = Counter(memory=GROWTH, files=JOBS, descriptors=2, threads=4)
    over: dict[str, tuple[int, int]] = {}
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        now = await stands(world)
        over = {
            name: (was, now[name])
            for name, was in before.items()
            if now[name] > was + slack[name]
        }
        if not over:
            print(f"before {before}\nafter {now}")  # noqa: T201
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"more than before: {over}")
