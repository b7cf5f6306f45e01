"""A shell that waits on the host for its one command. Words only, no I/O.

sshd starts a command as `SHELL -c COMMAND`. Starting a program is most of what a short
command costs on a near host, so it is done ahead: the login shell becomes a plain sh
that waits for one line, and then becomes `SHELL -c COMMAND`, with the same process id,
arguments, environment and input. Nobody can tell, but where the login shell runs
start-up files: those would run twice. So the plain sh first looks whether they do
nothing, and where it can't say so it does not wait.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.connection.shell import Probe

# A shell reads a byte at a time here, so that it takes nothing of the command's input.
LONGEST = 4096
_KEPT = 4096

# bash reads these when sshd starts it (INVOCATION, "remote shell daemon"; the first
# where a distribution says so). The words are how the common ones of them end at once
# in a shell nobody types into. No program is started for that.
_LOOK = r"""
quiet() { [ -r "$1" ] || return 0; holdfast_said= holdfast_count=0;
while [ "$holdfast_count" -lt 4 ] &&
{ IFS= read -r holdfast_line || [ -n "$holdfast_line" ]; }; do
set -- $holdfast_line; case ${1-} in ''|'#'*) continue;; esac;
IFS=; holdfast_said="$holdfast_said$*"; IFS="$holdfast_ifs;";
holdfast_count=$((holdfast_count+1)); done <"$1"; case $holdfast_said in
''|'case$-in*i*)*)return'*|'[-z"$PS1"]&&return'*|'[-z"${PS1-}"]&&return'*) return 0;;
'[[$-!=*i*]]&&return'*|'[[$-==*i*]]||return'*) return 0;; esac; return 1; };
case $holdfast_shell in dash|ash|sh) ;;
bash) [ -z "${BASH_ENV-}" ] || exit 0; set -f; holdfast_ifs=$IFS; IFS="$IFS;";
quiet /etc/bash.bashrc && quiet ~/.bashrc || exit 0; IFS=$holdfast_ifs; set +f;;
*) exit 0;; esac; holdfast_found=$(command -v "$holdfast_shell") &&
[ "$holdfast_found" -ef "$SHELL" ] || exit 0; unset -f quiet;
"""
_WAIT = r"""
printf 'holdfast:%s:%s\n' NONCE $$; IFS= read -r holdfast_line || exit 0;
unset _; eval "$holdfast_line"
"""
# A line has none of its own.
_NEWLINE = "holdfast_newline=$(printf '\\n.'); holdfast_newline=${holdfast_newline%.}; "


class Greeting:
    """The command that makes a channel's shell wait, and the reader of its answer."""

    def __init__(self, *, look: bool, probe: Probe | None = None) -> None:
        """Wait; with `look` only where start-up files do nothing.

        `probe` is put to the login shell before: one that does not understand it does
        not come to the rest.
        """
        nonce = secrets.token_hex(8)
        self._answer = f"holdfast:{nonce}:".encode()
        self._probe = probe
        before = "holdfast_shell=${SHELL##*/};" + (_LOOK if look else "")
        # on one line: a device with a command line of its own takes each for a command
        text = " ".join((before + _WAIT.replace("NONCE", nonce)).split("\n")).strip()
        self.command = f"exec /bin/sh -c {shlex.quote(text)}"
        if probe is not None:
            self.command = f"{probe.command}; {self.command}"
        self._said = b""

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what it says."""
        if self._probe is not None:
            self._probe.received(stream, data)
        if stream is Stream.OUT:
            self._said = (self._said + data)[-_KEPT:]

    @property
    def heard(self) -> bool:
        """It has said all that it says before it waits."""
        return self._said.count(b"\n") > (self._probe is not None)

    @property
    def waits(self) -> bool:
        """It waits, and has said nothing else: no start-up file spoke up."""
        said = self._said
        if self._probe is not None:
            first, _, said = said.partition(b"\n")
            if not self._probe.is_answer(first):
                return False
        word = said.removeprefix(self._answer).removesuffix(b"\n")
        return said.startswith(self._answer) and word.isdigit()


@dataclass(frozen=True, slots=True)
class Script:
    """One command in two wordings.

    Attributes:
        line: For a login shell that the server starts with it.
        before: What a waiting shell does before it becomes the command's.
        program: What it becomes, with `-c` and the command; empty: the login shell.
        command: The command itself.
    """

    line: str
    before: str
    program: str
    command: str

    @property
    def waiting(self) -> bytes:
        """Return the one line for a shell that waits; empty where it would be long."""
        program = self.program or '"$holdfast_shell"'
        return _one_line(f"{self.before}exec {program} -c {shlex.quote(self.command)}")


class Purpose(NamedTuple):
    """What a channel may be prepared for: the command of that number in a series."""

    series: str
    number: int


@dataclass(frozen=True, slots=True)
class Awaited:
    """One command that a channel may have been prepared for.

    Attributes:
        purpose: For what.
        rest: What is left to say there, in a shell's words; empty: that won't do.
        whole: All of it, for a channel that was not.
    """

    purpose: Purpose
    rest: str
    whole: str | Script

    @property
    def told(self) -> bytes:
        """Return the one line for the prepared; empty where it would be long."""
        return _one_line(self.rest) if self.rest else b""


def _one_line(text: str) -> bytes:
    if "\n" in text:
        # within quotes, where alone a newline can stand here
        text = _NEWLINE + text.replace("\n", "'\"$holdfast_newline\"'")
    data = text.encode("utf-8", "surrogateescape") + b"\n"
    return data if len(data) <= LONGEST else b""
