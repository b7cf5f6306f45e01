"""`holdfast attach`: a person takes part in a session, or watches it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import session_pb2
from holdfast_shim.cli import keys as keys_module
from holdfast_shim.cli import outcome, output, terminal
from holdfast_shim.cli.attending import Attending, has_terminal
from holdfast_shim.cli.complete import complete_session
from holdfast_shim.cli.daemon import dial
from holdfast_shim.cli.interact import Left
from holdfast_shim.cli.options import (
    OK,
    TRANSPORT,
    Options,
    json_option,
    options,
)
from holdfast_shim.cli.streams import Live
from holdfast_shim.cli.view import Person, Program
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGNALLED = 128
_LOST = ("DAEMON_LOST", "DAEMON_UNAVAILABLE")


class Keys(click.ParamType[bytes]):
    """The keys that leave a session."""

    name = "keys"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        """Read how a person names them."""
        if isinstance(value, bytes):
            return value
        try:
            return keys_module.parse(value)
        except keys_module.KeysError as error:
            self.fail(str(error), param, ctx)


def keys_option(command: Any) -> Any:
    """Let `command` take --detach-keys."""
    return click.option(
        "--detach-keys",
        type=Keys(),
        default=keys_module.DEFAULT,
        envvar="HOLDFAST_DETACH_KEYS",
        metavar="KEYS",
        show_default=True,
        help="Keys that leave: as ~. (after Enter), ctrl-],d or none.",
    )(command)


@click.command("attach")
@click.argument("session", metavar="S", shell_complete=complete_session)
@click.option("--watch", is_flag=True, help="Only look: no key reaches the session.")
@keys_option
@json_option
def attach(session: str, *, watch: bool, detach_keys: bytes) -> int:
    """Take part in session S, by its name or id, with this terminal.

    The screen is drawn as it stands, and commands that agents run are shown as they
    happen. You have the keyboard until you leave, by Enter ~. unless --detach-keys says
    otherwise; agents are told, and wait. The session goes on. With --json it is only
    watched, one JSON document a line.

    The exit code is 0 when you left, the shell's own when it ended, 128+n when signal n
    ended it or you, and 255 when the end is not known.
    """
    chosen = options()
    if not (watch or chosen.json or has_terminal()):
        raise click.UsageError(
            "stdin and stdout must be a terminal to type in a session;"
            " --watch only looks, `holdfast exec` runs a command"
        )
    return take_part(chosen, session, watch=watch or chosen.json, keys=detach_keys)


def take_part(chosen: Options, session: str, *, watch: bool, keys: bytes) -> int:
    """Take part in a session until it ends or the person leaves; return the code."""
    start = session_pb2.AttachStart(
        session=session, watch=watch, size=None if watch else terminal.size()
    )
    return guarded(chosen, session, lambda: asyncio.run(_attend(chosen, start, keys)))


def guarded(chosen: Options, session: str, work: Callable[[], int]) -> int:
    """Return what `work` returns, and tell what went wrong in it."""

    def plainly(error: CallError) -> CallError:
        return _plainly(error, session)

    return outcome.apart(work, as_json=chosen.json, plainly=plainly)


def _plainly(error: CallError, session: str) -> CallError:
    """Return `error` as one who takes part in a session must read it."""
    if error.reason == "DAEMON_LOST":
        return CallError(
            error.reason,
            "the holdfast daemon has gone; the session may go on without it",
            hint=f"`holdfast attach {session}` starts it again and finds out",
            ran=error.ran,
            code=error.code,
        )
    return error


async def _attend(chosen: Options, start: session_pb2.AttachStart, keys: bytes) -> int:
    async with dial(chosen) as client:
        at_terminal = has_terminal() and not chosen.json
        stdin = 0 if at_terminal else None
        work = Attending(client, start, stdin=stdin, keys=keys)
        sink = Live(work.failed)
        view: Person | Program = Program(sink)
        if not chosen.json:
            view = Person(
                sink,
                way_out=keys_module.told(keys),
                watch=start.watch,
                raw=at_terminal,
                terminal=os.isatty(1),
            )
        name = start.session
        try:
            await work.run(view)
        except Left as left:
            if left.code == OK:
                output.note(f"left session {name}; the daemon did not answer")
            elif at_terminal:
                output.note(f"left session {name}; it goes on")
            return left.code
        if work.end is None:
            if not work.left:
                raise CallError(
                    "DAEMON_LOST",
                    "the daemon ended the call without saying why",
                    ran="unknown",
                )
            if not chosen.json:
                output.note(f"left session {name}; it goes on")
            return OK
        if not chosen.json:
            output.note(_ending(name, work.end))
        return exit_code(work.end)


def _ending(name: str, end: session_pb2.SessionEnd) -> str:
    kind = end.WhichOneof("outcome")
    if kind == "exit_code":
        return f"session {name} ended: exit {end.exit_code}"
    if kind == "signal":
        return f"session {name} ended: signal {end.signal}"
    reason = end.exit_reason.replace("_", " ") or "lost"
    return f"session {name} ended ({reason}): {end.lost or 'no more is known'}"


def exit_code(end: session_pb2.SessionEnd) -> int:
    """Return what a script sees; an unknown end is never 0."""
    kind = end.WhichOneof("outcome")
    if kind == "exit_code":
        return end.exit_code if 0 <= end.exit_code <= TRANSPORT else TRANSPORT
    if kind == "signal":
        number = getattr(signal, f"SIG{end.signal.removeprefix('SIG')}", None)
        return _SIGNALLED + number if isinstance(number, int) else TRANSPORT
    return TRANSPORT


def session_size() -> tuple[int, int] | None:
    """Return columns and rows of this terminal, if there is one."""
    size = terminal.size() if os.isatty(0) else None
    return (size.cols, size.rows) if size and size.cols and size.rows else None
