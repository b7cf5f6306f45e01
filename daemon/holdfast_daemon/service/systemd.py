"""Tell systemd how we stand: READY, STATUS, STOPPING, RELOADING, WATCHDOG.

Through systemd-python where it is installed, else the same datagram in plain Python.
Without a manager every call does nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import os
import select
import socket
import time
from typing import Protocol, cast

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class _Manager:
    """What we know of it; one that is gone is told of once, not each time."""

    gone: bool = False


_manager = _Manager()

# A manager that does not read must not hold our loop; it reads within milliseconds.
# What is told again soon does not wait for it at all.
_SEND_SECONDS = 1.0


class _Daemon(Protocol):
    """What we use of `systemd.daemon`; no type stubs exist for it."""

    def notify(self, status: str, /) -> bool:
        """Send `status` to the manager; False without one."""
        ...


@functools.cache
def library() -> _Daemon | None:
    """Return systemd-python, unless it is missing, broken or another `systemd`."""
    try:
        module = importlib.import_module("systemd.daemon")
    except (ImportError, OSError):  # OSError: its libsystemd is gone
        return None
    # two older packages import as `systemd` too, and have no listen_fds
    return cast("_Daemon", module) if hasattr(module, "listen_fds") else None


def backend() -> str:
    """Return which of the two backends is in use, for `doctor`."""
    return "own" if library() is None else "systemd-python"


def notify(seconds: float = _SEND_SECONDS, /, **fields: str | int) -> bool:
    """Send `fields` to the manager; return whether there was one that took them.

    Wait for it for so many seconds, should it not read what was sent before.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    state = "\n".join(f"{name}={_one_line(value)}" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            name = os.fsencode(address)
            # Linux's abstract names begin with a NUL
            peer.connect(b"\0" + name[1:] if name.startswith(b"@") else name)
            # the library would wait for ever; and we may have thousands of descriptors
            room = select.poll()
            room.register(peer, select.POLLOUT)
            if not room.poll(seconds * 1000):
                raise TimeoutError("it does not read what it is told")
            if (daemon := library()) is not None:
                told = bool(daemon.notify(state))
            else:
                told = peer.send(state.encode(), socket.MSG_DONTWAIT) > 0
    except OSError as error:
        if not _manager.gone:
            _log.warning("the service manager can't be told %s: %s", state, error)
        _manager.gone = True
        return False
    _manager.gone = False
    return told


def _one_line(value: str | int) -> str:
    """A line break would begin another field; NUL and surrogates can't be sent."""
    text = " ".join(str(value).replace("\0", " ").split())
    return text.encode("utf-8", "replace").decode()


def ready(status: str = "") -> bool:
    """Tell that calls are answered now."""
    return notify(READY=1, STATUS=status) if status else notify(READY=1)


def status(text: str) -> bool:
    """Tell one line for `systemctl status`."""
    return notify(0, STATUS=text)


def stopping(status: str = "") -> bool:
    """Tell that the stop has begun."""
    return notify(STOPPING=1, STATUS=status) if status else notify(STOPPING=1)


def reloading() -> bool:
    """Tell that the configuration is being read; `ready` tells the end of it."""
    # the moment is what Type=notify-reload (systemd 253 and later) asks for
    moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify(RELOADING=1, MONOTONIC_USEC=moment)


def watchdog() -> bool:
    """Tell that the loop still turns."""
    return notify(0, WATCHDOG=1)


def watchdog_interval() -> float | None:
    """Return the seconds between two pings, half of WatchdogSec; None: none wanted."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not limit.isascii() or not limit.isdigit() or int(limit) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(limit) / 2_000_000
