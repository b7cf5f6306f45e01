"""One user's machine: a real daemon process with its own places, and clients of it.

Works in pytest fixtures and in plain scripts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Self

from fakes import forked, strays
from fakes.forked import Forking, program
from fakes.nursery import CLI, DAEMON, Born, born
from fakes.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PATIENCE", "World", "program"]

PATIENCE = 40.0
_STRIPPED = ("HOLDFAST_", "SSH_", "XDG_", "MCP_", "CLAUDE_", "NOTIFY_", "JOURNAL_")


def _started(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program("holdfastd")],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


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
        self._daemon: subprocess.Popen[bytes] | Born | None = None

    def __enter__(self) -> Self:
        """Start the daemon."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop whatever daemon serves this world; nobody else may be left in it."""
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the daemon that this world started."""
        assert self._daemon is not None
        return self._daemon.pid

    def configure(self, text: str) -> None:
        """Write the configuration."""
        # in one step: a daemon that looks just then would find it empty
        new = self.config.with_name(f"{self.config.name}.new")
        new.write_text(text)
        new.chmod(0o600)
        new.replace(self.config)

    def start(self, **environment: str) -> None:
        """Start the daemon; returns when it says READY=1."""
        self.run.mkdir(mode=0o700, exist_ok=True)
        with Supervisor(self.root) as supervisor:
            given = {**self.environment, **supervisor.environment, **environment}
            self._daemon = (Forking.allowed and born(DAEMON, (), given)) or _started(
                given
            )
            while "READY" not in supervisor.receive(PATIENCE):
                pass

    def close(self) -> None:
        """Stop it for good; who still has its socket named fails the test."""
        self.stop()
        strays.none_left(self.run, PATIENCE)

    def stop(self) -> int | None:
        """Stop the daemon by SIGTERM, also one that clients started."""
        daemon, self._daemon = self._daemon, None
        ended = None if daemon is None else daemon.poll()
        if daemon is None or ended is not None:
            # clients start another in the place of one that crashed
            self._stop_stray()
            return ended
        daemon.terminate()
        try:
            return daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise

    def ended(self) -> int:
        """Return how its daemon, which ends by itself, has ended."""
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        return daemon.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the daemon as a crash would."""
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        daemon.kill()
        daemon.wait()

    def started(self, pid: int) -> bool:
        """Return whether this world started that daemon."""
        return self._daemon is not None and self._daemon.pid == pid

    def _stop_stray(self) -> None:
        if not self.socket.exists():
            return
        done = self.cli("--no-autostart", "status", "--json", check=False)
        if done.returncode == 0:
            pid = json.loads(done.stdout)["pid"]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            strays.ended(pid, self.run, PATIENCE)

    def cli(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `holdfast` and return what it printed."""
        done = forked.run(
            CLI,
            *arguments,
            env={**self.environment, **(env or {})},
            given=stdin or b"",
            seconds=60,
        )
        if check:
            done.check_returncode()
        return done

    def cli_json(self, *arguments: str) -> Any:
        """Run `holdfast … --json` and return its document."""
        return json.loads(self.cli(*arguments, "--json").stdout)
