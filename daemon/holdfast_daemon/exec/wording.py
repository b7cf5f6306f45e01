"""Which words go to a host for a request, by what its login shell is. Sans-I/O.

Where the shell is no POSIX one the command goes as it is; what it would take more is
had through the system's own sh, or said to be missing in words that fit the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.connection.shell import quote
from holdfast_daemon.errors import DaemonError, Ran, Reason, StateError
from holdfast_daemon.exec import sudo
from holdfast_daemon.exec.preamble import MarkerReader, Preamble, compose
from holdfast_daemon.exec.request import check_line
from holdfast_daemon.exec.sudo import Elevation, SudoReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.shell import Family, ShellFacts
    from holdfast_daemon.connection.standby import Script
    from holdfast_daemon.exec.request import ExecRequest
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

# What the host has in place of a POSIX shell, and how to do there what can't be set.
_INSTEAD: dict[Family, tuple[str, str]] = {
    "cmd": (
        "runs commands under cmd.exe",
        (
            "Write it into the command: cd /d C:\\DIR && set NAME=VALUE&& COMMAND;"
            " another shell as powershell -Command COMMAND"
        ),
    ),
    "powershell": (
        "runs commands under PowerShell",
        (
            "Write it into the command: Set-Location C:\\DIR; $env:NAME = 'VALUE';"
            " COMMAND; another shell as cmd /c COMMAND"
        ),
    ),
    "device": (
        "is a device with a command line of its own",
        "Give one line in the device's own words; it has no directories or variables.",
    ),
    "restricted": (
        "runs only what its administrator lets this account run",
        "Use an account with a login shell.",
    ),
    "other": (
        "has no POSIX login shell",
        "Write it into the command, in that shell's own words.",
    ),
}
_CONFINED = (
    "has a restricted login shell",
    "Use an account whose login shell is not a restricted one.",
)


@dataclass(frozen=True, slots=True)
class Wording:
    """What goes to the host, and who reads what comes back before the command.

    Attributes:
        line: The words, in the two forms a POSIX shell may get them, or as they are.
        marker: Knows when the command begins; None: nobody will tell.
    """

    line: str | Script
    marker: MarkerReader | SudoReader | None = None

    def refusal(
        self, request: ExecRequest, host: Host, elevation: Elevation | None, lost: str
    ) -> DaemonError | None:
        """Return why the command was not come to, where the words before it say so.

        `lost`: why it is not known how the channel ended; empty: it is.
        """
        marker = self.marker
        if isinstance(marker, SudoReader) and elevation is not None:
            cause = marker.verdict(lost=bool(lost))
            if cause:
                return sudo.refusal(cause, host, elevation, marker)
        if marker is None or not marker.failure:
            return None
        return _not_come_to(marker.failure, request, host.name)


def word(
    request: ExecRequest,
    facts: ShellFacts,
    host: Host,
    *,
    elevation: Elevation | None,
    limits: Limits,
    heard: Callable[[], None],
) -> Wording:
    """Return the words for `request`; `heard` is called when sudo says something.

    Raises:
        StateError: The host's shell can't do what is asked.
        InputError: The words are too long for a host.
    """
    wants = _wants(request)
    if facts.family == "posix":
        if facts.confined and (missing := [w for w in wants if w != "env"]):
            raise _missing(host, missing, *_CONFINED)
    elif not wants:
        return Wording(request.command)
    elif not facts.wraps:
        raise _missing(host, wants, *_INSTEAD[facts.family])
    preamble = compose(request, strict=elevation is not None)
    if facts.wraps and not preamble.program:
        # The command still runs under a login shell, as it would without the rest.
        preamble = Preamble(preamble.marker, preamble.text, '"${SHELL:-/bin/sh}"')
    script = preamble.script(request.command)
    marker: MarkerReader | SudoReader = MarkerReader(preamble)
    if elevation is not None:
        preamble = sudo.raised(preamble, elevation, plain=facts.wraps)
        script = preamble.script(script.line)
        marker = SudoReader(preamble, heard)
    check_line(script.line, limits)
    if not facts.wraps:
        return Wording(script, marker)
    line = for_shell(script.line, facts)
    check_line(line, limits)
    return Wording(line, marker)


def for_shell(line: str, facts: ShellFacts) -> str:
    """Return words for a POSIX shell as a login shell passes them on to one."""
    return f"exec /bin/sh -c {quote(line, facts.family)}" if facts.wraps else line


def _wants(request: ExecRequest) -> list[str]:
    """Return what a request asks for beside its command, by the names of its fields."""
    asked = {
        "cwd": request.cwd,
        "env": request.env,
        "shell": request.shell,
        "sudo": request.sudo,
    }
    return [name for name, value in asked.items() if value]


def _missing(host: Host, wants: list[str], instead: str, hint: str) -> StateError:
    if wants == ["sudo"]:
        hint = "Log in as a user who may do that without sudo."
    *most, last = wants
    names = f"{', '.join(most)} and {last}" if most else last
    return StateError(
        Reason.UNSUPPORTED,
        f"{host.shown} {instead}: {names} can't be set there",
        hint=hint,
        metadata={"missing": ", ".join(wants)},
    )


def _not_come_to(failure: str, request: ExecRequest, target: str) -> DaemonError:
    if failure == "cwd":
        return StateError(
            Reason.CWD_FAILED,
            f"the working directory {request.cwd!r} can't be entered on {target}",
            hint="Give a directory that exists and may be entered.",
            ran=Ran.NO,
            metadata={"cwd": request.cwd},
        )
    return StateError(
        Reason.SHELL_FAILED,
        f"the shell {request.shell!r} was not found on {target}",
        hint="Leave shell out to use the login shell.",
        ran=Ran.NO,
        metadata={"shell": request.shell},
    )
