"""How a session looks to a person who takes part, or to a program that watches."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.v1 import exec_pb2, session_pb2
from holdfast_shim.cli import outcome, output, veil
from holdfast_shim.cli.modes import Modes
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.cli.streams import Sink

Response = session_pb2.AttachSessionResponse
# What is told when a full-screen program has gone; older lines are of no use then.
_KEPT_NOTICES = 20
_ON, _OFF = "\x1b[0;2m", "\x1b[0m"
_LINE_CHARS = 200


class View(Protocol):
    """Shows what happens in a session."""

    def greet(self, found: session_pb2.Attached) -> None:
        """Say how it stands, before the terminal is the session's."""
        ...

    async def show(self, frame: Response) -> None:
        """Take what happens."""
        ...

    async def finish(self) -> None:
        """Show all that came, and leave the terminal as it was."""
        ...


class Person:
    """Shows a session on a terminal, and between its own lines what others do there."""

    def __init__(
        self, sink: Sink, *, way_out: str, watch: bool, raw: bool, terminal: bool
    ) -> None:
        """Show it on `sink`.

        Args:
            sink: The terminal.
            way_out: The keys that leave, as a person types them.
            watch: The person only looks.
            raw: It is a terminal in raw mode: lines need their carriage return.
            terminal: It is one in either mode: what was set of it is set back.
        """
        self._sink = sink
        self._way_out = way_out
        self._watch = watch
        self._raw = raw
        self._terminal = terminal
        self._modes = Modes()
        self._veil = veil.Veil(time.monotonic)
        self._fresh = True
        self._notices: list[str] = []
        self._texts: dict[int, codecs.IncrementalDecoder] = {}
        self._running = 0
        # Who has the keyboard, as the person was told.
        self._holder = ""
        self._yours = False
        self._first = True

    def greet(self, found: session_pb2.Attached) -> None:
        """Say where one is and how to leave."""
        name = found.session_name or found.session_id
        verb = "watching" if self._watch else "attached to"
        out = f"leave with {self._way_out}" if self._way_out else "no keys leave it"
        if self._watch:
            out = ("leave with q" if not self._way_out else out + " or q") * self._raw
        told = f"{verb} session {name} on {found.target}"
        output.note(f"{told}; {out}" if out else told)
        self._holder = found.holder.client
        if found.HasField("holder") and self._watch:
            output.note(f"{found.holder.client} has the keyboard")
        elif found.HasField("holder"):
            output.note(
                f"{found.holder.client} took the keyboard"
                f" {output.ago(found.holder.since)}; it is told that you have it now"
            )

    async def show(self, frame: Response) -> None:
        """Show one frame."""
        kind = frame.WhichOneof("frame")
        if kind == "attached":
            await self._draw(veil.drawn(frame.attached.screen))
        elif kind == "output":
            if frame.output.skipped:
                await self._notice(f"{frame.output.skipped} bytes are missing here")
            await self._draw(self._veil.feed(frame.output.data))
        elif kind == "run_output":
            await self._run_output(frame.run_output)
        elif kind in _TOLD or kind == "keyboard":
            for text in self._lines(kind, frame):
                await self._notice(text)

    def _lines(self, kind: str | None, frame: Response) -> list[str]:
        if kind == "keyboard":
            return self._keyboard(frame.keyboard)
        if kind == "run_began":
            self._running += 1
            self._veil.began()
            began = frame.run_began
            command = began.command.strip()
            if len(command) > _LINE_CHARS:
                command = command[:_LINE_CHARS] + "…"
            return [f"{began.client} runs: {command}"]
        if kind == "run_ended":
            self._running -= 1
            self._veil.ended()
            self._texts.clear()
            state = outcome.state(to_json(frame.run_ended))
            note = f" ({frame.run_ended.note})" if frame.run_ended.note else ""
            return [f"{state}{note}"]
        if kind == "away":
            return [frame.away]
        return ["the host is back"] if kind == "back" else []

    def _keyboard(self, found: session_pb2.Keyboard) -> list[str]:
        """Tell of every change but the one that one makes by coming."""
        had, self._yours = self._yours, found.yours
        told, self._holder = self._holder, found.holder.client
        first, self._first = self._first, False
        if found.yours:
            return [] if first or had else ["you have the keyboard"]
        holder = self._holder
        if holder == told and not had:
            return []
        return [f"{holder} has the keyboard" if holder else "nobody has the keyboard"]

    async def finish(self) -> None:
        """Show all that came, and leave the terminal as it was."""
        await self._draw(self._veil.rest())
        if self._terminal:
            undone = self._modes.undo()
            await self._sink.put(undone + self._newline(), error=False)
        for text in self._notices:
            await self._sink.put(self._line(text), error=False)
        self._notices.clear()
        await self._sink.finish()

    async def _draw(self, data: bytes) -> None:
        if not data:
            return
        before = self._modes.alternate
        self._modes.feed(data)
        self._fresh = data.endswith((b"\n", b"\r"))
        await self._sink.put(data, error=False)
        if before and not self._modes.alternate:
            kept, self._notices = self._notices, []
            for text in kept:
                await self._notice(text)

    async def _run_output(self, found: session_pb2.SessionRunOutput) -> None:
        if self._modes.alternate:
            return
        decoder = self._texts.setdefault(
            found.stream, codecs.getincrementaldecoder("utf-8")("replace")
        )
        if found.skipped:
            await self._notice(f"{found.skipped} bytes are missing here")
        text = output.plain(decoder.decode(found.data), lines=True)
        if not text:
            return
        shown = text.replace("\n", "\r\n") if self._raw else text
        start = b"" if self._fresh else self._newline()
        self._fresh = text.endswith("\n")
        await self._sink.put(start + shown.encode(errors="replace"), error=False)

    async def _notice(self, text: str) -> None:
        """Tell something between the session's own lines; later, in a full screen."""
        if self._modes.alternate:
            self._notices = [*self._notices, text][-_KEPT_NOTICES:]
            return
        await self._sink.put(self._line(text), error=False)

    def _line(self, text: str) -> bytes:
        start = b"" if self._fresh else self._newline()
        self._fresh = True
        shown = f"── {output.plain(text)} ──"
        if self._raw:
            shown = f"{_ON}{shown}{_OFF}"
        return start + shown.encode(errors="replace") + self._newline()

    def _newline(self) -> bytes:
        return b"\r\n" if self._raw else b"\n"


_TOLD = frozenset({"run_began", "run_ended", "away", "back"})


class Program:
    """Shows a session as JSON lines."""

    def __init__(self, sink: Sink) -> None:
        """Show it on `sink`."""
        self._sink = sink
        self._texts: dict[str, codecs.IncrementalDecoder] = {}

    def greet(self, found: session_pb2.Attached) -> None:
        """Nothing: it is a frame like others."""

    async def show(self, frame: Response) -> None:
        """Print one frame."""
        kind = frame.WhichOneof("frame")
        if kind is None:
            return
        value = getattr(frame, kind)
        told: dict[str, Any] = {kind: value}
        if hasattr(value, "DESCRIPTOR"):
            told = to_json(value)
        if kind == "attached":
            told["screen"] = frame.attached.screen.decode(errors="replace")
        elif kind == "output":
            told.pop("data", None)
            told["text"] = self._text("terminal", frame.output.data)
        elif kind == "run_output":
            error = frame.run_output.stream == exec_pb2.OUTPUT_STREAM_STDERR
            told.pop("data", None)
            told["text"] = self._text("stderr" if error else "stdout", value.data)
        elif kind == "run_ended":
            self._texts.pop("stdout", None)
            self._texts.pop("stderr", None)
        text = output.written({"event": kind, **told}, line=True)
        await self._sink.put(f"{text}\n".encode(errors="replace"), error=False)

    async def finish(self) -> None:
        """Return when all is written."""
        await self._sink.finish()

    def _text(self, stream: str, data: bytes) -> str:
        decoder = self._texts.setdefault(
            stream, codecs.getincrementaldecoder("utf-8")("replace")
        )
        return decoder.decode(data)
