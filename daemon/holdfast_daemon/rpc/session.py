"""SessionService: shells that are kept, and what is run and typed in them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from holdfast.v1 import common_pb2, session_pb2, session_pb2_grpc
from holdfast_daemon import logs
from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    NotFoundError,
    Ran,
    RangeError,
    Reason,
)
from holdfast_daemon.exec import answer
from holdfast_daemon.exec.request import ExecRequest, check
from holdfast_daemon.file import script
from holdfast_daemon.output.awaiting import await_text
from holdfast_daemon.output.pattern import Pattern
from holdfast_daemon.output.until import Met, Until
from holdfast_daemon.rpc import convert
from holdfast_daemon.rpc.attach import AttachServicer
from holdfast_daemon.rpc.awaits import Awaits
from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.once import Once, key_of
from holdfast_daemon.rpc.snapshot import snapshot
from holdfast_daemon.session import reading
from holdfast_daemon.session.run import Run
from holdfast_daemon.session.shell import Durability, Plan
from holdfast_daemon.session.wanted import Opened, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc.aio

    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.rpc.attach import Reach
    from holdfast_daemon.rpc.door import Call
    from holdfast_daemon.rpc.kept import KeptServicer
    from holdfast_daemon.session.reading import Page
    from holdfast_daemon.session.session import Session
    from holdfast_daemon.session.table import SessionTable

    type_context = grpc.aio.ServicerContext[Any, Any]

_DURABILITY = {
    session_pb2.DURABILITY_HELD: Durability.HELD,
    session_pb2.DURABILITY_REMOTE: Durability.REMOTE,
}
_COLS, _ROWS = 80, 24
_log = logging.getLogger(__name__)


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """Thin: converts, calls the tables, waits."""

    def __init__(
        self,
        sessions: SessionTable,
        jobs: JobTable,
        config: Callable[[], Config],
        kept: KeptServicer,
        reach: Reach,
    ) -> None:
        """Serve `sessions`; what runs in them are `jobs`, `kept` is what hosts keep.

        `reach` refuses hosts that no call may reach any more.
        """
        self._sessions = sessions
        self._jobs = jobs
        self._config = config
        self._attach = AttachServicer(self._named, reach)
        self._kept = kept
        self._reach = reach
        self._awaits = Awaits()
        self._opened = Once[Opened](self._remembered, "another session")
        self._typed = Once[tuple[int, int]](self._remembered, "other keys")

    def _remembered(self) -> float:
        return self._config().limits.request_id_seconds

    def AttachSession(
        self,
        request_iterator: AsyncIterator[session_pb2.AttachSessionRequest],
        context: type_context,
    ) -> AsyncIterator[session_pb2.AttachSessionResponse]:
        """Let a person take part in a session."""
        return self._attach.AttachSession(request_iterator, context)

    async def ListKept(
        self, request: session_pb2.ListKeptRequest, context: type_context
    ) -> session_pb2.ListKeptResponse:
        """List what is kept on a host."""
        return await self._kept.ListKept(request, context)

    async def WipeKept(
        self, request: session_pb2.WipeKeptRequest, context: type_context
    ) -> session_pb2.WipeKeptResponse:
        """Remove what is kept on a host."""
        return await self._kept.WipeKept(request, context)

    def close(self) -> None:
        """End the calls of people at terminals, and those that wait for output."""
        self._attach.close()
        self._awaits.close()

    def _named(self, text: str) -> Session:
        return self._sessions.find(text, current().ticket.sees)

    def _find(self, text: str, call: Call) -> Session:
        session = self._named(text)
        call.ticket.check_name(session.target, session.address)
        call.ticket.add(session_id=session.id)
        session.note(call.caller)
        logs.also_about(**{**session.labels, "client": call.caller.label})
        return session

    async def OpenSession(
        self, request: session_pb2.OpenSessionRequest, context: type_context
    ) -> session_pb2.OpenSessionResponse:
        """Open a session, or find the one of that name."""
        call = current()
        host = call.host
        if host is None:
            raise InputError("target", "target names no host")
        cols, rows = request.cols or _COLS, request.rows or _ROWS
        idle = None
        if request.HasField("idle_timeout_seconds"):
            idle = request.idle_timeout_seconds
        shell, cwd, env = request.shell, request.cwd, dict(request.env)
        asked = ExecRequest(command="true", cwd=cwd, env=env, shell=shell)
        check(asked, self._config().limits)
        wanted = Wanted(
            name=request.session_name,
            plan=Plan(shell, cwd, env, cols, rows),
            durability=_DURABILITY.get(request.durability, Durability.AUTO),
            idle_timeout=idle,
            auto_close=request.auto_close,
            tmux=request.observer == session_pb2.OBSERVER_MODE_TMUX,
            new=request.new,
            resize=(request.cols, request.rows),
        )
        # The session is the table's: who goes away meanwhile changes nothing.
        key = key_of(call.caller, request.request_id)
        told = [
            request.SerializeToString(deterministic=True),
            str(host.endpoint).encode(),
        ]
        opening = self._opened.do(
            key, told, lambda: self._sessions.open(wanted, host, call.caller)
        )
        opened = await asyncio.shield(asyncio.ensure_future(opening))
        session = opened.session
        call.ticket.add(session_id=session.id, created=opened.created)
        logs.also_about(**{**session.labels, "client": call.caller.label})
        _log.info("session %s", "opened" if opened.created else "found")
        page = await self._unread(session, call, None)
        return session_pb2.OpenSessionResponse(
            **snapshot(session, page),
            created=opened.created,
            reused=not opened.created,
            matched_by=opened.matched_by or None,
        )

    # running

    async def RunInSession(
        self, request: session_pb2.RunInSessionRequest, context: type_context
    ) -> AsyncIterator[session_pb2.RunInSessionResponse]:
        """Run one command; progress about once a second, then one result."""
        call, config = current(), self._config()
        limits = config.limits
        session = self._find(request.session, call)
        await self._reach(session.host)
        job = self._start(request, session, call)
        wait = limits.wait_seconds
        if request.HasField("wait_seconds"):
            wait = min(request.wait_seconds, limits.wait_max_seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(wait, limits.session_turn_seconds)
        opened = asyncio.ensure_future(asyncio.shield(job.opened))
        await asyncio.wait({opened}, timeout=deadline - loop.time())
        deadline = max(loop.time(), min(deadline, loop.time() + wait))
        while not job.ended.is_set() and (left := deadline - loop.time()) > 0:
            interval = min(left, limits.progress_interval_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await job.ended.wait()
            if not job.ended.is_set():
                yield session_pb2.RunInSessionResponse(
                    progress=common_pb2.Progress(
                        progress=round(job.duration, 3), message=job.spool.last_line
                    )
                )
        if job.error is not None:
            raise job.error
        if job.running:
            await self._jobs.tell(job)
        given = (
            request.max_output_chars if request.HasField("max_output_chars") else None
        )
        size = convert.budget(given, call.caller, config)
        shown = await answer.of_job(job, size)
        job.move_cursor(call.caller.instance, shown.next_offset)
        yield session_pb2.RunInSessionResponse(result=_result(job, shown, session))

    def _start(
        self, request: session_pb2.RunInSessionRequest, session: Session, call: Call
    ) -> Job:
        host = session.host
        if session.running or host is None:
            # one that is over may have been ended by this very call, made before
            session.check_running()
        if host is None:
            raise InputError("session", f"session {session.id} has no host any more")
        timeout = convert.hard_limit(call.caller, self._config())
        if request.HasField("timeout_seconds"):
            timeout = request.timeout_seconds
        job = self._jobs.start(
            ExecRequest(command=request.command, timeout=timeout),
            host,
            call.ticket,
            request.request_id,
            runner=Run(session, call.caller),
            place=session.id,
        )
        job.session = session.id
        return job

    # typing and reading

    async def WriteSession(
        self, request: session_pb2.WriteSessionRequest, context: type_context
    ) -> AsyncIterator[session_pb2.WriteSessionResponse]:
        """Type keys, and read what comes back."""
        call, limits = current(), self._config().limits
        session = self._find(request.session, call)
        await self._reach(session.host)
        if not request.input:
            raise InputError("input", "input is empty", hint="\\n is Enter.")
        data = request.input.encode()
        pattern = await self._pattern(request.until)
        again = True

        async def type_() -> tuple[int, int]:
            nonlocal again
            again = False
            before = session.spool.end, session.cursor(call.caller)
            await session.type(call.caller, data)
            call.ticket.add(bytes_typed=len(data))
            return before

        key, told = key_of(call.caller, request.request_id), session.id.encode()
        begun, read = await self._typed.do(key, [told, data], type_)
        if again:
            call.ticket.add(joined=True)
        wait = limits.session_write_seconds
        if request.until:
            wait = limits.wait_seconds
        if request.HasField("wait_seconds"):
            wait = min(request.wait_seconds, limits.wait_max_seconds)
        until = self._until(session, pattern)
        given = (
            request.max_output_chars if request.HasField("max_output_chars") else None
        )
        try:
            async for progress in self._await(session, until, begun, wait):
                yield session_pb2.WriteSessionResponse(progress=progress)
            page = await self._unread(session, call, given, read if again else None)
        except DaemonError as error:
            error.ran = Ran.YES  # the keys are typed, whatever becomes of the answer
            raise
        yield session_pb2.WriteSessionResponse(
            result=session_pb2.SessionWriteResult(
                **snapshot(session, page), bytes_written=len(data)
            )
        )

    async def ReadSession(
        self, request: session_pb2.ReadSessionRequest, context: type_context
    ) -> AsyncIterator[session_pb2.ReadSessionResponse]:
        """Read on where this client stopped, or elsewhere, or the screen."""
        call, limits = current(), self._config().limits
        session = self._find(request.session, call)
        start = self._position(request, session, call)
        pattern = await self._pattern(request.until)
        matched: bool | None = None
        if request.wait_seconds and (pattern or session.spool.end <= start):
            wait = min(request.wait_seconds, limits.wait_max_seconds)
            until = self._until(session, pattern)
            async for progress in self._await(session, until, start, wait):
                yield session_pb2.ReadSessionResponse(progress=progress)
            matched = until.met is Met.MATCHED
        elif pattern is not None:
            until = self._until(session, pattern)
            await await_text(session.spool, until, offset=start, seconds=0)
            matched = until.met is Met.MATCHED
        given = (
            request.max_output_chars if request.HasField("max_output_chars") else None
        )
        size = convert.budget(given, call.caller, self._config())
        if request.view == session_pb2.SESSION_VIEW_SCREEN:
            page = await reading.screen(
                session.display, start, session.spool.end, size, session.id
            )
        elif request.view == session_pb2.SESSION_VIEW_RAW:
            page = await reading.raw(session.spool, start, size)
        else:
            page = await reading.text(
                session.spool, start, size, cols=session.cols, ident=session.id
            )
        if not request.HasField("offset"):
            session.move_cursor(call.caller, page.next_offset)
        yield session_pb2.ReadSessionResponse(
            result=session_pb2.SessionReadResult(
                **snapshot(session, page),
                matched=matched if pattern is not None else None,
                next_offset=page.next_offset,
                earliest_offset=session.spool.earliest,
                encoding=page.encoding or None,
            )
        )

    def _position(
        self, request: session_pb2.ReadSessionRequest, session: Session, call: Call
    ) -> int:
        end = session.spool.end
        if not request.HasField("offset"):
            return session.cursor(call.caller)
        if request.offset > end:
            raise RangeError(
                Reason.INVALID_ARGUMENT,
                f"offset {request.offset} is beyond the end, {end}",
                hint="Leave offset out to read on from where you stopped.",
                metadata={"field": "offset", "end": str(end)},
            )
        return request.offset

    async def _pattern(self, text: str) -> Pattern | None:
        if not text:
            return None
        seconds = self._config().limits.grep_seconds
        return await asyncio.to_thread(Pattern, text, field="until", seconds=seconds)

    def _until(self, session: Session, pattern: Pattern | None) -> Until:
        now = asyncio.get_running_loop().time()
        quiet = None if pattern else self._config().limits.quiet_seconds
        return Until(
            pattern=pattern,
            quiet_seconds=quiet,
            cols=session.cols,
            now=now,
            after_output=True,
        )

    def _await(
        self, session: Session, until: Until, offset: int, seconds: float
    ) -> AsyncIterator[common_pb2.Progress]:
        interval = self._config().limits.progress_interval_seconds
        return self._awaits.signs(
            session, until, offset=offset, seconds=seconds, interval=interval
        )

    async def _unread(
        self, session: Session, call: Call, given: int | None, start: int | None = None
    ) -> Page:
        """Return what this client has not read, and note that it has now.

        `start`: what comes from there, for one whose first answer may have got lost.
        """
        size = convert.budget(given, call.caller, self._config())
        start = session.cursor(call.caller) if start is None else start
        page = await reading.text(
            session.spool, start, size, cols=session.cols, ident=session.id
        )
        session.move_cursor(call.caller, page.next_offset)
        return page

    # listing and closing

    async def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: type_context
    ) -> session_pb2.ListSessionsResponse:
        """List what this caller may see, newest first."""
        call = current()
        found = [
            session_pb2.Session(**snapshot(one))
            for one in self._sessions.list(include_exited=request.include_exited)
            if call.ticket.sees(one)
            and (not request.target or request.target in _names(one))
            and request.session_name in ("", one.name)
        ]
        return session_pb2.ListSessionsResponse(count=len(found), sessions=found)

    async def CloseSession(
        self, request: session_pb2.CloseSessionRequest, context: type_context
    ) -> session_pb2.CloseSessionResponse:
        """End a session's shell; an unknown one is closed already."""
        call = current()
        try:
            session = self._find(request.session, call)
        except NotFoundError:
            return session_pb2.CloseSessionResponse(
                session_id=request.session, closed=False
            )
        closed = await self._sessions.close(session, force=request.force)
        await session.recording.close()
        page = await self._unread(session, call, None)
        return session_pb2.CloseSessionResponse(
            **snapshot(session, page),
            closed=True,
            was_running=closed.was_running,
            termination_signal=closed.signal or None,
        )


def _names(session: Session) -> set[str]:
    address = session.address
    return {session.target, address, address.partition("@")[2]}


def _result(
    job: Job, shown: answer.Answer, session: Session
) -> session_pb2.SessionRunResult:
    told = convert.exec_result(job, shown)
    values = {field.name: value for field, value in told.ListFields()}
    cwd = script.shown(session.cwd.encode("utf-8", "surrogateescape"))
    return session_pb2.SessionRunResult(**values, session_id=session.id, cwd=cwd)
