"""ssh-agents: which one is asked for a host, and what is told of those that were not.

The daemon is a service: it sees neither the variables of a terminal nor, often, those
of the client that calls. So it also looks where agents usually listen.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncssh import SSHAgentClient, SSHKeyPair

    from holdfast_daemon.hosts.host import Host

# Below $XDG_RUNTIME_DIR: systemd's user unit, GNOME Keyring old and new, GnuPG.
_BELOW_RUNTIME = (
    "ssh-agent.socket",
    "keyring/ssh",
    "gcr/ssh",
    "gnupg/S.gpg-agent.ssh",
)
# Below the home directory: 1Password on Linux and on macOS, GnuPG.
_BELOW_HOME = (
    ".1password/agent.sock",
    "Library/Group Containers/2BUA8C4S2C.com.1password/t/agent.sock",
    ".gnupg/S.gpg-agent.ssh",
)
# OpenSSH 10.1 and later; launchd on macOS.
_PATTERNS = ((".ssh/agent", "s.*"),)
_LAUNCHD = ("/private/tmp", "com.apple.launchd.*/Listeners")
_MOST_MATCHES = 4


@dataclass(slots=True)
class Found:
    """The agent whose keys are used, and what is to be said of agents."""

    keys: list[SSHKeyPair] = field(default_factory=list["SSHKeyPair"])
    client: SSHAgentClient | None = None
    path: str = ""
    notes: list[str] = field(default_factory=list[str])


class _Answer(NamedTuple):
    """What came of asking one agent; `there`: something listens."""

    note: str
    there: bool


async def find(host: Host, environ: Mapping[str, str], seconds: float) -> Found:
    """Ask for the keys an agent holds for `host`, within `seconds` in all.

    IdentityAgent alone where it is set, as with ssh; else the caller's own, the
    daemon's, and the usual places, until one has a key.
    """
    found = Found()
    named, usual = await asyncio.to_thread(_places, host, environ)
    until = asyncio.get_running_loop().time() + seconds
    for path in dict.fromkeys([*named, *usual]):
        left = until - asyncio.get_running_loop().time()
        answer = await _ask(path, found, left)
        if found.keys:
            return found
        if answer.there or path in named:
            found.notes.append(answer.note)
    if not named and not found.notes and host.identity_agent != "none":
        found.notes.append(
            "the holdfast service sees no ssh-agent: SSH_AUTH_SOCK is not set for it,"
            " nor does one listen at the usual places"
        )
    return found


async def _ask(path: str, found: Found, seconds: float) -> _Answer:
    """Take an agent's keys into `found`, or tell why there are none."""
    trouble = await asyncio.to_thread(_trouble, path)
    if trouble:
        return _Answer(f"the agent {path} was not asked: {trouble}", there=False)
    if seconds <= 0:
        return _Answer(f"the agent {path} was not asked: others hung", there=True)
    client = asyncssh.SSHAgentClient(path)
    try:
        async with asyncio.timeout(seconds):
            keys = list(await client.get_keys())
    except (TimeoutError, OSError, ValueError) as error:
        client.close()
        reason = "no answer" if isinstance(error, TimeoutError) else str(error)
        there = not isinstance(error, ConnectionRefusedError)
        return _Answer(f"the agent {path} did not answer: {reason}", there)
    if keys:
        found.keys, found.client, found.path = keys, client, path
        held = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
        found.notes = [f"the agent {path} was asked: it holds {held}"]
        return _Answer("", there=True)
    client.close()
    await client.wait_closed()
    return _Answer(f"the agent {path} was asked: it holds no keys", there=True)


def _places(host: Host, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the agents that somebody named, and those that may be about."""
    if host.identity_agent == "none":
        return [], []
    if host.identity_agent:
        return [host.identity_agent], []
    named = [host.auth_sock, environ.get("SSH_AUTH_SOCK", "")]
    usual = [str(path) for path in _usual(environ) if not _trouble(str(path))]
    return list(dict.fromkeys(filter(None, named))), usual


def _usual(environ: Mapping[str, str]) -> Iterator[Path]:
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    for name in _BELOW_RUNTIME:
        yield Path(runtime, name)
    home = Path(environ.get("HOME") or Path.home())
    for name in _BELOW_HOME:
        yield home / name
    for folder, pattern in (*_PATTERNS, _LAUNCHD):
        yield from _newest(home / folder, pattern)


def _newest(folder: Path, pattern: str) -> list[Path]:
    """Return the newest matches: an agent that ended leaves its socket behind."""
    dated: list[tuple[float, Path]] = []
    try:
        for path in folder.glob(pattern):
            dated.append((path.stat().st_mtime, path))  # noqa: PERF401  may fail midway
    except OSError:
        return []
    return [path for _, path in sorted(dated, reverse=True)[:_MOST_MATCHES]]


def _trouble(path: str) -> str:
    """Return why there is no agent of ours at `path`, or nothing."""
    if path.startswith("$"):
        return "IdentityAgent names a variable that is not set for the service"
    try:
        state = Path(path).stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISSOCK(state.st_mode):
        return "it is no socket"
    if state.st_uid != os.geteuid():
        return "it belongs to another user"
    return ""
