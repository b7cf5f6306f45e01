"""NF-09, SE-15: every fault of a link at every stage, through shim, daemon and sshd.

Each cell asks for the right outcome within its time, for a link that works again when
the network does, and that nothing ran twice: each command leaves its name in a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.gate import Gate
from fakes.proxy import Cut, Fault, Proxy, Way
from fakes.tools import Tools, served, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.needs_sshd]

# A frozen peer is noticed after 1 s x (1 + 1); a login gets as long.
SHORT = """
keepalive_seconds = 1
keepalive_misses = 1
connect_timeout_seconds = 2
login_pause_seconds = 0.05
stop_grace_seconds = 0.4
"""
NOTICED = 2.0
# What a busy machine may add to it.
SLACK = 20.0

GONE = ["fin", "rst", "freeze", "stall-up", "stall-down"]
SLOW = ["delay", "throttle"]


class Bed:
    """One world whose host is reached through a proxy."""

    def __init__(self, ssh: Tools, proxy: Proxy, world: World, place: Path) -> None:
        self.ssh = ssh
        self.proxy = proxy
        self.world = world
        self.place = place
        self.over = Gate(place / "over")
        self.names = 0
        self._login: tuple[int, int] | None = None

    @property
    def ledger(self) -> Path:
        """Where each command leaves its name."""
        return self.place / "ledger"

    def command(self, rest: str) -> tuple[str, str]:
        """Return a name, and a command that leaves it and then does `rest`."""
        self.names += 1
        name = f"command-{self.names}"
        return name, f"echo {name} >> {self.ledger}; {rest}"

    @property
    def waiting(self) -> str:
        """Return a command that ends when the test does, wherever it was left."""
        return f"echo begun; {self.over.wait} || :"

    def ran(self, name: str) -> int:
        """Return how often a command ran."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return lines.count(name)

    async def login_bytes(self, way: Way) -> int:
        """Return how many bytes go one way until the keys are agreed, in a login.

        What follows is the login itself; up to there packets can be read.
        """
        if self._login is None:
            await self.disconnect()
            await self.ssh.told("ssh_connect")
            one = self.proxy.connections[-1]
            self._login = (_agreed(one.up.recorded), _agreed(one.down.recorded))
            await self.disconnect()
        return self._login[0 if way is Way.UP else 1]

    async def disconnect(self) -> None:
        """Have no connection."""
        await self.ssh.told("ssh_disconnect", target="box", force=True)

    async def standing(self) -> dict[str, Any]:
        """Return how the host stands."""
        hosts = (await self.ssh.told("ssh_hosts", query="box"))["hosts"]
        found = next(host for host in hosts if host["name"] == "box")
        assert isinstance(found, dict)
        return found

    async def spoil(self, fault: str) -> None:
        """Let a fault happen to what is connected, and to what comes."""
        if fault == "fin":
            self.proxy.fin()
        elif fault == "rst":
            self.proxy.rst()
        elif fault == "freeze":
            self.proxy.freeze()
        elif fault == "stall-up":
            self.proxy.freeze(Way.UP)
        elif fault == "stall-down":
            self.proxy.freeze(Way.DOWN)
        elif fault == "delay":
            self.proxy.delay(0.1)
        else:
            self.proxy.throttle(8000)

    def expect(self, fault: str, after: int) -> None:
        """Let a fault meet new connections after so many bytes of one way."""
        way = Way.UP if fault == "stall-up" else Way.DOWN
        cut = {"stall-up": Cut.STALL, "stall-down": Cut.STALL}.get(fault)
        self.proxy.aim(Fault(cut or Cut(fault), after, way))

    async def works_again(self) -> None:
        """Heal the network; the next command must do."""
        self.proxy.heal()
        name, command = self.command("echo well")
        assert (await self.ssh.run(command))["stdout"] == "well\n"
        assert self.ran(name) == 1

    def nothing_ran_twice(self) -> None:
        """Look at the ledger."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        assert len(lines) == len(set(lines)), lines


def _agreed(stream: bytes) -> int:
    """Return where NEWKEYS ends (RFC 4253 6 and 7.3)."""
    at = stream.index(b"\n") + 1
    while True:
        length = int.from_bytes(stream[at : at + 4])
        kind = stream[at + 5]
        at += 4 + length
        if kind == 21:
            return at


@pytest.fixture(scope="module")
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port, seed=3) as one:
        yield one


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    place = tmp_path_factory.mktemp("link_faults")
    config = proxy.config(sshd, place / "config")
    # the same server, by a way that nothing happens to
    config.write_text(config.read_text() + sshd.client_config("other"))
    with served(config, limits=SHORT) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    world: World, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bed]:
    place = tmp_path_factory.mktemp("ledger")
    async with tools(world) as ssh:
        yield Bed(ssh, proxy, world, place)


@pytest_asyncio.fixture(loop_scope="module")
async def bed(shared: Bed) -> AsyncIterator[Bed]:
    yield shared
    shared.proxy.heal()
    shared.over.open()
    with contextlib.suppress(AssertionError):
        await shared.disconnect()
    shared.nothing_ran_twice()


async def refused(bed: Bed) -> tuple[dict[str, Any], float]:
    """Run a command that can't be run; return why, and how long that took."""
    name, command = bed.command("echo never")
    begun = time.monotonic()
    error = await bed.ssh.refused("ssh_exec", command=command)
    took = time.monotonic() - begun
    assert error["ran"] == "no"
    assert bed.ran(name) == 0
    return error, took


@pytest.mark.parametrize("fault", GONE)
async def test_while_connecting_nothing_runs_and_it_is_said_why(
    bed: Bed, fault: str
) -> None:
    """NF-09, SE-15: the network goes before the server's first word."""
    await bed.disconnect()
    knocks = len(bed.proxy.accepted)
    if fault in ("fin", "rst"):
        bed.expect(fault, 0)
    else:
        await bed.spoil(fault)
    error, took = await refused(bed)
    assert took < NOTICED + SLACK
    if fault in ("fin", "rst"):
        assert error["reason"] == "HOST_UNREACHABLE"
        assert "hung up" in error["message"]
        assert len(bed.proxy.accepted) - knocks == 3  # nothing was sent, so it may
    else:
        assert error["reason"] == "CONNECT_TIMEOUT"
        assert took >= NOTICED - 0.1
        assert len(bed.proxy.accepted) - knocks == 1
    assert (await bed.standing())["state"] in ("failed", "waiting")
    await bed.works_again()


@pytest.mark.parametrize("fault", GONE)
async def test_while_authenticating_nothing_runs_and_no_second_login_is_tried(
    bed: Bed, fault: str
) -> None:
    """NF-09, SE-15: the network goes when the keys are agreed and before a yes."""
    way = Way.UP if fault == "stall-up" else Way.DOWN
    agreed = await bed.login_bytes(way)
    knocks = len(bed.proxy.accepted)
    bed.expect(fault, agreed + 16)
    error, took = await refused(bed)
    assert took < NOTICED + SLACK
    gone = fault in ("fin", "rst")
    assert error["reason"] == ("PROTOCOL_ERROR" if gone else "CONNECT_TIMEOUT")
    assert len(bed.proxy.accepted) - knocks == 1
    assert (await bed.standing())["state"] == "failed"
    await bed.works_again()


@pytest.mark.parametrize("fault", GONE)
async def test_an_idle_connection_that_is_gone_is_noticed_in_time(
    bed: Bed, fault: str
) -> None:
    """NF-09, SE-15: nobody asks, and still it is known within the time."""
    await bed.ssh.run("echo used")
    assert (await bed.standing())["connected"]
    await bed.spoil(fault)
    begun = time.monotonic()
    while (stands := await bed.standing())["connected"]:
        assert time.monotonic() - begun < NOTICED + SLACK
        await moment()
    assert stands["state"] == "lost"
    quiet = fault not in ("fin", "rst")
    assert ("stopped answering" in stands["last_error"]) is quiet
    await bed.works_again()


@pytest.mark.parametrize("fault", GONE)
async def test_a_command_is_lost_with_its_link_and_never_ended(
    bed: Bed, fault: str
) -> None:
    """NF-09, SE-15, EX-01: it ran, its outcome is not known, and nothing is made up."""
    name, command = bed.command(bed.waiting)
    job = await bed.ssh.start(command)
    await bed.ssh.until(job, "begun")
    logins = len(bed.proxy.accepted)
    await bed.spoil(fault)
    begun = time.monotonic()
    result = await bed.ssh.ended(job)
    assert time.monotonic() - begun < NOTICED + SLACK
    lost(result)
    assert result["stdout"] == "begun\n"
    assert "it was started" in result["note"]
    # nobody asked, so nobody came back
    assert len(bed.proxy.accepted) == logins
    await bed.works_again()
    assert bed.ran(name) == 1
    assert len(bed.proxy.accepted) == logins + 1


@pytest.mark.parametrize("fault", GONE)
async def test_twenty_commands_are_lost_at_once_and_others_are_not_touched(
    bed: Bed, fault: str
) -> None:
    """NF-09, SE-15: several connections to a host, and another host beside it."""
    begun = [bed.command(bed.waiting) for _ in range(20)]
    jobs = [await bed.ssh.start(command) for _, command in begun]
    for job in jobs:
        await bed.ssh.until(job, "begun")
    name, command = bed.command(f"{bed.waiting}; exit 4")
    other = await bed.ssh.start(command, target="other")
    await bed.ssh.until(other, "begun")
    assert len(bed.proxy.connections) >= 2
    await bed.spoil(fault)
    moment = time.monotonic()
    for job in jobs:
        lost(await bed.ssh.ended(job))
    assert time.monotonic() - moment < NOTICED + SLACK
    assert (await bed.ssh.read(other))["status"] == "running"
    await bed.works_again()
    assert [bed.ran(name) for name, _ in begun] == [1] * 20
    bed.over.open()
    assert (await bed.ssh.ended(other))["exit_code"] == 4
    assert bed.ran(name) == 1


# alone: where this machine stands still for 2 s itself, the network is taken for gone
@pytest.mark.timed
@pytest.mark.parametrize("fault", SLOW)
@pytest.mark.parametrize("stage", ["connecting", "authenticating", "idle", "command"])
async def test_a_slow_network_only_takes_longer(
    bed: Bed, fault: str, stage: str
) -> None:
    """NF-09, SE-15: slow is not gone, at whatever stage it begins."""
    name, command = bed.command("echo begun; sleep 0.3; echo done >&2; exit 3")
    agreed = await bed.login_bytes(Way.DOWN)
    await bed.disconnect()
    logins = len(bed.proxy.accepted)
    if stage == "connecting":
        await bed.spoil(fault)
    elif stage == "idle":
        await bed.ssh.told("ssh_connect")
        await bed.spoil(fault)
        assert (await bed.standing())["connected"]
    down = bed.proxy.down
    job = await bed.ssh.start(command) if stage != "authenticating" else ""
    if stage == "authenticating":
        ident = await bed.ssh.wire.start(
            "tools/call",
            {
                "name": "ssh_exec",
                "arguments": {"target": "box", "command": command, "wait_seconds": 0},
            },
        )
        bed.proxy.wait_for(down=down + agreed)
        await bed.spoil(fault)
        answer = await bed.ssh.wire.reply(ident)
        job = answer["result"]["structuredContent"]["job_id"]
    elif stage == "command":
        await bed.ssh.until(job, "begun")
        await bed.spoil(fault)
    result = await bed.ssh.ended(job)
    assert (result["status"], result["exit_code"]) == ("exited", 3)
    assert (result["stdout"], result["stderr"]) == ("begun\n", "done\n")
    assert bed.ran(name) == 1
    assert len(bed.proxy.accepted) == logins + 1
    await bed.works_again()
    assert len(bed.proxy.accepted) == logins + 1


@pytest.mark.timed
@pytest.mark.parametrize("fault", SLOW)
async def test_twenty_commands_come_through_a_slow_network(
    bed: Bed, fault: str
) -> None:
    """NF-09: all of them, each once, each with its own outcome."""
    begun = [bed.command(f"echo {n}; exit {n}") for n in range(20)]
    await bed.spoil(fault)
    jobs = [await bed.ssh.start(command) for _, command in begun]
    for number, job in enumerate(jobs):
        result = await bed.ssh.ended(job)
        assert (result["exit_code"], result["stdout"]) == (number, f"{number}\n")
    assert [bed.ran(name) for name, _ in begun] == [1] * 20
    await bed.works_again()


@pytest.mark.parametrize("way", [Way.UP, Way.DOWN], ids=["up", "down"])
@pytest.mark.parametrize("cut", [Cut.FIN, Cut.RST])
async def test_after_whatever_byte_a_link_is_cut_the_truth_is_told(
    bed: Bed, cut: Cut, way: Way
) -> None:
    """NF-09, EX-01: 25 cuts from the first byte to the last output.

    `no` means it did not run, an exit code that it did, and whatever it is, not twice.
    """
    dice = random.Random(f"{cut}{way}")
    told: Counter[str] = Counter()
    for _ in range(25):
        await bed.disconnect()
        bed.proxy.aim(Fault(cut, dice.randrange(5200), way))
        name, command = bed.command("echo out; exit 3")
        result = await bed.ssh.call("ssh_exec", command=command)
        bed.proxy.heal()
        answer = result["structuredContent"]
        ran = bed.ran(name)
        assert ran <= 1
        if answer["ok"] is False and "error" in answer:
            told[answer["error"]["ran"]] += 1
            assert answer["error"]["ran"] in ("no", "unknown")
            assert ran == 0 or answer["error"]["ran"] == "unknown"
        elif answer["status"] == "exited":
            told["exited"] += 1
            assert (answer["exit_code"], ran) == (3, 1)
        else:
            told["lost"] += 1
            lost(answer)
    assert told["no"], told
    assert told["exited"], told
    await bed.works_again()


@pytest.mark.timed
async def test_a_link_that_comes_back_in_time_loses_nothing(bed: Bed) -> None:
    """NF-09: a short freeze is a slow network."""
    name, command = bed.command("echo begun; read line; echo $line; exit 5")
    answered = await bed.ssh.start(command, stdin="word\n")
    await bed.ssh.ended(answered)
    waiting = await bed.ssh.start(bed.waiting)
    await bed.ssh.until(waiting, "begun")
    bed.proxy.freeze()
    _, late = bed.command("echo late")
    ident = await bed.ssh.wire.start(
        "tools/call",
        {"name": "ssh_exec", "arguments": {"target": "box", "command": late}},
    )
    # one keepalive is missed, and a second one is not
    await asyncio.sleep(0.7)
    bed.proxy.heal()
    answer = await bed.ssh.wire.reply(ident)
    assert answer["result"]["structuredContent"]["stdout"] == "late\n"
    assert (await bed.ssh.read(waiting))["status"] == "running"
    bed.over.open()
    assert (await bed.ssh.ended(waiting))["exit_code"] == 0
    assert bed.ran(name) == 1


async def test_a_stopped_server_ends_nothing_that_it_did_not_end(
    bed: Bed, sshd: Sshd
) -> None:
    """NF-09: sshd restarted; the old command is lost, the next one runs there."""
    name, command = bed.command(bed.waiting)
    job = await bed.ssh.start(command)
    await bed.ssh.until(job, "begun")
    await asyncio.to_thread(sshd.restart)
    lost(await bed.ssh.ended(job))
    await bed.works_again()
    assert bed.ran(name) == 1


def lost(result: dict[str, Any]) -> None:
    """Check that nothing in a result can be taken for success."""
    assert (result["status"], result["ok"]) == ("lost", False)
    assert "exit_code" not in result
    assert "signal" not in result
