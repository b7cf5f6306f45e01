"""How many channels ought to wait."""

from __future__ import annotations

from holdfast_daemon.connection.demand import Demand


def test_nothing_waits_before_the_first_command() -> None:
    assert Demand().wanted(0.0, 3) == 0


def test_one_after_another_needs_one() -> None:
    demand = Demand()
    demand.asked(0.0, 60, found=False)
    for second in range(1, 50):
        demand.asked(float(second), 60, found=True)
    assert demand.wanted(50.0, 3) == 1


def test_each_that_found_none_makes_one_more_worth_keeping_up_to_the_most() -> None:
    demand = Demand()
    for wanted in (1, 2, 3, 3, 3):
        demand.asked(0.0, 60, found=False)
        assert demand.wanted(0.0, 3) == wanted


def test_a_pause_ends_it_and_the_next_starts_anew() -> None:
    demand = Demand()
    for _ in range(3):
        demand.asked(0.0, 60, found=False)
    assert (demand.wanted(59.9, 3), demand.left(59.9) > 0) == (3, True)
    assert (demand.wanted(60.0, 3), demand.left(60.0)) == (0, 0.0)
    demand.asked(100.0, 60, found=False)
    assert demand.wanted(100.0, 3) == 1


def test_a_lower_limit_holds_at_once_and_none_means_none() -> None:
    demand = Demand()
    for _ in range(3):
        demand.asked(0.0, 60, found=False)
    assert demand.wanted(1.0, 2) == 2
    assert demand.wanted(1.0, 0) == 0
