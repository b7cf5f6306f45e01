"""The question that tells login shells apart, and what they answer. Pure.

One command of ours is all that is sent. A POSIX shell answers it rightly; what others
complain of, and what the server calls itself, tells which they are.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast_daemon.streams import Stream

Family = Literal[
    "posix", "fish", "csh", "cmd", "powershell", "device", "restricted", "other"
]

_KEPT = 64 * 1024
# Servers of network gear; some end the connection with its first command, so they are
# not even asked.
_GEAR = re.compile(
    r"-(?:Cisco-|HUAWEI-|Comware|ROSSSH|RomSShell|mpSSH|IPSSH|NetScreen|FortiSSH|"
    r"ArubaOS|Foundry|RGOS|ZTE_SSH|Zyxel)",
    re.IGNORECASE,
)
_WINDOWS = "OpenSSH_for_Windows"
# The words stand in the order in which they are looked for: PowerShell's message quotes
# the command, and a forced command's may quote anything.
_COMPLAINTS: tuple[tuple[Family, re.Pattern[str]], ...] = (
    (
        "powershell",
        re.compile(
            r"#< CLIXML|FullyQualifiedErrorId|CommandNotFoundException|ParserError"
            r"|is not recognized as (?:the|a) name of a cmdlet"
        ),
    ),
    ("cmd", re.compile(r"not recognized as an internal or external command")),
    ("fish", re.compile(r"^fish: ", re.MULTILINE)),
    (
        "csh",
        re.compile(
            r"^(?:Bad : modifier in \$|PPID: Undefined variable|Illegal variable name"
            r"|Missing '?}'?)",
            re.MULTILINE,
        ),
    ),
    (
        "restricted",
        re.compile(
            r"service allows sftp connections only|^fatal: unrecognized command"
            r"|account is (?:currently )?not available"
            r"|does not provide shell access|[Ii]nteractive git shell is not enabled"
        ),
    ),
    (
        "device",
        re.compile(
            r"^\s*%\s?(?:Invalid|Incomplete|Unknown|Unrecognized|Ambiguous|Bad|Error)"
            r"|^Line has invalid autocommand|^\s*\^\s*$|^syntax error, expecting"
            r"|^bad command name|^unknown command\.|^Invalid input",
            re.MULTILINE | re.IGNORECASE,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class ShellFacts:
    """What the login shell is, as far as running commands needs it.

    Attributes:
        confined: A POSIX shell that may not change its directory or become another.
    """

    family: Family
    confined: bool = False

    @property
    def wraps(self) -> bool:
        """It is no POSIX shell, and stands on a system that has one."""
        return self.family in ("fish", "csh")

    @property
    def signals(self) -> bool:
        """Its server may pass signals on to a command."""
        return self.family not in ("cmd", "powershell", "device")

    @property
    def lasting(self) -> bool:
        """Other connections may rely on it; a guess may be wrong tomorrow."""
        return self.family not in ("restricted", "other")


def by_version(version: str) -> ShellFacts | None:
    """Return what a server's version alone says; None: it must be asked."""
    return ShellFacts("device") if _GEAR.search(version) else None


def quote(text: str, family: Family) -> str:
    """Return `text` as one word of a fish or csh command line."""
    if family == "fish":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    quoted = text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"'{quoted}'"


class Probe:
    """A command that only a POSIX shell answers rightly, and the reader of its answer.

    fish, csh, cmd.exe and PowerShell stumble over it, a forced command ignores it, and
    one that echoes it gives itself away, because the answer is computed.
    """

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(8)
        left = secrets.randbelow(900) + 100
        self._answer = re.compile(
            rf"holdfast:{self._nonce}:ab{left + 1}:([A-Za-z0-9]*)$"
        )
        self.command = (
            f"printf 'holdfast:%s:%s:%s\\n' {self._nonce}"
            f' "${{PPID:+a}}${{IFS:+b}}$(({left}+1))" "$-"'
        )
        self._said = b""

    def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
        """Take the answer, within what start-up files print around it."""
        self._said = (self._said + data)[-_KEPT:]

    @property
    def posix(self) -> bool:
        """The answer was right."""
        return self._flags() is not None

    def is_answer(self, line: bytes) -> bool:
        """Whether a line of output is the right answer, and nothing else."""
        found = self._answer.fullmatch(line.decode("utf-8", "replace"))
        return found is not None

    def _flags(self) -> str | None:
        """Return the shell's own flags from the answer; None: it was not right."""
        for line in self._said.decode("utf-8", "replace").splitlines():
            if found := self._answer.search(line):
                return found[1]
        return None

    def facts(self, version: str) -> ShellFacts:
        """Return what answered, on a server that calls itself `version`."""
        flags = self._flags()
        if flags is not None:
            return ShellFacts("posix", confined="r" in flags)
        said = self._said.replace(b"\0", b"").decode("utf-8", "replace")
        for family, pattern in _COMPLAINTS:
            if pattern.search(said):
                return ShellFacts(family)
        return ShellFacts("cmd" if _WINDOWS in version else "other")
