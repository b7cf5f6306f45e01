"""A machine whose user has a systemd manager of its own; commands run inside it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fakes.sshd import descendants
from fakes.watch import until
from fakes.world import program

WRAPPER = Path(__file__).parents[1] / "service" / "with_user_systemd.sh"
SKIP = 77
UNIT = "holdfast.service"
# Times of a test, and the way to the test's own hosts; the rest is as installed.
DROP_IN = """\
[Unit]
StartLimitBurst=50

[Service]
RestartSec=100ms
WatchdogSec=5s
Environment=HOLDFAST_SSH_CONFIG={ssh_config}
"""


class Machine:
    """A machine whose user has a service manager; commands run inside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        self._wrapper = subprocess.Popen(
            [WRAPPER, "sh", "-c", "echo up; exec cat"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._wrapper.stdout is not None
        if self._wrapper.stdout.readline() != "up\n":
            _, said = self._wrapper.communicate(timeout=10)
            assert self._wrapper.returncode == SKIP, said
            pytest.skip(f"no user manager here: {said.removeprefix('skip: ').strip()}")
        inside = until(self._inside, "the shell has become cat")
        self.enter = ["nsenter", f"--target={inside}", "--mount", "--pid", "--cgroup"]
        self.enter.append("--")

    def _inside(self) -> int:
        """Return the process that waits inside; 0: it is a shell still."""
        for pid in descendants(self._wrapper.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/cmdline").read_bytes() == b"cat\0":
                    return pid
        return 0

    def close(self) -> None:
        """End the manager and all that runs under it."""
        with self._wrapper:
            self._wrapper.communicate(timeout=20)

    def run(
        self, *words: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as the user."""
        done = subprocess.run(
            [*self.enter, *words],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if check and done.returncode:
            journal = [*self.enter, "journalctl", "--no-pager", "--lines", "40"]
            log = subprocess.run(journal, capture_output=True, text=True, check=False)
            said = f"{done.stdout}{done.stderr}\n{log.stdout}"
            raise AssertionError(f"{words} ended with {done.returncode}:\n{said}")
        return done

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Speak to the manager."""
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
        return self.run("systemctl", "--user", *words, check=check, **runtime).stdout

    def show(self, name: str) -> str:
        """Return one property of the unit."""
        return self.systemctl("show", UNIT, "--value", "--property", name).strip()

    def cli(self, *words: str) -> Any:
        """Run `holdfast … --json`; the environment holds HOME and PATH alone."""
        told = self.run(program("holdfast"), "--no-autostart", *words, "--json")
        return json.loads(told.stdout)

    def signal(self, name: str) -> None:
        """Signal the daemon, whose process id counts inside only."""
        self.run("kill", "-s", name, self.show("MainPID"))

    @property
    def drop_in(self) -> Path:
        """A file with settings of this user's own for the unit."""
        folder = self.home / ".config" / "systemd" / "user" / f"{UNIT}.d"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "test.conf"

    def service(
        self, *words: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `holdfast service …` in a shell of this user."""
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **environment}
        words = (program("holdfast"), "service", *words)
        return self.run(*words, check=check, **runtime)
