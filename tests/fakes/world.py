"""One user's machine: a real daemon process with its own places, and clients of it.

Works in pytest fixtures and in plain scripts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fakes.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 20.0
_STRIPPED = ("HOLDFAST_", "SSH_", "XDG_", "MCP_", "CLAUDE_", "NOTIFY_", "JOURNAL_")


def program(name: str) -> str:
    """Return the path of one of our commands."""
    return str(Path(sys.executable).with_name(name))


class World:
    """A directory that holds a daemon's socket, state and configuration.

    Attributes:
        environment: What every program of this user finds.
    """

    def __init__(self, root: Path, *, ssh_config: Path | None = None) -> None:
        """Use `root`, whose path must be short: it holds the socket."""
        self.root = root
        self.run = root / "run"
        self.state = root / "state"
        self.config = root / "config.toml"
        self.socket = self.run / "holdfast.sock"
        self.log = self.state / "log" / "holdfastd.log"
        self.environment: dict[str, str] = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(_STRIPPED)
        }
        self.environment |= {
            "HOLDFAST_SOCKET": str(self.socket),
            "HOLDFAST_STATE_DIR": str(self.state),
            "HOLDFAST_CONFIG": str(self.config),
        }
        if ssh_config is not None:
            self.environment["HOLDFAST_SSH_CONFIG"] = str(ssh_config)
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the daemon."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop whatever daemon serves this world."""
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the daemon that this world started."""
        assert self._daemon is not None
        return self._daemon.pid

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.config.write_text(text)
        self.config.chmod(0o600)

    def start(self, **environment: str) -> None:
        """Start the daemon; returns when it says READY=1."""
        self.run.mkdir(mode=0o700, exist_ok=True)
        with Supervisor(self.root) as supervisor:
            self._daemon = subprocess.Popen(
                [program("holdfastd")],
                env={**self.environment, **supervisor.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            while "READY" not in supervisor.receive(PATIENCE):
                pass
        Path(supervisor.address).unlink(missing_ok=True)

    def stop(self) -> int | None:
        """Stop the daemon by SIGTERM, also one that clients started."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            self._stop_stray()
            return None
        daemon.terminate()
        try:
            return daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise

    def kill(self) -> None:
        """Kill the daemon as a crash would."""
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        daemon.kill()
        daemon.wait()

    def _stop_stray(self) -> None:
        if not self.socket.exists():
            return
        done = self.cli("--no-autostart", "status", "--json", check=False)
        if done.returncode == 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(json.loads(done.stdout)["pid"], signal.SIGTERM)

    def cli(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `holdfast` and return what it printed."""
        return subprocess.run(
            [program("holdfast"), *arguments],
            env={**self.environment, **(env or {})},
            input=stdin if stdin is not None else b"",
            capture_output=True,
            check=check,
            timeout=60,
        )

    def cli_json(self, *arguments: str) -> Any:
        """Run `holdfast … --json` and return its document."""
        return json.loads(self.cli(*arguments, "--json").stdout)
