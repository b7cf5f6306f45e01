"""SE-21, NF-09: many at once: what a server bears is never exceeded, and limits speak.

All through shim, daemon and a real sshd, whose log is the witness.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from fakes.gate import Gate
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import Tools, failure, served, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd

# What sshd says of a connection or session that it does not take.
_DROPS = ("MaxStartups", "drop connection", "past MaxStartups", "penalt")


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Start servers with options of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        count = 0

        def start(**options: str) -> Sshd:
            nonlocal count
            count += 1
            # an empty home: no start-up file of the developer takes its time
            given = {"SetEnv": f"HOME={home}", **options}
            server = Sshd(tmp_path / f"sshd{count}", options=given)
            return stack.enter_context(server)

        yield start


@contextlib.asynccontextmanager
async def bed(
    server: Sshd | Path, **limits: float
) -> AsyncGenerator[tuple[Tools, World]]:
    """Yield the tools of a daemon with these limits."""
    text = "".join(f"{name} = {value}\n" for name, value in limits.items())
    with served(server, limits=text) as world:
        async with tools(world) as ssh:
            yield ssh, world


def nothing_dropped(server: Sshd, after: int = 0) -> None:
    for words in _DROPS:
        assert not server.log.count(words, after=after), server.log.text


def waiting(gate: Gate, number: int) -> str:
    """Return a command that ends when `gate` opens."""
    return f"echo here; {gate.wait}; exit {number}"


async def start_all(ssh: Tools, gate: Gate, count: int) -> list[str]:
    """Start commands all at once; return their ids when all are there."""
    calls = [
        ("ssh_exec", {"command": waiting(gate, n), "wait_seconds": 0})
        for n in range(count)
    ]
    jobs = [r["structuredContent"]["job_id"] for r in await ssh.together(*calls)]
    for job in jobs:
        await ssh.until(job, "here")
    return jobs


async def connections(world: World) -> list[dict[str, Any]]:
    told = await asyncio.to_thread(world.cli_json, "status")
    rows = told["connections"]
    assert isinstance(rows, list)
    return rows


async def test_forty_commands_at_once_run_on_a_default_sshd(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21, A5 row 12: 40 of 40, over as many connections as it takes."""
    server, gate = own_sshd(), Gate(tmp_path / "gate")
    async with bed(server) as (ssh, world):
        jobs = await start_all(ssh, gate, 40)
        rows = await connections(world)
        assert len(rows) == 4
        assert sum(row["channels"] for row in rows) == 40
        gate.leave_open()
        for number, job in enumerate(jobs):
            result = await ssh.ended(job)
            assert (result["exit_code"], result["stdout"]) == (number, "here\n")
    nothing_dropped(server)


async def test_sixty_commands_that_are_lost_at_once_come_back_in_good_order(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """NF-09, A5 row 11: no handshake is dropped, and each connection is made once."""
    server, gate = own_sshd(), Gate(tmp_path / "gate")
    with Proxy(server.port) as proxy:
        async with bed(proxy.config(server, tmp_path / "config")) as (ssh, _):
            jobs = await start_all(ssh, gate, 60)
            after, knocks = server.log.position, len(proxy.accepted)
            proxy.rst()
            for job in jobs:
                assert (await ssh.ended(job))["status"] == "lost"
            assert len(proxy.accepted) == knocks  # nobody comes back unasked
            again = await start_all(ssh, gate, 60)
            # 60 channels are 6 connections
            assert len(proxy.accepted) - knocks == 6
            gate.leave_open()
            for number, job in enumerate(again):
                assert (await ssh.ended(job))["exit_code"] == number
    nothing_dropped(server, after)


async def test_few_handshakes_at_once_even_where_each_command_needs_its_own(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """NF-09: a server that takes 6 at once and then drops all is never found full."""
    server, gate = (
        own_sshd(MaxStartups="6:100:6", MaxSessions="1"),
        Gate(tmp_path / "gate"),
    )
    async with bed(
        server, connections_per_host=40, connect_timeout_seconds=30, start_seconds=45
    ) as (ssh, _):
        jobs = await start_all(ssh, gate, 20)
        gate.leave_open()
        for number, job in enumerate(jobs):
            assert (await ssh.ended(job))["exit_code"] == number
    nothing_dropped(server)


async def test_a_server_that_turns_us_away_is_left_alone_for_longer_and_longer(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """NF-09: PerSourcePenalties; whoever knocks on makes it worse for all."""
    server = own_sshd()
    with Proxy(server.port) as proxy:
        config = proxy.config(server, tmp_path / "config")
        async with bed(
            config, login_pause_seconds=0.1, login_pause_max_seconds=1.5
        ) as (ssh, _):
            proxy.refuse(b"Not allowed at this time\r\n")
            calls = [("ssh_exec", {"command": "true"})] * 20
            for result in await ssh.together(*calls):
                error = failure(result)
                assert (error["reason"], error["ran"]) == ("HOST_UNREACHABLE", "no")
                assert "PerSourcePenalties" in error["hint"] or "busy" in error["hint"]
            # twenty who asked were one who knocked
            assert len(proxy.accepted) <= 5
            until = time.monotonic() + 4
            while time.monotonic() < until or len(proxy.accepted) < 9:
                await ssh.refused("ssh_exec", command="true")
            # 0.4, 0.8, then 1.5 s at most, and half of each at least
            assert len(proxy.accepted) <= 12
            gaps = [
                b - a for a, b in zip(proxy.accepted, proxy.accepted[1:], strict=False)
            ]
            assert gaps[-1] >= 0.7
            proxy.heal()
            knocks = len(proxy.accepted)
            assert (await ssh.run("echo in"))["stdout"] == "in\n"
            assert len(proxy.accepted) == knocks + 1


@pytest.mark.timed
async def test_a_call_is_not_kept_waiting_for_a_time_that_is_far_off(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """NF-09: it is told when, and the server hears nothing of it."""
    server = own_sshd()
    with Proxy(server.port) as proxy:
        config = proxy.config(server, tmp_path / "config")
        async with bed(config, login_pause_seconds=30) as (ssh, world):
            proxy.refuse()
            await ssh.refused("ssh_exec", command="true")
            assert len(proxy.accepted) == 1
            begun = time.monotonic()
            error = await ssh.refused("ssh_exec", command="true")
            assert time.monotonic() - begun < 4
            assert (error["reason"], error["ran"]) == ("HOST_UNREACHABLE", "no")
            assert "does not knock again before" in error["message"]
            assert len(proxy.accepted) == 1
            stands = await asyncio.to_thread(world.cli_json, "status", "box")
            assert stands["state"] == "waiting"
            assert 10 < stands["retry_seconds"] <= 30
            (host,) = (await ssh.told("ssh_hosts"))["hosts"]
            assert (host["state"], host["connected"]) == ("waiting", False)
            assert "hung up" in host["last_error"]


async def test_a_refused_login_is_one_login_however_many_wait(
    own_sshd: Callable[..., Sshd],
) -> None:
    """A5 row 11: a failed authentication is never retried by itself."""
    server = own_sshd()
    server.authorized_keys.write_text("")
    async with bed(server) as (ssh, _):
        calls = [("ssh_exec", {"command": "true"})] * 30
        for result in await ssh.together(*calls):
            error = failure(result)
            assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")
        first = server.log.count("Connection from")
        # who came behind the refusal may have made another
        assert first <= 3
        await ssh.refused("ssh_exec", command="true")
        assert server.log.count("Connection from") == first + 1
        public = server.key.with_name(server.key.name + ".pub")
        server.authorize(public)
        assert (await ssh.run("echo in"))["stdout"] == "in\n"
        assert server.log.count("Connection from") == first + 2


async def test_one_session_on_one_connection_is_enough_for_one_after_another(
    own_sshd: Callable[..., Sshd],
) -> None:
    """SE-21: MaxSessions 1 and one connection; sshd clears a channel away too late.

    The first command was refused by a limit: the probe's channel was not yet cleared.
    """
    server = own_sshd(MaxSessions="1")
    async with bed(server, connections_per_host=1) as (ssh, world):
        for number in range(12):
            result = await ssh.run(f"echo {number}; exit {number}")
            assert (result["exit_code"], result["stdout"]) == (number, f"{number}\n")
        assert len(await connections(world)) == 1
    assert server.logins == 1


async def test_one_session_per_connection_still_runs_several_at_once(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21: MaxSessions 1: as many connections as it takes."""
    server, gate = own_sshd(MaxSessions="1"), Gate(tmp_path / "gate")
    async with bed(server) as (ssh, world):
        jobs = await start_all(ssh, gate, 6)
        rows = await connections(world)
        assert sorted(row["channels"] for row in rows)[-6:] == [1] * 6
        stopped = await ssh.stop(jobs[0])
        assert stopped["stopped"]
        gate.leave_open()
        for number, job in list(enumerate(jobs))[1:]:
            assert (await ssh.ended(job))["exit_code"] == number


async def refused(ssh: Tools, limit: str, value: str, **arguments: Any) -> str:
    """Have a command refused by a limit, which is named with its value."""
    error = await ssh.refused("ssh_exec", command="true", **arguments)
    assert (error["reason"], error["ran"]) == ("LIMIT_REACHED", "no")
    assert limit in error["message"]
    assert value in error["message"]
    assert f"limits.{limit}" in error["hint"]
    return str(error["message"])


async def test_the_limit_of_connections_to_a_host_is_told_with_what_uses_it(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21: which limit, its value, and what uses it up; ending things goes on."""
    server, gate = own_sshd(), Gate(tmp_path / "gate")
    async with bed(server, connections_per_host=1, channels_per_connection=2) as (
        ssh,
        _,
    ):
        jobs = await start_all(ssh, gate, 2)
        said = await refused(ssh, "connections_per_host", "1")
        assert f"2 commands on {server.target}" in said
        # a full host can be emptied
        assert (await ssh.stop(jobs[0]))["stopped"]
        assert (await ssh.run("echo room"))["stdout"] == "room\n"
        gate.open()
        assert (await ssh.ended(jobs[1]))["exit_code"] == 1


async def test_the_limits_of_jobs_are_told_with_what_uses_them(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21: per host and in all."""
    server, gate = own_sshd(), Gate(tmp_path / "gate")
    config = tmp_path / "config"
    config.write_text(
        server.client_config() + server.client_config("alias") + "Host *\n"
    )
    async with bed(config, jobs_per_host=2, jobs_running=3) as (ssh, _):
        jobs = await start_all(ssh, gate, 2)
        # a host has as many, by whatever name
        said = await refused(ssh, "jobs_per_host", "2", target="alias")
        assert set(jobs) <= set(said.replace(",", " ").split())
        gate.open()
        for job in jobs:
            await ssh.ended(job)
    async with bed(config, jobs_per_host=9, jobs_running=2) as (ssh, _):
        await start_all(ssh, gate, 2)
        said = await refused(ssh, "jobs_running", "2")
        assert f"2 on {server.target}" in said
        gate.open()


async def test_the_limit_of_all_connections_gives_up_an_idle_one_first(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21: nobody is refused for the sake of a connection that nobody uses."""
    one, two, gate = own_sshd(), own_sshd(), Gate(tmp_path / "gate")
    config = tmp_path / "config"
    config.write_text(one.client_config() + two.client_config("two"))
    async with bed(config, connections_total=1) as (ssh, world):
        await ssh.run("echo idle now")
        assert (await ssh.run("echo two", target="two"))["stdout"] == "two\n"
        (row,) = await connections(world)
        assert row["target"] == two.target
        past = (await asyncio.to_thread(world.cli_json, "status", "box"))["events"]
        assert (past[-1]["kind"], past[-1]["detail"]) == (
            "closed",
            "it made room for another one",
        )
        job = await ssh.start(waiting(gate, 3), target="two")
        await ssh.until(job, "here")
        said = await refused(ssh, "connections_total", "1")
        assert f"1 commands on {two.target}" in said
        gate.open()
        assert (await ssh.ended(job))["exit_code"] == 3
        assert (await ssh.run("echo one"))["stdout"] == "one\n"


@pytest.mark.timed
async def test_only_what_nobody_uses_is_closed_when_idle(
    own_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """SE-21: a long quiet command and a jump host in use keep their connections."""
    quiet, jump, idle = own_sshd(), own_sshd(), own_sshd()
    config = tmp_path / "config"
    config.write_text(
        quiet.client_config(extra="  ProxyJump jump\n")
        + jump.client_config("jump")
        + idle.client_config("idle")
    )
    gate = Gate(tmp_path / "gate")
    async with bed(config, connection_idle_seconds=5) as (ssh, world):
        job = await ssh.start(waiting(gate, 6))
        await ssh.until(job, "here")
        await ssh.run("true", target="idle")
        begun = time.monotonic()
        while len(rows := await connections(world)) > 2:
            assert time.monotonic() - begun < 20
            await moment()
        assert time.monotonic() - begun > 4
        assert {row["target"] for row in rows} == {quiet.target, jump.target}
        carrier = next(row for row in rows if row["target"] == jump.target)
        assert (carrier["channels"], carrier["passengers"]) == (0, 1)
        gate.open()
        assert (await ssh.ended(job))["exit_code"] == 6
