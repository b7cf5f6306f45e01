"""The one script that runs on hosts, and how it is called. Words only, no I/O.

It is written to a host once, under a name made of its content, so that versions of
daemons do not meet; a call is short, names it, and leaves stdin free.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from holdfast_daemon.connection.shell import quote
from holdfast_daemon.connection.standby import Script

if TYPE_CHECKING:
    from holdfast_daemon.connection.shell import ShellFacts

# quick.sh is all that a command in a session needs; words.sh calls what others define
_PARTS = (
    "quick.sh",
    "pump.sh",
    "standing.sh",
    "holder.sh",
    "outside.sh",
    "again.sh",
    "run.sh",
    "ahead.sh",
    "words.sh",
)
# a path that is not absolute counts as none
_ROOM = (
    "case ${XDG_CACHE_HOME-} in /*) ;; *) XDG_CACHE_HOME= ;; esac;"
    ' hf_room="${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kept"'
)
# how a call ends where the host has not got the script
ABSENT = 97
# and where that is kept on another machine
ELSEWHERE = 81
_ELSEWHERE = re.compile(r"holdfast:elsewhere ([\w.-]{1,255}) ([\w.-]{1,255})$")


def text(*parts: str) -> str:
    """Return what lies in `host`, without the comments: these are for readers here."""
    folder = resources.files("holdfast_daemon.kept") / "host"
    lines = "".join((folder / part).read_text("utf-8") for part in parts).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


# Read with the code that calls it: an upgrade puts another's in its place.
_SOURCE = f"{text(*_PARTS)}\n".encode()


def source() -> bytes:
    """Return the script."""
    return _SOURCE


@cache
def name() -> str:
    """Return what the script is called on a host."""
    return f"holder-{hashlib.sha256(source()).hexdigest()[:16]}.sh"


def call(facts: ShellFacts, operation: str, *words: str) -> str | Script:
    """Return the words that do `operation`, one of the script's `op_…`."""
    # what another user could have put there is not ours to run
    begin = (
        f'{_ROOM}; hf_file="$hf_room/{name()}"; [ -O "$hf_room" ] &&'
        f' [ -O "$hf_file" ] && [ -r "$hf_file" ] || exit {ABSENT}; . "$hf_file"'
    )
    told = line(facts, begin, operation, *words)
    if facts.family != "posix":
        return told
    # a shell that waits is that sh already: it does it itself, and comes no further
    given = shlex.join(["set", "--", operation, *words])
    return Script(told, f"{given}; {begin}; exit; ", "/bin/sh", ":")


def rest(*words: str) -> str:
    """Return what is left to say where `ahead` waits: the words that `type` has."""
    return shlex.join(["set", "--", *words])


def put(facts: ShellFacts) -> str:
    """Return the command line that writes the script from its stdin."""
    begin = (
        f'umask 077; {_ROOM}; d=$hf_room; mkdir -p "$d" || exit 73; [ -O "$d" ] ||'
        ' { echo "$d belongs to another user" >&2; exit 73; };'
        f' cat >"$d/new.$$" &&'
        f' [ $(($(wc -c <"$d/new.$$"))) -eq {len(source())} ] &&'
        f' mv -f "$d/new.$$" "$d/{name()}" || {{ rm -f "$d/new.$$"; exit 73; }}'
    )
    return line(facts, begin)


def line(facts: ShellFacts, text: str, *words: str) -> str:
    """Return the command line that has a POSIX shell run `text` with `words`."""
    told = shlex.join(["/bin/sh", "-c", text, "holdfast", *words])
    if facts.wraps:
        return f"exec /bin/sh -c {quote('exec ' + told, facts.family)}"
    return f"exec {told}"


def elsewhere(said: str) -> str:
    """Return why something can't be had, of what a call said that ended so."""
    found = _ELSEWHERE.search(said.strip())
    there, here = found.groups() if found else ("another machine", "one")
    return (
        f"it is kept on {there}, and this is {here}: more than one machine answers to"
        " that name, and they share a home directory"
    )
