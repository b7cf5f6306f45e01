"""The shim's second stage: asyncio, entered at the first tool call.

Reads on where the first stage stopped, runs calls side by side, ends with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast_shim import client, errors
from holdfast_shim.calls import Calls
from holdfast_shim.elicit import METHOD, Forms
from holdfast_shim.errors import CallError
from holdfast_shim.pipes import UNREAD_BYTES, ClosedError
from holdfast_shim.places import PlaceError, home_of, named, places
from holdfast_shim.protocol import Answer, Call, Cancel, ProtocolError, encode
from holdfast_shim.settings import Settings
from holdfast_shim.skew import Skew

if TYPE_CHECKING:
    from holdfast_shim.arguments import Options
    from holdfast_shim.catalogue import Catalogue
    from holdfast_shim.pipes import Pipes
    from holdfast_shim.protocol import Event, Protocol

# How often the parent is looked for where the kernel can't tell of its end.
PARENT_CHECK_SECONDS = 1.0
# Calls under way at the end of input get so long to answer: `printf … | holdfast-mcp`.
GRACE_SECONDS = 1.0
DRAIN_SECONDS = 0.5
CANCELLED = "notifications/cancelled"
# Progress is left out while so much is unread.
PROGRESS_BYTES = 256 * 1024


def run(
    options: Options,
    catalogue: Catalogue,
    protocol: Protocol,
    pipes: Pipes,
    events: list[Event],
) -> int:
    """Serve until the client goes away; return the exit code."""
    return asyncio.run(_serve(options, catalogue, protocol, pipes, events))


async def _serve(
    options: Options,
    catalogue: Catalogue,
    protocol: Protocol,
    pipes: Pipes,
    events: list[Event],
) -> int:
    settings = Settings.read(os.environ)
    context = settings.context("unknown", "", read_only=options.read_only)
    try:
        home = home_of(os.environ)
        given = named(options.socket, home) if options.socket else None
        socket = places(os.environ, home, os.getuid(), socket=given).socket
    except PlaceError as error:
        # There is no place to call, so every call says why.
        socket = Path(os.devnull)
        problem = errors.invalid("HOLDFAST_SOCKET", error.message, hint=error.hint)
        settings = Settings(problem=problem)
    async with client.DaemonClient(
        socket, context, autostart=options.autostart
    ) as daemon:
        dispatcher = Dispatcher(protocol, pipes)
        forms = Forms(dispatcher.ask)
        skew = Skew(daemon, catalogue, dispatcher.tools_changed)
        calls = Calls(options, catalogue, settings, daemon, forms=forms, skew=skew)
        await dispatcher.run(calls, events)
    pipes.outbox.drain(DRAIN_SECONDS)
    return 0


class Dispatcher:
    """Turns what the client sends into calls, and their results into replies."""

    def __init__(self, protocol: Protocol, pipes: Pipes) -> None:
        self._protocol = protocol
        self._pipes = pipes
        self._calls: Calls | None = None
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int | str, asyncio.Task[dict[str, Any]]] = {}
        self._end = asyncio.Event()
        self._abandoned = False
        self._reading = False
        self._writing = False
        self._file: asyncio.Task[None] | None = None

    def ask(self, params: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        """Have the client show a form; return what will be said to it.

        Cancelling that has the client take it away again.
        """
        ident, data = self._protocol.ask(METHOD, params)
        answer = self._asked[ident] = self._loop.create_future()
        answer.add_done_callback(partial(self._take_back, ident))
        self._send(data)
        return answer

    def _take_back(self, ident: str, answer: asyncio.Future[dict[str, Any]]) -> None:
        # Its answer may have come in the same moment.
        if answer.cancelled() and self._asked.pop(ident, None) is not None:
            told = {"requestId": ident, "reason": "nobody waits for it any more"}
            self._send(encode({"jsonrpc": "2.0", "method": CANCELLED, "params": told}))

    def tools_changed(self) -> None:
        """Tell the client that other tools are offered than before."""
        self._send(self._protocol.tools_changed())

    async def run(self, calls: Calls, events: list[Event]) -> None:
        """Serve until the end of input, the parent's end, or a closed stdout."""
        self._calls = calls
        self._watch_parent()
        self._flush()
        for event in events:
            self._take(event)
        await self._end.wait()
        if self._tasks and not self._abandoned:
            await asyncio.wait(self._tasks.values(), timeout=GRACE_SECONDS)
        # Only the waits end here; what the daemon was asked to run goes on.
        rest: list[asyncio.Task[Any]] = [*self._tasks.values()]
        if self._file is not None:
            rest.append(self._file)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._reading:
            self._loop.remove_reader(self._pipes.stdin)
        if self._writing:
            self._loop.remove_writer(self._pipes.outbox.fd)
        if self._pipes.parent.fd is not None:
            self._loop.remove_reader(self._pipes.parent.fd)

    def _abandon(self) -> None:
        self._abandoned = True
        self._end.set()

    def _watch_parent(self) -> None:
        parent = self._pipes.parent
        if parent.gone():
            self._abandon()
        elif parent.fd is not None:
            self._loop.add_reader(parent.fd, self._abandon)
        else:
            self._loop.call_later(PARENT_CHECK_SECONDS, self._watch_parent)

    def _read_on(self) -> None:
        if self._reading or self._file is not None or self._end.is_set():
            return
        try:
            self._loop.add_reader(self._pipes.stdin, self._readable)
            self._reading = True
        except PermissionError:
            # A regular file: always readable, and epoll does not take it.
            self._file = self._loop.create_task(self._read_file())

    async def _read_file(self) -> None:
        while not self._end.is_set():
            self._readable()
            await asyncio.sleep(0)

    def _readable(self) -> None:
        lines, ended = self._pipes.read()
        for line in lines:
            for event in self._protocol.receive(line):
                self._take(event)
        if not ended and self._pipes.outbox.size <= UNREAD_BYTES:
            return
        if self._reading:
            self._loop.remove_reader(self._pipes.stdin)
            self._reading = False
        if ended:
            self._end.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, Call):
            task = self._loop.create_task(self._carry(event))
            self._tasks[event.id] = task
            # A callback, as a task that is cancelled at once runs no line of its own.
            task.add_done_callback(partial(self._done, event))
        elif isinstance(event, Cancel):
            if event.id in self._tasks:
                self._tasks[event.id].cancel()
        elif isinstance(event, Answer):
            answer = self._asked.pop(event.id, None)
            if answer is not None and not answer.done():
                answer.set_result(event.result)
        else:
            self._send(event)

    async def _carry(self, call: Call) -> dict[str, Any]:
        def progress(value: float, total: float, text: str) -> None:
            if self._pipes.outbox.size < PROGRESS_BYTES:
                self._send(self._protocol.progress(call, value, text, total=total))

        assert self._calls is not None  # noqa: S101 - set before anything is taken
        return await self._calls.result(call, progress)

    def _done(self, call: Call, task: asyncio.Task[dict[str, Any]]) -> None:
        del self._tasks[call.id]
        if task.cancelled():
            self._send(self._protocol.drop(call))
            return
        fault = task.exception()
        if fault is None:
            self._send(self._protocol.answer(call, task.result()))
            return
        if isinstance(fault, ProtocolError):
            self._send(self._protocol.refuse(call, fault))
            return
        with contextlib.suppress(OSError):  # nobody reads it; the call is answered
            traceback.print_exception(fault, file=sys.stderr)
        self._send(self._protocol.answer(call, _fault()))

    def _send(self, data: bytes) -> None:
        outbox = self._pipes.outbox
        outbox.push(data)
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        outbox = self._pipes.outbox
        try:
            done = outbox.flush()
        except ClosedError:
            self._abandon()
            return
        if done == self._writing:
            if done:
                self._loop.remove_writer(outbox.fd)
            else:
                self._loop.add_writer(outbox.fd, self._flush)
            self._writing = not done
        if outbox.size <= UNREAD_BYTES:
            self._read_on()


def _fault() -> dict[str, Any]:
    return errors.result(
        CallError(
            "INTERNAL",
            "holdfast-mcp itself failed; its stderr says how",
            hint="this is a fault of holdfast, please report it",
            ran="unknown",
        )
    )
