"""The user's launchd: our agent in the domain of the graphical session."""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
import time
from typing import TYPE_CHECKING

from holdfast_shim.errors import CallError
from holdfast_shim.places import PlaceError, places
from holdfast_shim.service import agent, standing
from holdfast_shim.service.shape import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast_shim.service.plan import Plan
    from holdfast_shim.service.shape import Logs

_SECONDS = 30.0
_READY_SECONDS = 20.0
_LOOK_SECONDS = 0.05
# launchctl's way to say that there is no such job.
_NO_JOB = (3, 113)
# what an editor of plists may make of ours
_BINARY = b"bplist"


class Launchd:
    """Speaks to `launchctl` for the one who runs us."""

    kind = "launchd"

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = dict(env)
        self._home = home
        self._domain = f"gui/{os.getuid()}"
        try:
            self._places = places(env, home, os.getuid())
        except PlaceError as error:
            raise CallError(
                "DAEMON_UNAVAILABLE", error.message, hint=error.hint
            ) from error

    @property
    def path(self) -> Path:
        """Where our agent lies."""
        return self._home / "Library" / "LaunchAgents" / f"{agent.LABEL}.plist"

    @property
    def socket(self) -> Path:
        """Where the daemon finds its place by itself."""
        return self._places.socket

    def check(self) -> None:
        """Raise unless there is a graphical session to run in."""
        done = self._run("print", self._domain)
        if done.returncode:
            raise CallError(
                "UNSUPPORTED",
                f"launchd has no session for this user: {_first(done.stderr)}",
                hint="log in at the screen, then run this again; holdfast works without"
                " a service: clients start the daemon when they need it",
            )

    def text(self, plan: Plan) -> str:
        """Return the plist, with the socket where this user's clients look."""
        command = (*plan.command, "--socket", str(self.socket))
        return agent.text(plan._replace(command=command))

    def environment(self) -> dict[str, str]:
        """Return what the plist in place tells the daemon."""
        return agent.environment_of(self._found())

    def write(self, plan: Plan) -> bool:
        """Write the plist in one step; launchd reads it with the next bootstrap."""
        wanted = self.text(plan)
        if self._found() == wanted:
            return False
        new = self.path.with_suffix(".new")
        try:
            for folder in (self.path.parent, self._log().parent):
                folder.mkdir(parents=True, exist_ok=True)
            new.write_text(wanted, "utf-8")
            new.chmod(0o644)  # launchd refuses what others may write
            new.replace(self.path)
        except OSError as error:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"{self.path} can't be written: {error.strerror or error}",
                hint="make its directory your own; nothing was started",
            ) from None
        return True

    def agent(self) -> str:
        """Say where the service has its SSH agent from."""
        return (
            "launchd tells the service of this login's SSH agent; each call brings its"
            " client's agent all the same"
        )

    def start(self) -> None:
        """Load it, which starts it; return when the socket answers."""
        self._do("enable", self._name())
        if self._loaded():
            self._unload()  # what is loaded is what the plist was
        self._do("bootstrap", self._domain, str(self.path))
        self._ready()

    def restart(self) -> None:
        """Load the plist anew, which ends what ran before and starts it."""
        self.start()

    def linger(self) -> str:
        """Say that there is none."""
        return "an agent runs while you are logged in at the screen; macOS has no more"

    def remove(self) -> list[str]:
        """Unload it, and remove the plist and the log."""
        told: list[str] = []
        if self._loaded():
            self._unload()
            told.append("the service is stopped")
        if self.path.exists():
            self.path.unlink()
            told.append(f"{self.path} is removed")
        self._log().unlink(missing_ok=True)
        try:
            self._log().parent.rmdir()
        except OSError:
            return told  # it was never made, or holds other things
        return told

    def state(self) -> State:
        """Ask launchd."""
        state = State(installed=self.path.is_file())
        done = self._run("print", self._name())
        if done.returncode:
            return state
        # blocks further in, as of its coalitions, have states of their own
        facts = dict(re.findall(r"^\t([a-z ]+) = (.*)$", done.stdout, re.MULTILINE))
        state.enabled = state.installed
        state.active = "active" if facts.get("state") == "running" else "inactive"
        state.pid = int(facts.get("pid", "0"))
        state.restarts = max(0, int(facts.get("runs", "1")) - 1)
        code = facts.get("last exit code", "")
        state.told = f"last exit code {code}" if code[:1].isdigit() else ""
        return state

    def logs(self, wanted: Logs) -> list[str]:
        """Return a `tail` of the daemon's logs; launchd keeps none."""
        if wanted.since or wanted.fields or wanted.json:
            raise CallError(
                "UNSUPPORTED",
                "launchd keeps no journal: --since, --json and filters need systemd",
                hint=f"the log is {self._own_log()}",
            )
        words = ["tail", "-n", str(wanted.lines)]
        # -F: goes on with the next file when the daemon rotates
        # what ends it before its own log is open, as wrong configuration, is elsewhere
        both = (self._log(), self._own_log())
        files = [one for one in both if one.is_file() and one.stat().st_size]
        files = files or [self._own_log()]
        return [*words, *(["-F"] if wanted.follow else []), *map(str, files)]

    def _own_log(self) -> Path:
        return self._places.state / "log" / "holdfastd.log"

    def _log(self) -> Path:
        return self._home / "Library" / "Logs" / "holdfast" / "service.log"

    def _name(self) -> str:
        return f"{self._domain}/{agent.LABEL}"

    def _found(self) -> str:
        try:
            found = self.path.read_bytes()
            if found.startswith(_BINARY):
                found = plistlib.dumps(plistlib.loads(found))
            return found.decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"{self.path} can't be read: {error}",
                hint="move it away, and install anew; nothing was started",
            ) from None

    def _loaded(self) -> bool:
        return self._run("print", self._name()).returncode == 0

    def _unload(self) -> None:
        """Unload it and wait: a bootstrap while it still ends fails."""
        done = self._run("bootout", self._name())
        if done.returncode and done.returncode not in _NO_JOB:
            raise _failed("bootout", done.stderr)
        limit = time.monotonic() + standing.END_SECONDS
        while self._loaded() or not standing.free(self.socket):
            if time.monotonic() >= limit:
                raise _failed("bootout", "the daemon did not end")
            time.sleep(_LOOK_SECONDS)

    def _ready(self) -> None:
        """Wait for the lock to be held: launchd knows no readiness, the caller asks."""
        limit = time.monotonic() + _READY_SECONDS
        while standing.free(self.socket) or not self.socket.is_socket():
            if time.monotonic() >= limit:
                raise _failed("bootstrap", f"nothing answers on {self.socket}")
            time.sleep(_LOOK_SECONDS)

    def _do(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode:
            raise _failed(" ".join(words), done.stderr)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["launchctl", *words],
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, 127, "", "no launchctl here")
        except subprocess.TimeoutExpired:
            raise _failed(" ".join(words), f"no end within {_SECONDS:g} s") from None


def _failed(words: str, said: str) -> CallError:
    return CallError(
        "DAEMON_UNAVAILABLE",
        f"`launchctl {words}` failed: {_first(said)}",
        hint="`holdfast service logs` tells why",
    )


def _first(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[0] if lines else "it gave no reason"
