"""The words that put a command under sudo, and the reader of what sudo says. Sans-I/O.

The login shell says that sudo begins, sudo asks for the password by a prompt that
nobody can guess, and the command's own shell, under sudo, says that it begins. Only
between the first and the last of these is a prompt answered, and only what sudo says
between them is kept out of the output. The password is never part of the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, DeniedError, Ran, Reason, StateError
from holdfast_daemon.exec.preamble import Preamble
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.secrets import Secret

_ASK = b"ask"
_BEGINS = re.compile(rb"sudo(\d+)")
_ALREADY_ROOT = b"root"
_FAILURES = (b"nosudo", b"cwd", b"shell")
# What sudo-rs puts behind the prompt it is given: [sudo: PROMPT] Password:
_PROMPT_TAIL = re.compile(rb"\][^\n]*")
# Start-up files may print so much before sudo begins, and sudo so much itself.
_NOISE_BYTES = 64 * 1024
_LONGEST_WORD = 64
_QUOTED = 200

# As root already there is nothing to ask; minimal systems have no sudo then. Tickets
# are neither used nor left behind (-k): who may run what must not depend on what ran
# before.
_WORDS = (
    "if command -v sudo >/dev/null 2>&1; then printf '%s\\n' {marker}sudo$$ >&2;"
    " set -- sudo -k {how} -- {shell};"
    " elif [ \"$(id -u)\" = 0 ]; then printf '%s\\n' {marker}root >&2;"
    " set -- {shell};"
    " else printf '%s\\n' {marker}nosudo >&2; exit 127; fi; "
)

# What sudo and sudo-rs say in English; anything else is quoted as it stands.
_SAID = (
    ("not_allowed", re.compile(r"not in the sudoers|may not run sudo|is not allowed")),
    ("not_allowed", re.compile(r"I'm afraid I can't do that")),
    ("tty_needed", re.compile(r"must have a tty|no tty present")),
    (
        "password_needed",
        re.compile(r"password is required|interactive authentication is required"),
    ),
    (
        "password_wrong",
        re.compile(r"incorrect (?:password|authentication) attempt", re.IGNORECASE),
    ),
)


@dataclass(frozen=True, slots=True)
class Elevation:
    """With what a command is put under sudo.

    Attributes:
        password: What sudo's prompt is answered with; None: sudo must not ask.
        source: Name of the secret, as the configuration has it.
    """

    password: Secret | None = field(default=None, repr=False)
    source: str = ""


def raised(inner: Preamble, elevation: Elevation, *, plain: bool = False) -> Preamble:
    """Return the words before a line that `inner` begins, which put it under sudo.

    The line, with its directory and variables, is for the login shell under sudo; with
    `plain` for sh.
    """
    how = "-n" if elevation.password is None else f"-S -p {inner.marker}ask"
    shell = "/bin/sh" if plain else '"${SHELL:-/bin/sh}"'
    text = _WORDS.format(marker=inner.marker, how=how, shell=shell)
    return Preamble(inner.marker, text, '"$@"')


class SudoReader:
    """Takes what sudo says out of the output, and tells when it asks and lets pass.

    Attributes:
        done: Nothing is held back any more.
        late: Always false: what is not told in time never is.
        group: The command's own process on the host, once it has begun.
        outer: Process and process group of sudo itself.
        failure: What the words before the command gave up for; nothing ran then.
        cause: Why sudo was given up on, by who talks with it.
        asked: How often sudo asked for the password.
    """

    late = False

    def __init__(self, preamble: Preamble, on_change: Callable[[], None]) -> None:
        self._marker = preamble.marker.encode()
        self._held = dict.fromkeys(Stream, b"")
        self._talk = b""
        self._on_change = on_change
        # The stream that sudo was begun on; what it says itself comes there.
        self._talking: Stream | None = None
        self.done = False
        self.group: int | None = None
        self.outer: int | None = None
        self.failure = self.cause = ""
        self.asked = 0

    @property
    def begun(self) -> bool:
        """The command's own shell has said that it begins."""
        return self.group is not None

    @property
    def question(self) -> str:
        """What sudo, or a program behind it, waits for an answer to, if not us."""
        if self._talking is None or _PROMPT_TAIL.fullmatch(self._held[self._talking]):
            return ""
        return _plain(self._open_line())

    @property
    def said(self) -> str:
        """The last words of sudo, for a message."""
        lines = self._lines()
        return "; ".join([line for line in lines if line][-2:])[-_QUOTED:]

    def _lines(self) -> list[str]:
        rest = self._held[self._talking] if self._talking is not None else b""
        return [_plain(line) for line in (self._talk + rest).split(b"\n")]

    def _open_line(self) -> bytes:
        if self._talking is None:
            return b""
        return self._held[self._talking].rpartition(b"\n")[2]

    def feed(self, stream: Stream, data: bytes) -> list[tuple[Stream, bytes]]:
        """Return what belongs to the output now, in order."""
        if self.done:
            return [(stream, data)]
        self._held[stream] += data
        output: list[tuple[Stream, bytes]] = []
        while not self.done and self._take(stream, output):
            pass
        if not self.done:
            self._keep_short(stream, output)
        self._on_change()
        return output

    def _take(self, stream: Stream, output: list[tuple[Stream, bytes]]) -> bool:
        """Act on the next word of ours; False: it has not come, or not all of it."""
        before, marker, rest = self._held[stream].partition(self._marker)
        if not marker or (_ASK.startswith(rest) and rest != _ASK):
            return False
        if rest.startswith(_ASK):
            self._talk = (self._talk + before + b"\n")[-_NOISE_BYTES:]
            self._held[stream] = rest.removeprefix(_ASK)
            self.asked += 1
            return True
        line, newline, rest = rest.partition(b"\n")
        if not newline:
            return False
        if stream is self._talking:
            self._talk += before
        else:
            output.append((stream, before))
        self._held[stream] = rest
        self._read(stream, line.strip())
        if self.done:
            output += self._release()
        return True

    def _read(self, stream: Stream, word: bytes) -> None:
        begins = _BEGINS.fullmatch(word)
        if begins or word == _ALREADY_ROOT:
            self._talking = stream
            self.outer = int(begins[1]) if begins else None
        elif word.isdigit():
            self.group = int(word)
            self.done = True
        elif word in _FAILURES:
            self.failure = word.decode()
            self.done = True

    def _keep_short(self, stream: Stream, output: list[tuple[Stream, bytes]]) -> None:
        """Hold back no more than is needed to know our own words again."""
        held = self._held[stream]
        if len(held) <= _NOISE_BYTES:
            return
        old, self._held[stream] = held[:-_LONGEST_WORD], held[-_LONGEST_WORD:]
        if stream is self._talking:
            self._talk = (self._talk + old)[-_NOISE_BYTES:]
        else:
            output.append((stream, old))

    def finish(self) -> list[tuple[Stream, bytes]]:
        """Give up: the channel has ended. What sudo said itself is not output."""
        if self.done:
            return []
        self.done = True
        if self._talking is not None:
            self._talk += self._held[self._talking]
            self._held[self._talking] = b""
        return self._release()

    def _release(self) -> list[tuple[Stream, bytes]]:
        held, self._held = self._held, dict.fromkeys(Stream, b"")
        return [(stream, data) for stream, data in held.items() if data]

    def verdict(self, *, lost: bool) -> str:
        """Return why sudo let nothing run; empty where it did, or who knows.

        `lost`: how the channel ended is not known.
        """
        if self.begun or self.failure in ("cwd", "shell"):
            return ""
        if self.cause or self.failure:
            return self.cause or self.failure
        if lost:
            return ""
        if self._talking is None:
            return "unheard"
        said = "\n".join(self._lines())
        for cause, pattern in _SAID:
            if pattern.search(said):
                return cause
        return "other"


def _plain(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable()).strip()


def refusal(
    cause: str, host: Host, elevation: Elevation, reader: SudoReader
) -> DaemonError:
    """Return the error for a command that sudo did not let run."""
    said = reader.question if cause == "more_asked" else reader.said
    if elevation.password is not None:
        said = said.replace(elevation.password.reveal(), "[redacted]")
    where, source = host.shown, elevation.source
    if cause == "nosudo":
        return StateError(
            Reason.UNSUPPORTED,
            f"there is no sudo on {where}",
            hint="Install it there, or log in as a user who needs none.",
            metadata={"cause": cause},
        )
    message, hint = _texts(said)[cause]
    return DeniedError(
        Reason.SUDO_REFUSED,
        message.format(where=where, user=host.user, source=source),
        hint=hint.format(where=where, user=host.user, source=source),
        ran=Ran.UNKNOWN if cause == "unheard" else Ran.NO,
        metadata={"cause": cause, **({"secret": source} if source else {})},
    )


def _texts(said: str) -> dict[str, tuple[str, str]]:
    """Return message and hint by cause; what the host said is quoted."""
    quoted = said.replace("{", "{{").replace("}", "}}")
    words = f": {quoted}" if quoted else ""
    return {
        cause: (message.replace("{said}", words), hint)
        for cause, (message, hint) in _TEXTS.items()
    }


_TEXTS = {
    "password_needed": (
        "sudo on {where} asks for a password, and none is named for this host",
        (
            "A person names what holds it by sudo_password_from in the host's entry of"
            " the configuration; or the host lets {user} do without (NOPASSWD)."
        ),
    ),
    "password_wrong": (
        "sudo on {where} did not take the password of {source}",
        (
            "It was offered once. A person puts the right one there; where the host"
            " asks for a second factor, only a person can use sudo."
        ),
    ),
    "not_allowed": (
        "sudo does not let {user} run that on {where}{said}",
        (
            "The host's sudoers would have to allow a shell. Where they allow single"
            " programs, run such a one as the command itself: sudo -n PROGRAM"
        ),
    ),
    "tty_needed": (
        "sudo on {where} runs only on a terminal (requiretty)",
        "Set tty (holdfast exec -tt).",
    ),
    "more_asked": (
        "sudo on {where} asks for more than a password{said}",
        "Only a person can answer that: ssh -t to the host, and sudo there.",
    ),
    "slow": (
        "sudo on {where} did not decide in time{said}",
        (
            "It may wait for a directory or a telephone; limits.sudo_seconds says how"
            " long it may take."
        ),
    ),
    "unheard": (
        (
            "{where} never said that sudo began: it does not run what it is sent, or"
            " hides its standard error"
        ),
        "Look whether a forced command or a start-up file of {user} does that.",
    ),
    "other": (
        "sudo on {where} let nothing run{said}",
        "Try it by hand: ssh -t to the host, and sudo there.",
    ),
}
