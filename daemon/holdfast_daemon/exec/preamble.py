"""What goes before a command so that it starts where asked, stoppable. Sans-I/O.

SSH tells nobody which process a channel started, and sshd refuses channel signals for
root and for forced commands (OpenSSH session.c, session_signal_req). So a POSIX login
shell first enters the directory, exports the variables, and tells its process id, which
is also the process group, on a marker line of stderr that never reaches the output. The
command follows on the same line, so that line numbers in the shell's messages stay
right.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.connection.standby import Script
from holdfast_daemon.errors import InputError
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.exec.request import ExecRequest

_HOME = re.compile(r"~([A-Za-z0-9._-]*)(/.*)?", re.DOTALL)
# A login shell's own noise before the marker is passed on once it exceeds this many
# bytes.
_NOISE_BYTES = 64 * 1024
# No marker line has more.
_LINE_BYTES = 128
# What the marker line may say; a shell that quotes the whole line says more behind it.
_TOLD = re.compile(rb"\s*(?:(\d+)|cwd|shell)\s*")


@dataclass(frozen=True, slots=True)
class Preamble:
    """The words before one command, and the marker they print."""

    marker: str
    text: str
    program: str = ""

    def script(self, command: str) -> Script:
        """Return `command` with these words before it."""
        line = self.text + command
        if self.program:
            line = f"{self.text}exec {self.program} -c {shlex.quote(command)}"
        return Script(line, self.text, self.program, command)


def compose(request: ExecRequest, *, strict: bool = False) -> Preamble:
    """Return the preamble for a POSIX shell.

    `strict`: a command that can't say that it begins does not.

    Raises:
        InputError: `cwd` can't be written as a path.
    """
    marker = f"holdfast:{secrets.token_hex(8)}:"
    parts: list[str] = []
    if request.cwd:
        parts.append(
            f"CDPATH= cd -- {_path(request.cwd)} ||"
            f" {{ printf '%s\\n' {marker}cwd >&2; exit 1; }}; "
        )
    if request.shell:
        words = shlex.split(request.shell)
        parts.append(
            f"command -v {shlex.quote(words[0])} >/dev/null ||"
            f" {{ printf '%s\\n' {marker}shell >&2; exit 127; }}; "
        )
    if request.env:
        pairs = " ".join(f"{k}={shlex.quote(v)}" for k, v in request.env.items())
        parts.append(f"export {pairs}; ")
    or_not = " || exit 1" if strict else ""
    parts.append(f"printf '%s\\n' {marker}$$ >&2{or_not}; ")
    program = shlex.join(shlex.split(request.shell))
    return Preamble(marker, "".join(parts), program)


def _path(cwd: str) -> str:
    home = _HOME.fullmatch(cwd)
    if home is not None:
        user, rest = home.group(1), home.group(2) or ""
        base = f"~{user}" if user else '"$HOME"'
        return base + (shlex.quote(rest) if rest else "")
    if cwd.startswith("~"):
        raise InputError("cwd", f"cwd {cwd!r} names no user that a shell would expand")
    # `cd -` means the previous directory; a directory of that name is ./-
    return shlex.quote("./" + cwd if cwd == "-" else cwd)


class MarkerReader:
    """Takes the marker line out of the output, whichever stream it comes on.

    A start-up file may send stderr elsewhere (`exec 2>&1`), so both are held back until
    the marker comes, or is given up.

    Attributes:
        done: Nothing is held back any more.
        late: It was given up, and may still come.
        group: The command's process group on the host, once told.
        failure: `cwd` or `shell` when the preamble gave up; nothing ran then.
        marker: What it looks for.
    """

    def __init__(self, preamble: Preamble) -> None:
        """Look for `preamble`'s marker."""
        self._preamble = preamble
        self.marker = preamble.marker
        self._marker = preamble.marker.encode()
        self._held = dict.fromkeys(Stream, b"")
        self.done = self.late = False
        self.group: int | None = None
        self.failure = ""

    def feed(self, stream: Stream, data: bytes) -> list[tuple[Stream, bytes]]:
        """Return what belongs to the output now, in order."""
        if self.done:
            return [(stream, self._look(stream, data) if self.late else data)]
        held = self._held[stream] = self._held[stream] + data
        rest = self._without(held)
        if rest is None:
            return self.finish() if len(held) > _NOISE_BYTES else []
        self._held[stream] = rest
        return self._release()

    def _without(self, data: bytes) -> bytes | None:
        """Read the marker line in `data` and return the rest; None: there is none."""
        start = data.find(self._marker)
        stop = data.find(b"\n", start) if start >= 0 else -1
        if stop < 0:
            return None
        told = _TOLD.fullmatch(data, start + len(self._marker), stop)
        if told is None:
            return None
        if told[1] is None:
            self.failure = told[0].strip().decode()
        else:
            self.group = int(told[1])
        return data[:start] + data[stop + 1 :]

    def _look(self, stream: Stream, data: bytes) -> bytes:
        """Take out a marker that came after it was given up: a slow start-up file."""
        data = self._held.pop(stream, b"") + data
        rest = self._without(data)
        if rest is not None:
            self.late = False
            return rest
        at = data.find(self._marker)
        if at >= 0 and b"\n" not in data[at:] and len(data) - at < _LINE_BYTES:
            # a terminal may tell the end of its line apart
            self._held[stream] = data[at:]
            return data[:at]
        return data

    def finish(self) -> list[tuple[Stream, bytes]]:
        """Give the marker up, and return what was held back.

        A shell that can't parse the command quotes the whole line in its message.
        """
        self.late = True
        words = self._preamble.text.encode()
        self._held = {s: data.replace(words, b"") for s, data in self._held.items()}
        return self._release()

    def _release(self) -> list[tuple[Stream, bytes]]:
        held, self._held = self._held, {}
        self.done = True
        return [(stream, data) for stream, data in held.items() if data]
