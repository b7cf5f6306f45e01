from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from fakes.links import make_limits
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.connection.entry import Entry, Row, Wish
from holdfast_daemon.connection.history import History, Kind
from holdfast_daemon.connection.room import make_room
from holdfast_daemon.connection.standing import Chronicle
from holdfast_daemon.connection.wake import Watch
from holdfast_daemon.errors import LimitError
from holdfast_daemon.exec import quota
from holdfast_daemon.hosts.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOST = Host(name="web", hostname="web.example", user="me")


class TestHistory:
    def test_the_last_events_of_a_host_are_kept(self) -> None:
        history = History()
        for number in range(30):
            history.note("a", Kind.LOST, f"{number}", at=NOON, most=5)
        assert [event.detail for event in history.of("a")] == [
            "25", "26", "27", "28", "29",
        ]  # fmt: skip
        assert history.of("b") == ()

    def test_the_same_thing_again_only_counts(self) -> None:
        history = History()
        for minute in range(3):
            at = NOON + timedelta(minutes=minute)
            history.note("a", Kind.FAILED, "no route", at=at, most=5)
        (event,) = history.of("a")
        assert (event.times, event.at) == (3, NOON + timedelta(minutes=2))

    def test_the_host_that_was_quiet_longest_is_forgotten_first(self) -> None:
        history = History()
        for number in range(1500):
            history.note(number, Kind.LOST, "", at=NOON, most=5)
            history.note("busy", Kind.LOST, "", at=NOON, most=5)
        assert len(history) == 1000
        assert history.of("busy")
        assert not history.of(0)
        assert history.of(1499)

    def test_a_waking_says_nothing_of_how_a_host_stands(self) -> None:
        history = History()
        history.note("a", Kind.LOST, "cut", at=NOON, most=5)
        history.note("a", Kind.WOKE, "after 9 s", at=NOON, most=5)
        state, error = history.state("a"), history.error("a")
        assert state is not None
        assert state.kind is Kind.LOST
        assert error is not None
        assert error.detail == "cut"


class TestWatch:
    """Sleep by two clocks; what stands first is never one."""

    def look(self, *moments: tuple[float, float]) -> list[float]:
        watch = Watch()
        return [watch.look(a, b, due=1, least=10) for a, b in moments]

    def test_clocks_that_go_together_say_nothing(self) -> None:
        assert self.look((0, 500), (1, 501), (2, 502)) == [0, 0, 0]

    def test_a_boot_clock_that_went_on_alone_is_a_sleep(self) -> None:
        """Suspended: the monotonic clock stood still for ten minutes."""
        assert self.look((0, 500), (1, 1101), (2, 1102)) == [0, 600, 0]

    def test_both_clocks_on_by_far_are_a_process_that_stood_still(self) -> None:
        """SIGSTOP, or a virtual machine that was."""
        assert self.look((0, 0), (31, 31), (32, 32)) == [0, 30, 0]

    def test_a_busy_machine_is_no_sleep(self) -> None:
        assert self.look((0, 0), (6, 6), (9, 11)) == [0, 0, 0]

    def test_a_wall_clock_has_no_part_in_it(self) -> None:
        """A5 row 20: neither of the two can be set."""
        clock = SystemClock()
        times = [(clock.monotonic(), clock.boottime()) for _ in range(50)]
        assert all(b >= a for a, b in pairwise(times))
        assert clock.boottime() >= clock.monotonic() - 1


def row(state: str, since: datetime | None = None) -> Row:
    return Row(
        name="web", account="a", target="me@web", state=state, channels=0, leases=0,
        age=0, since=since, idle=0, via="", passengers=0,
        server_version="", auth_method="",
    )  # fmt: skip


class TestChronicle:
    def stands(
        self, events: list[tuple[Kind, str]], rows: list[Row], retry: float = 0
    ) -> tuple[str, str]:
        chronicle = Chronicle(make_limits(), SystemClock())
        for kind, detail in events:
            chronicle.note("a", kind, detail)
        (found,) = chronicle.standings(["a"], rows, lambda _: retry)
        return found.state, found.error

    def test_nothing_is_known_of_a_host_that_was_never_used(self) -> None:
        assert self.stands([], []) == ("", "")

    @pytest.mark.parametrize(
        ("events", "rows", "retry", "wanted"),
        [
            ([], [row("connecting")], 0, ("connecting", "")),
            ([], [row("connecting")], 3, ("waiting", "")),
            ([(Kind.CONNECTED, "")], [row("ready")], 0, ("connected", "")),
            ([(Kind.CONNECTED, ""), (Kind.CLOSED, "")], [], 0, ("closed", "")),
            ([(Kind.CONNECTED, "")], [row("closing")], 0, ("closed", "")),
            ([(Kind.LOST, "cut")], [], 0, ("lost", "cut")),
            ([(Kind.LOST, "cut")], [row("ready")], 0, ("connected", "cut")),
            ([(Kind.FAILED, "no")], [], 0, ("failed", "no")),
            ([(Kind.FAILED, "no")], [], 9, ("waiting", "no")),
        ],
    )
    def test_how_it_stands_follows_from_what_is_and_what_was(
        self, events: Any, rows: Any, retry: float, wanted: tuple[str, str]
    ) -> None:
        assert self.stands(events, rows, retry) == wanted

    def test_it_is_connected_since_the_oldest_connection_was(self) -> None:
        chronicle = Chronicle(make_limits(), SystemClock())
        then = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        rows = [row("ready", then + timedelta(hours=1)), row("ready", then)]
        (found,) = chronicle.standings(["a"], rows, lambda _: 0.0)
        assert found.since == then


class _Link:
    """As much of a link as a budget looks at."""

    closed = False
    channels = 0
    waiting = 0


@pytest.fixture
def held() -> Callable[..., Entry]:
    """Make entries that are connected."""

    def make(name: str, *, seats: int = 0, free_since: float = 0, **more: Any) -> Entry:
        entry = Entry(dataclasses.replace(HOST, hostname=name), make_limits(), 0)
        entry.link = _Link()  # type: ignore[assignment]  # as much as is looked at
        entry.seats, entry.free_since = seats, free_since
        for key, value in more.items():
            setattr(entry, key, value)
        return entry

    return make


class TestRoom:
    LIMITS = make_limits(connections_per_host=2, connections_total=3)

    def test_there_is_room_below_the_limits(self, held: Callable[..., Entry]) -> None:
        entries = [held("a", seats=1), held("b", seats=1)]
        host = dataclasses.replace(HOST, hostname="a")
        assert make_room(entries, host, self.LIMITS, urgent=False) == []

    def test_the_one_idle_for_longest_goes(self, held: Callable[..., Entry]) -> None:
        used, late, early = (
            held("a", seats=1),
            held("b", free_since=9),
            held("c", free_since=3),
        )
        host = dataclasses.replace(HOST, hostname="d")
        assert make_room([used, late, early], host, self.LIMITS, urgent=False) == [
            early
        ]

    @pytest.mark.parametrize("what", ["passengers", "attended"])
    def test_a_way_to_another_host_and_a_person_s_login_stay(
        self, held: Callable[..., Entry], what: str
    ) -> None:
        entries = [held("a", seats=1), held("a", **{what: 1})]
        host = dataclasses.replace(HOST, hostname="a")
        with pytest.raises(LimitError) as caught:
            make_room(entries, host, self.LIMITS, urgent=False)
        assert caught.value.metadata["limit"] == "connections_per_host"
        assert caught.value.metadata["value"] == "2"

    def test_what_ends_commands_has_one_more(self, held: Callable[..., Entry]) -> None:
        entries = [held("a", seats=1), held("a", seats=1)]
        host = dataclasses.replace(HOST, hostname="a")
        assert make_room(entries, host, self.LIMITS, urgent=True) == []

    def test_one_above_the_limit_is_in_nobody_s_stead(
        self, held: Callable[..., Entry]
    ) -> None:
        """It stays for what is urgent: another one may not take its place."""
        entries = [held("a", seats=1), held("a", seats=1), held("a", extra=True)]
        host = dataclasses.replace(HOST, hostname="a")
        assert not entries[2].takes(Wish(host), over=True)
        assert entries[2].takes(Wish(host, urgent=True), over=True)
        with pytest.raises(LimitError):
            make_room(entries, host, self.LIMITS, urgent=False)
        entries[0].seats = 0
        closed = make_room(entries, host, self.LIMITS, urgent=False)
        assert closed == [entries[0], entries[2]]

    def test_a_refusal_names_the_busiest_and_keeps_hidden_hosts_hidden(
        self, held: Callable[..., Entry]
    ) -> None:
        hidden = held("secret.example", seats=7)
        hidden.host = dataclasses.replace(hidden.host, name="vault", show="purpose")
        entries = [held("a", seats=1), hidden, held("b", seats=2)]
        host = dataclasses.replace(HOST, hostname="d")
        with pytest.raises(LimitError) as caught:
            make_room(entries, host, self.LIMITS, urgent=False)
        message = caught.value.message
        assert "7 commands on vault, 2 commands on me@b, 1 commands on me@a" in message
        assert "secret.example" not in message

    def test_behind_another_hub_the_same_address_is_another_server(
        self, held: Callable[..., Entry]
    ) -> None:
        """Private addresses are given out anew in every network."""
        hubs = [Host(name=f"hub{n}", hostname=f"hub{n}", user="me") for n in (1, 2)]
        one, two = (dataclasses.replace(HOST, proxy_jump=hub) for hub in hubs)
        entries = [held("a", seats=1), held("a", seats=1)]
        for entry in entries:
            entry.host = one
        assert make_room(entries, two, self.LIMITS, urgent=False) == []
        other = dataclasses.replace(one, user="other")
        with pytest.raises(LimitError, match=r"to web\.example are in use"):
            make_room(entries, other, self.LIMITS, urgent=False)
        by_program = dataclasses.replace(HOST, proxy_command="relay %h")
        assert make_room(entries, by_program, self.LIMITS, urgent=False) == []

    def test_closing_ones_do_not_count(self, held: Callable[..., Entry]) -> None:
        entries = [held("a", seats=1), held("a", seats=1, closing=True)]
        host = dataclasses.replace(HOST, hostname="a")
        assert make_room(entries, host, self.LIMITS, urgent=False) == []


class TestQuota:
    def test_a_host_is_one_whatever_it_is_called(self) -> None:
        running = {"j1": HOST, "j2": dataclasses.replace(HOST, user="other", name="x")}
        limits = make_limits(jobs_per_host=2)
        with pytest.raises(LimitError) as caught:
            quota.check(running, dataclasses.replace(HOST, name="y"), limits)
        assert "j1, j2" in caught.value.message
        quota.check(running, dataclasses.replace(HOST, hostname="z"), limits)

    def test_behind_another_hub_the_same_address_is_another_host(self) -> None:
        hub = Host(name="hub", hostname="hub", user="me")
        limits = make_limits(jobs_per_host=1)
        quota.check({"j1": HOST}, dataclasses.replace(HOST, proxy_jump=hub), limits)

    def test_all_jobs_together_are_told_by_host(self) -> None:
        hosts = [dataclasses.replace(HOST, hostname=f"h{n % 7}") for n in range(20)]
        running = {f"j{n}": host for n, host in enumerate(hosts)}
        with pytest.raises(LimitError) as caught:
            quota.check(running, HOST, make_limits(jobs_running=20))
        assert "3 on me@h0" in caught.value.message
        assert "and 2 more" in caught.value.message
