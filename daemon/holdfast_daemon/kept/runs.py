"""Runs commands in kept shells, and durable ones without; follows them by offset."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.connection.standby import Purpose
from holdfast_daemon.errors import InputError, LinkError, Reason, StateError
from holdfast_daemon.kept import script, wrapper
from holdfast_daemon.kept.asking import Asking
from holdfast_daemon.kept.run_line import RunLine
from holdfast_daemon.kept.standing import standings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast_daemon.connection.channel import Sink
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.kept.half import Half
    from holdfast_daemon.kept.standing import Standing
    from holdfast_daemon.kept.wrapper import Family
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.streams import Stream

_IDENT = re.compile(r"[a-z][a-z0-9]{1,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRIES = 3
# start-up files may take so long
_START_SECONDS = 20
# a command goes with the line that tells of it, or by its stdin
_SHORT = 2048
_SETTLE_SECONDS = 2
_NO_DIRECTORY = 67
_NO_SHELL = 68
_NO_ROOM = 73
_NOT_READY = 77
# who waited for it did not hear of it, or no longer could
_UNTOLD = 82
# run.sh's words, by its exit codes; with each of them nothing was typed
_REFUSED = {
    65: (Reason.SESSION_ENDED, "it was never told to the shell"),
    66: (Reason.SESSION_ENDED, "nothing is kept there under that id and number"),
    70: (Reason.NOT_KEPT, "its output can't be kept: the disk may be full"),
    71: (Reason.SESSION_BUSY, "it was stopped before its shell was told"),
    74: (Reason.CONNECTION_LOST, "not all of it arrived"),
    75: (Reason.IN_USE, "one with that number was told to it before"),
    76: (Reason.SESSION_BUSY, "something else runs in its foreground"),
    _NOT_READY: (
        Reason.SESSION_BUSY,
        "its shell is starting still, or behind an open quote that was typed before",
    ),
    78: (
        Reason.UNSUPPORTED,
        "the path of its cache directory has quotes, backslashes or newlines",
    ),
    79: (Reason.SESSION_ENDED, "its shell has ended"),
    80: (
        Reason.SESSION_BUSY,
        "half a line was typed before, and it has no terminal that could take it back",
    ),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A durable command.

    Attributes:
        cwd: Where it runs; empty: the home directory.
        shell: Program that gets it with -c; empty: the login shell.
        seconds: Its host ends it after so long; 0: never.
        meta: NAME=VALUE lines for people and other daemons: name, created, owner,
            command.
    """

    command: str
    cwd: str = ""
    env: Mapping[str, str] | None = None
    shell: str = ""
    stdin: bytes = b""
    seconds: int = 0
    meta: str = ""


@dataclass(frozen=True, slots=True)
class Latest:
    """The last command a session was told.

    Attributes:
        number: Its number; 0: there was none.
        done: It has ended.
        sizes: How much of stdout and stderr there is, trailers included.
    """

    number: int
    done: bool
    sizes: tuple[int, int]


class Runs:
    """Commands in what is kept on one host."""

    def __init__(self, pool: Pool, host: Host, limits: Limits) -> None:
        self._limits = limits
        self._asking = Asking(pool, host, limits)
        self._host = host

    async def prime(self, ident: str, family: Family, half: Half = "none") -> None:
        """Have the shell of `ident` ready for commands; nothing happens the next time.

        What is on the line where that is typed goes, as `start` has it.

        Raises:
            StateError: Its shell takes none, or is not ready; nothing was run.
            LinkError: The host can't be reached.
        """
        found = wrapper.words(family)
        if found is None:
            raise StateError(
                Reason.UNSUPPORTED,
                "commands can't be told apart from the rest in this kind of shell",
                hint="Open a session with shell bash, zsh, fish, dash or sh, or use"
                " ssh_session_write and ssh_session_read.",
            )
        answer = await self._asking.ask(
            "prime", _known(ident), str(_START_SECONDS), half, *self._bounds(), *found
        )
        if answer.end.exit_code != 0:
            raise self.refused(answer.end.exit_code or 0, answer.words)

    async def start(  # noqa: PLR0917  one command, and where it goes
        self,
        ident: str,
        number: int,
        nonce: str,
        family: Family,
        command: str,
        sink: Sink,
        *,
        half: Half = "none",
        on_skipped: Callable[[Stream, int], None] | None = None,
        saved: Callable[[], Awaitable[bool]] | None = None,
    ) -> RunLine:
        """Tell the shell a command, at most once for each `number`, which go up.

        It returns when that was typed, in place of a line that was begun there: `half`.

        Raises:
            InputError: The command has a NUL in it.
            StateError: Nothing was typed; the message says why.
            LinkError: The host can't be reached; `ran` says what is known.
        """
        if "\0" in command:
            raise InputError("command", "a command can't contain NUL")
        data = command.encode("utf-8", "surrogateescape")
        short = len(data) <= _SHORT
        for _ in range(_TRIES):
            line = self._line(nonce, sink, on_skipped, saved)
            told = [
                "type",
                _known(ident),
                str(number),
                line.header,
                nonce,
                half,
                str(len(data)),
            ]
            if short:
                told.append(command)
            channel = await self._asking.open(
                line,
                *told,
                stdin=b"" if short else data,
                purpose=Purpose(ident, number),
            )
            line.take(channel)
            code = await line.begun(self._limits.channel_open_seconds + _START_SECONDS)
            if code is None:
                return line
            if code == script.ABSENT:
                await self._asking.put()
            elif code == _UNTOLD:
                continue
            elif code == _NOT_READY:
                await self.prime(ident, family, half)
            else:
                raise self.refused(code, line.complaint)
        raise self.refused(_NOT_READY, "")

    def prepare(self, ident: str, number: int) -> None:
        """Have a channel follow the command of that number before it is told."""
        purpose = Purpose(_known(ident), number)
        self._asking.prepare(purpose, "ahead", ident, str(number))

    def unprepare(self, ident: str) -> None:
        """Have none do so any more."""
        self._asking.unprepare(ident)

    async def follow(
        self,
        ident: str,
        number: int,
        nonce: str,
        offsets: tuple[int, int],
        sink: Sink,
        *,
        on_skipped: Callable[[Stream, int], None] | None = None,
        saved: Callable[[], Awaitable[bool]] | None = None,
    ) -> RunLine:
        """Go on where another line was left.

        A command that was not told to the shell by then never will be: the line ends
        with `not_begun`.

        Raises:
            LinkError: The host can't be reached.
        """
        for _ in range(_TRIES):
            line = self._line(nonce, sink, on_skipped, saved, offsets)
            channel = await self._asking.open(
                line, "follow", _known(ident), str(number), line.header,
                *map(str, offsets),
            )  # fmt: skip
            line.take(channel)
            try:
                code = await line.begun(self._limits.channel_open_seconds)
            except LinkError:
                # its end says that it is gone
                return line
            if code != script.ABSENT:
                return line
            await self._asking.put()
        raise self._asking.refused("its cache directory keeps nothing")

    async def begin(self, ident: str, nonce: str, program: Program) -> Standing:
        """Run a command that needs nobody to stay, at most once for each `ident`.

        Number 1 of `ident` is what to follow.

        Raises:
            StateError: Nothing ran: the host can keep nothing, or its directory or
                shell is not there; or one of that name was begun before (IN_USE).
            LinkError: The host can't be reached; `ran` says what is known. `ever` then
                settles it.
        """
        sent = program.command.encode("utf-8", "surrogateescape")
        exports = _exports(program.env or {}).encode("utf-8", "surrogateescape")
        if b"\0" in sent + exports:
            raise InputError("command", "a command can't contain NUL")
        sizes = map(str, (len(sent), len(exports), len(program.stdin)))
        answer = await self._asking.ask(
            "job", _known(ident), *self._bounds(), nonce, program.meta, program.cwd,
            program.shell, str(program.seconds), *sizes,
            stdin=sent + exports + program.stdin,
        )  # fmt: skip
        found = next(standings(answer.out), None)
        if answer.end.exit_code == 0 and found is not None:
            return found
        raise self._not_begun(answer.end.exit_code or 0, program, answer.words)

    async def ever(self, ident: str) -> bool:
        """Say whether a durable command began; one that has not by now never will.

        Raises:
            LinkError: The host can't be reached.
        """
        answer = await self._asking.ask("ever", _known(ident))
        told = answer.out.strip()
        if told not in (b"begun", b"never"):
            raise self.refused(answer.end.exit_code or 0, answer.words)
        return told == b"begun"

    async def latest(self, ident: str) -> Latest | None:
        """Return what the session was told last; None: nothing is kept there."""
        answer = await self._asking.ask("runs", _known(ident))
        told = dict(
            line.split("=", 1)
            for line in answer.out.decode("utf-8", "replace").splitlines()
            if "=" in line
        )
        if "number" not in told:
            return None
        sizes = int(told.get("out", "0")), int(told.get("err", "0"))
        return Latest(int(told["number"]), told.get("done") == "1", sizes)

    async def settle(self, ident: str, number: int) -> bool:
        """Have a shell that was interrupted tell how its command ended; True: it did.

        Nothing is typed while anything else is in the foreground.
        """
        answer = await self._asking.ask(
            "settle", _known(ident), str(number), str(_SETTLE_SECONDS)
        )
        return answer.out.strip() == b"told"

    async def seen(self, ident: str, number: int) -> bool:
        """Say whether the shell came to a command, or never will: its line tells that.

        It never will where it takes what was typed for a part of something before.
        """
        answer = await self._asking.ask("unread", _known(ident), str(number))
        return answer.out.strip() in (b"seen", b"unread")

    async def drop(self, ident: str, number: int) -> None:
        """Forget the output of a command whose end is known here."""
        await self._asking.ask("drop", _known(ident), str(number))

    def _line(
        self,
        nonce: str,
        sink: Sink,
        on_skipped: Callable[[Stream, int], None] | None,
        saved: Callable[[], Awaitable[bool]] | None,
        offsets: tuple[int, int] = (0, 0),
    ) -> RunLine:
        kept = self._limits.kept_bytes
        return RunLine(nonce, sink, on_skipped, offsets, kept_bytes=kept, saved=saved)

    def _bounds(self) -> tuple[str, str]:
        limits = self._limits
        return str(int(limits.kept_bytes)), str(int(limits.kept_patience_seconds))

    def _not_begun(self, code: int, program: Program, words: str) -> Exception:
        where = self._host.shown
        if code == _NO_DIRECTORY:
            return StateError(
                Reason.CWD_FAILED,
                f"the working directory {program.cwd!r} can't be entered on {where}",
                hint="Give a directory that exists and may be entered.",
                metadata={"cwd": program.cwd},
            )
        if code == _NO_SHELL:
            return StateError(
                Reason.SHELL_FAILED,
                f"the shell {program.shell!r} was not found on {where}",
                hint="Leave shell out to use the login shell.",
                metadata={"shell": program.shell},
            )
        if code == _NO_ROOM:
            why = words.rpartition("holdfast:")[2]
            return self._asking.refused(why or "its cache directory takes nothing")
        return self.refused(code, words)

    def refused(self, code: int, words: str) -> Exception:
        """Return the error for a command that was told to no shell."""
        where = self._host.shown
        if code == script.ELSEWHERE:
            return self._asking.elsewhere(words)
        if code not in _REFUSED:
            said = words or f"it ended with {code}"
            return LinkError(
                Reason.PROTOCOL_ERROR,
                f"{where} does not answer as it should: {said}",
                hint="Look whether the disk is full there, and call again.",
            )
        reason, why = _REFUSED[code]
        return StateError(
            reason,
            f"the command was not run on {where}: {why}",
            hint="ssh_session_read with view `screen` shows what its terminal says.",
            metadata={"host": where},
        )


def _known(ident: str) -> str:
    if not _IDENT.fullmatch(ident):
        raise InputError("ident", f"{ident!r} is no id of something kept")
    return ident


def _exports(env: Mapping[str, str]) -> str:
    for name in env:
        if not _NAME.fullmatch(name):
            raise InputError("env", f"{name!r} is no name of a variable")
    return "".join(
        f"{name}='" + value.replace("'", "'\\''") + f"'; export {name}\n"
        for name, value in env.items()
    )


def new_nonce() -> str:
    """Return a number nobody can guess."""
    return secrets.token_hex(16)
