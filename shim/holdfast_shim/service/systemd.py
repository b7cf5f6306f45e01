"""The user's systemd: our unit in it, lingering, and the agent that it knows."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_shim.errors import CallError
from holdfast_shim.places import PlaceError, places
from holdfast_shim.service import unit
from holdfast_shim.service.plan import OWN
from holdfast_shim.service.shape import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_shim.service.plan import Plan
    from holdfast_shim.service.shape import Logs

_SECONDS = 30.0
# A start waits for the daemon before it to end.
_START_SECONDS = 90.0
_AGENT = "SSH_AUTH_SOCK"
_LINGER = Path("/var/lib/systemd/linger")
_KERNEL = Path("/proc/version")
_GO_ON = "holdfast works without a service: clients start the daemon when they need it"


class Systemd:
    """Speaks to `systemctl --user` of the one who runs us."""

    kind = "systemd"

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = dict(env)
        runtime = env.get("XDG_RUNTIME_DIR", "")
        usual = f"/run/user/{os.getuid()}"
        # relative ones are to be ignored
        self._runtime = Path(runtime if runtime.startswith("/") else usual)
        self._env["XDG_RUNTIME_DIR"] = str(self._runtime)
        self._usual = _usual(env, home)
        self._folder = self._units(home, env.get("XDG_CONFIG_HOME", ""))
        self._user = _name(os.getuid())

    @property
    def path(self) -> Path:
        """Where our unit lies."""
        return self._folder / unit.NAME

    @property
    def socket(self) -> Path:
        """What `unit.SOCKET` becomes; without a unit, where clients look."""
        if not self.path.is_file():
            return self._usual
        return self._runtime / "holdfast" / "holdfast.sock"

    def check(self) -> None:
        """Raise unless the user's manager answers."""
        done = self._ask("show-environment")
        if done.returncode == 0:
            return
        hint = f"log in as {self._user} by ssh or at the console (not by su or sudo), "
        hint += f"then run this again; {_GO_ON}"
        if not Path("/run/systemd/system").is_dir():
            hint = f"systemd does not run this machine, as in most containers; {_GO_ON}"
        elif not self._runtime.is_dir():
            hint = f"{self._runtime} is not there: {hint}"
        raise CallError(
            "UNSUPPORTED",
            f"no systemd user manager answers: {_first(done.stderr)}",
            hint=hint,
        )

    def text(self, plan: Plan) -> str:
        """Return the unit; what was noted in the one before stays noted."""
        if unit.lingers_by_install(self._found()):
            plan = plan._replace(linger=True)
        return unit.text(plan)

    def environment(self) -> dict[str, str]:
        """Return what the unit in place tells the daemon."""
        return unit.environment_of(self._found())

    def write(self, plan: Plan) -> bool:
        """Write the unit in one step and have the manager read it."""
        wanted = self.text(plan)
        if self._found() == wanted:
            return False
        self._put(wanted)
        return True

    def agent(self) -> str:
        """Import SSH_AUTH_SOCK, when it is an agent that will last."""
        found = self._env.get(_AGENT, "")
        if not found:
            return f"{_AGENT} is not set here; each call brings its client's agent"
        try:
            status = Path(found).stat()
        except OSError as error:
            return f"{_AGENT} is not imported: {found}: {error.strerror}"
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.getuid():
            return f"{_AGENT} is not imported: {found} is no socket of yours"
        if "SSH_CONNECTION" in self._env and found.startswith("/tmp/ssh-"):  # noqa: S108
            return (
                f"{_AGENT} is not imported: this agent is forwarded and ends with this"
                " login; each call brings its client's agent"
            )
        self._do("import-environment", _AGENT)
        return (
            f"{_AGENT} is imported into the user manager until its end ({found}); "
            "each call brings its client's agent all the same"
        )

    def start(self) -> None:
        """Enable and start it; Type=notify says when it is ready."""
        self._do("reset-failed", unit.NAME, quiet=True)
        self._do("enable", "--quiet", unit.NAME)
        self._do("start", unit.NAME, seconds=_START_SECONDS)

    def restart(self) -> None:
        """Restart it; restarts by hand before this one are not held against it."""
        self._do("reset-failed", unit.NAME, quiet=True)
        self._do("restart", unit.NAME, seconds=_START_SECONDS)

    def linger(self) -> str:
        """Switch lingering on, and note in the unit that it was us."""
        if self._lingers():
            return f"lingering was on for {self._user}"
        if self._wsl():
            return "lingering is left off: under WSL it hides the socket's directory"
        done = self._run("loginctl", "enable-linger", self._user)
        if done.returncode:
            raise CallError(
                "UNSUPPORTED",
                f"lingering can't be switched on: {_first(done.stderr)}",
                hint=f"the service is installed; `sudo loginctl enable-linger "
                f"{self._user}` switches it on",
            )
        found = self._found()
        if found and not unit.lingers_by_install(found):
            self._put(unit.with_linger(found))
        return f"lingering is on for {self._user}: it starts at boot, ends at shutdown"

    def remove(self) -> list[str]:
        """Stop and remove the unit, and switch lingering off if we switched it on."""
        told: list[str] = []
        found = self._found()
        if found:
            self._do("disable", "--quiet", unit.NAME, quiet=True)
            self._do("stop", unit.NAME, seconds=_START_SECONDS)
            self.path.unlink(missing_ok=True)
            told.append(f"{self.path} is removed")
        self._do("daemon-reload")
        self._do("reset-failed", unit.NAME, quiet=True)
        if unit.lingers_by_install(found) and self._lingers():
            done = self._run("loginctl", "disable-linger", self._user)
            off = "off again" if not done.returncode else f"on: {_first(done.stderr)}"
            told.append(f"lingering is {off}")
        own = self.path.with_name(unit.NAME + ".d")
        if own.is_dir():
            told.append(f"{own} is left: it is your own (`systemctl --user edit`)")
        wants = self._folder / "default.target.wants"
        for folder in (wants, self._folder, self._folder.parent):
            _drop_empty(folder)
        return told

    def state(self) -> State:
        """Ask the manager."""
        found = self.path.is_file()
        state = State(installed=found, lingers=self._lingers())
        names = ("ActiveState", "MainPID", "NRestarts", "StatusText", "UnitFileState")
        done = self._ask("show", unit.NAME, f"--property={','.join(names)}")
        if done.returncode:
            state.active = "unknown"
            state.notes.append(_first(done.stderr))
            return state
        lines = (line.partition("=") for line in done.stdout.splitlines())
        facts = {name: value for name, _, value in lines}
        state.enabled = facts.get("UnitFileState") == "enabled"
        state.active = facts.get("ActiveState", "unknown")
        state.pid = int(facts.get("MainPID") or 0)
        state.restarts = int(facts.get("NRestarts") or 0)
        state.told = facts.get("StatusText", "")
        for line in self._ask("show-environment").stdout.splitlines():
            if line.startswith(f"{_AGENT}="):
                state.agent = line.partition("=")[2]
        return state

    def logs(self, wanted: Logs) -> list[str]:
        """Return a journalctl command line; fields are the journal's own."""
        # not --user: where journals are volatile, and for root, there is but one
        words = ["journalctl", "--user-unit", unit.NAME]
        words += ["--lines", str(wanted.lines), "--no-pager"]
        words += ["--follow"] if wanted.follow else []
        words += ["--since", wanted.since] if wanted.since else []
        words += ["--output", "json"] if wanted.json else []
        fields = {**wanted.fields}
        session = fields.pop("session", "")
        found = [f"HOLDFAST_{name.upper()}={value}" for name, value in fields.items()]
        if not session:
            return words + found
        # journalctl takes alternatives as wholes: a session goes by id or by name
        by_id, by_name = (
            f"HOLDFAST_SESSION={session}",
            f"HOLDFAST_SESSION_NAME={session}",
        )
        return [*words, *found, by_id, "+", *found, by_name]

    def _units(self, home: Path, config: str) -> Path:
        """Return where the manager looks for units: it may not know of our `config`."""
        usual = home / ".config" / "systemd" / "user"
        own = Path(config, "systemd", "user") if config.startswith("/") else usual
        if own == usual:
            return usual
        told = self._ask("show", "--property=UnitPath", "--value").stdout
        return usual if str(usual) in told and str(own) not in told else own

    def _found(self) -> str:
        try:
            return self.path.read_text("utf-8")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"{self.path} is no UTF-8 text: {error}",
                hint="move it away, and install anew; nothing was started",
            ) from None
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def _file(self) -> Path:
        """Return the file to be written: where the unit is a link, it stays one."""
        if not self.path.is_symlink():
            return self.path
        file = self.path.resolve()
        if file == Path(os.devnull):
            raise CallError(
                "UNSUPPORTED",
                f"{unit.NAME} is masked: somebody wants it never to run",
                hint="`systemctl --user unmask holdfast`, then run this again",
            )
        return file

    def _put(self, text: str) -> None:
        file = self._file()
        new = file.with_name(f".{file.name}.new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            new.write_text(text, "utf-8")
            new.chmod(0o644)
            new.replace(file)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise _unwritable(self.path, error) from None
        self._do("daemon-reload")

    def _lingers(self) -> bool:
        return (_LINGER / self._user).exists()

    def _wsl(self) -> bool:
        try:
            return "microsoft" in _KERNEL.read_text("utf-8", "replace").lower()
        except OSError:
            return False

    def _do(self, *words: str, seconds: float = _SECONDS, quiet: bool = False) -> None:
        """Have the manager do it; `quiet` where there may be nothing to do."""
        done = self._ask(*words, seconds=seconds)
        if done.returncode and not quiet:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"`systemctl --user {' '.join(words)}` failed: {_first(done.stderr)}",
                hint="`holdfast service logs` and `systemctl --user status holdfast` "
                "tell why",
            )

    def _ask(
        self, *words: str, seconds: float = _SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return self._run("systemctl", "--user", "--no-pager", *words, seconds=seconds)

    def _run(
        self, *words: str, seconds: float = _SECONDS
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError:
            told = f"{words[0]}: there is no such program here"
            return subprocess.CompletedProcess(words, 127, "", told)
        except subprocess.TimeoutExpired:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"`{' '.join(words)}` did not end within {seconds:g} s",
                hint="`systemctl --user list-jobs` tells what it waits for",
            ) from None


def _usual(env: Mapping[str, str], home: Path) -> Path:
    """Return the standard socket, which is all that a service is for."""
    standard = {name: value for name, value in env.items() if name not in OWN}
    try:
        return places(standard, home, os.getuid()).socket
    except PlaceError as error:
        raise CallError("DAEMON_UNAVAILABLE", error.message, hint=error.hint) from error


def _name(uid: int) -> str:
    """Return how a user is called: by number, where no account has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _first(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[0] if lines else "it gave no reason"


def _drop_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # it is not there, or others use it


def _unwritable(path: Path, error: OSError) -> CallError:
    return CallError(
        "DAEMON_UNAVAILABLE",
        f"{path} can't be read or written: {error.strerror or error}",
        hint="make it and its directory your own; nothing was started",
    )
