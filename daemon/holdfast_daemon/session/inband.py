r"""One command framed within a terminal's stream, where it can go by no other way.

Its output stands between two marks that nobody can guess; what is typed does not hold
them in one piece, so that its echo is no mark. A terminal has one stream: stderr comes
with stdout. The second mark comes right behind the command, also where that was broken
off: bash and fish tell it before their next prompt, zsh always does, the others by
`command eval`, or, after Ctrl-C, by one more typed line.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import InputError
from holdfast_daemon.session.shell import RunEnd
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.kept.wrapper import Family

_NOTE = (
    "stderr came with stdout, and its output was a terminal: the host let no other way"
)
# A line editor would take these for keys, or for words of its own, or not at all.
_UNSAFE = re.compile(r"[^ -~]|[\\!']")
# An end that does not come whole within so much was none.
_END_BYTES = 8 * 1024
# A terminal without a line editor takes no line of 4,096 bytes.
_LINE_CHARS = 600
_COMMAND_BYTES = 128 * 1024
# these tell the end of a command that was broken off, or know how to
# What is seen of a key that breaks off, and of a prompt behind it.
_KEY = re.compile(rb"\^[C\\](?:\r?\n)?\Z")
_PROMPT = re.compile(rb"(?:\r?\n)?[^\n]*\Z")
_OWN = {"bash": "\\builtin ", "zsh": "\\builtin ", "fish": "builtin "}
_FAMILIES: tuple[Family, ...] = ("bash", "zsh", "fish")


class Framer:
    """Takes one command's output out of a terminal's stream."""

    def __init__(self, job: Job, family: Family) -> None:
        """Speak to a shell of `family`; an unknown one is taken for a POSIX one."""
        self._job = job
        self._family = family
        # whatever users redefine is evaded
        self._own = _OWN.get(family, "\\command ")
        self._begin, self._end = secrets.token_hex(8), secrets.token_hex(8)
        self._held = b""
        self._begun = False
        # a terminal shows Ctrl-C, and what is typed behind it, among the output
        self._broken_off = False
        # how the terminal ends a line
        self._newline = b"\r\n"
        self._over: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()

    def words(self, command: str) -> bytes:
        """Return what to type.

        Raises:
            InputError: It can't be typed.
        """
        data = command.encode("utf-8", "surrogateescape")
        if b"\0" in data:
            raise InputError("command", "a command can't contain NUL")
        if len(data) > _COMMAND_BYTES:
            raise InputError(
                "command",
                f"the command has {len(data):,} bytes; no more than"
                f" {_COMMAND_BYTES:,} can be typed into this session",
                hint="Write it to a file with ssh_file_write, and run that.",
            )
        lines = [*self._given(command), self._frame()]
        return "".join(f" {line}\n" for line in lines).encode()

    def _given(self, command: str) -> list[str]:
        """Return lines that leave the command in a variable."""
        lines = ["set -g _hf_x ''" if self._family == "fish" else "_hf_x="]
        for at in range(0, len(command), _LINE_CHARS // 4):
            part = command[at : at + _LINE_CHARS // 4]
            if _UNSAFE.search(part) is None:
                text = shlex.quote(part)
            elif self._family == "fish":
                told = f"{self._own}printf %b '{_octal(part)}'"
                text = f"({told} | string collect --no-trim-newlines)"
            else:
                # a dot at the end, as `$()` takes line ends away
                told = f"{self._own}printf %b '{_octal(part)}.'"
                text = f'"$({told})"; _hf_x=${{_hf_x%.}}'
            fish = self._family == "fish"
            lines.append(
                f'set -g _hf_x "$_hf_x"{text}' if fish else f"_hf_x=${{_hf_x}}{text}"
            )
        return lines

    def _frame(self) -> str:
        begin = f"{self._own}printf '%s%s\\n' {_split(self._begin)}"
        run = f'{self._own}eval "$_hf_x" </dev/null'
        if self._family == "bash":
            trap = f"_hf_z={shlex.quote(self._bash() + ';')}"
            # the prompt tells the end of one that was broken off
            return (
                f'{trap}; builtin declare PROMPT_COMMAND="$_hf_z${{PROMPT_COMMAND-}}"'
                f' 2>/dev/null; {begin}; {run}; {self._own}eval "$_hf_z"'
            )
        if self._family == "zsh":
            return f"{begin}; {{ {run}; }} always {{ {self._asked()}; }}"
        if self._family == "fish":
            tell = self._tell("$_hf_s")
            return (
                "function _hf_prompt --on-event fish_prompt; set -g _hf_s $status;"
                f" functions -e _hf_prompt; {tell}; end; {begin};"
                f" {run}; set -g _hf_s $status;"
                f" functions -e _hf_prompt; {tell}"
            )
        return f"{begin}; {run}; {self._asked()}"

    def _bash(self) -> str:
        return (
            # one that can't be taken away again is of no use later
            "_hf_s=$?; [[ -z ${_hf_z-} ]] || { _hf_p=${PROMPT_COMMAND-};"
            ' builtin declare PROMPT_COMMAND="${_hf_p//"$_hf_z"}" 2>/dev/null;'
            " [[ -n ${PROMPT_COMMAND-} ]] || unset -v PROMPT_COMMAND 2>/dev/null;"
            " unset -v _hf_z _hf_x _hf_p; " + self._tell() + "; }"
        )

    def break_off(self) -> None:
        """It is about to be interrupted, by the terminal's key."""
        self._broken_off = self._begun

    def asking(self) -> bytes:
        """Return what to type for the end after a command was interrupted."""
        if self._over.done() or self._family in _FAMILIES:
            return b""
        return f" {self._asked()}\n".encode()

    def _asked(self) -> str:
        return f"_hf_s=$?; {self._tell()}"

    def _tell(self, code: str = '"$_hf_s"') -> str:
        """Return what tells the end; `exec >FILE` does not take it from its reader."""
        told = f"{self._own}printf '%s%s:%s:%s:\\n' {_split(self._end)} {code} \"$PWD\""
        other = "; or" if self._family == "fish" else " ||"
        return f"{told} 2>/dev/null >/dev/tty{other} {told}"

    def feed(self, data: bytes) -> bytes:
        """Take output; return what is the terminal's own."""
        if self._over.done():
            return data
        self._held += data
        before = b""
        if not self._begun:
            begin, end = self._begin.encode() + b"\r", self._end.encode()
            bare = self._begin.encode() + b"\n"
            found = [n for n in map(self._held.find, (begin, bare, end)) if n >= 0]
            if not found:
                keep = max(_overlap(self._held, mark) for mark in (begin, end))
                at = len(self._held) - keep
                before, self._held = self._held[:at], self._held[at:]
                return before
            before, rest = self._held[: min(found)], self._held[min(found) :]
            if not rest.startswith(end):
                line, whole, after = rest.partition(b"\n")
                if not whole:
                    self._held = rest
                    return before
                self._newline = b"\r\n" if line.endswith(b"\r") else b"\n"
                rest = after
            # one that was interrupted before it began has an end only
            self._held = rest
            self._begun = True
        return before + self._look()

    def _look(self) -> bytes:
        mark = self._end.encode() + b":"
        output, found, rest = self._held.partition(mark)
        if not found:
            if self._broken_off and len(output) < _END_BYTES:
                self._held = output
                return b""
            keep = _overlap(output, mark) or (1 if output.endswith(b"\r") else 0)
            self._take(output[: len(output) - keep])
            self._held = output[len(output) - keep :] if keep else b""
            return b""
        told = re.match(rb"(\d+):(.*?):\r?\n", rest, re.DOTALL)
        if self._broken_off:
            output = self._unseen(output)
        self._take(output)
        if told is None and len(rest) < _END_BYTES:
            self._held = mark + rest
            return b""
        self._held = b""
        if told is None:
            self.lost(ChannelEnd(lost="its end could not be read"))
            return rest
        code = int(told[1])
        self._job.add_note(_NOTE)
        cwd = told[2].decode("utf-8", "surrogateescape")
        self._over.set_result(RunEnd(ChannelEnd(exit_code=code), cwd))
        return rest[told.end() :]

    def _unseen(self, output: bytes) -> bytes:
        """Return what a command printed, without the key and the question after it."""
        # a line editor may break it where the terminal's line is full
        letters = [re.escape(char) for char in f" {self._asked()}"]
        question = rb"(?:\r|\n|\x1b\[[0-9;]*[A-Za-z])*".join(
            letter.encode() for letter in letters
        )
        seen = re.compile(
            rb"(?:\^[C\\])?(?:\r?\n[^\n]*?)?" + question + rb"(?:\r?\n|\Z)"
        )
        before, *after = seen.split(output)
        if after:
            # some echo it twice: as it comes, and as they read it
            return before + b"".join(_PROMPT.sub(b"", one, count=1) for one in after)
        return _KEY.sub(b"", output)

    def _take(self, data: bytes) -> None:
        if data:
            self._job.spool.append(Stream.OUT, data.replace(self._newline, b"\n"))

    def lost(self, end: ChannelEnd) -> None:
        """The shell has ended under the command."""
        if not self._over.done():
            self._take(self._held)
            self._job.add_note(f"{_NOTE}; the session's shell ended")
            self._over.set_result(RunEnd(end))

    async def ended(self) -> RunEnd:
        """Wait for the command's end."""
        return await asyncio.shield(self._over)


class Asker:
    """Finds out in a terminal's stream which shell is there."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)
        self._held = b""
        self.told: asyncio.Future[Family] = asyncio.get_running_loop().create_future()

    @property
    def forgetting(self) -> bytes:
        """What to type for bash not to remember what is typed for us."""
        left = self._nonce[: len(self._nonce) // 2]
        return (
            " HISTCONTROL=ignoreboth; while _hf_s=$(builtin history 1);"
            f' [[ $_hf_s == *{left}* ]]; do _hf_s=${{_hf_s#"${{_hf_s%%[0-9]*}}"}};'
            ' builtin history -d "${_hf_s%%[!0-9]*}" || break; done\n'
        ).encode()

    @property
    def words(self) -> bytes:
        """What to type: shells of all families take it."""
        left, right = _split(self._nonce).split()
        versions = '"$BASH_VERSION":"$ZSH_VERSION":"$FISH_VERSION"'
        return f" echo {left}'{right}':{versions}:\n".encode()

    @property
    def again(self) -> bytes:
        """The same, as fish does not take it, and others do after `set -u` too."""
        left, right = _split(self._nonce).split()
        versions = '"${BASH_VERSION-}":"${ZSH_VERSION-}":'
        return f" echo {left}'{right}':{versions}:\n".encode()

    def feed(self, data: bytes) -> bytes:
        """Take output; return what is the terminal's own."""
        self._held = (self._held + data)[-_END_BYTES:]
        answer = re.search(
            self._nonce.encode() + rb":([^:\n]*):([^:\n]*):([^:\n]*):\r?\n", self._held
        )
        if answer is not None and not self.told.done():
            told: Family = "sh"
            for name, version in zip(_FAMILIES, answer.groups(), strict=True):
                told = name if version else told
            self.told.set_result(told)
        return data


def _split(mark: str) -> str:
    half = len(mark) // 2
    return f"{mark[:half]} {mark[half:]}"


def _octal(text: str) -> str:
    """Return `text` as `printf %b` makes it again, within single quotes."""
    return _UNSAFE.sub(
        lambda found: "".join(
            f"\\0{byte:03o}" for byte in found[0].encode("utf-8", "surrogateescape")
        ),
        text,
    )


def _overlap(data: bytes, mark: bytes) -> int:
    """Return how many bytes at the end of `data` may begin `mark`."""
    for size in range(min(len(data), len(mark) - 1), 0, -1):
        if data.endswith(mark[:size]):
            return size
    return 0
