"""How long sessions live, how many there may be, and what of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.gate import Gate
from fakes.restarting import crash
from fakes.served import info_of
from fakes.sshd import Sshd
from fakes.terminal import sitting
from fakes.tools import QUICK, Result, Tools, served, tools
from fakes.watch import connected, moment, soon
from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_daemon.limits import Limits
from holdfast_shim.client import metadata_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.xdist_group("session_lifetimes"),
    pytest.mark.usefixtures("terminals"),
]

# The reaper comes by ten times a second, so that nobody waits for it.
REAPER = f"{QUICK}reap_seconds = 0.1\n"
KINDS = ["held", "remote"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote-home")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("sshd")
    with Sshd(directory, options={"SetEnv": f"HOME={home}"}) as one:
        yield one


@pytest.fixture(params=KINDS)
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def agent(host: Sshd | Path, limits: str = "") -> AsyncGenerator[Tools]:
    """Serve a daemon with `limits`, and end its sessions on the host at the end."""
    with served(host, limits=REAPER + limits) as world:
        async with tools(world) as ssh:
            try:
                yield ssh
            finally:
                for row in (await listed(ssh)).values():
                    if row["running"]:
                        await ssh.told(
                            "ssh_session_close", session=row["session_id"], force=True
                        )


async def listed(ssh: Tools, **more: Any) -> dict[str, Result]:
    """Return all sessions by id; to look at them is no use of them."""
    told = await ssh.told("ssh_session_list", include_exited=True, **more)
    assert told["count"] == len(told["sessions"])
    return {row["session_id"]: row for row in told["sessions"]}


async def until(ssh: Tools, session: str, *, there: bool, running: bool) -> Result:
    """Look until a session is listed or not, and runs or not."""
    async with asyncio.timeout(40):
        while True:
            row = (await listed(ssh)).get(session)
            if (row is not None) is there and (row or {}).get(
                "running", False
            ) is running:
                return row or {}
            await moment()


async def opened(ssh: Tools, name: str = "", **more: Any) -> str:
    told = await ssh.told(
        "ssh_session_open",
        target="box",
        **({"session_name": name} if name else {}),
        **more,
    )
    assert told["created"] is True
    return str(told["session_id"])


async def run(ssh: Tools, session: str, command: str, **more: Any) -> Result:
    return await ssh.told("ssh_session_run", session=session, command=command, **more)


async def shell_of(ssh: Tools, session: str) -> Path:
    told = await run(ssh, session, "echo $$")
    return Path(f"/proc/{int(told['stdout'])}")


# Idle ones


async def test_an_idle_session_is_closed_and_one_that_is_not_is_kept(
    host: Sshd, durability: str, tmp_path: Path
) -> None:
    """SE-12: by the limit, by its own, never with 0, and not while it is used."""
    async with agent(host, "session_idle_seconds = 3\n") as ssh:
        never = await opened(ssh, durability=durability, idle_timeout_seconds=0)
        later = await opened(ssh, durability=durability, idle_timeout_seconds=3600)
        busy = await opened(ssh, durability=durability)
        gate = tmp_path / "gate"
        told = await run(
            ssh, busy, f"until test -e {gate}; do sleep 0.05; done", wait_seconds=0
        )
        idle = await opened(ssh, durability=durability)
        shell = await shell_of(ssh, idle)
        row = await until(ssh, idle, there=True, running=False)
        assert row["exit_reason"] == "idle"
        await soon(lambda: not shell.exists(), "its shell on the host is gone")
        rows = await listed(ssh)
        # `busy` was opened before it, and is as old
        assert [rows[one]["running"] for one in (never, later, busy)] == [True] * 3
        assert (await run(ssh, never, "echo on"))["stdout"] == "on\n"
        gate.touch()
        assert (await ssh.ended(told["job_id"]))["exit_code"] == 0
        await until(ssh, busy, there=True, running=False)
        error = await ssh.refused("ssh_session_run", session=idle, command="true")
        assert (error["reason"], error["ran"]) == ("SESSION_ENDED", "no")
        assert "idle" in error["message"]
        assert "ssh_session_open" in error["hint"]


@pytest.mark.timed
async def test_use_puts_the_end_off(host: Sshd, durability: str) -> None:
    """SE-12: each read or keystroke begins the time anew."""
    async with agent(host) as ssh:
        more: dict[str, Any] = {"durability": durability, "idle_timeout_seconds": 4}
        used = await opened(ssh, **more)
        left = await opened(ssh, **more)
        async with asyncio.timeout(40):
            while (await listed(ssh))[left]["running"]:
                await ssh.told("ssh_session_read", session=used)
            await moment()
        assert (await listed(ssh))[used]["running"] is True
        assert (await listed(ssh))[used]["idle_seconds"] <= 3
        await until(ssh, used, there=True, running=False)


async def idle_for(ssh: Tools, seconds: float, durability: str = "held") -> None:
    """Return once a session that nobody uses from now on is closed."""
    told = await ssh.told(
        "ssh_session_open",
        target="box",
        durability=durability,
        idle_timeout_seconds=seconds,
    )
    await until(ssh, told["session_id"], there=True, running=False)


@contextlib.asynccontextmanager
async def watching(world: World, session: str) -> AsyncGenerator[None]:
    """Look on as `holdfast attach --watch` does."""
    async with connected(world) as client:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        client.context.person = True
        call: Any = stub.AttachSession(metadata=metadata_of(client.context, ""))
        start = session_pb2.AttachStart(session=session, watch=True)
        await call.write(session_pb2.AttachSessionRequest(start=start))
        assert (await call.read()).HasField("attached")
        yield
        call.cancel()


@pytest.mark.timed
async def test_who_looks_on_uses_it_until_they_leave(
    host: Sshd, durability: str
) -> None:
    """SE-12: the time begins when the last of them has left."""
    loop = asyncio.get_running_loop()
    with served(host, limits=REAPER) as world:
        async with tools(world) as ssh:
            seen = await opened(ssh, durability=durability, idle_timeout_seconds=5)
            async with watching(world, seen):
                await idle_for(ssh, 6)
                row = (await listed(ssh))[seen]
                assert (row["running"], row["idle_seconds"]) == (True, 0)
                left = loop.time()
            await until(ssh, seen, there=True, running=False)
            assert loop.time() - left >= 5


@pytest.mark.timed
async def test_a_command_of_an_earlier_daemon_is_use_until_its_end(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-12, NF-20: what it ran for is no idle time."""
    loop, gate = asyncio.get_running_loop(), Gate(tmp_path / "gate")
    with served(host, limits=REAPER) as world:
        async with tools(world) as ssh:
            busy = await opened(ssh, durability="remote", idle_timeout_seconds=5)
            job = await run(ssh, busy, f"{gate.wait}; echo on", wait_seconds=0)
        await asyncio.to_thread(crash, world)
        async with tools(world) as ssh:
            await idle_for(ssh, 6)
            assert (await listed(ssh))[busy]["running"] is True
            opened_at = loop.time()
            gate.open()
            assert (await ssh.ended(job["job_id"]))["stdout"] == "on\n"
            await until(ssh, busy, there=True, running=False)
            assert loop.time() - opened_at >= 5


def asked(socket: str, *words: str) -> str:
    """Return what tmux says; nothing when it fails."""
    done = subprocess.run(
        ["tmux", "-S", socket, *words], check=False, capture_output=True, text=True
    )
    return "" if done.returncode else done.stdout


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
async def test_a_window_that_nobody_sees_is_no_use(host: Sshd) -> None:
    """SE-12, SE-17: a person who looks at it is."""
    async with agent(host) as ssh, sitting() as person:
        told = await ssh.told(
            "ssh_session_open",
            target="box",
            durability="held",
            observer="tmux",
            idle_timeout_seconds=8,
        )
        session, command = told["session_id"], told["observer"]["command"]
        _, _, socket, _, _, ident = command.split()
        person.resize(80, 24)
        await person.run(*shlex.split(command), env=os.environ)
        await person.until("watching session")
        await idle_for(ssh, 10)
        assert (await listed(ssh))[session]["running"] is True
        await asyncio.to_thread(asked, socket, "detach-client", "-s", f"={ident}")
        await person.ended()
        shown = await asyncio.to_thread(asked, socket, "capture-pane", "-pt", ident)
        assert "watching session" in shown
        row = await until(ssh, session, there=True, running=False)
        assert row["exit_reason"] == "idle"
        await soon(lambda: not asked(socket, "list-sessions"), "its window is closed")


async def test_an_odd_idle_limit_is_refused(host: Sshd) -> None:
    """SE-12: before anything is opened; the default is 30 min."""
    assert Limits().session_idle_seconds == 1800
    async with agent(host) as ssh:
        for odd in (-1, 1e12, "soon"):
            error = await ssh.refused(
                "ssh_session_open", target="box", idle_timeout_seconds=odd
            )
            assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
            assert "idle_timeout_seconds" in error["message"]
        assert await listed(ssh) == {}


async def test_a_new_session_of_the_same_name_is_never_hit(
    host: Sshd, durability: str
) -> None:
    """SE-12, SE-13: not by the end of the old one, nor by its being forgotten."""
    more = {"target": "box", "session_name": "gen", "durability": durability}
    async with agent(host, "session_keep_seconds = 5\n") as ssh:
        old = await opened(ssh, "gen", durability=durability, idle_timeout_seconds=0.3)
        await until(ssh, old, there=True, running=False)
        first = await ssh.told("ssh_session_open", idle_timeout_seconds=0, **more)
        new = str(first["session_id"])
        assert (first["created"], new != old) == (True, True)
        await run(ssh, "gen", "mark=new")
        # the old one is forgotten while the new one has its name
        await until(ssh, old, there=False, running=False)
        again = await ssh.told("ssh_session_open", **more)
        assert (again["session_id"], again["reused"]) == (new, True)
        assert (await run(ssh, "gen", "echo $mark"))["stdout"] == "new\n"


async def test_who_opens_what_is_just_being_reaped_gets_a_new_one(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-12: a shell that minds no hang-up takes a while to end."""
    reached, program = tmp_path / "reached", tmp_path / "stubborn.py"
    program.write_text(
        "import pathlib, signal\n"
        f"there = pathlib.Path({str(reached)!r})\n"
        "signal.signal(signal.SIGHUP, lambda *_: there.touch())\n"
        "print('rea' + 'dy', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    more = {"target": "box", "session_name": "gen", "durability": "remote"}
    async with agent(host) as ssh:
        old = await opened(
            ssh, "gen", durability="remote", idle_timeout_seconds=4, shell="/bin/sh"
        )
        await ssh.told(
            "ssh_session_write",
            session=old,
            input=f"trap '' HUP TERM; {sys.executable} {program}\n",
            until="ready",
        )
        await soon(reached.exists, "the reaper comes by")
        told = await ssh.told("ssh_session_open", idle_timeout_seconds=0, **more)
        assert (told["created"], told["session_id"] != old) == (True, True)
        row = (await listed(ssh))[old]
        assert (row["running"], row["exit_reason"]) == (False, "idle")
        assert (await run(ssh, "gen", "echo on"))["stdout"] == "on\n"


# Ended ones


async def test_an_ended_session_is_readable_for_its_time(
    host: Sshd, durability: str
) -> None:
    """SE-13: its output and how it ended; with auto_close for a shorter time."""
    limits = "session_keep_closed_seconds = 0.5\n"
    assert (Limits().session_keep_seconds, Limits().session_keep_closed_seconds) == (
        3600,
        300,
    )
    async with agent(host, limits) as ssh:
        kept = await opened(ssh, "kept", durability=durability)
        shut = await opened(ssh, "shut", durability=durability, auto_close=True)
        files = {
            one: Path(row["transcript_path"]).parent
            for one, row in (await listed(ssh)).items()
        }
        for one in (kept, shut):
            await ssh.told(
                "ssh_session_write", session=one, input="echo la''st; exit 3\n"
            )
        await until(ssh, shut, there=False, running=False)
        row = await until(ssh, kept, there=True, running=False)
        assert (row["exit_code"], row["exit_reason"]) == (3, "exited")
        told = await ssh.told("ssh_session_read", session="kept", offset=0)
        assert "last" in told["output"]
        error = await ssh.refused("ssh_session_read", session="shut")
        assert (error["reason"], error["ran"]) == ("SESSION_NOT_FOUND", "no")
        assert "1 h" in error["message"]
        assert "ssh_session_list" in error["hint"]
        assert files[kept].exists()
        await soon(lambda: not files[shut].exists(), "nothing of it is on our disk")


async def test_an_ended_session_is_forgotten_after_its_time(host: Sshd) -> None:
    """SE-13: and the time goes on while no daemon runs."""
    with served(host, limits=f"{REAPER}session_keep_seconds = 1\n") as world:
        async with tools(world) as ssh:
            first = await opened(ssh)
            await ssh.told("ssh_session_close", session=first)
            second = await opened(ssh)
            await until(ssh, first, there=False, running=False)
            await ssh.told("ssh_session_close", session=second)
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            await until(ssh, second, there=False, running=False)


# How many


async def test_a_limit_of_one_host_is_clear(host: Sshd) -> None:
    """SE-21: what is there is found, and what has ended makes room."""
    async with agent(host, "sessions_per_host = 2\n") as ssh:
        await opened(ssh, "first", durability="held")
        await opened(ssh, "second", durability="held")
        error = await ssh.refused("ssh_session_open", target="box")
        assert (error["reason"], error["ran"]) == ("LIMIT_REACHED", "no")
        assert "2 sessions are open on box" in error["message"]
        assert "sessions_per_host is 2" in error["message"]
        assert "ssh_session_close" in error["hint"]
        assert len(await listed(ssh)) == 2
        again = await ssh.told(
            "ssh_session_open", target="box", session_name="first", durability="held"
        )
        assert again["reused"] is True
        await ssh.told("ssh_session_close", session="first")
        await opened(ssh, "third", durability="held")


async def test_who_comes_at_the_same_time_meets_the_limit_too(host: Sshd) -> None:
    """SE-21: twelve at once, and three of them are let in."""
    with served(host, limits=f"{QUICK}sessions_per_host = 3\n") as world:
        async with connected(world, "many") as client:
            stub = session_pb2_grpc.SessionServiceStub(client.channel)
            request = session_pb2.OpenSessionRequest(
                target="box", durability=session_pb2.DURABILITY_HELD
            )
            told = await asyncio.gather(
                *(
                    stub.OpenSession(request, metadata=client.metadata())
                    for _ in range(12)
                ),
                return_exceptions=True,
            )
        refused = [one for one in told if isinstance(one, grpc.aio.AioRpcError)]
        assert [info_of(one).reason for one in refused] == ["LIMIT_REACHED"] * 9
        listed = await asyncio.to_thread(world.cli_json, "sessions")
        assert len(listed["sessions"]) == 3


async def test_a_host_has_one_limit_under_all_its_names(host: Sshd) -> None:
    """SE-21: an alias and user@host:port are one host."""
    async with agent(host, "sessions_per_host = 1\n") as ssh:
        await opened(ssh)
        error = await ssh.refused("ssh_session_open", target=host.target)
        assert error["reason"] == "LIMIT_REACHED"


async def test_a_limit_in_all_is_clear(host: Sshd, tmp_path: Path, home: Path) -> None:
    """SE-21: over several hosts."""
    options = {"SetEnv": f"HOME={home}"}
    with Sshd(tmp_path / "two", alias="two", options=options) as two:
        config = tmp_path / "config"
        config.write_text(host.client_config() + two.client_config())
        async with agent(config, "sessions_total = 2\n") as ssh:
            await opened(ssh)
            await ssh.told("ssh_session_open", target="two")
            for target in ("box", "two"):
                error = await ssh.refused("ssh_session_open", target=target)
                assert (error["reason"], error["ran"]) == ("LIMIT_REACHED", "no")
                assert "sessions_total is 2" in error["message"]


# The list


async def test_the_list_is_narrowed_by_host_name_and_end(
    host: Sshd, tmp_path: Path, home: Path
) -> None:
    """SE-07: each alone and together; who is not there is no error."""
    options = {"SetEnv": f"HOME={home}"}
    with Sshd(tmp_path / "two", alias="two", options=options) as two:
        config = tmp_path / "config"
        config.write_text(host.client_config() + two.client_config())
        async with agent(config) as ssh:
            one = await opened(ssh, "work", durability="held")
            gone = await opened(ssh, "gone", durability="held")
            far = await ssh.told(
                "ssh_session_open", target="two", session_name="work", durability="held"
            )
            await ssh.told("ssh_session_close", session=gone)

            async def ids(**arguments: Any) -> list[str]:
                told = await ssh.told("ssh_session_list", **arguments)
                assert told["count"] == len(told["sessions"])
                return [row["session_id"] for row in told["sessions"]]

            # the newest first
            assert await ids() == [far["session_id"], one]
            assert await ids(include_exited=True) == [far["session_id"], gone, one]
            assert await ids(target="box") == [one]
            assert await ids(target="box", include_exited=True) == [gone, one]
            assert await ids(session_name="work") == [far["session_id"], one]
            assert await ids(session_name="work", target="two") == [far["session_id"]]
            assert await ids(session_name="gone") == []
            assert await ids(session_name="gone", include_exited=True) == [gone]
            assert await ids(target="nowhere") == []
            row = (await listed(ssh))[gone]
            assert (row["running"], row["exit_reason"]) == (False, "closed")
            assert (row["session_name"], row["target"]) == (
                "gone",
                f"{host.user}@127.0.0.1:{host.port}",
            )


# The host's own history


START_UP = {
    "bash": """
        HISTFILE=~/.its_history HISTCONTROL= HISTSIZE=1000
        shopt -s histappend; PROMPT_COMMAND='history -a'
    """,
    "zsh": """
        HISTFILE=~/.its_history SAVEHIST=1000 HISTSIZE=1000
        setopt sharehistory incappendhistory
    """,
}
READ_BY = {"bash": ".bash_profile", "zsh": ".zshrc"}


@pytest.fixture(params=START_UP)
def shell(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """Yield a shell that writes each line that is typed down at once."""
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"no {request.param} here: run packaging/test-packages.sh")
    name = READ_BY[request.param]
    (home / name).write_text(START_UP[request.param])
    yield found
    for left in (name, ".its_history"):
        (home / left).unlink(missing_ok=True)


async def test_what_is_run_is_in_no_history_of_the_host(
    host: Sshd, home: Path, durability: str, shell: str
) -> None:
    """SE-18: what is typed may be, as with ssh, so that this test could see it."""

    def found() -> str:
        # what a host keeps may go while it is looked for
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError):
                return "".join(
                    one.read_text("utf-8", "replace")
                    for one in home.rglob("*hist*")
                    if one.is_file()
                )
        raise AssertionError(f"{home} is never at rest")

    async def leave(session: str) -> None:
        await ssh.told("ssh_session_write", session=session, input="exit\n")
        await until(ssh, session, there=True, running=False)

    async with agent(host) as ssh:
        session = await opened(ssh, durability=durability, shell=shell)
        keys = {"input": "echo by-ha''nd\n", "until": "by-hand"}
        await ssh.told("ssh_session_write", session=session, **keys)
        await leave(session)
        assert "by-ha''nd" in found()
        session = await opened(ssh, durability=durability, shell=shell)
        told = await run(ssh, session, "cd /usr && echo run-first >&2")
        assert (told["exit_code"], told["stderr"]) == (0, "run-first\n")
        await ssh.told("ssh_session_write", session=session, **keys)
        told = await run(ssh, session, "echo run-second\necho run-third")
        assert told["stdout"] == "run-second\nrun-third\n"
        told = await run(ssh, session, "sleep 30 # run-slow", timeout_seconds=2)
        assert told["timed_out"] is True
        await leave(session)
        for word in ("run-", "/kept/", "holdfast", "HISTFILE"):
            assert word not in found()
