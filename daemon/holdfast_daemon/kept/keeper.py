"""Has shells kept on one host: starts, finds, ends them, and attaches to them."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError, LinkError, Ran, Reason, StateError
from holdfast_daemon.kept.asking import Asking
from holdfast_daemon.kept.line import Line
from holdfast_daemon.kept.reader import AttachReader
from holdfast_daemon.kept.standing import Standing, standings

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.channel import Sink
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.kept.asking import Answer
    from holdfast_daemon.kept.standing import Plan
    from holdfast_daemon.limits import Limits

_IDENT = re.compile(r"[a-z][a-z0-9]{1,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOG = re.compile(r"[a-z0-9][a-z0-9/]{0,63}")
_SIGNAL = re.compile(r"[A-Z][A-Z0-9+-]{1,15}")
_TRIES = 3
_LOOK_SECONDS = 0.1
# A full host must stay stoppable, and one that waits for word of ours must get it.
_URGENT = frozenset({"ack", "end", "signal"})
# why nothing was started, by the word of holder.sh
_REFUSED = {
    "disk": "its disk takes no more",
    "path": "the path of its cache directory has quotes, backslashes or newlines",
    "nothing": "no kind of terminal starts one there",
}


class Keeper:
    """What is kept on one host."""

    def __init__(self, pool: Pool, host: Host, limits: Limits) -> None:
        self._limits = limits
        self.host = host
        self.asking = Asking(pool, host, limits)

    async def start(self, plan: Plan) -> Standing:
        """Start a shell there.

        Raises:
            StateError: The host can keep nothing, and nothing is left there; or its
                shell or directory is not there.
            LinkError: The host can't be reached; `ran` says what is known.
        """
        _check(plan.ident)
        for name in plan.env:
            if not _NAME.fullmatch(name):
                raise InputError("env", f"{name!r} is no name of a variable")
        answer = await self.asking.ask(
            "start", plan.ident, stdin=plan.words(self._limits)
        )
        found = next(standings(answer.out), None)
        if found is not None and answer.end.exit_code == 0:
            return found
        raise self._not_started(plan, answer)

    async def look(self, ident: str) -> Standing:
        """Return how it stands; state `none` where there is no such thing."""
        return await self._standing("look", ident)

    async def program(self, ident: str) -> str:
        """Return what its shell is; one that is being started gets its time.

        Raises:
            StateError: It did not start within that.
            LinkError: The host can't be reached.
        """
        seconds = self._limits.session_start_seconds
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not (found := await self.look(ident)).shell:
            if found.state != "running" or loop.time() > until:
                raise StateError(
                    Reason.SESSION_BUSY,
                    f"its shell has not started on {self.host.shown} yet",
                    hint="Nothing was typed. Call again in a moment.",
                )
            await asyncio.sleep(_LOOK_SECONDS)
        return found.shell

    async def list(self) -> list[Standing]:
        """Return all that is there, whichever daemon asked for it."""
        seconds = str(int(self._limits.kept_abandoned_seconds))
        answer = await self.asking.ask("list", seconds)
        if b"\nend\n" not in b"\n" + answer.out:
            raise self._unclear(answer)
        return list(standings(answer.out))

    async def end(self, ident: str, *, force: bool) -> Standing:
        """End its shell as a terminal that is hung up does; with `force` all it runs.

        It may be running still where it does not mind being hung up.
        """
        grace = str(max(1, round(self._limits.stop_grace_seconds)))
        return await self._standing("end", ident, "1" if force else "0", grace)

    async def signal(self, ident: str, name: str, number: int = 0) -> Standing:
        """Send a signal to what runs in its foreground; `sent` tells where it went.

        The shell itself gets none but INT, KILL and HUP, and nothing gets one that is
        meant for the command of a `number` that has ended, or has not begun: that never
        will where the signal was to end it.
        """
        if not _SIGNAL.fullmatch(name):
            raise InputError("signal", f"{name!r} is no name of a signal")
        words = [name.removeprefix("SIG")] + ([str(number)] if number else [])
        return await self._standing("signal", ident, *words)

    async def resize(self, ident: str, cols: int, rows: int) -> Standing:
        """Tell its terminal's new size."""
        return await self._standing("resize", ident, str(int(cols)), str(int(rows)))

    async def ack(self, ident: str, stream: str, offset: int) -> Standing:
        """Say that its log `stream` is safe here up to `offset`; the host may drop it.

        The terminal's log is `out`.
        """
        if not _LOG.fullmatch(stream):
            raise InputError("stream", f"{stream!r} is no log")
        return await self._standing("ack", ident, stream, str(int(offset)))

    async def strip(self, ident: str) -> None:
        """Forget what is lost there, but for what another shell may take over."""
        _check(ident)
        answer = await self.asking.ask("strip", ident)
        if b"state=none" not in answer.out:
            raise self._unclear(answer)

    async def wipe(self, ident: str) -> None:
        """End all of it, and forget it; nothing happens where it is not there."""
        _check(ident)
        answer = await self.asking.ask("wipe", ident)
        if b"state=none" not in answer.out:
            raise self._unclear(answer)

    async def attach(
        self,
        ident: str,
        nonce: str,
        offset: int,
        sink: Sink,
        *,
        input: bool,  # noqa: A002  what it is called everywhere
        on_skipped: Callable[[int], None] | None = None,
    ) -> Line:
        """Take part: its output from `offset` on goes to `sink`, `Line.write` to it.

        It returns once the host answered: `Line.offset` is where it really begins, and
        later than `offset` where the host had to drop what was before; `on_skipped` is
        then told that offset ahead of the first byte.

        Raises:
            DaemonError: The host can't be reached, or keeps nothing.
        """
        _check(ident)
        for _ in range(_TRIES):
            header = secrets.token_hex(8)
            line = Line(AttachReader(header, nonce), sink, offset, on_skipped)
            channel = await self.asking.open(
                line, "attach", ident, header, str(int(offset)), "1" if input else "0"
            )
            line.take(channel)
            await line.begun(self._limits.channel_open_seconds)
            if not line.absent:
                return line
            await self.asking.put()
        raise self.asking.refused("its cache directory keeps nothing")

    async def _standing(self, operation: str, ident: str, *words: str) -> Standing:
        _check(ident)
        urgent = operation in _URGENT
        answer = await self.asking.ask(operation, ident, *words, urgent=urgent)
        if b"state=none\n" in answer.out:
            return Standing(ident)
        found = next(standings(answer.out), None)
        if found is None:
            raise self._unclear(answer)
        return found

    def _not_started(self, plan: Plan, answer: Answer) -> Exception:
        refused = answer.out.decode("utf-8", "replace").partition("refused=")[2].strip()
        where = self.host.shown
        if refused == "cwd":
            return StateError(
                Reason.CWD_FAILED,
                f"the working directory {plan.cwd!r} can't be entered on {where}",
                hint="Give a directory that exists and may be entered.",
                metadata={"cwd": plan.cwd},
            )
        if refused == "shell":
            return StateError(
                Reason.SHELL_FAILED,
                f"the shell {plan.shell!r} was not found on {where}",
                hint="Leave shell out to use the login shell.",
                metadata={"shell": plan.shell},
            )
        if answer.end.exit_code == 75:  # noqa: PLR2004  EX_TEMPFAIL, outside.sh's word
            return StateError(
                Reason.IN_USE,
                f"{where} keeps something as {plan.ident} already",
                hint="Look at it, or choose another id.",
            )
        if refused:
            return self.asking.refused(_REFUSED.get(refused, _REFUSED["nothing"]))
        why = answer.words or f"its script ended with {answer.end.exit_code}"
        return self.asking.refused(why)

    def _unclear(self, answer: Answer) -> LinkError:
        end = answer.end
        how = (
            f"SIG{end.signal} ended it"
            if end.signal
            else f"it ended with {end.exit_code}"
        )
        why = answer.words or how
        return LinkError(
            Reason.PROTOCOL_ERROR,
            f"{self.host.shown} does not answer as it should: {why}",
            hint="See whether its start-up files end non-interactive shells.",
            ran=Ran.UNKNOWN,
        )


def _check(ident: str) -> None:
    if not _IDENT.fullmatch(ident):
        raise InputError("ident", f"{ident!r} is no id of something kept")
