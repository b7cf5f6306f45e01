"""One command of a shell whose terminal the daemon holds, with a channel at its side.

Its streams come by that channel, byte exact and apart, as those of kept shells do; what
is typed is one short line. Nothing of it is on the host before or after it.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import TYPE_CHECKING

from holdfast_daemon.connection.failure import channel_unanswered
from holdfast_daemon.kept import script, wrapper
from holdfast_daemon.kept.run_line import RunLine
from holdfast_daemon.kept.runs import new_nonce
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel, Sink
    from holdfast_daemon.kept.asking import Asking
    from holdfast_daemon.kept.wrapper import Family

# a shell that starts, or shows its prompt, may take so long
_READY_ROUNDS = 400
_QUIET_ROUNDS = 60
_ROUND_SECONDS = 0.05
_PLACE_BYTES = 64 * 1024
_SAID = re.compile(r"holdfast:(\S+)")
# What kept shells write down of their environment, for later ones: not here.
_SAVING = re.compile(
    r"^[^\n]*\b_hf_at\b[^\n]*\n.*?^[^\n]*\b_hf_at\n", re.MULTILINE | re.DOTALL
)
# beside.sh's words, by its exit codes; with each of them nothing was typed
OTHER_PROGRAM = 71
NO_PLACE = 73
CUT = 74
BUSY = 76
ENDED = 79
_SOURCE = script.text("beside.sh")


@cache
def words(family: Family, *, first: bool) -> tuple[str, str]:
    """Return what a shell of that family sources: for a command, and behind it."""
    told = wrapper.words(family)
    if told is None:
        return "", ""
    command = told.init + told.command if first else told.command
    return command, _SAVING.sub("", told.trailer)


class Beside:
    """One command, told to the shell with process id `shell`.

    Attributes:
        line: Follows it.
        place: Where on the host it is; empty before `begin`.
    """

    def __init__(self, asking: Asking, shell: int, sink: Sink) -> None:
        self._asking = asking
        self._shell = shell
        self._nonce = new_nonce()
        self.line = RunLine(self._nonce, sink, kept_bytes=asking.limits.kept_bytes)
        self._mark = f"\x1eat:{self.line.header}:".encode()
        self._said = b""
        self._channel: Channel | None = None
        self.place = ""

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what the host sends."""
        if stream is Stream.OUT and not self.place:
            self._said = (self._said + data)[-_PLACE_BYTES:]
            _, found, rest = self._said.partition(self._mark)
            place, whole, _ = rest.partition(b"\n")
            if found and whole:
                self.place = place.decode("ascii", "replace")
                self._said = b""
        self.line.received(stream, data)

    async def begin(
        self, command: bytes, program: str, family: Family, *, first: str
    ) -> int | None:
        """Have all ready for `type`; return the code the host refused with.

        `first`: its shell knows nothing of us, and may be starting still: who is to
        become it has this on its command line. Empty for the commands after that.

        Raises:
            DaemonError: The host can't be reached; nothing was typed.
        """
        command_words, trailer = words(family, first=bool(first))
        rounds = _READY_ROUNDS if first else _QUIET_ROUNDS
        asking = self._asking
        async with await asking.pool.lease(asking.host) as lease:
            line = script.line(
                await lease.facts(), _SOURCE, "run", str(self._shell), program,
                self.line.header, str(len(command)), str(rounds), command_words,
                trailer, first,
            )  # fmt: skip
            # the nonce is nobody's to see in a list of processes
            sent = f"{self._nonce}\n".encode() + command
            channel = await lease.open(line, self, stdin=sent)
        self._channel = channel
        self.line.take(channel)
        seconds = asking.limits.channel_open_seconds + rounds * _ROUND_SECONDS
        return await self.line.begun(seconds)

    @property
    def other(self) -> str:
        """The program that runs there instead, where that was refused."""
        said = _SAID.findall(self.line.complaint)
        return said[-1] if said else ""

    @property
    def typed(self) -> bytes:
        """What is to be typed."""
        return f" . '{self.place}'/c\n".encode()

    @property
    def settling(self) -> bytes:
        """What is to be typed where it was broken off and its end was not told."""
        return f" . '{self.place}'/z\n".encode()

    async def over(self, how: str) -> None:
        """Tell its channel that the shell is gone: `exit CODE` or `signal NAME`."""
        if self._channel is not None:
            try:
                await self._channel.write(f"over {how}\n".encode())
            except BrokenPipeError:
                return


class _Answer:
    def __init__(self) -> None:
        self.out = b""

    def received(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.OUT:
            self.out = (self.out + data)[-_PLACE_BYTES:]


async def signal(asking: Asking, shell: int, name: str, place: str = "") -> str:
    """Signal what runs in the foreground of `shell`, or what that itself does.

    Returns what became of the command at `place`: `told` (it has ended), `idle` (its
    shell waits and has not told that) or `running`.

    Raises:
        DaemonError: The host can't be reached.
    """
    answer = _Answer()
    seconds = asking.limits.channel_open_seconds
    # a full host must stay stoppable
    async with await asking.pool.lease(asking.host, urgent=True) as lease:
        words = [name, place] if place else [name]
        line = script.line(await lease.facts(), _SOURCE, "signal", str(shell), *words)
        channel = await lease.open(line, answer, eof=True)
        try:
            async with asyncio.timeout(seconds):
                await channel.ended()
        except TimeoutError:
            raise channel_unanswered(asking.host, seconds, sent=True) from None
        finally:
            channel.close()
    return answer.out.decode("ascii", "replace").strip().rpartition("\n")[2]
