"""The question that tells a POSIX login shell from anything else. Pure."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast_daemon.streams import Stream

_KEPT = 64 * 1024


@dataclass(frozen=True, slots=True)
class ShellFacts:
    """What the login shell is, as far as running commands needs it."""

    family: Literal["posix", "other"]


class Probe:
    """A command that only a POSIX shell answers rightly, and the reader of its answer.

    fish, csh, cmd.exe and PowerShell stumble over it, a forced command ignores it, and
    one that echoes it gives itself away, because the answer is computed.
    """

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)
        left = secrets.randbelow(900) + 100
        self._answer = f"holdfast:{self._nonce}:ab{left + 1}"
        self.command = (
            f"printf 'holdfast:%s:%s\\n' {self._nonce}"
            f' "${{PPID:+a}}${{IFS:+b}}$(({left}+1))"'
        )
        self._said = b""

    def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
        """Take the answer, within what start-up files print around it."""
        self._said = (self._said + data)[-_KEPT:]

    @property
    def posix(self) -> bool:
        """The answer was right."""
        lines = self._said.decode("utf-8", "replace").splitlines()
        return any(line.endswith(self._answer) for line in lines)
