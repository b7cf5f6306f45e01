"""The service managers that may have the daemon as a service: systemd and launchd.

Found by their files, so that a machine without them costs no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Mapping, Sequence

UNIT = "holdfast.service"
AGENT = "io.holdfast.holdfastd"
# With Type=notify, systemd says that it is started when it serves; a launchctl or
# systemctl that hangs is not waited for any longer.
_START_SECONDS = 6.0
_ASK_SECONDS = 3.0
# Of a service that has not failed; see `systemctl --state=help`.
_ON_ITS_WAY = ("condition", "start-pre", "start", "start-post", "running", "reload")

# These belong to one client or to its service manager; the daemon serves all clients.
PRIVATE = (
    "SSH_DEFAULT_HOST",
    "SSH_DEFAULT_USER",
    "SSH_DEFAULT_PORT",
    "SSH_DEFAULT_PASSWORD",
    "SSH_PRIVATE_KEY",
    "SSH_DEFAULT_TIMEOUT_SEC",
    "SSH_CONNECT_TIMEOUT_SEC",
    "SSH_ALLOWED_HOSTS",
    "SSH_MAX_OUTPUT_CHARS",
    "MCP_TOKEN",
    "CLAUDE_CODE_SESSION_ID",
    "HOLDFAST_DETACH_KEYS",
    "GRPC_VERBOSITY",
    "GRPC_ENABLE_FORK_SUPPORT",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
)


class Manager:
    """The one that has the daemon's service."""

    def __init__(
        self,
        env: Mapping[str, str],
        start: Sequence[str],
        ask: Sequence[str],
        running: Sequence[bytes],
    ) -> None:
        """Take what starts the service, what asks for its state, and the good ones."""
        self._env = env
        self._start = start
        self._ask = ask
        self._running = running

    async def start(self) -> bool:
        """Have it start the daemon; return whether it says that it did."""
        process = await _begun(self._env, self._start, subprocess.DEVNULL)
        if process is None:
            return False
        async with _bounded(process, _START_SECONDS):
            await process.wait()
        return process.returncode == 0

    async def runs(self) -> bool:
        """Say whether the service runs, or is on its way: it will answer."""
        process = await _begun(self._env, self._ask, subprocess.PIPE)
        if process is None:
            return False
        said = b""
        async with _bounded(process, _ASK_SECONDS):
            said, _ = await process.communicate()
        lines = [line.strip() for line in said.splitlines()]
        return any(one in lines for one in self._running)


async def find(socket: Path, env: Mapping[str, str]) -> Manager | None:
    """Return the manager whose service serves this socket."""
    agent = agent_file(env)
    launchctl = shutil.which("launchctl", path=env.get("PATH"))
    if launchctl is not None and await asyncio.to_thread(_serves, agent, socket):
        name = f"gui/{os.getuid()}/{AGENT}"
        start = (launchctl, "kickstart", name)
        return Manager(env, start, (launchctl, "print", name), (b"state = running",))
    systemctl = shutil.which("systemctl", path=env.get("PATH"))
    runtime = Path(env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    if systemctl is None or socket != runtime / "holdfast" / "holdfast.sock":
        return None
    if _apart(env) or unit_file(env, runtime) is None:
        return None
    return Manager(
        {**env, "XDG_RUNTIME_DIR": str(runtime)},
        (systemctl, "--user", "start", UNIT),
        (systemctl, "--user", "show", "--property=SubState", UNIT),
        # and not `auto-restart`: it ends each time, and only its own words tell why
        tuple(f"SubState={state}".encode() for state in _ON_ITS_WAY),
    )


def _apart(env: Mapping[str, str]) -> bool:
    """Return whether it tells the daemon what a service would not know."""
    own = (name for name in env if name.startswith("HOLDFAST_"))
    return any(env[name] and name not in PRIVATE for name in own)


def _serves(agent: Path, socket: Path) -> bool:
    """Return whether a LaunchAgent names `socket`. Blocks."""
    try:
        return f"<string>{socket}</string>" in agent.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


async def _begun(
    env: Mapping[str, str], words: Sequence[str], stdout: int
) -> Process | None:
    """Start a program; None: it is for another machine, or none can be started."""
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env=env,
        )
    except OSError:
        return None


@contextlib.asynccontextmanager
async def _bounded(process: Process, seconds: float) -> AsyncGenerator[None]:
    """Give what is done with a program so long, and end it by then."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def agent_file(env: Mapping[str, str]) -> Path:
    """Return where launchd finds the daemon's agent, if it is there."""
    home = Path(env.get("HOME") or Path.home())
    return home / "Library" / "LaunchAgents" / f"{AGENT}.plist"


def unit_file(env: Mapping[str, str], runtime: Path) -> Path | None:
    """Return the unit of the daemon that the user's systemd finds; None: it finds none.

    What we may not look into is hidden from it too, as it runs as the same user.
    """
    units = (folder / UNIT for folder in unit_folders(env, runtime))
    # Path's own is_file raises what os.path takes for "no".
    return next((unit for unit in units if os.path.isfile(unit)), None)  # noqa: PTH113


def unit_folders(env: Mapping[str, str], runtime: Path) -> list[Path]:
    """Return where systemd looks for a user's units."""
    home = Path(env.get("HOME") or Path.home())
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(env.get("XDG_DATA_HOME") or home / ".local/share")
    # It may not know of the XDG_CONFIG_HOME of a shell.
    tops = [config, home / ".config", Path("/etc"), runtime, Path("/run"), data]
    tops += [Path("/usr/local/lib"), Path("/usr/lib")]
    return [top / "systemd/user" for top in dict.fromkeys(tops)]
