"""Which call started which job, when an id is used again after its time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from holdfast_daemon.exec.claim import Claim
from holdfast_daemon.exec.ledger import Ledger

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job


class _Job:
    """What a ledger knows of a job."""

    def __init__(self, job_id: str) -> None:
        self.id = job_id
        self.claim: Claim | None = None
        self.finished: float | None = None


def a_job(job_id: str, finished: float | None = None) -> Job:
    job = _Job(job_id)
    job.finished = finished
    return cast("Job", job)


async def test_a_job_that_goes_takes_no_other_call_s_claim_with_it() -> None:
    """NF-17: a nightly call by one id ran twice when yesterday's result had its time.

    On BUGGY code: the older job's end of keeping freed the id of the newer one.
    """
    ledger, asked = Ledger(), Claim("uid:0 agent", "nightly", "same")
    yesterday, today = a_job("j1", 0.0), a_job("j2")
    ledger.enter(asked, yesterday, 0.0)
    ledger.expire(1.0)
    assert ledger.find(asked) is None
    ledger.enter(asked, today, 2.0)
    ledger.forget(yesterday)
    assert ledger.find(asked) is today
    ledger.forget(today)
    assert ledger.find(asked) is None


async def test_a_claim_lasts_as_long_as_its_job_and_some_time_after() -> None:
    """NF-15, NF-17: who waits for a long copy asks for it again after a restart.

    On BUGGY code: the time ran from the beginning, and the same call began another.
    """
    ledger, asked = Ledger(), Claim("uid:0 cli copy", "cli-1", "same")
    job = a_job("j1")
    ledger.enter(asked, job, 0.0)
    ledger.expire(math.inf)
    assert ledger.find(asked) is job
    job.finished = 5000.0
    ledger.expire(5000.0)
    assert ledger.find(asked) is job
    ledger.expire(5000.1)
    assert ledger.find(asked) is None


async def test_a_claim_on_what_a_crash_ended_is_there_for_who_asks_again() -> None:
    """NF-17: it was dropped before they could, as if the end had been long ago."""
    ledger, asked = Ledger(), Claim("uid:0 agent", "build", "same")
    lost = a_job("j1", 100.0)
    ledger.enter(asked, lost, 5000.0)
    ledger.expire(5000.0)
    assert ledger.find(asked) is lost
    ledger.expire(5000.1)
    assert ledger.find(asked) is None
