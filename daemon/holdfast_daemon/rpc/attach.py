"""`AttachSession`: one person's part in a session, from the first frame to the last.

The keyboard is the person's from the start until the call ends, in whatever way: a
terminal that dies ends the call, and so frees it. People among themselves need not ask:
who types has it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.v1 import exec_pb2, session_pb2
from holdfast_daemon import failpoint, logs
from holdfast_daemon.errors import DaemonError, InputError, Reason, StateError
from holdfast_daemon.rpc import taking_part
from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.fitting import Fitting
from holdfast_daemon.session.frame import Back, Ended, KeyboardChanged, Resized

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
    )

    import grpc.aio

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.frame import Frame

    type_context = grpc.aio.ServicerContext[Any, Any]
    Reach = Callable[[Host | None], Awaitable[None]]

Answer = session_pb2.AttachSessionResponse
# Frames that wait for a slow terminal; what a session prints waits in its spool.
_WAITING = 16
# So often in a row the size that somebody else gave it is answered with one's own: two
# terminals that both have the keyboard, as of one instance, must not do so for ever.
_ANSWERS = 8


class Attended(Protocol):
    """A session as one takes part in it."""

    @property
    def id(self) -> str:
        """Handle."""
        ...

    @property
    def name(self) -> str:
        """Name, or empty."""
        ...

    @property
    def target(self) -> str:
        """The host as it was named."""
        ...

    @property
    def address(self) -> str:
        """The host as user@host."""
        ...

    @property
    def host(self) -> Host | None:
        """The host as it was resolved; None: it is not there by now."""
        ...

    @property
    def running(self) -> bool:
        """Its shell runs."""
        ...

    @property
    def cols(self) -> int:
        """Width of its terminal."""
        ...

    @property
    def rows(self) -> int:
        """Height of its terminal."""
        ...

    @property
    def keyboard(self) -> KeyboardChanged:
        """Who writes to it now."""
        ...

    def watch(self, offset: int) -> AsyncGenerator[Frame]:
        """Yield how things stand, then all that happens; the output from `offset`."""
        ...

    async def picture(self) -> tuple[bytes, int]:
        """Return what draws the screen, and the position in the output it is of."""
        ...

    def take(self, caller: Caller) -> None:
        """Give a person the keyboard."""
        ...

    def release(self, caller: Caller) -> None:
        """Take it from them; nothing happens when they do not have it."""
        ...

    async def type(self, caller: Caller, data: bytes) -> None:
        """Pass keys on."""
        ...

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        ...


class AttachServicer:
    """Serves the one RPC; the rest of its service is served elsewhere."""

    def __init__(self, find: Callable[[str], Attended], reach: Reach) -> None:
        """Find sessions, by id or name, with `find`.

        `reach` refuses hosts that no call may reach any more.
        """
        self._find = find
        self._reach = reach
        self._parts: set[Part] = set()

    def close(self) -> None:
        """End every call: the daemon is stopping, and they never end by themselves."""
        for part in self._parts:
            part.stop(
                StateError(
                    Reason.DRAINING,
                    "the daemon is stopping",
                    hint="What the host keeps goes on: attach again in a moment.",
                )
            )

    async def AttachSession(
        self,
        request_iterator: AsyncIterator[session_pb2.AttachSessionRequest],
        context: type_context,
    ) -> AsyncIterator[Answer]:
        """Let a person take part in a session."""
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "start":
            raise InputError("start", "the first frame must be start")
        call = current()
        session = self._find(first.start.session)

        async def admit() -> None:
            call.ticket.check_name(session.target, session.address)
            if not first.start.watch:
                await self._reach(session.host)

        await admit()
        logs.also_about(
            host=session.target, session=session.id, session_name=session.name
        )
        part = Part(session, call.caller, admit, watch=first.start.watch)
        self._parts.add(part)
        try:
            async with aclosing(part.frames(first.start, frames)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            self._parts.discard(part)
            call.ticket.add(
                session_id=session.id, watch=first.start.watch, bytes_typed=part.typed
            )


class Part:
    """One person's part in one session.

    Attributes:
        typed: Bytes that were typed.
    """

    def __init__(
        self,
        session: Attended,
        caller: Caller,
        admit: Callable[[], Awaitable[None]],
        *,
        watch: bool,
    ) -> None:
        """Take nothing yet; with `watch` never. `admit` asks the rules in force now."""
        self._session = session
        self._caller = caller
        self._admit = admit
        self._watch = watch
        self._mine = False
        self._fitting = Fitting(session, lambda: self._mine, self.stop)
        self._answers_left = _ANSWERS
        self._answers: asyncio.Queue[Answer | Exception | None] = asyncio.Queue(
            _WAITING
        )
        self.typed = 0

    def stop(self, why: Exception) -> None:
        """End the call; what waits to be shown is not shown any more."""
        while self._answers.full():
            self._answers.get_nowait()
        self._answers.put_nowait(why)

    async def frames(
        self,
        start: session_pb2.AttachStart,
        requests: AsyncIterator[session_pb2.AttachSessionRequest],
    ) -> AsyncGenerator[Answer]:
        """Yield the screen as it stands and then all that happens, until one leaves."""
        session = self._session
        before = session.keyboard
        tasks: list[asyncio.Task[None]] = []
        try:
            if not self._watch and session.running:
                self._take()
                self._note_size(start.size)
                self._fitting.begin()
                await self._fitting.ahead()
            failpoint.reach("session.attach.taken")
            screen, offset = b"", start.offset
            if not start.HasField("offset"):
                screen, offset = await session.picture()
            yield Answer(
                attached=session_pb2.Attached(
                    session_id=session.id,
                    session_name=session.name,
                    target=session.address,
                    screen=screen,
                    offset=offset,
                    size=exec_pb2.TerminalSize(cols=session.cols, rows=session.rows),
                    holder=taking_part.holder(before),
                )
            )
            tasks += [
                asyncio.create_task(self._told(lambda: self._tell(offset))),
                asyncio.create_task(self._told(lambda: self._listen(requests))),
            ]
            while (answer := await self._answers.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            for task in tasks:
                task.cancel()
            if not self._watch:
                session.release(self._caller)
            failpoint.reach("session.attach.left")
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._fitting.close()

    async def _told(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do one half of it; its failure ends the call and is told to the caller."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - becomes the status of the call
            await self._answers.put(error)
        else:
            await self._answers.put(None)

    # What comes from the session

    async def _tell(self, offset: int) -> None:
        """Pass on what happens."""
        watched = self._session.watch(offset)
        # a size that somebody gave it before the watch begins is told by no frame
        self._fitting.begin()
        try:
            async for frame in watched:
                await self._tell_frame(frame)
        finally:
            await watched.aclose()

    async def _tell_frame(self, frame: Frame) -> None:
        if isinstance(frame, KeyboardChanged):
            self._mine = bool(frame.client) and (
                frame.instance == self._caller.instance
            )
            await self._answers.put(taking_part.keyboard(frame, yours=self._mine))
            if not (frame.client or self._watch) and self._session.running:
                # Another person has left: no program comes before who is still here.
                self._take()
                self._fitting.begin()
            return
        for answer in taking_part.answers(frame):
            await self._answers.put(answer)
        if isinstance(frame, Back):
            self._fitting.begin()
        if isinstance(frame, Resized):
            self._fit_again()
        if isinstance(frame, Ended):
            self._mine = False

    # What comes from the person

    async def _listen(
        self, requests: AsyncIterator[session_pb2.AttachSessionRequest]
    ) -> None:
        async for request in requests:
            kind = request.WhichOneof("frame")
            if kind == "keys":
                await self._type(request.keys)
            elif kind == "size":
                self._note_size(request.size)
                self._fitting.begin()
            elif kind == "detach":
                break
            elif kind == "start":
                raise InputError("start", "start was sent a second time")
        # Also who only ends the input leaves: a terminal that is gone says no more.
        await self._answers.put(Answer(detached=True))

    async def _type(self, keys: bytes) -> None:
        if self._watch:
            raise InputError(
                "keys",
                "who only watches can't type",
                hint="Attach without watch to take part.",
            )
        if not keys or not self._session.running:
            return
        await self._admit()
        if not self._mine:
            self._take()
            self._fitting.begin()
        elif not self._answers_left:
            self._fitting.begin()
        self._answers_left = _ANSWERS
        await self._fitting.ahead()
        try:
            await self._session.type(self._caller, keys)
        except DaemonError as error:
            # What was not typed is told; one may type again, or leave.
            await self._answers.put(Answer(away=f"not typed: {error.message}"))
        else:
            self.typed += len(keys)

    def _take(self) -> None:
        self._session.take(self._caller)
        self._mine = True

    def _fit_again(self) -> None:
        """Fit it where somebody else gave it another size."""
        session, size = self._session, self._fitting.size
        fits = size in (None, (session.cols, session.rows))
        if self._mine and self._answers_left and not fits:
            self._answers_left -= 1
            self._fitting.begin()

    def _note_size(self, size: exec_pb2.TerminalSize) -> None:
        if size.cols and size.rows and not self._watch:
            self._fitting.size = size.cols, size.rows
