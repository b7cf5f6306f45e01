"""ssh_wait: the first of several things, through the shim, on a real sshd."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.services import echo, serve
from fakes.sshd import Sshd, free_port
from fakes.tools import QUICK, Result, Tools, content, failure, served, tools
from fakes.watch import records, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("wait"),
    pytest.mark.usefixtures("terminals"),
]

LIMITS = f"{QUICK}progress_interval_seconds = 0.1\nwait_poll_seconds = 0.05\n"
KINDS = ["held", "remote"]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd, limits=LIMITS) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(world: World) -> AsyncIterator[Tools]:
    """Another agent, in another editor."""
    async with tools(world) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module", params=KINDS)
async def session(ssh: Tools, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    opened = await ssh.told(
        "ssh_session_open", target="box", durability=request.param, shell="/bin/sh"
    )
    yield str(opened["session_id"])
    await ssh.told("ssh_session_close", session=opened["session_id"], force=True)


async def begin(ssh: Tools, *any_of: dict[str, Any]) -> int:
    """Begin to wait, and return once a sign of life says that it does."""
    ident = await ssh.wire.start(
        "tools/call",
        {
            "name": "ssh_wait",
            "arguments": {"any_of": list(any_of), "wait_seconds": 40},
            "_meta": {"progressToken": os.urandom(4).hex()},
        },
    )
    while True:
        message = await ssh.wire.receive()
        assert message.get("id") != ident, message
        if message.get("method") == "notifications/progress":
            return ident


async def over(ssh: Tools, ident: int) -> Result:
    return content((await ssh.wire.reply(ident))["result"])


async def wait(ssh: Tools, *any_of: dict[str, Any], seconds: float = 40) -> Result:
    return await ssh.told("ssh_wait", any_of=list(any_of), wait_seconds=seconds)


async def blocked(ssh: Tools, gate: Path, end: str = "exit 3") -> str:
    """Start a command that ends when `gate` is there."""
    told = await ssh.start(
        f"echo up; until test -e {gate}; do sleep 0.02; done; {end}", target="box"
    )
    await ssh.until(told, "up")
    return told


async def test_a_job_that_ends_ends_the_wait(
    ssh: Tools, other: Tools, tmp_path: Path
) -> None:
    """NF-11: which one, how it ended, and how the other one stands."""
    ends = await blocked(other, tmp_path / "one", "echo bye; exit 3")
    goes_on = await blocked(other, tmp_path / "two")
    waiting = await begin(ssh, {"job_id": goes_on}, {"job_id": ends})
    (tmp_path / "one").touch()
    told = await over(ssh, waiting)
    assert (told["first"], told["index"]) == (ends, 1)
    assert told["states"] == [
        {"what": goes_on, "came": False, "state": "running", "detail": "up"},
        {"what": ends, "came": True, "state": "exited", "exit_code": 3},
    ]
    (tmp_path / "two").touch()
    assert (await wait(ssh, {"job_id": goes_on}))["first"] == goes_on
    # it has ended, so that is told at once, even with no time at all
    told = await wait(ssh, {"job_id": goes_on}, seconds=0)
    assert (told["index"], told["states"][0]["came"]) == (0, True)


async def test_nothing_that_comes_is_a_result(ssh: Tools, tmp_path: Path) -> None:
    """NF-11: it says so, and is no error."""
    job = await blocked(ssh, tmp_path / "gate")
    for seconds in (0, 0.3):
        told = await wait(ssh, {"job_id": job}, seconds=seconds)
        assert told["first"] == ""
        assert "index" not in told
        assert told["note"] == f"none came within {seconds:g} s; wait again to go on"
        assert told["states"][0]["state"] == "running"
    (tmp_path / "gate").touch()
    await ssh.ended(job)


async def test_a_session_that_prints_what_matches_ends_the_wait(
    ssh: Tools, other: Tools, session: str, tmp_path: Path
) -> None:
    """NF-11: another client's keys bring it about; nothing of it is taken as read."""
    await ssh.told("ssh_session_read", session=session, wait_seconds=1)
    job = await blocked(ssh, tmp_path / "gate")
    entry = {"session": session, "until": r"^re-\d+$"}
    waiting = await begin(ssh, {"job_id": job}, entry)
    await other.told("ssh_session_write", session=session, input="echo re-$((3+4))\n")
    told = await over(ssh, waiting)
    assert (told["index"], told["first"]) == (1, session)
    assert told["states"][1]["detail"] == "re-7"
    # it is still there to be read, so it is told again, and at once
    assert (await wait(ssh, entry, seconds=0))["index"] == 0
    read = await ssh.told("ssh_session_read", session=session)
    assert "re-7" in read["output"]
    # what was read is not waited for again
    told = await wait(ssh, entry, {"session": session}, seconds=0.2)
    assert told["first"] == ""
    (tmp_path / "gate").touch()
    await ssh.ended(job)


async def test_a_session_that_prints_anything_ends_the_wait(
    ssh: Tools, other: Tools, session: str
) -> None:
    """NF-11: also with nothing particular in mind."""
    # Its prompt is there, told as it was opened or not, and has been read.
    await ssh.told(
        "ssh_session_read", session=session, offset=0, until="[$#]", wait_seconds=9
    )
    await ssh.told("ssh_session_read", session=session)
    waiting = await begin(ssh, {"session": session})
    await other.told("ssh_session_write", session=session, input="x")
    told = await over(ssh, waiting)
    assert (told["index"], told["states"][0]["came"]) == (0, True)
    assert (await ssh.told("ssh_session_read", session=session))["output"]


async def test_a_session_that_falls_quiet_ends_the_wait(
    ssh: Tools, session: str, tmp_path: Path
) -> None:
    """NF-11: not while it prints, and what was quiet before counts too."""
    gate = tmp_path / "gate"
    line = f"until test -e {gate}; do echo on; sleep 0.05; done\n"
    await ssh.told("ssh_session_write", session=session, input=line, until="\non")
    waiting = await begin(ssh, {"session": session, "quiet_seconds": 1.5})
    gate.touch()
    told = await over(ssh, waiting)
    assert told["states"][0]["state"] == "running"
    said = re.match(r"quiet for ([\d.]+)", told["states"][0]["detail"])
    assert said is not None
    assert float(said[1]) >= 1.5
    entry = {"session": session, "quiet_seconds": 1.0}
    assert (await wait(ssh, entry, seconds=0))["index"] == 0


async def test_a_command_that_prints_in_a_session_is_no_quiet(
    ssh: Tools, other: Tools, session: str, tmp_path: Path
) -> None:
    """NF-11: what ssh_session_run runs there is not on its terminal, and counts."""
    gate = tmp_path / "gate"
    command = f"until test -e {gate}; do echo on; sleep 0.05; done"
    ran = await other.told(
        "ssh_session_run", session=session, command=command, wait_seconds=0
    )
    await other.until(ran["job_id"], "on")
    entry = {"session": session, "quiet_seconds": 4}
    told = await wait(ssh, entry, seconds=5)
    assert told["first"] == "", told
    gate.touch()
    assert (await wait(ssh, entry))["index"] == 0


async def test_a_session_that_ends_ends_the_wait(
    ssh: Tools, other: Tools, session: str
) -> None:
    """NF-11: with its exit code; a pattern that can't come any more is no reason."""
    entries = ({"session": session, "until": "never"}, {"session": session})
    ending = {"session": session, "exited": True}
    waiting = await begin(ssh, {**entries[0]}, ending)
    await other.told("ssh_session_write", session=session, input="exit 7\n")
    told = await over(ssh, waiting)
    assert told["index"] == 1
    assert (told["states"][1]["state"], told["states"][1]["exit_code"]) == ("exited", 7)
    assert told["states"][0]["came"] is False
    assert (await wait(ssh, ending, seconds=0))["index"] == 0
    # nobody waits 40 s for what is over
    told = await wait(ssh, entries[0])
    assert (told["first"], told["note"]) == ("", "none of them can come any more")


async def test_a_port_that_opens_ends_the_wait(ssh: Tools, sshd: Sshd) -> None:
    """NF-11: as a program on the host would see it, and over the connection held."""
    port = free_port()
    await ssh.run("true")  # logged in: a sign of life may come before that
    logins = sshd.logins
    waiting = await begin(ssh, {"target": "box", "port": port})
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        told = await over(ssh, waiting)
        assert (told["first"], told["index"]) == (f"box port {port}", 0)
        assert told["states"][0]["state"] == "open"

        # what listens there sees a connection that ends at once
        def closed() -> bytes:
            server.settimeout(10)
            peer, _ = server.accept()
            with peer:
                peer.settimeout(10)
                return peer.recv(1)

        assert await asyncio.to_thread(closed) == b""
        # open already: told at once
        again = await wait(ssh, {"target": "box", "port": port}, seconds=0)
        assert again["index"] == 0
    told = await wait(ssh, {"target": "box", "port": port}, seconds=0)
    assert (told["first"], told["states"][0]["state"]) == ("", "shut")
    assert "refused" in told["states"][0]["detail"]
    assert sshd.logins == logins


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_a_port_of_the_other_loopback_opens(ssh: Tools) -> None:
    """NF-11: a server that listens on ::1 only is there as well."""
    with socket.socket(socket.AF_INET6) as server:
        server.bind(("::1", 0))
        server.listen()
        port = server.getsockname()[1]
        told = await wait(ssh, {"target": "box", "port": port}, seconds=10)
        assert told["first"] == f"box port {port}"


async def test_a_port_is_tried_only_by_who_may_forward(
    ssh: Tools, world: World
) -> None:
    """NF-11, FW-07, SC-13: no way round the rules, and written down like a forward."""
    with serve(echo) as port:
        entry = {"target": "box", "port": port}
        assert (await wait(ssh, entry))["index"] == 0

        def told() -> list[dict[str, Any]]:
            place = f"127.0.0.1:{port}"
            rows = records(world)
            return [row for row in rows if row["metadata"].get("connect") == place]

        (row,) = await soon(told, "its end is in the audit log")
        assert (row["event_type"], row["result"]) == ("forward", "ok")
        assert row["metadata"]["method"] == "ExecService/Wait"
        async with tools(world, "--read-only", target="") as looking:
            for refused in (entry, {"target": "box", "state": "up"}):
                error = await looking.refused("ssh_wait", any_of=[refused])
                assert (error["reason"], error["ran"]) == ("READ_ONLY", "no")
        env = {"SSH_ALLOWED_HOSTS": "elsewhere"}
        async with tools(world, target="", env=env) as kept_out:
            for refused in (entry, {"target": "box", "state": "up"}):
                error = await kept_out.refused("ssh_wait", any_of=[refused])
                assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")


async def test_a_host_that_forbids_tunnels_is_told_at_once(tmp_path: Path) -> None:
    """NF-11, FW-07: no time would mend it, so nobody waits for it."""
    with (
        Sshd(tmp_path / "sshd", options={"AllowTcpForwarding": "no"}) as strict,
        served(strict, limits=LIMITS) as world,
    ):
        async with tools(world) as one:
            entry = {"target": "box", "port": 22}
            error = await one.refused("ssh_wait", any_of=[entry], wait_seconds=40)
            assert (error["reason"], error["ran"]) == ("FORWARD_REFUSED", "no")
            assert "AllowTcpForwarding" in error["hint"]


async def test_a_login_that_is_refused_is_told_at_once(tmp_path: Path) -> None:
    """NF-11: to knock on and on would only be refused again."""
    with Sshd(tmp_path / "sshd") as strict:
        strict.authorized_keys.write_text("")
        with served(strict, limits=LIMITS) as world:
            async with tools(world) as one:
                for entry in ({"state": "up"}, {"state": "down"}, {"port": 22}):
                    asked = {"target": "box", **entry}
                    error = await one.refused(
                        "ssh_wait", any_of=[asked], wait_seconds=40
                    )
                    assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")


async def test_two_clients_wait_for_one_thing(
    ssh: Tools, other: Tools, session: str, tmp_path: Path
) -> None:
    """NF-11: both are told, and both have everything left to read."""
    job = await blocked(ssh, tmp_path / "gate", "echo last; exit 0")
    first = await begin(ssh, {"job_id": job}, {"session": session, "exited": True})
    second = await begin(other, {"job_id": job})
    (tmp_path / "gate").touch()
    for one, waiting in ((ssh, first), (other, second)):
        told = await over(one, waiting)
        assert (told["first"], told["index"]) == (job, 0)
        read = await one.read(job)
        assert read["stdout"].endswith("last\n")


async def test_a_forward_that_goes_down_and_up_ends_the_wait(
    ssh: Tools, other: Tools, sshd: Sshd
) -> None:
    """NF-11: by name; what is so already is told at once."""
    await ssh.told("ssh_forward_open", target="box", direction="dynamic", name="web")
    up, down = ({"forward": "web", "state": state} for state in ("up", "down"))
    assert (await wait(ssh, down, up, seconds=0))["index"] == 1
    waiting = await begin(ssh, down)
    sshd.drop_connections()
    told = await over(ssh, waiting)
    assert (told["first"], told["states"][0]["state"]) == ("web", "away")
    assert "lost" in told["states"][0]["detail"]
    told = await wait(ssh, up)
    assert (told["index"], told["states"][0]["state"]) == (0, "up")
    waiting = await begin(ssh, down)
    await other.told("ssh_forward_close", forward="web")
    assert (await over(ssh, waiting))["states"][0]["state"] == "stopped"
    # one that has ended never goes up again
    told = await wait(ssh, up)
    assert (told["first"], told["note"]) == ("", "none of them can come any more")


async def test_a_host_that_goes_away_and_comes_back_ends_the_wait(
    ssh: Tools, other: Tools, sshd: Sshd, tmp_path: Path
) -> None:
    """NF-11: as after a reboot, and told to each who waits."""
    up, down = ({"target": "box", "state": state} for state in ("up", "down"))
    assert (await wait(ssh, down, up, seconds=0))["index"] == 1
    waiting = await begin(ssh, down)
    await asyncio.to_thread(sshd.stop)
    told = await over(ssh, waiting)
    assert (told["first"], told["states"][0]["state"]) == ("box", "down")
    assert told["states"][0]["detail"]
    waiting = await begin(ssh, up)
    also = await begin(other, up)
    await asyncio.to_thread(sshd.start)
    for one, each in ((ssh, waiting), (other, also)):
        told = await over(one, each)
        assert (told["index"], told["states"][0]) == (
            0,
            {"what": "box", "came": True, "state": "up"},
        )
    assert (await ssh.run("echo back"))["stdout"] == "back\n"


async def test_a_connection_that_we_close_is_no_host_that_went_away(
    ssh: Tools, other: Tools, sshd: Sshd
) -> None:
    """NF-11: the buggy daemon told of a host that was there that it was down."""
    await ssh.run("true")
    waiting = await begin(ssh, {"target": "box", "state": "down"})
    assert (await other.told("ssh_disconnect", target="box", force=True))["closed"]
    # one that is closed because nobody uses it is as little said of the host
    assert (await other.run("echo there"))["stdout"] == "there\n"
    await asyncio.to_thread(sshd.stop)
    told = await over(ssh, waiting)
    await asyncio.to_thread(sshd.start)
    assert (told["first"], told["states"][0]["state"]) == ("box", "down")
    assert "on request" not in told["states"][0]["detail"]
    assert (await ssh.run("echo back"))["stdout"] == "back\n"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "any_of[1] names nothing to wait for"),
    "two": ({"job_id": "j1", "forward": "f"}, "any_of[1] names job_id and forward"),
    "two ways": (
        {"session": "s", "until": "a", "exited": True},
        "any_of[1] has until and exited",
    ),
    "quiet": ({"session": "s", "quiet_seconds": 0}, "any_of[1].quiet_seconds"),
    "endless": ({"session": "s", "quiet_seconds": 1e9}, "any_of[1].quiet_seconds"),
    "pattern of a job": ({"job_id": "j1", "until": "a"}, "any_of[1].until does not go"),
    "state of a job": ({"job_id": "j1", "state": "up"}, "any_of[1].state does not go"),
    "port of a forward": ({"forward": "f", "state": "up", "port": 1}, "any_of[1].port"),
    "no state": ({"target": "box"}, "any_of[1].state must be up or down"),
    "other state": ({"forward": "f", "state": "away"}, "not 'away'"),
    "port and state": (
        {"target": "box", "port": 22, "state": "up"},
        "any_of[1] has port and state",
    ),
    "port 0": ({"target": "box", "port": 0}, "any_of[1].port must be 1 to 65535"),
    "high port": ({"target": "box", "port": 65536}, "not 65536"),
}
UNKNOWN: dict[str, tuple[dict[str, Any], str, str]] = {
    "job": ({"job_id": "jnone123"}, "JOB_NOT_FOUND", "jnone123"),
    "session": ({"session": "nosuch"}, "SESSION_NOT_FOUND", "nosuch"),
    "forward": ({"forward": "nosuch", "state": "up"}, "FORWARD_NOT_FOUND", "nosuch"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_can_not_be_meant_is_refused(
    ssh: Tools, name: str, tmp_path: Path
) -> None:
    """NF-11: before anything is waited for; the entry is named."""
    entry, words = WRONG[name]
    job = await blocked(ssh, tmp_path / "gate")
    error = await ssh.refused("ssh_wait", any_of=[{"job_id": job}, entry])
    (tmp_path / "gate").touch()
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert words in error["message"]


@pytest.mark.parametrize("name", UNKNOWN)
async def test_what_is_not_there_is_named(ssh: Tools, name: str) -> None:
    """NF-11: an id of long ago, or of nowhere."""
    entry, reason, words = UNKNOWN[name]
    error = await ssh.refused("ssh_wait", any_of=[entry])
    assert (error["reason"], error["ran"]) == (reason, "no")
    assert words in error["message"]
    assert error["hint"]


async def test_patterns_and_numbers_have_limits(ssh: Tools, session: str) -> None:
    """NF-11: too long, no pattern, too slow a one; too many things; no list."""
    for pattern in ("(", "x" * 1001):
        entry = {"session": session, "until": pattern}
        error = await ssh.refused("ssh_wait", any_of=[entry])
        assert error["reason"] == "INVALID_ARGUMENT"
        assert "pattern" in error["message"] or "expression" in error["message"]
    many = [{"session": session, "exited": True}] * 33
    error = await ssh.refused("ssh_wait", any_of=many)
    assert error["reason"] == "LIMIT_REACHED"
    assert "wait_things is 32" in error["message"]
    for wrong in ([], "x", [1]):
        error = await ssh.refused("ssh_wait", any_of=wrong)
        assert error["reason"] == "INVALID_ARGUMENT"


async def test_a_daemon_that_stops_ends_the_wait(sshd: Sshd, tmp_path: Path) -> None:
    """NF-11: told at once, not after the wait."""
    with served(sshd, limits=LIMITS) as world:
        async with tools(world, "--no-autostart") as ssh:
            job = await blocked(ssh, tmp_path / "gate")
            entries = {"target": "box", "port": free_port()}, {"job_id": job}
            waiting = await begin(ssh, entries[0])
            await asyncio.to_thread(world.stop)
            result = (await ssh.wire.reply(waiting))["result"]
            assert failure(result)["reason"] in {"DRAINING", "DAEMON_LOST"}
            (tmp_path / "gate").touch()


async def test_a_wait_goes_on_with_the_next_daemon(sshd: Sshd, tmp_path: Path) -> None:
    """NF-11: the daemon is killed; what the host keeps is waited for all the same."""
    gate = tmp_path / "gate"
    with served(sshd, limits=LIMITS) as world:
        async with tools(world) as ssh:
            more = {"durability": "remote", "shell": "/bin/sh"}
            await ssh.told("ssh_session_open", target="box", session_name="w", **more)
            line = f"until test -e {gate}; do sleep 0.05; done; echo la''st\n"
            await ssh.told("ssh_session_write", session="w", input=line)
            waiting = await begin(ssh, {"session": "w", "until": "^last"})
            await asyncio.to_thread(world.kill)
            gate.touch()
            told = await over(ssh, waiting)
            assert (told["first"], told["states"][0]["detail"]) == ("w", "last")
            await ssh.told("ssh_session_close", session="w", force=True)
