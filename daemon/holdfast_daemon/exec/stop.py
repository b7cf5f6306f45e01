"""Ends a command on its host, and tells the truth about what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from holdfast_daemon.connection.failure import channel_unanswered
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.exec import permit
from holdfast_daemon.exec.wording import for_shell
from holdfast_daemon.streams import Stream
from holdfast_daemon.unless import unless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.channel import Channel, ChannelEnd
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.exec.sudo import Elevation

ESCALATION = ("INT", "TERM", "KILL")
_SIGNAL_NAMES = frozenset({"INT", "TERM", "KILL", "HUP"})
_STEP = 0.2
# What Ctrl-C sends.
_INTERRUPT = b"\x03"


class _Collector:
    """Keeps the little that a kill prints."""

    def __init__(self) -> None:
        self.text = b""

    def received(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.ERR and len(self.text) < 4096:  # noqa: PLR2004
            self.text += data


async def stop(
    job: Job,
    channel: Channel,
    site: Site,
    signals: Sequence[str] = ESCALATION,
) -> str:
    """Send `signals` in turn until the command has ended.

    A second channel does the killing where the process group is known, because a server
    may refuse channel signals without saying so. Several signals mean that nothing of
    the group shall be left: a shell dies of INT, and children it put in the background
    ignore it. Several callers may stop one job; each signal is sent once at a time.

    Returns:
        Why it could not be ended, in words for the caller; empty when it has ended.
    """
    if job.pace is not None:
        # A caller that stands still must not keep the channel from ending.
        job.pace.release()
    async with job.stop_lock:
        return await _Stop(job, channel, site).go(signals)


async def send(job: Job, channel: Channel, site: Site, name: str) -> str:
    """Signal the process group once; returns what the host answered when it refused."""
    if name not in _SIGNAL_NAMES:
        raise ValueError(name)
    if job.group is None and job.elevation is not None:
        # sudo still asks, and ends without an answer.
        if job.request.terminal is not None:
            with contextlib.suppress(BrokenPipeError):
                await channel.write(_INTERRUPT)
        channel.eof()
        return ""
    if job.group is None:
        channel.signal(name)
        return ""
    # `-s NAME` before `--`: dash takes no `-NAME -- -PGID`.
    command = f"kill -s {name} -- -{job.group} || kill -s {name} {job.group}"
    if job.sudo_group is not None:
        # Where sudo gives it no terminal of its own, it shares sudo's group.
        command = (
            f"kill -s {name} -- -{job.group} 2>/dev/null ||"
            f" kill -s {name} -- -{job.sudo_group}"
        )
    code, said = await _ask(site, command, job.elevation)
    return "" if code == 0 else said or "the signal was refused"


class _Stop:
    """One attempt to end a job."""

    def __init__(self, job: Job, channel: Channel, site: Site) -> None:
        self._job = job
        self._channel = channel
        self._site = site
        self._grace = site.limits.stop_grace_seconds
        self._trouble = ""
        self._reached = True

    async def go(self, signals: Sequence[str]) -> str:
        thorough = len(signals) > 1
        where = self._job.target
        if not self._job.signals:
            return await self._cut(where)
        await self._begun()
        end = await self._end(0)
        for name in signals:
            if end is not None and end.lost is None:
                return ""
            await self._send(name)
            end = await self._end(self._grace)
            known = end is not None and end.lost is None
            if known and not thorough:
                return ""
            left = await self._left(waiting=end is not None)
            if left is False:
                # it may have ended while the host was asked
                end = end or await self._end(self._grace)
                return "" if end is not None else _escaped(where)
            if known and left is None:
                return ""
            if known:
                # The shell is gone and part of its group is not: the next signal.
                end = None
        why = f" ({self._trouble})" if self._trouble else ""
        return f"it did not end on {signals[-1]}{why} and may still run on {where}"

    async def _begun(self) -> None:
        """Give a shell that still starts a while, until it is known what to signal.

        Under sudo it may wait for an answer first, which a stop must not.
        """
        if self._job.elevation is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await unless(self._job.begun_there, self._channel.ended())

    async def _cut(self, where: str) -> str:
        """Close the channel: all that can be done where no signal arrives."""
        self._channel.signal("TERM")
        end = await self._end(_STEP)
        if end is not None:
            return "" if end.lost is None else end.lost
        return (
            f"{where} passes no signals on to commands: its channel was closed, and the"
            " command may still run there"
        )

    async def _end(self, seconds: float) -> ChannelEnd | None:
        """Return how the channel ended, if it does within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._channel.ended()
        except TimeoutError:
            return None

    async def _send(self, name: str) -> None:
        if self._reached:
            try:
                self._trouble = await send(self._job, self._channel, self._site, name)
            except DaemonError as error:
                self._cut_off(error)
            else:
                return
        # No second channel is to be had: the server may take it on the first.
        self._channel.signal(name)

    async def _left(self, *, waiting: bool) -> bool | None:
        """Say whether any of the process group is left; None when that is not known.

        With `waiting` the host looks again for as long as a signal gets to take effect.
        """
        if self._job.group is None or not self._reached:
            return None
        rounds = round(self._grace / _STEP) if waiting else 0
        try:
            groups = [self._job.group, self._job.sudo_group]
            look = _look([group for group in groups if group is not None], rounds)
            code, _ = await _ask(self._site, look, self._job.elevation)
        except DaemonError as error:
            self._cut_off(error)
            return None
        return {0: False, 1: True}.get(code if code is not None else -1)

    def _cut_off(self, error: DaemonError) -> None:
        self._reached = False
        self._trouble = error.message


def _escaped(where: str) -> str:
    return (
        "its process group has ended, but a process that left the group holds its"
        f" output open and still runs on {where}"
    )


def _look(groups: Sequence[int], rounds: int) -> str:
    """Return a command that ends with 0 when `groups` are gone, with 1 if one is not.

    `ps` sees processes of other users (sudo) and tells zombies, which nobody can end,
    apart; `kill` does for hosts without it.
    """
    any_of = "|".join(map(str, groups))
    alive = " || ".join(f"kill -s 0 -- -{group} 2>/dev/null" for group in groups)
    return (
        "left() { if t=$(ps -A -o pgid= -o stat= 2>/dev/null);"
        f" then printf '%s\\n' \"$t\" | grep -Eq '^ *({any_of}) +[^Z ]';"
        f" else {alive}; fi; }};"
        f" n={rounds}; while left; do [ $n -gt 0 ] || exit 1;"
        f" n=$((n-1)); sleep {_STEP} 2>/dev/null || sleep 1; done; exit 0"
    )


async def _ask(
    site: Site, command: str, elevation: Elevation | None
) -> tuple[int | None, str]:
    """Run a short command beside the job; return its exit code and what it said.

    What sudo began belongs to root, so only sudo may end it.

    Raises:
        DaemonError: The host can't be asked.
    """
    seconds = site.limits.channel_open_seconds + site.limits.stop_grace_seconds
    if elevation is not None:
        return await permit.ask(
            site, command, elevation, seconds + site.limits.sudo_seconds
        )
    async with await site.pool.lease(site.host, urgent=True) as lease:
        answer = _Collector()
        line = for_shell(command, await lease.facts())
        channel = await lease.open(line, answer, eof=True, fresh=True)
        try:
            async with asyncio.timeout(seconds):
                end = await channel.ended()
        except TimeoutError:
            raise channel_unanswered(site.host, seconds, sent=True) from None
        finally:
            channel.close()
    return end.exit_code, answer.text.decode("utf-8", "replace").strip()
