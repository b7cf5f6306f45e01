"""Record `holdfast demo` as a terminal shows it: recording.py FILE (asciicast 3).

It is the real run, with its own pauses; only the place of this installation is told as
the one where pipx puts it, and the kernel by its number alone. `holdfast replay FILE`
plays it, or asciinema 3.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

COLS, ROWS = 100, 36
COMMAND = "holdfast demo"
_HERE = str(Path(sys.executable).parent)
_USUAL = "/home/you/.local/bin"
_BYTES = 65536


class Event(NamedTuple):
    """One thing that happened, so many seconds after the one before it."""

    pause: float
    code: str
    data: str


def run(words: list[str], env: dict[str, str]) -> Iterator[Event]:
    """Run a command in a terminal of its own; yield what it prints, then its end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLS, 0, 0))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    before = time.monotonic()
    with subprocess.Popen(
        words,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=env,
        cwd="/",
        start_new_session=True,
    ) as process:
        os.close(slave)
        while data := _read(master):
            now = time.monotonic()
            yield Event(now - before, "o", decoder.decode(data))
            before = now
        code = process.wait()
    os.close(master)
    yield Event(time.monotonic() - before, "x", str(code))


def _read(master: int) -> bytes:
    try:
        return os.read(master, _BYTES)
    except OSError:
        return b""  # the last one that had the terminal open is gone


def lines(events: Iterator[Event]) -> Iterator[str]:
    """Yield the lines of the recording."""
    header = {
        "version": 3,
        "term": {"cols": COLS, "rows": ROWS, "type": "xterm-256color"},
        "title": COMMAND,
        "command": COMMAND,
    }
    kernel = os.uname().release
    yield json.dumps(header)
    yield json.dumps([0.5, "o", f"$ {COMMAND}\r\n"])
    for event in events:
        data = event.data.replace(_HERE, _USUAL).replace(kernel, kernel.split("-")[0])
        yield json.dumps([round(event.pause, 3), event.code, data], ensure_ascii=False)


def main() -> int:
    """Write the recording; the exit code is that of the demo."""
    words = [str(Path(sys.executable).with_name("holdfast")), "demo"]
    # the demo's own world: nothing of the one who records it is in it
    path = f"{_HERE}:{os.defpath}"
    env = {"PATH": path, "HOME": "/", "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    recorded = list(lines(run(words, env)))
    Path(sys.argv[1]).write_text("\n".join(recorded) + "\n", "utf-8")
    return int(json.loads(recorded[-1])[2])


if __name__ == "__main__":
    sys.exit(main())
