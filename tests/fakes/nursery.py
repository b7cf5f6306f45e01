"""Programs of ours that are forks of a process which has imported all of them.

Most of what a start costs is to import, and there are very many starts. Only the
program's own start is left out, which is what tests/service shows: nothing is a fork
there.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DAEMON, CLI, SHIM = "holdfastd", "holdfast", "holdfast-mcp"
_MESSAGE_BYTES = 1024 * 1024
# What is longer is left to the kernel, which knows what is too long.
_ASKED_BYTES = 64 * 1024
# What the interpreter, its libraries or the daemon look at as they are imported.
_EARLY = ("PYTHON", "LC_", "LANG", "LD_", "GRPC_", "TZ", "MALLOC_")
# What the shim's import sets for itself.
_OUR_OWN = ("GRPC_VERBOSITY", "GRPC_ENABLE_FORK_SUPPORT")
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# What is imported only where it is needed.
_LATE = ("google.rpc.error_details_pb2", "google.rpc.status_pb2")


class Born:
    """A process of the nursery, to be used as a `Popen` is."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        """Take over `pid`, which is not waited for before we ask for it."""
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: BinaryIO | None = None
        self.stdout: BinaryIO | None = None
        self.stderr: BinaryIO | None = None

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended."""
        if self.returncode is None:
            ended = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(ended, select.POLLIN)
                if not poll.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
            finally:
                os.close(ended)
            self.returncode = self._nursery.ask(json.dumps({"wait": self.pid}).encode())
        return self.returncode


class Nursery:
    """The process whose forks they are; it ends with the one that started it."""

    def __init__(self, kind: str) -> None:
        self.environment = dict(os.environ)
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                # -P: no module beside this file is found in the place of another's
                [sys.executable, "-P", __file__, str(theirs.fileno()), kind],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self._close)

    def ask(self, what: bytes, files: Sequence[int] = ()) -> int:
        """Ask for one thing and return the number that is the answer."""
        with self._lock:
            socket.send_fds(self._channel, [what], list(files))
            return int(self._channel.recv(_MESSAGE_BYTES))

    def _close(self) -> None:
        self._channel.close()
        self._process.wait()


_LOCK = threading.Lock()
_NURSERIES: dict[str, Nursery] = {}


def born(
    program: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    directory: Path | None = None,
    files: Sequence[int] = (),
    terminal: bool = False,
) -> Born | None:
    """Return a new process; None where only the program itself would do as it should.

    `files` are what it gets as its stdin, stdout and stderr; without them it is a
    session of its own that has none. The first of them may be its `terminal`.
    """
    asked = {
        "program": program,
        "arguments": list(arguments),
        "environment": dict(environment),
        "directory": str(directory or Path.cwd()),
        "leads": terminal or not files,
        "terminal": terminal,
    }
    message = json.dumps(asked).encode()
    if sys.platform != "linux" or len(message) > _ASKED_BYTES:
        return None
    kind = DAEMON if program == DAEMON else CLI
    with _LOCK:
        nursery = _NURSERIES.get(kind) or Nursery(kind)
        _NURSERIES[kind] = nursery
    differing = dict(set(environment.items()) ^ set(nursery.environment.items()))
    if any(name.startswith(_EARLY) for name in differing):
        return None
    return Born(nursery, nursery.ask(message, files))


def _programs(kind: str) -> dict[str, Callable[[], int]]:
    """Import all that programs of this kind need."""
    # not where tests run
    if kind == DAEMON:
        from holdfast_daemon.__main__ import main  # noqa: PLC0415

        return {DAEMON: main}
    import holdfast_shim  # noqa: PLC0415
    from holdfast_shim import cli, mcp_stdio  # noqa: PLC0415

    for module in pkgutil.walk_packages(holdfast_shim.__path__, "holdfast_shim."):
        importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)
    return {CLI: cli.main, SHIM: mcp_stdio.main}


def _become(asked: Any, files: Sequence[int]) -> None:
    """Be as a program that was started so."""
    kept = {name: value for name, value in os.environ.items() if name in _OUR_OWN}
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update({**kept, **asked["environment"]})
    Path("/proc/self/comm").write_text(asked["program"])
    program = Path(sys.executable).with_name(asked["program"])
    sys.argv = [str(program), *asked["arguments"]]
    if asked["leads"]:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if asked["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if files:
        _open_standard_streams()
    if failpoint := sys.modules.get("holdfast_daemon.failpoint"):
        # which looks at the environment as it is imported
        importlib.reload(failpoint)


def _open_standard_streams() -> None:
    """Make Python's own of what 0, 1 and 2 are by now, as it does when it starts."""
    for number, (name, mode) in enumerate(_STREAMS):
        ours = getattr(sys, name)
        stream = open(  # noqa: SIM115 - for as long as the process lives
            number,
            mode,
            encoding=ours.encoding,
            errors=ours.errors,
            newline="\n",
            buffering=1 if name == "stderr" or os.isatty(number) else -1,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _serve(channel: socket.socket, kind: str) -> int:
    programs = _programs(kind)
    gc.collect()
    gc.freeze()
    with channel:
        asked, files = _asked(channel)
    if asked is None:
        return 0
    _become(asked, files)
    return programs[asked["program"]]()


def _asked(channel: socket.socket) -> tuple[Any, list[int]]:
    """Answer until we are a fork, and return what it shall be; None at the end."""
    while True:
        packet, files, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, len(_STREAMS))
        if not packet:
            return None, []
        asked = json.loads(packet)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        elif not (answer := os.fork()):
            return asked, files
        for file in files:
            os.close(file)
        channel.send(str(answer).encode())


if __name__ == "__main__":
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]))
