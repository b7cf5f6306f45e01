"""What a client can find out by itself: place, lock, and whether a daemon could start.

Knows neither gRPC nor the command line; the daemon looks at all the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract import HASH
from holdfast_shim import autostart, managers, places
from holdfast_shim.errors import CallError
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.v1 import admin_pb2

OK, WARN, FAIL, SKIP = "ok", "warn", "fail", "skip"
_RESTART = "`holdfast service upgrade` has the installed version take over"


@dataclass(frozen=True, slots=True)
class Row:
    """What one check found; as `holdfast.v1.Finding`, with the verdict as a word."""

    check: str
    verdict: str
    told: str
    hint: str = ""
    details: Mapping[str, str] = field_of(default_factory=dict[str, str])

    @property
    def json(self) -> dict[str, Any]:
        """It as a document."""
        return {
            "check": self.check,
            "verdict": self.verdict,
            "told": self.told,
            "hint": self.hint,
            "details": dict(self.details),
        }


def of_error(check: str, error: CallError) -> Row:
    """Return a failed call as a finding."""
    details = {"reason": error.reason, **error.metadata}
    field = error.metadata.get("field", "")
    rest = f"correct {field}" if field else "the daemon's log may tell more"
    return Row(check, FAIL, error.message, error.hint or rest, details)


def own() -> Row:
    """Say who asks."""
    told = f"holdfast {VERSION}, Python {sys.version.split()[0]} at {sys.executable}"
    return Row("client", OK, told, details={"version": VERSION})


async def standing(socket: Path) -> tuple[bool, list[Row]]:
    """Return whether something serves the socket, and what is to be said of that.

    Called before anything is started, so that it is told as it was.
    """
    check = "daemon's socket"
    try:
        answers = await autostart.answers(socket)
    except CallError as error:
        return False, [of_error(check, error)]
    details = {"path": str(socket)}
    if answers:
        return True, [Row(check, OK, f"{socket} answers", details=details)]
    return False, [_silent(check, socket, details)]


def _silent(check: str, socket: Path, details: dict[str, str]) -> Row:
    """Say why nothing answers."""
    holder = _holder(Path(f"{socket}.lock"))
    if holder:
        told = f"nothing answers on {socket}, but process {holder} holds its lock"
        hint = f"it is stuck, or just starting; `kill {holder}` if it stays so"
        return Row(check, FAIL, told, hint, details | {"pid": holder})
    if socket.is_socket():
        told = f"{socket} is stale: its daemon was killed"
        hint = "nothing to do: the next daemon replaces it"
        return Row(check, WARN, told, hint, details)
    told = f"no daemon runs: there is no {socket}"
    return Row(check, SKIP, told, "the next call starts one", details)


def _holder(lock: Path) -> str:
    """Return who holds a daemon's lock; empty: nobody, as far as one can see."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "?"
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return ""


def startable(socket: Path, env: Mapping[str, str]) -> list[Row]:
    """Say whether a daemon could be started, without trying."""
    found = [_program(), _folder(socket), _unit(env)]
    with contextlib.suppress(places.PlaceError):
        where = places.places(env, Path(env.get("HOME") or Path.home()), os.getuid())
        found.append(_state(where.state))
    return found


def _program() -> Row:
    check = "start: program"
    if importlib.util.find_spec("holdfast_daemon") is None:
        told = f"the package holdfast_daemon is not there for {sys.executable}"
        return Row(check, FAIL, told, "install holdfast again, all of it")
    return Row(check, OK, f"{sys.executable} -m holdfast_daemon")


def _folder(socket: Path) -> Row:
    check, folder = "start: socket directory", socket.parent
    try:
        places.check_directory(folder)
    except places.PlaceError as error:
        return Row(check, FAIL, error.message, error.hint)
    return _writable(check, folder)


def _state(state: Path) -> Row:
    check = "start: state directory"
    try:
        places.check_directory(state)
    except places.PlaceError as error:
        hint = "choose a place of your own (mode 0700) with HOLDFAST_STATE_DIR"
        return Row(check, FAIL, error.message, hint)
    return _writable(check, state)


def _writable(check: str, folder: Path) -> Row:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    details = {"path": str(folder)}
    if not os.access(there, os.W_OK | os.X_OK):
        told = f"{folder} can't be made or written: {there} is not writable"
        return Row(check, FAIL, told, "make it writable, or name another", details)
    told = f"{folder} {'is there' if there == folder else 'can be made'}"
    return Row(check, OK, told, details=details)


def _unit(env: Mapping[str, str]) -> Row:
    check = "start: service"
    runtime = Path(env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    unit = managers.unit_file(env, runtime)
    if unit is None:
        agent = managers.agent_file(env)
        # Path's own is_file raises where we may not look
        if os.path.isfile(agent):  # noqa: PTH113
            return Row(check, OK, str(agent))
        return Row(check, OK, "not installed: a daemon is started by itself")
    if shutil.which("systemctl", path=env.get("PATH")) is None:
        told = f"{unit} is there, but no systemctl"
        return Row(check, WARN, told, "a daemon is started by itself instead")
    return Row(check, OK, str(unit))


def versions(hello: admin_pb2.HelloResponse) -> Row:
    """Say whether client and daemon are of the same release."""
    check = "versions"
    details = {
        "client": VERSION,
        "daemon": hello.version,
        "client_contract": HASH,
        "daemon_contract": hello.contract_hash,
        "pid": str(hello.pid),
    }
    hint = _RESTART
    if hello.version != VERSION:
        told = f"the running daemon is holdfast {hello.version}, this client {VERSION}"
        return Row(check, WARN, told, hint, details)
    if hello.contract_hash != HASH:
        told = f"both are {VERSION}, but of different contracts: some calls may fail"
        return Row(check, WARN, told, hint, details)
    return Row(check, OK, f"client and daemon are both {VERSION}", details=details)
