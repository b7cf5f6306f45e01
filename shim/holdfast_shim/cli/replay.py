"""`holdfast replay`: what a session showed, played as it happened, or exported."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.cli import cast, output, terminal
from holdfast_shim.cli.complete import complete_recording
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.ends import absolute
from holdfast_shim.cli.interact import Left
from holdfast_shim.cli.modes import Modes
from holdfast_shim.cli.options import (
    FAILED,
    INTERRUPTED,
    OK,
    PIPE_CLOSED,
    Number,
    Options,
    json_option,
    options,
)
from holdfast_shim.cli.streams import Live, Reader, give_up, race
from holdfast_shim.cli.veil import Veil
from holdfast_shim.errors import CallError, invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_shim.client import DaemonClient

_SUFFIX = ".cast"
_SIGNALLED = 128
_FASTEST = 1000.0
_LEAVING = frozenset(b"\x03\x04q")
_PAUSING = ord(" ")
_STEP_SECONDS = 0.001
# What may begin a line of ours is shown when nothing follows for so long.
_RESTING_SECONDS = 0.5
# A session that was just opened has its recording by then.
_BEHIND_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_PARTING_SECONDS = 2.0


@click.command("replay")
@click.argument("session", metavar="S", shell_complete=complete_recording)
@click.option(
    "--speed",
    type=Number(0.01, _FASTEST),
    default=1.0,
    show_default=True,
    metavar="N",
    help="So many times as fast.",
)
@click.option(
    "--idle",
    type=Number(0),
    metavar="SECONDS",
    help="Make longer pauses so short.",
)
@click.option("--raw", is_flag=True, help="Print the recording itself (asciicast).")
@json_option
def replay(session: str, *, speed: float, idle: float | None, raw: bool) -> int:
    """Play what session S showed, with its own pauses.

    S is a name or an id, also of a session that ended, or a file in the asciicast form.
    Space pauses, q leaves. What was typed is not in it, but for what the host echoed.
    """
    chosen = options()
    files = _files(chosen, session)
    try:
        if chosen.json:
            return _describe(session, files)
        if raw:
            return asyncio.run(_export(files))
        return asyncio.run(_play(files, speed, idle))
    except Left as left:
        return left.code
    except BrokenPipeError:
        return PIPE_CLOSED
    except cast.CastError as error:
        raise invalid(
            "session", f"the recording of {session} can't be played: {error}"
        ) from error


def _files(chosen: Options, session: str) -> list[Path]:
    """Return the parts of a recording, the oldest first."""
    if session.endswith(_SUFFIX) or "/" in session:
        path = absolute(session)
        if not path.is_file():
            what = f"{session} is a directory" if path.is_dir() else ""
            raise invalid("session", what or f"there is no file {session}")
        return [path]

    async def work(client: DaemonClient) -> session_pb2.ListSessionsResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        return await stub.ListSessions(
            session_pb2.ListSessionsRequest(include_exited=True),
            metadata=client.metadata(),
            timeout=QUICK_SECONDS,
        )

    found = [
        one
        for one in ask(chosen, work).sessions
        # one without a name has an empty one
        if session and session in (one.session_id, one.session_name)
    ]
    if not found:
        raise CallError(
            "SESSION_NOT_FOUND",
            f"there is no session {session}",
            hint="`holdfast sessions --all` lists them; a file is played by its path",
            ran="no",
        )
    # Of several that had the name, the one that runs, else the newest: it comes first.
    one = next((one for one in found if one.running), found[0])
    parts = recordings(Path(one.transcript_path))
    end = time.monotonic() + _BEHIND_SECONDS
    while not parts and one.running and time.monotonic() < end:
        # what a session shows is written a moment later
        time.sleep(_LOOK_SECONDS)
        parts = recordings(Path(one.transcript_path))
    if not parts:
        raise CallError(
            "SESSION_NOT_FOUND",
            f"session {session} has no recording"
            + (f" beside {one.transcript_path}" if one.transcript_path else ""),
            ran="no",
        )
    return parts


def recordings(transcript: Path) -> list[Path]:
    """Return the parts of the recording beside a transcript, the oldest first."""
    if not transcript.name:
        return []
    parts = [transcript.with_suffix(end) for end in (f".1{_SUFFIX}", _SUFFIX)]
    return [part for part in parts if part.is_file()]


def _describe(session: str, files: Sequence[Path]) -> int:
    seconds = 0.0
    first: cast.Header | None = None
    for path in files:
        found, events = _read(path)
        first = first or found
        seconds += sum(event.pause for event in events)
    output.emit(
        {
            "session": session,
            "files": [str(path) for path in files],
            "cols": first.cols if first else 0,
            "rows": first.rows if first else 0,
            "duration_seconds": round(seconds, 3),
        }
    )
    return OK


def _read(path: Path) -> tuple[cast.Header, Iterator[cast.Event]]:
    # What a program printed may hold any line ends but the recording's own.
    lines = iter(_lines(path))
    found = cast.header(next(lines, ""))
    return found, cast.events(found, lines)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        yield from file


async def _export(files: Sequence[Path]) -> int:
    stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
    sink = Live(lambda error: give_up(stop, error))

    async def write() -> None:
        for number, path in enumerate(files):
            found, _ = _read(path)
            lines = _lines(path)
            head = next(lines)
            if number == 0:
                await sink.put(head.encode(), error=False)
            elif found.version == 2:  # noqa: PLR2004 - its events tell the time
                raise cast.CastError("parts in version 2 can't be joined")
            for line in lines:
                if line.endswith("\n"):
                    await sink.put(line.encode(), error=False)
        await sink.finish()

    await race(write(), stop)
    return OK


async def _play(files: Sequence[Path], speed: float, idle: float | None) -> int:
    player = Player(speed, idle)
    with ExitStack() as stack:
        at_terminal = os.isatty(0) and os.isatty(1)
        mode = stack.enter_context(terminal.raw_mode(0, wanted=at_terminal))
        loop = asyncio.get_running_loop()
        for number in terminal.ENDING:
            code = INTERRUPTED if number == signal.SIGINT else _SIGNALLED + number
            loop.add_signal_handler(number, give_up, player.stop, Left(code))
            stack.callback(loop.remove_signal_handler, number)
        listening: asyncio.Task[None] | None = None
        if mode is not None:
            _check_size(files[0])
            mode.enter()
            listening = asyncio.create_task(player.listen())
        try:
            await race(player.play(files), player.stop)
        finally:
            await player.finish(at_terminal=os.isatty(1))
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    if player.troubled:
        output.note(player.troubled)
        return FAILED
    return OK


def _check_size(path: Path) -> None:
    found, _ = _read(path)
    here = terminal.size()
    if found.cols > here.cols or found.rows > here.rows:
        output.note(
            f"it was recorded at {found.cols}x{found.rows}, larger than this terminal"
        )


class Player:
    """Plays a recording; one may pause it and leave.

    Attributes:
        troubled: Why it was not played to its end.
    """

    def __init__(self, speed: float, idle: float | None) -> None:
        """Play `speed` times as fast; cut pauses to `idle` seconds."""
        self._speed = speed
        self._idle = idle
        self._going = asyncio.Event()
        self._going.set()
        self._modes = Modes()
        # what holdfast itself typed, as those at a terminal do not see it either
        self._veil = Veil(lambda: 0.0)
        self._veil.began()
        self.stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._sink = Live(lambda error: give_up(self.stop, error))
        self.troubled = ""

    async def play(self, files: Sequence[Path]) -> None:
        """Show it all."""
        for path in files:
            _, events = _read(path)
            try:
                for event in events:
                    await self._show(event)
            except cast.CastError as error:
                self.troubled = f"{path.name}: {error}"
                break
        await self._put(self._veil.rest())

    async def _show(self, event: cast.Event) -> None:
        pause = event.pause if self._idle is None else min(event.pause, self._idle)
        pause /= self._speed
        if event.pause > _RESTING_SECONDS:
            await self._put(self._veil.rest())
        if pause > _STEP_SECONDS:
            await asyncio.sleep(pause)
        await self._going.wait()
        if event.code == "o":
            await self._put(self._veil.feed(event.data.encode(errors="replace")))

    async def _put(self, data: bytes) -> None:
        if data:
            self._modes.feed(data)
            await self._sink.put(data, error=False)

    async def listen(self) -> None:
        """Read the person's keys."""
        reader = Reader(0)
        try:
            while keys := await reader.read():
                if _LEAVING.intersection(keys):
                    give_up(self.stop, Left(OK))
                for key in keys:
                    if key == _PAUSING:
                        self._toggle()
        finally:
            reader.close()

    def _toggle(self) -> None:
        if self._going.is_set():
            self._going.clear()
        else:
            self._going.set()

    async def finish(self, *, at_terminal: bool) -> None:
        """Leave the terminal as it was, with all that was played on it."""
        failed: Any = self.stop.exception() if self.stop.done() else None
        if isinstance(failed, OSError):
            return
        if failed is None:
            await race(self._part(at_terminal=at_terminal), self.stop)
            return
        # A reader that takes nothing more must not keep us.
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_SECONDS):
                await self._part(at_terminal=at_terminal)

    async def _part(self, *, at_terminal: bool) -> None:
        if at_terminal:
            await self._sink.put(self._modes.undo() + b"\r\n", error=False)
        await self._sink.finish()
