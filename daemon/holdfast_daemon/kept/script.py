"""The one script that runs on hosts, and how it is called. Words only, no I/O.

It is written to a host once, under a name made of its content, so that versions of
daemons do not meet; a call is short, names it, and leaves stdin free.
"""

from __future__ import annotations

import hashlib
import shlex
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from holdfast_daemon.connection.shell import quote
from holdfast_daemon.connection.standby import Script

if TYPE_CHECKING:
    from holdfast_daemon.connection.shell import ShellFacts

# run.sh holds the commands of sessions; words.sh calls what the others define
_PARTS = ("pump.sh", "holder.sh", "run.sh", "words.sh")
_ROOM = "${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kept"
# how a call ends where the host has not got the script
ABSENT = 97


@cache
def source() -> bytes:
    """Return the script."""
    folder = resources.files("holdfast_daemon.kept") / "host"
    parts = [folder / name for name in _PARTS]
    lines = "".join(part.read_text("utf-8") for part in parts if part.is_file())
    # comments are for readers here
    kept = [line for line in lines.splitlines() if not line.lstrip().startswith("#")]
    return ("\n".join(kept) + "\n").encode()


@cache
def name() -> str:
    """Return what the script is called on a host."""
    return f"holder-{hashlib.sha256(source()).hexdigest()[:16]}.sh"


def call(facts: ShellFacts, operation: str, *words: str) -> str | Script:
    """Return the words that do `operation`, one of the script's `op_…`."""
    begin = (
        f'hf_file="{_ROOM}/{name()}"; [ -r "$hf_file" ] || exit {ABSENT}; . "$hf_file"'
    )
    line = _line(facts, begin, operation, *words)
    if facts.family != "posix":
        return line
    # a shell that waits becomes the same, and comes no further
    return Script(line, f"{line}; ", "/bin/sh", ":")


def put(facts: ShellFacts) -> str:
    """Return the command line that writes the script from its stdin."""
    begin = (
        f'umask 077; d="{_ROOM}"; mkdir -p "$d" && cat >"$d/new.$$" &&'
        f' [ $(($(wc -c <"$d/new.$$"))) -eq {len(source())} ] &&'
        f' mv -f "$d/new.$$" "$d/{name()}" || {{ rm -f "$d/new.$$"; exit 73; }}'
    )
    return _line(facts, begin)


def _line(facts: ShellFacts, text: str, *words: str) -> str:
    line = shlex.join(["/bin/sh", "-c", text, "holdfast", *words])
    if facts.wraps:
        return f"exec /bin/sh -c {quote('exec ' + line, facts.family)}"
    return f"exec {line}"
