"""This machine, booted once more in a container, with logind and a user of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.sshd import descendants
from fakes.watch import until

ROOT = Path(__file__).parents[2]
WRAPPER = ROOT / "tests" / "install" / "with_booted_systemd.sh"
SKIP = 77
UID = 4242
USER = "person"


def _programs() -> list[Path]:
    """Return where this checkout and its Python are, as far as they must be shared.

    A machine's root is a layer over ours, without what is mounted there or is in /tmp.
    """
    root = Path("/").stat().st_dev
    python = [Path(sys.prefix), Path(sys.base_prefix)]
    return [ROOT] + [
        path
        for path in python
        if not path.is_relative_to(ROOT)
        and (path.stat().st_dev != root or path.is_relative_to("/tmp"))
    ]


class Booted:
    """A booted machine; commands run in it as root, or in a login of its user."""

    def __init__(self, *shared: Path) -> None:
        """Boot it; it shares these directories with this machine, and our programs."""
        self._wrapper = subprocess.Popen(
            [WRAPPER, USER, *shared, *_programs()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._wrapper.stdout is not None
        if self._wrapper.stdout.readline() != "up\n":
            _, said = self._wrapper.communicate(timeout=10)
            assert self._wrapper.returncode == SKIP, said
            pytest.skip(f"no boot here: {said.removeprefix('skip: ').strip()}")
        until(self.up, "it has booted")

    def close(self) -> None:
        """Switch it off."""
        with self._wrapper:
            self._wrapper.communicate(timeout=30)

    @property
    def init(self) -> int:
        """Its process 1, as it is known outside; 0: none just now."""
        for pid in descendants(self._wrapper.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/systemd"):
                    return pid
        return 0

    def up(self) -> bool:
        """Whether it has booted to the end."""
        if not self.init:
            return False
        state = self.root("systemctl", "is-system-running", check=False)
        return state.stdout.strip() in {"running", "degraded"}

    def reboot(self) -> None:
        """Have it boot again; returns when it has."""
        before = self.init
        self.root("systemctl", "reboot", check=False)
        until(lambda: self.init not in (0, before) and self.up(), "it has booted again")

    def root(
        self, *words: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--cgroup"]
        done = subprocess.run(
            [*enter, "--uts", "--ipc", "--", *words],
            env={"PATH": os.environ["PATH"]},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not check or not done.returncode, done
        return done

    def login(
        self, *words: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Log in as the user, run a command, log out."""
        given = {"PATH": os.environ["PATH"], **environment}
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
        run += ["--property=PAMName=login", f"--property=User={USER}"]
        run += [f"--setenv={name}={value}" for name, value in given.items()]
        return self.root(*run, f"--working-directory=/home/{USER}", *words, check=check)

    def manager(self) -> str:
        """How the user's own manager stands."""
        done = self.root("systemctl", "is-active", f"user@{UID}.service", check=False)
        return done.stdout.strip()
