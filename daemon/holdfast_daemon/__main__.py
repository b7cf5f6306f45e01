"""`holdfastd`: arguments, lock, loop, exit codes."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast_daemon import logs
from holdfast_daemon.app import App
from holdfast_daemon.config import ConfigError, ConfigHolder
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.hold import hold
from holdfast_daemon.instance import AlreadyRunning
from holdfast_daemon.leaving import and_leave
from holdfast_daemon.paths import places, private_dir
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from holdfast_daemon.paths import Places

# sysexits.h: a fault of the system; try again later; something is wrong with the
# configuration.
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_CONFIG = 78
# How long the loop may wait for the interpreter when a thread beside it works. Python's
# own 5 ms come anew each time it wakes, a dozen times in one call.
_TURN_SECONDS = 0.0005


def _place(text: str) -> Path:
    """Refuse the empty value: it would stand for the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfastd", description="Keep SSH connections, shells, jobs and forwards."
    )
    parser.add_argument("--config", metavar="FILE", type=_place)
    parser.add_argument("--socket", metavar="PATH", type=_place)
    parser.add_argument("--state-dir", metavar="DIR", type=_place)
    parser.add_argument(
        "--check", action="store_true", help="validate the configuration and exit"
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('holdfast')}"
    )
    return parser


def _configuration(path: Path, *, required: bool) -> ConfigHolder:
    if required and not path.exists():
        raise ConfigError(path, "is not there", hint="Give a file that exists.")
    return ConfigHolder(path)


def _give_up(error: DaemonError, code: int) -> int:
    hint = f"  {error.hint}\n" if error.hint else ""
    sys.stderr.write(f"holdfastd: {error.message}\n{hint}")
    return code


def _start_log(where: Places, config: ConfigHolder, redactor: Redactor) -> None:
    current = config.current
    logs.configure(
        current.log_level,
        redactor,
        log_file=where.logs / "holdfastd.log",
        limits=current.limits,
    )
    config.subscribe(lambda _, new: logs.set_level(new.log_level))


def _protect() -> None:
    """Let no file be born open to others, and no core hold passwords and keys."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _fill() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed.

    The database would else get its number, and what is printed would end in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        # Python's own is None then, whatever its stub says.
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _run(given: argparse.Namespace) -> int:
    where = places(
        os.environ,
        Path.home(),
        os.getuid(),
        socket=given.socket,
        config=given.config,
        state=given.state_dir,
    )
    config = _configuration(where.config, required=given.config is not None)
    if given.check:
        sys.stdout.write(f"{where.config}: ok\n")
        return 0
    _protect()
    sys.setswitchinterval(_TURN_SECONDS)
    for directory in (where.state, where.logs, where.socket.parent):
        private_dir(directory)
    with hold(where, config.current.limits.stop_seconds) as instance:
        redactor = Redactor()
        _start_log(where, config, redactor)
        asyncio.run(and_leave(App(where, config, instance, redactor).run()))
    return 0


def main() -> int:
    """Run the daemon in the foreground.

    Returns:
        0 after a clean stop, 75 when another daemon serves the socket, 78 for a bad
        configuration or a place that is not safe, 71 for what the system refuses. A
        stop that hangs ends the process with 70.
    """
    _fill()
    if not os.environ.get("HOME"):  # an empty one would stand for `/`
        os.environ.pop("HOME", None)
    given = _arguments().parse_args()
    try:
        return _run(given)
    except AlreadyRunning as error:
        # Also when our lock was deleted, and somebody else serves in our place now.
        return _give_up(error, EX_TEMPFAIL)
    except DaemonError as error:
        return _give_up(error, EX_CONFIG)
    except OSError as error:
        sys.stderr.write(f"holdfastd: the system refuses: {error}\n")
        return EX_OSERR


if __name__ == "__main__":
    sys.exit(main())
