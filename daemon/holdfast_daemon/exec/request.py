"""What a caller asks to run, checked before anything is opened. Sans-I/O."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.connection.channel import Terminal
    from holdfast_daemon.limits import Limits

# POSIX XBD 8.1: names of environment variables that every utility can handle.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Said of commands in a session too, which have no stdin of their own.
_LONG = (
    "Write a long script to a file with ssh_file_write and run that, or send it through"
    " the stdin of ssh_exec, with command 'sh -s'."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One command.

    Attributes:
        command: Sent to the login shell byte for byte.
        cwd: Working directory; empty: the login directory.
        env: Variables to export.
        stdin: Standard input; None: closed at once.
        live: Standard input stays open and is fed by the caller.
        shell: Shell (and its options) to run the command under; empty: the login shell.
        terminal: Give it a terminal of this size.
        timeout: Hard limit in seconds, total wall clock; 0: none.
        sudo: Run it as root by sudo.
        durable: Its host keeps it.
    """

    command: str
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: bytes | None = None
    live: bool = False
    shell: str = ""
    terminal: Terminal | None = None
    timeout: float = 0.0
    sudo: bool = False
    durable: bool = False


def check(request: ExecRequest, limits: Limits) -> None:
    """Refuse what could not run as asked.

    Raises:
        InputError: The value and its field are named; nothing has been opened.
    """
    if not request.command.strip():
        raise InputError("command", "command is blank", hint="Give a command line.")
    size = len(request.command.encode())
    if size > limits.command_bytes:
        raise InputError(
            "command",
            f"command has {size} bytes; the limit is {limits.command_bytes}",
            hint=_LONG,
        )
    if request.stdin is not None and len(request.stdin) > limits.stdin_bytes:
        raise InputError(
            "stdin",
            f"stdin has {len(request.stdin)} bytes; the limit is {limits.stdin_bytes}",
            hint="Copy large input to the host first.",
        )
    for name in request.env:
        if not _NAME.fullmatch(name):
            raise InputError(
                "env",
                f"env has the name {name!r}; a name is letters, digits and _",
            )
    total = sum(len(k.encode()) + len(v.encode()) for k, v in request.env.items())
    if total > limits.command_bytes:
        raise InputError(
            "env", f"env has {total} bytes; the limit is {limits.command_bytes}"
        )
    if request.shell:
        try:
            words = shlex.split(request.shell)
        except ValueError as error:
            raise InputError("shell", f"shell can't be read: {error}") from error
        if not words or words[0].startswith("-"):
            raise InputError("shell", f"shell {request.shell!r} names no program")


def check_line(line: str, limits: Limits) -> None:
    """Refuse what the host's kernel would refuse, in words one can act on.

    Raises:
        InputError: Command, cwd and env make too long a line; nothing has run.
    """
    size = len(line.encode())
    if size >= limits.command_bytes:
        raise InputError(
            "command",
            f"the command with its cwd, env and quoting has {size} bytes; a host takes"
            f" less than {limits.command_bytes}",
            hint=_LONG,
        )
