"""One command with live input and output: stdin, signals and terminal over one call."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from grpc import aio

from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_shim.cli import terminal
from holdfast_shim.cli.sending import Sender
from holdfast_shim.cli.streams import Reader, Sink, give_up, race

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast_shim.client import DaemonClient

# A closed terminal ends ssh at once; a command that ignores HUP gets this long.
HANGUP_SECONDS = 5.0
# After the last frame the call's own end is near; nothing depends on it.
_LINGER_SECONDS = 1.0
_SIGNALLED = 128
# What a person types to end the input of a terminal (VEOF).
_END_OF_INPUT = b"\x04"

_SIGNALS: dict[int, common_pb2.Signal.ValueType] = {
    signal.SIGINT: common_pb2.SIGNAL_INT,
    signal.SIGTERM: common_pb2.SIGNAL_TERM,
    signal.SIGHUP: common_pb2.SIGNAL_HUP,
}


class Left(Exception):  # noqa: N818 - a decision of the person, not an error
    """We went before the command ended; the daemon hangs up on it."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        job_id: The job; empty when none was made.
        end: The last frame; None when the call ended without one.
        skipped: Bytes that the daemon had discarded before they could be read.
        trouble: Why a signal could not be sent.
    """

    job_id: str = ""
    end: exec_pb2.JobEnd | None = None
    skipped: int = 0
    trouble: list[str] = field(default_factory=list[str])


class Interaction:
    """Runs one command and passes everything on, both ways."""

    def __init__(
        self,
        client: DaemonClient,
        request: exec_pb2.RunRequest,
        *,
        stdin: int | None,
        raw: bool,
    ) -> None:
        """Prepare to run `request`.

        Args:
            client: A connected client.
            request: What to run.
            stdin: Descriptor to read input from; None: the command finds it ended.
            raw: Put the terminal behind `stdin`, if it is one, into raw mode.
        """
        self._client = client
        self._request = request
        self._stdin = stdin
        self._raw = raw
        self._stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        self._call = self._stub.Interact(metadata=client.metadata())
        self._sender = Sender(self._call)
        self._started = asyncio.Event()
        self._signals = 0
        self._line_open = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._mode: terminal.RawMode | None = None
        self.stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self.outcome = Outcome()

    def failed(self, error: OSError) -> None:
        """Give up because an output can't be written."""
        give_up(self.stop, error)

    async def run(self, sink: Sink) -> Outcome:
        """Run until the end of the command and of its output.

        Raises:
            Left: The person left, or a signal came that could not be passed on.
            OSError: An output can't be written.
            grpc.aio.AioRpcError: The call failed.
        """
        with ExitStack() as stack:
            stack.callback(self._call.cancel)
            wanted = self._raw and self._stdin is not None
            self._mode = stack.enter_context(
                terminal.raw_mode(self._stdin or 0, wanted=wanted)
            )
            self._handle_signals(stack)
            feeding = asyncio.create_task(self._feed())
            try:
                await race(self._receive(sink), self.stop)
            finally:
                tasks = [feeding, *self._tasks]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return self.outcome

    # What comes

    async def _receive(self, sink: Sink) -> None:
        try:
            await self._frames(sink)
        finally:
            # What came belongs to the person, however the call ended.
            if not self.stop.done():
                await sink.finish()
        if self.outcome.end is not None:
            await self._settle()

    async def _frames(self, sink: Sink) -> None:
        async for frame in self._call:
            kind = frame.WhichOneof("frame")
            if kind == "output":
                await self._output(frame.output, sink)
            elif kind == "started":
                self.outcome.job_id = frame.started
                if self._mode is not None:
                    self._mode.enter()
                self._started.set()
            elif kind == "end":
                self.outcome.end = frame.end
                return

    async def _output(self, chunk: exec_pb2.OutputChunk, sink: Sink) -> None:
        self.outcome.skipped += chunk.skipped
        error = chunk.stream == exec_pb2.OUTPUT_STREAM_STDERR
        await sink.put(chunk.data, error=error)

    async def _settle(self) -> None:
        """Let the call end by itself, so that the daemon sees no cancelled call."""
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                async for _ in self._call:
                    continue
        except (TimeoutError, aio.AioRpcError):
            return  # the outcome is known; how the call closed changes nothing

    # What goes

    async def _feed(self) -> None:
        start = exec_pb2.InteractRequest(start=self._request)
        if not await self._write(start):
            return
        await self._started.wait()
        if self._request.tty and terminal.size() != self._request.terminal:
            # changed before there was anybody to tell
            self._resized()
        if self._stdin is not None:
            reader = Reader(self._stdin)
            try:
                await self._pass_on(reader)
            finally:
                reader.close()
        if self._request.tty and self._mode is None:
            # A terminal has no end that could be passed on, only a key for it. Within a
            # line the first one gives the line, and only the second one ends.
            keys = _END_OF_INPUT * (2 if self._line_open else 1)
            await self._write(exec_pb2.InteractRequest(stdin=keys))
        await self._write(exec_pb2.InteractRequest(eof=True))

    async def _pass_on(self, reader: Reader) -> None:
        escape = terminal.Escape() if self._mode is not None else None
        while data := await reader.read():
            self._line_open = not data.endswith((b"\n", b"\r"))
            passed = escape.feed(data) if escape is not None else data
            if passed and not await self._write(exec_pb2.InteractRequest(stdin=passed)):
                return
            if escape is not None and escape.left:
                give_up(self.stop, Left(255, "connection closed by ~."))

    async def _write(self, frame: exec_pb2.InteractRequest) -> bool:
        """Send one frame, waiting while the daemon takes none; False: it is over."""
        return await self._sender.send(frame)

    # Signals

    def _handle_signals(self, stack: ExitStack) -> None:
        loop = asyncio.get_running_loop()

        def handle(number: int, action: Any, *values: Any) -> None:
            # What nohup or a shell's & had ignored stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, action, *values)
                stack.callback(loop.remove_signal_handler, number)

        for number in _SIGNALS:
            handle(number, self._signalled, number)
        # which nobody passes on: as ssh, we go, and set the terminal back
        quitting = Left(_SIGNALLED + signal.SIGQUIT)
        handle(signal.SIGQUIT, give_up, self.stop, quitting)
        if self._request.tty:
            handle(signal.SIGWINCH, self._resized)
            handle(signal.SIGCONT, self._continued)

    def _signalled(self, number: int) -> None:
        """Pass a signal on; the second one kills, the third leaves."""
        self._signals += 1
        over = self.outcome.end is not None
        if over or not self._started.is_set() or self._signals > 2:  # noqa: PLR2004
            give_up(self.stop, Left(_SIGNALLED + number))
            return
        again = self._signals > 1
        self._spawn(self._signal(common_pb2.SIGNAL_KILL if again else _SIGNALS[number]))
        if number == signal.SIGHUP:
            asyncio.get_running_loop().call_later(
                HANGUP_SECONDS, give_up, self.stop, Left(_SIGNALLED + number)
            )

    async def _signal(self, value: common_pb2.Signal.ValueType) -> None:
        # Input that nobody reads stands before everything else in the call, so a
        # signal must go round it.
        if value != common_pb2.SIGNAL_KILL and not self._sender.waiting:
            await self._write(exec_pb2.InteractRequest(signal=value))
            return
        request = exec_pb2.StopJobRequest(job_id=self.outcome.job_id, signal=value)
        try:
            await self._stub.StopJob(request, metadata=self._client.metadata())
        except aio.AioRpcError as error:
            self.outcome.trouble.append(
                f"the signal could not be sent: {error.details()}"
            )

    def _resized(self) -> None:
        size = terminal.size()
        if size.cols and size.rows and self._started.is_set():
            self._spawn(self._resize(size))

    async def _resize(self, size: exec_pb2.TerminalSize) -> None:
        await self._write(exec_pb2.InteractRequest(size=size))

    def _continued(self) -> None:
        if self._mode is not None:
            self._mode.again()
        self._resized()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
