from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

import pytest

from fakes.links import make_limits
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.connection.shell import Probe
from holdfast_daemon.connection.state import Backoff, Brakes, Budget
from holdfast_daemon.connection.turns import Turns
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.streams import Stream


def test_pauses_grow_with_jitter_up_to_the_longest() -> None:
    """A5 row 11: back-off 1 to 60 s with jitter."""
    low = Backoff(1, 60, lambda: 0.0)
    high = Backoff(1, 60, lambda: 1.0)
    lows = [low.failed() for _ in range(8)]
    highs = [high.failed() for _ in range(8)]
    assert lows == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert highs == [1, 2, 4, 8, 16, 32, 60, 60]


def test_pauses_never_end() -> None:
    """SE-15, NF-09: a host that is away for weeks is looked for all the time.

    After the 1,024th look nothing that was kept there was looked for again.
    """
    pauses = Backoff(0.1, 30, lambda: 1.0)
    assert [pauses.failed() for _ in range(100_000)][-1] == 30


def test_a_success_starts_the_pauses_anew() -> None:
    pauses = Backoff(1, 60, lambda: 1.0)
    pauses.failed()
    pauses.failed()
    pauses.succeeded()
    assert pauses.failed() == 1


def test_a_budget_lets_so_many_in_and_the_others_in_turn() -> None:
    budget: Budget[str] = Budget()
    assert budget.enter("a", 2)
    assert budget.enter("b", 2)
    assert not budget.enter("c", 2)
    assert not budget.enter("d", 2)
    assert budget.leave(2) == ["c"]
    assert budget.taken == 2
    assert budget.leave(2) == ["d"]
    assert budget.leave(2) == []
    assert budget.leave(2) == []
    assert budget.idle


def test_the_urgent_go_first_and_those_who_left_are_forgotten() -> None:
    budget: Budget[str] = Budget()
    assert budget.enter("a", 1)
    assert not budget.enter("b", 1)
    assert not budget.enter("now", 1, urgent=True)
    assert budget.forget("b")
    assert not budget.forget("b")
    assert budget.leave(1) == ["now"]
    assert budget.leave(1) == []


def test_a_changed_size_counts_from_the_next_step_on() -> None:
    """The size was kept from the first who came, and an edit of it was not seen."""
    budget: Budget[str] = Budget()
    assert [budget.enter(name, 2) for name in "abcde"] == [True] * 2 + [False] * 3
    assert budget.leave(1) == []
    assert budget.taken == 1
    assert budget.leave(3) == ["c", "d", "e"]


async def test_one_that_gives_up_as_its_turn_comes_gives_it_back_once() -> None:
    """The place was given back twice, and the second time there was no budget."""
    turns = Turns(make_limits(handshakes_per_host=1))
    host = Host(name="x", hostname="x", user="u")
    inside = 0
    most = 0

    async def enter() -> None:
        nonlocal inside, most
        async with turns.turn(host, urgent=False):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async with turns.turn(host, urgent=False):
        waiting = [asyncio.create_task(enter()) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [
        True,
        False,
        False,
        False,
    ]
    assert most == 1


async def test_turns_are_each_server_s_own_also_where_addresses_are_the_same() -> None:
    turns = Turns(make_limits(handshakes_per_host=1))
    host = Host(name="x", hostname="10.0.0.5", user="u")
    hub = Host(name="hub", hostname="hub", user="u")
    behind = replace(host, proxy_jump=hub)
    async with (
        asyncio.timeout(30),
        turns.turn(host, urgent=False),
        turns.turn(behind, urgent=False),
    ):
        assert turns.taken == 2
        assert not turns.crowded(behind)


def test_a_brake_belongs_to_the_account_and_grows_until_released() -> None:
    brakes = Brakes(5, lambda: 1.0)
    assert brakes.left("a", 100) <= 0
    brakes.failed("a", 100, 1)
    brakes.failed("a", 100, 1)  # of the same moment
    assert brakes.left("a", 100) == 1
    assert brakes.left("b", 100) <= 0
    brakes.failed("a", 101, 1)
    assert brakes.left("a", 101) == 2
    brakes.release("a")
    assert brakes.left("a", 101) <= 0


def test_old_failures_are_forgotten() -> None:
    brakes = Brakes(5, lambda: 1.0)
    for number in range(100):
        brakes.failed(number, 100, 1)
    brakes.failed("later", 106, 1)
    assert len(brakes) == 1
    brakes.failed("later", 108, 1)
    assert brakes.left("later", 108) == 2


@pytest.mark.parametrize(
    "fields",
    [{}, {"exit_code": 0, "signal": "KILL"}, {"exit_code": 1, "lost": "gone"}],
)
def test_a_channel_ends_in_exactly_one_way(fields: dict[str, int | str]) -> None:
    """EX-10: absence of a status is never exit 0."""
    with pytest.raises(ValueError, match="exactly one way"):
        ChannelEnd(**fields)  # type: ignore[arg-type]  # wrong on purpose


def test_only_a_computed_answer_makes_a_shell_posix() -> None:
    probe = Probe()
    for noise in (b"Welcome!\r\n", probe.command.encode(), b"\n"):
        probe.received(Stream.OUT, noise)
    assert not probe.posix
    command = ["/bin/sh", "-c", probe.command]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    probe.received(Stream.OUT, said + b"\r\nlogout\r\n")
    assert probe.posix
