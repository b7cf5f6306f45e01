"""Watches what the daemon itself keeps: jobs, sessions and forwards.

None of them moves the position that a client has read to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast_daemon.exec.job import Status
from holdfast_daemon.forward.about import State
from holdfast_daemon.output.awaiting import await_text
from holdfast_daemon.output.until import Met, Until
from holdfast_daemon.waiting.sight import Sight

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.forward.forward import Forward
    from holdfast_daemon.output.pattern import Pattern
    from holdfast_daemon.session.session import Session

_DETAIL_CHARS = 300
# In one stretch; the next one begins where it ended.
_STRETCH_SECONDS = 3600.0


class JobEnd:
    """Sees a job end."""

    def __init__(self, job: Job) -> None:
        self.what = str(job.id)
        self._job = job

    async def look(self) -> None:
        """Nothing has to be asked for."""

    async def come(self) -> None:
        """Return at its end, or when this daemon can't tell of it any more."""
        await self._job.ended.wait()

    def sight(self) -> Sight:
        """Return its status, and how it ended."""
        job = self._job
        detail = job.spool.last_line if job.running else job.note
        if job.error is not None:
            detail = job.error.message
        elif job.status is Status.SIGNALLED:
            detail = f"SIG{job.signal}" + (f"; {detail}" if detail else "")
        return Sight(
            job.status.value, not job.running, short(detail), exit_code=job.exit_code
        )


class _OfSession:
    """What all watches of a session tell alike."""

    def __init__(self, session: Session) -> None:
        self.what = session.name or session.id
        self._session = session

    async def look(self) -> None:
        """Nothing has to be asked for."""

    def _stands(self, *, came: bool, detail: str = "") -> Sight:
        session, end = self._session, self._session.end
        if end is None:
            state = "away" if session.away_because else "running"
            return Sight(state, came, short(detail or session.away_because))
        return Sight(
            end.over.value, came, short(detail or end.why), exit_code=end.exit_code
        )


class Ending(_OfSession):
    """Sees a session end."""

    async def come(self) -> None:
        """Return at its end."""
        await self._session.over.wait()

    def sight(self) -> Sight:
        """Return how it stands."""
        return self._stands(came=not self._session.running)


class Quiet(_OfSession):
    """Sees a session fall quiet."""

    def __init__(self, session: Session, seconds: float) -> None:
        super().__init__(session)
        self._seconds = seconds

    async def come(self) -> None:
        """Return once nothing has come for so long, or at its end."""
        while self._session.running and (left := self._left) > 0:
            over = asyncio.ensure_future(self._session.over.wait())
            await asyncio.wait({over}, timeout=left)
            over.cancel()

    @property
    def _left(self) -> float:
        return self._seconds - self._session.quiet_seconds

    def sight(self) -> Sight:
        """Return for how long it has been quiet."""
        came = self._left <= 0 or not self._session.running
        return self._stands(
            came=came, detail=f"quiet for {self._session.quiet_seconds:.1f} s"
        )


class Printing(_OfSession):
    """Sees a session print: text that matches, or anything at all.

    It looks at what comes after `offset`, where the client has read to.
    """

    def __init__(self, session: Session, offset: int, pattern: Pattern | None) -> None:
        super().__init__(session)
        self._offset = offset
        self._pattern = pattern
        self._until = Until(
            pattern=pattern,
            cols=session.cols,
            now=asyncio.get_running_loop().time(),
        )

    async def look(self) -> None:
        """Search what is there already."""
        await self._await(0)

    async def come(self) -> None:
        """Return when it printed that, or at its end."""
        if self._pattern is None:
            await self._session.spool.grown(self._offset)
            return
        while self._until.met is None:
            await self._await(_STRETCH_SECONDS)

    async def _await(self, seconds: float) -> None:
        if self._pattern is not None:
            found = await await_text(
                self._session.spool, self._until, offset=self._offset, seconds=seconds
            )
            self._offset = found.next_offset

    def sight(self) -> Sight:
        """Return what matched."""
        if self._pattern is None:
            came = self._session.spool.end > self._offset
            return self._stands(came=came, detail=self._session.spool.last_line)
        came = self._until.met is Met.MATCHED
        detail = self._until.matched if came else self._session.spool.last_line
        return self._stands(came=came, detail=detail)


class ForwardState:
    """Sees a forward go up or down."""

    def __init__(self, forward: Forward, *, up: bool) -> None:
        about = forward.about
        self.what = about.names[0] if about.names else str(about.id)
        self._forward = forward
        self._up = up

    async def look(self) -> None:
        """Nothing has to be asked for."""

    async def come(self) -> None:
        """Return when it does; one that has ended never goes up again."""
        forward = self._forward
        while not self.sight().came and forward.running:
            await forward.changed()

    def sight(self) -> Sight:
        """Return its state, and what was wrong last."""
        forward = self._forward
        came = (forward.state is State.UP) is self._up
        return Sight(forward.state.value, came, short(forward.last_error))


def short(text: str) -> str:
    """Return so much of a text as an answer about several things has room for."""
    text = " ".join(text.split())
    if len(text) <= _DETAIL_CHARS:
        return text
    return text[: _DETAIL_CHARS - 1] + "…"
