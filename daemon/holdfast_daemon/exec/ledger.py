"""Which call started which job: the same `request_id` gives the same job (NF-17)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import Reason, StateError

if TYPE_CHECKING:
    from holdfast_daemon.exec.claim import Claim
    from holdfast_daemon.exec.job import Job


class Ledger:
    """The claims of what runs, and of what ended in the last minutes."""

    def __init__(self) -> None:
        """Begin with no claims."""
        self._jobs: dict[tuple[str, str], tuple[Job, Claim, float]] = {}

    def find(self, asked: Claim) -> Job | None:
        """Return the job that the same call started.

        Raises:
            StateError: The request_id came before, for something else.
        """
        found = self._jobs.get((asked.owner, asked.request_id))
        if found is None:
            return None
        job, before, _ = found
        if before.fingerprint != asked.fingerprint:
            raise StateError(
                Reason.REQUEST_ID_REUSED,
                f"request_id {asked.request_id!r} was used for another command",
                hint=f"The earlier one is job {job.id}; give this its own id.",
                metadata={"job_id": job.id},
            )
        return job

    def enter(self, asked: Claim, job: Job, at: float) -> None:
        """Note at `at` (monotonic) that `job` was started by this call."""
        job.claim = asked
        self._jobs[asked.owner, asked.request_id] = (job, asked, at)

    def forget(self, job: Job) -> None:
        """Drop the claim on a job of which nothing ran, or that is kept no longer."""
        if job.claim is None:
            return
        key = job.claim.owner, job.claim.request_id
        found = self._jobs.get(key)
        # After its time the id may have been used for another.
        if found is not None and found[0] is job:
            del self._jobs[key]

    def expire(self, before: float) -> None:
        """Drop the claims noted before `before` on jobs that ended before it.

        Who waits for one asks again as soon as it lost the daemon, however old it is.
        """

        def fresh(job: Job, at: float) -> bool:
            return job.finished is None or max(at, job.finished) >= before

        self._jobs = {k: row for k, row in self._jobs.items() if fresh(row[0], row[2])}
