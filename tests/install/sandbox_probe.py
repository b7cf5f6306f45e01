"""A ProxyCommand that notes what it may do: PROBE FILE PORT; port 0: only that."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_C = ctypes.CDLL(None, use_errno=True)
_PTRACE_TRACEME, _NO_RANDOM = 0, 0x0040000


def outcome(attempt: Callable[[], object]) -> str:
    """Return `works`, or the name of the error."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "works"


def called(result: int) -> int:
    """Return what a C function returned; -1 is an error."""
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def in_child(attempt: Callable[[], object]) -> str:
    """Try it in a process of its own: it would change the one that tries."""
    code = os.fork()
    if not code:
        told = outcome(attempt)
        os._exit(0 if told == "works" else getattr(errno, told))
    _, status = os.waitpid(code, 0)
    number = os.waitstatus_to_exitcode(status)
    return errno.errorcode[number] if number else "works"


def namespace() -> None:
    """Make a user namespace, as podman and bwrap do."""
    done = subprocess.run(["unshare", "--user", "true"], check=False)
    if done.returncode:
        raise OSError(errno.EPERM, "refused")


def set_user_id() -> None:
    """Make a file that runs as its owner, as rsync does where one is copied."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).chmod(0o4755)
        if not Path(file.name).stat().st_mode & stat.S_ISUID:
            raise OSError(errno.EPERM, "not kept")


def look() -> dict[str, object]:
    """Return all that is asked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {
        name: value.strip() for name, _, value in (x.partition(":") for x in lines)
    }
    mask = os.umask(0o77)
    return {
        "NoNewPrivs": status["NoNewPrivs"],
        "Seccomp": status["Seccomp"],
        "capabilities": status["CapEff"],
        "umask": f"{mask:03o}",
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "ptrace": in_child(lambda: called(_C.ptrace(_PTRACE_TRACEME, 0, 0, 0))),
        "process_vm_readv": outcome(
            lambda: called(_C.process_vm_readv(os.getpid(), None, 0, None, 0, 0))
        ),
        "personality": in_child(lambda: called(_C.personality(_NO_RANDOM))),
        "raw packets": outcome(lambda: socket.socket(socket.AF_PACKET).close()),
        "realtime": outcome(
            lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        ),
        "user namespace": outcome(namespace),
        "set-user-id": outcome(set_user_id),
    }


def relay(port: int) -> None:
    """Carry bytes between the host and who asked for the way to it."""
    peer = socket.create_connection(("127.0.0.1", port))

    def up() -> None:
        while data := os.read(0, 65536):
            peer.sendall(data)
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=up, daemon=True).start()
    while data := peer.recv(65536):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def main() -> None:
    """Note it, then relay."""
    file, port = Path(sys.argv[1]), int(sys.argv[2])
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:
        json.dump(look(), new)
    Path(new.name).replace(file)
    if port:
        relay(port)


if __name__ == "__main__":
    main()
