"""A person's part in a session: keys and screen over one call, both ways."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.cli import terminal
from holdfast_shim.cli.interact import Left
from holdfast_shim.cli.keys import LeavingKeys
from holdfast_shim.cli.reports import typed
from holdfast_shim.cli.sending import Sender
from holdfast_shim.cli.streams import Reader, give_up, race

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast_shim.cli.view import View
    from holdfast_shim.client import DaemonClient

Request = session_pb2.AttachSessionRequest
Response = session_pb2.AttachSessionResponse

_SIGNALLED = 128
# The daemon answers a parting word at once; a daemon that hangs must not keep us.
_PARTING_SECONDS = 2.0
_GOING_SECONDS = 1.0
# Who only looks leaves by these as well: nothing they type goes anywhere.
_LOOKERS_KEYS = frozenset(b"\x03\x04q")


class Attending:
    """Takes part in one session until the person leaves or the session ends.

    Attributes:
        end: How the session ended, if it did.
        left: The person left, and the daemon said so.
    """

    def __init__(
        self,
        client: DaemonClient,
        start: session_pb2.AttachStart,
        *,
        stdin: int | None,
        keys: bytes,
    ) -> None:
        """Prepare to take part.

        Args:
            client: A connected client.
            start: Which session, and how.
            stdin: The terminal to read keys from; None: no keys are read.
            keys: The keys that leave.
        """
        self._start = start
        self._stdin = stdin
        self._keys = LeavingKeys(keys)
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        self._call: Any = stub.AttachSession(metadata=client.metadata())
        self._sender: Sender[Request, Response] = Sender(self._call)
        self._yours = not start.watch
        self._reader: Reader | None = None
        self._going: Left | None = None
        self._mode: terminal.RawMode | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.end: session_pb2.SessionEnd | None = None
        self.left = False

    def failed(self, error: OSError) -> None:
        """Give up because the output can't be written; who goes needs none."""
        if self._going is None:
            give_up(self.stop, error)

    async def run(self, view: View) -> None:
        """Take part and show what comes; the terminal is set back in every case.

        Raises:
            Left: A signal ended it.
            OSError: The output can't be written.
            grpc.aio.AioRpcError: The call failed.
        """
        with ExitStack() as stack:
            stack.callback(self._call.cancel)
            self._mode = stack.enter_context(
                terminal.raw_mode(self._stdin or 0, wanted=self._stdin is not None)
            )
            self._handle_signals(stack)
            feeding = asyncio.create_task(self._feed())
            try:
                await race(self._receive(view), self.stop)
                if self._going is not None:
                    raise self._going
            finally:
                tasks = [feeding, *self._tasks]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._finish(view)

    # What comes

    async def _receive(self, view: View) -> None:
        async for frame in self._call:
            kind = frame.WhichOneof("frame")
            if kind == "attached":
                view.greet(frame.attached)
                if self._mode is not None:
                    self._mode.enter()
            elif kind == "keyboard":
                self._yours = frame.keyboard.yours
            await view.show(frame)
            if kind == "end":
                self.end = frame.end
            elif kind == "detached":
                self.left = True

    async def _finish(self, view: View) -> None:
        """Show what came and set the terminal back, unless no output can be."""
        if self.stop.done() and isinstance(self.stop.exception(), OSError):
            return
        if not (self.stop.done() or self._going or self._mode):
            # who reads a pipe takes their time, and all of it
            await race(view.finish(), self.stop)
            return
        # A terminal that takes nothing more must not keep us.
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_SECONDS):
                await view.finish()

    # What goes

    async def _feed(self) -> None:
        if not await self._sender.send(Request(start=self._start)):
            return
        if self._stdin is None:
            return
        if self._mode is not None and terminal.size() != self._start.size:
            # changed before we listened for that
            self._resized()
        reader = self._reader = Reader(self._stdin)
        try:
            await self._pass_on(reader)
        finally:
            reader.close()
        await self._leave()

    async def _pass_on(self, reader: Reader) -> None:
        while data := await reader.read():
            passed = self._keys.feed(data if self._yours else typed(data))
            if self._start.watch:
                if self._keys.left or _LOOKERS_KEYS.intersection(passed):
                    return
                continue
            if passed and not await self._sender.send(Request(keys=passed)):
                return
            if self._keys.left:
                return

    async def _leave(self) -> None:
        """Say that one leaves; who hears nothing back leaves all the same."""
        loop = asyncio.get_running_loop()
        loop.call_later(_PARTING_SECONDS, give_up, self.stop, Left(0))
        await self._sender.send(Request(detach=True))

    # Signals

    def _handle_signals(self, stack: ExitStack) -> None:
        loop = asyncio.get_running_loop()

        def handle(number: int, action: Any, *values: Any) -> None:
            # What nohup or a shell's & had ignored stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, action, *values)
                stack.callback(loop.remove_signal_handler, number)

        for number in terminal.ENDING:
            handle(number, self._go, Left(_SIGNALLED + number))
        if self._mode is not None:
            handle(signal.SIGWINCH, self._resized)
            handle(signal.SIGCONT, self._continued)

    def _go(self, left: Left) -> None:
        """Leave because of a signal; what was typed before it still goes."""
        if self._reader is None or self._going is not None:
            give_up(self.stop, left)
            return
        self._going = left
        loop = asyncio.get_running_loop()
        loop.call_later(_GOING_SECONDS, give_up, self.stop, left)
        self._reader.end()

    def _resized(self) -> None:
        size = terminal.size()
        if size.cols and size.rows and not self._start.watch:
            self._spawn(self._send(Request(size=size)))

    async def _send(self, frame: Request) -> None:
        await self._sender.send(frame)

    def _continued(self) -> None:
        if self._mode is not None:
            self._mode.again()
        self._resized()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def has_terminal() -> bool:
    """Say whether a person can type at stdin and see what comes."""
    return os.isatty(0) and os.isatty(1)
