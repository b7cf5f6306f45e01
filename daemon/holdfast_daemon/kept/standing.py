"""What is asked of a host to keep, and how something kept there stands. Sans-I/O."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast_daemon.limits import Limits

Kind = Literal["auto", "script", "python", "tmux", "pipe"]
State = Literal["running", "exited", "lost", "none"]

# of the largest number a host has, as for a position
_DIGITS = 19
_CODE_DIGITS = 9
_TRIED: tuple[Kind, ...] = ("script", "python", "tmux", "pipe")


@dataclass(frozen=True, slots=True)
class Plan:
    """A shell to be kept on a host.

    Attributes:
        ident: What it is found again by.
        nonce: Known to nobody else: tells the shell's end from what it prints.
        shell: Its program; empty: the login shell.
        cwd: Where it starts; empty: the home directory.
        restore: What is gone, whose directory and environment to take over.
        old: Where that was, as far as is known here; it may be there no more.
        name: For people and other daemons who list what is there.
        owner: Which daemon asked.
        command: For them too: what runs, where it is no shell.
    """

    ident: str
    nonce: str
    shell: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cols: int = 80
    rows: int = 24
    kind: Kind = "auto"
    name: str = ""
    owner: str = ""
    restore: str = ""
    old: str = ""
    command: str = ""

    def words(self, limits: Limits) -> bytes:
        """Return it as a POSIX shell reads it; not for a command line others see."""
        given = {
            "hf_nonce": self.nonce,
            "hf_shell": self.shell,
            "hf_cwd": self.cwd,
            "hf_cols": str(self.cols),
            "hf_rows": str(self.rows),
            "hf_kinds": " ".join(_TRIED) if self.kind == "auto" else self.kind,
            "hf_restore": self.restore,
            "hf_old": self.old,
            "hf_meta": self._meta(),
            "hf_cap": str(int(limits.kept_bytes)),
            "hf_patience": str(int(limits.kept_patience_seconds)),
            "hf_abandoned": str(int(limits.kept_abandoned_seconds)),
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
        exports = ['[ -n "${hf_tmux-}" ] || export TERM=xterm-256color']
        exports += [f"export {k}={shlex.quote(v)}" for k, v in self.env.items()]
        lines += ["environment() {", *exports, "}"]
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")

    def _meta(self) -> str:
        told = {
            "name": self.name,
            "owner": self.owner,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
        }
        # one line each, whatever a name has in it
        return "\n".join(f"{k}={' '.join(v.split())}" for k, v in told.items())


@dataclass(frozen=True, slots=True)
class Standing:
    """How something kept on a host stands.

    Attributes:
        exit_code: What its shell returned; 128 and more may stand for a signal, as
            shells tell them.
        signal: What ended it, without SIG, where that is known.
        why: What became of it when it is lost: `host_restarted` or `killed`; it may be
            `unfinished` too: it was never begun.
        size: The offset behind the last byte of its output.
        earliest: The offset of the first byte that is left.
        shell: The shell's program.
        at: When it was made, as RFC 3339.
        seen: When anybody last looked at it, in seconds since 1970.
        fault: What went wrong on the host's disk.
        pid: The process that it is.
        sent: Where a signal went: `sent`, `shell` or `nothing`; `never`: its command
            had not begun, and never will.
    """

    ident: str
    state: State = "none"
    exit_code: int | None = None
    signal: str | None = None
    why: str = ""
    kind: str = ""
    size: int = 0
    earliest: int = 0
    shell: str = ""
    at: str = ""
    seen: int = 0
    name: str = ""
    owner: str = ""
    command: str = ""
    fault: str = ""
    pid: int = 0
    sent: str = ""


def standings(said: bytes) -> Iterator[Standing]:
    """Yield what the host's script told, a paragraph of NAME=VALUE each."""
    for part in said.decode("utf-8", "replace").split("\n\n"):
        told = dict(line.split("=", 1) for line in part.splitlines() if "=" in line)
        if told.get("state") in ("running", "exited", "lost"):
            yield _standing(told)


def _standing(told: Mapping[str, str]) -> Standing:
    state = told["state"]
    return Standing(
        ident=told.get("ident", ""),
        state="running" if state == "running" else _ended(state),
        exit_code=exit_code(told.get("exit", "")),
        signal=told.get("signal") or None,
        why=told.get("why", ""),
        kind=told.get("kind", ""),
        size=_number(told, "size"),
        earliest=_number(told, "earliest"),
        shell=told.get("shell", ""),
        at=told.get("created", ""),
        seen=_number(told, "seen"),
        name=told.get("name", ""),
        owner=told.get("owner", ""),
        command=told.get("command", ""),
        fault=told.get("fault", ""),
        pid=_number(told, "pid"),
        sent=told.get("sent", ""),
    )


def _ended(state: str) -> State:
    return "exited" if state == "exited" else "lost"


def _number(told: Mapping[str, str], name: str) -> int:
    return number(told.get(name, "")) or 0


def number(text: str, digits: int = _DIGITS) -> int | None:
    """Return what a host told as a number; None where it is none, or too large."""
    sound = len(text) <= digits and text.isascii() and text.isdigit()
    return int(text) if sound else None


def exit_code(text: str) -> int | None:
    """Return what a host told as an exit code; None where it is none."""
    return number(text, _CODE_DIGITS)
