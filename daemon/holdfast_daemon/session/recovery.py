"""Goes on with what earlier daemons left running in sessions on hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError
from holdfast_daemon.session.run import Resumed
from holdfast_daemon.unless import unless

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.gate import Ticket
    from holdfast_daemon.session.remote import RemoteShell
    from holdfast_daemon.session.session import Session

_UNFOLLOWED = "it is not followed any more, and may still run in its session"
_SESSION_OVER = "its session was over before it told how it ended"


class Recovery:
    """Finds the hosts of sessions again, and follows the commands that ran in them."""

    def __init__(
        self,
        jobs: JobTable,
        *,
        find: Callable[[Session, Callable[[str], None]], Awaitable[Host]],
        admit: Callable[[Job], Awaitable[tuple[Host, Ticket]]],
    ) -> None:
        """Go on with what is in `jobs`, where `admit` lets us.

        `find` says where a session is, and meanwhile why it can't.
        """
        self.jobs = jobs
        self._find = find
        self._admit = admit

    async def host(self, session: Session) -> Host:
        """Return where a session is, once that can be said: its shell goes on."""

        def tell(why: str) -> None:
            if session.running and why != session.away_because:
                session.away(why)

        return await self._find(session, tell)

    async def host_or_end(self, session: Session) -> Host | None:
        """Return the same; None: the session was closed before."""
        return await unless(session.over, self.host(session))

    def left_running(self) -> dict[str, list[Job]]:
        """Return what earlier daemons left running, by session and in order."""
        left: dict[str, list[tuple[int, Job]]] = {}
        for job in self.jobs.unresumed():
            if job.kept is not None and job.kept.ident != job.id:
                left.setdefault(job.kept.ident, []).append((job.kept.number, job))
        return {
            ident: [job for _, job in sorted(jobs, key=lambda one: one[0])]
            for ident, jobs in left.items()
        }

    async def hold(self, session: Session, jobs: Sequence[Job]) -> None:
        """Let nobody else run anything there until the end of the last is known."""
        if jobs:
            await session.turn.acquire()
            session.job = jobs[-1]

    def give_up(self, jobs: Sequence[Job], why: str = "") -> None:
        """Have them be lost."""
        for job in jobs:
            told = f"{_UNFOLLOWED}: {why}" if why else _SESSION_OVER
            self.jobs.give_up(job, told)

    async def go_on(
        self, session: Session, shell: RemoteShell, jobs: Sequence[Job]
    ) -> None:
        """Follow them to their ends; have the host forget those that were known."""
        for job in jobs:
            latest = job is jobs[-1]
            try:
                host, ticket = await self._admit(job)
            except DeniedError as error:
                self.give_up([job], error.message)
                shell.give_up(job)
                if latest:
                    session.job = None
                    session.touch()
                    session.turn.release()
            else:
                runner = Resumed(session, shell, latest=latest)
                self.jobs.resume(job, host, ticket, runner)
        for job in self.jobs.left_behind():
            known = job.kept is not None and job.kept.ident == session.id
            if known and job.kept and await shell.drop(job.kept.number):
                self.jobs.forgotten(job)
