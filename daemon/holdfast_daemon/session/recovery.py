"""Goes on with what earlier daemons left running in sessions on hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError
from holdfast_daemon.session.run import Resumed

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
        resolve: Callable[[str], Awaitable[Host]],
        admit: Callable[[Job], Awaitable[tuple[Host, Ticket]]],
    ) -> None:
        """Go on with what is in `jobs`, where `admit` lets us.

        `resolve` finds a host by its name.
        """
        self.jobs = jobs
        self._resolve = resolve
        self._admit = admit

    async def host(self, session: Session) -> Host:
        """Return where a session is: its name may mean another account by now."""
        host = await self._resolve(session.target)
        if host.display != session.address:
            host = await self._resolve(session.address)
        return host

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
            except DaemonError as error:
                self.give_up([job], error.message)
                shell.give_up(job)
                if latest:
                    session.job = None
                    session.turn.release()
            else:
                runner = Resumed(session, shell, latest=latest)
                self.jobs.resume(job, host, ticket, runner)
        for job in self.jobs.left_behind():
            known = job.kept is not None and job.kept.ident == session.id
            if known and job.kept and await shell.drop(job.kept.number):
                self.jobs.forgotten(job)
