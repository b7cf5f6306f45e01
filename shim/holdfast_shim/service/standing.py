"""The daemon that runs now: what its end would cost, and ending it in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from grpc import aio

from holdfast.contract import HASH
from holdfast.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    forward_pb2,
    forward_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from holdfast_shim import autostart
from holdfast_shim.client import DaemonClient, error_of
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.v1 import common_pb2

ANSWER_SECONDS = 10.0
# Its limit stop_seconds is 5 by default; a forced end comes soon after it.
END_SECONDS = 30.0
# So long one that does not answer has, as its limit stop_seconds gives it by default.
_STUCK_SECONDS = 6.0
_LOOK_SECONDS = 0.05
_DRAIN_LOOK_SECONDS = 0.25
_PS_SECONDS = 5.0
_PROC = Path("/proc")


@dataclass(slots=True)
class Standing:
    """One look at a daemon.

    Attributes:
        pid: Its process.
        version: Its release.
        instance: New at every start.
        same: It was built with our contract.
        bound: Commands and shells that would end with it.
        sessions: Sessions that their hosts keep.
        forwards: Forwards that are declared durable.
        closing: Forwards that are not.
        untold: What could not be asked, of another release.
    """

    pid: int
    version: str
    instance: str
    same: bool
    bound: list[str] = field(default_factory=list[str])
    sessions: list[str] = field(default_factory=list[str])
    forwards: list[str] = field(default_factory=list[str])
    closing: list[str] = field(default_factory=list[str])
    untold: list[str] = field(default_factory=list[str])


async def look(socket: Path, context: common_pb2.ClientContext) -> Standing | None:
    """Ask the daemon behind `socket`; None: there is none."""
    if not await autostart.answers(socket):
        return None
    async with DaemonClient(socket, context, autostart=False) as client:
        hello = await client.connect()
        found = Standing(
            hello.pid, hello.version, hello.instance, hello.contract_hash == HASH
        )
        await _ask(client, found)
        return found


async def _ask(client: DaemonClient, found: Standing) -> None:
    about = client.metadata()
    try:
        told = await admin_pb2_grpc.AdminServiceStub(client.channel).Status(
            admin_pb2.StatusRequest(), metadata=about, timeout=ANSWER_SECONDS
        )
    except aio.AioRpcError as error:
        raise error_of(error) from error
    found.bound = [f"job {ident}" for ident in told.jobs_bound]
    if told.jobs_running and not found.same and not found.bound:
        # an older one does not tell which are kept: rather too careful
        found.bound = [f"{told.jobs_running} running jobs"]
    try:
        sessions = await session_pb2_grpc.SessionServiceStub(
            client.channel
        ).ListSessions(
            session_pb2.ListSessionsRequest(), metadata=about, timeout=ANSWER_SECONDS
        )
        forwards = await forward_pb2_grpc.ForwardServiceStub(
            client.channel
        ).ListForwards(
            forward_pb2.ListForwardsRequest(), metadata=about, timeout=ANSWER_SECONDS
        )
    except aio.AioRpcError as error:
        if found.same:
            raise error_of(error) from error
        found.untold.append(error_of(error).message)
        return
    for session in sessions.sessions:
        name = session.session_name or session.session_id
        if session.durability == session_pb2.DURABILITY_HELD:
            found.bound.append(f"session {name}")
        else:
            found.sessions.append(name)
    for forward in forwards.forwards:
        name = forward.name or forward.forward_id
        (found.forwards if forward.durable else found.closing).append(name)


async def drained(
    socket: Path,
    context: common_pb2.ClientContext,
    seconds: float,
    told: Callable[[list[str]], None],
) -> Standing | None:
    """Return how it stands once nothing that runs would end with it.

    Raises:
        CallError: Something still does after `seconds`; it runs on.
    """
    limit = time.monotonic() + seconds
    waiting = False
    while True:
        found = await look(socket, context)
        if found is None or not found.bound:
            return found
        if time.monotonic() >= limit:
            raise CallError(
                "IN_USE",
                f"what runs would end with the daemon: {', '.join(found.bound)}; "
                "nothing was changed",
                hint="wait with --wait SECONDS, or end them with --now; what runs "
                "durable or in a kept session goes on in any case",
            )
        if not waiting:
            told(found.bound)
            waiting = True
        await asyncio.sleep(_DRAIN_LOOK_SECONDS)


def end(pid: int, socket: Path, *, stuck: bool = False) -> None:
    """End a daemon as its user would, and wait until its place is free. Blocks.

    Args:
        pid: Its process.
        socket: Where it serves.
        stuck: It does not answer: it is killed where it does not end soon.

    Raises:
        CallError: It is not ours to end, or does not end.
    """
    _signal(pid, signal.SIGTERM)
    limit = time.monotonic() + (_STUCK_SECONDS if stuck else END_SECONDS)
    while not _gone(pid) or not free(socket):
        if stuck and time.monotonic() >= limit:
            _signal(pid, signal.SIGKILL)
            stuck, limit = False, time.monotonic() + END_SECONDS
        if time.monotonic() >= limit:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"the daemon (process {pid}) did not end within {END_SECONDS:g} s",
                hint=f"look at its log, or `kill -KILL {pid}`",
            )
        time.sleep(_LOOK_SECONDS)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it went by itself
    except PermissionError:
        raise CallError(
            "DAEMON_UNAVAILABLE",
            f"the daemon (process {pid}) belongs to somebody else",
            hint="run this as its user",
        ) from None


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return _unnoticed(pid)


def _unnoticed(pid: int) -> bool:
    """Return whether it has ended, and who started it took no note of that yet.

    An editor's shim may have started it, or nobody is left but an init of a container
    that never looks.
    """
    with contextlib.suppress(OSError):  # there is no /proc, or no such process now
        state = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return state[:1] == [b"Z"]
    try:
        done = subprocess.run(
            ["ps", "-o", "state=", "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PS_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip().startswith(b"Z")


def free(socket: Path) -> bool:
    """Return whether no daemon holds the place of `socket`."""
    with contextlib.ExitStack() as stack:
        try:
            lock = os.open(f"{socket}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def holder(socket: Path) -> int:
    """Return the process that holds the place of `socket`; 0: none that is known."""
    if free(socket):
        return 0
    with contextlib.suppress(OSError, ValueError):  # it goes just now
        return int(Path(f"{socket}.lock").read_text("ascii"))
    return 0


def tidy(socket: Path) -> bool:
    """Remove the socket's directory, unless it is in use or holds other things."""
    if not free(socket):
        return False
    for name in (f"{socket}.lock", f"{socket}.start"):
        Path(name).unlink(missing_ok=True)
    try:
        socket.parent.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
