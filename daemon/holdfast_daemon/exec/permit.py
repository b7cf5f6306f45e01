"""Has sudo let a command in: looks the password up, answers the prompt, gives up."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from holdfast_daemon.connection.failure import channel_unanswered
from holdfast_daemon.errors import DaemonError, DeniedError, Reason
from holdfast_daemon.exec import sudo
from holdfast_daemon.exec.preamble import compose
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.exec.wording import for_shell
from holdfast_daemon.hosts import vault
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.exec.sudo import Elevation, SudoReader
    from holdfast_daemon.limits import Limits

_SAID_BYTES = 4096


async def prepare(site: Site) -> Elevation:
    """Look up what sudo on this host is answered with.

    Raises:
        DeniedError: The password is named, and can't be had.
    """
    source = site.host.sudo_password_from
    if not source:
        return sudo.Elevation()
    try:
        password = await vault.fetch(source, os.environ, site.limits.keyring_seconds)
    except DaemonError as error:
        raise DeniedError(
            Reason.SUDO_REFUSED,
            f"the password for sudo on {site.host.shown} is missing: {error.message}",
            hint=error.hint,
            metadata={"cause": "password_unset", "secret": source},
        ) from None
    site.redactor.keep(password)
    return sudo.Elevation(password, source)


class Talk:
    """The talk with one sudo, from its start until it lets the command in."""

    def __init__(self, limits: Limits, elevation: Elevation | None) -> None:
        self._limits = limits
        self._elevation = elevation
        self._heard = asyncio.Event()

    def heard(self) -> None:
        """Something was said: `SudoReader` calls this."""
        self._heard.set()

    async def go(self, channel: Channel, reader: SudoReader) -> None:
        """Answer the prompt once; return when the command begins or is given up."""
        loop = asyncio.get_running_loop()
        last = loop.time() + self._limits.sudo_seconds
        answered = 0
        while not reader.done:
            if reader.asked > answered:
                password = self._elevation.password if self._elevation else None
                if answered or password is None:
                    self._give_up(channel, reader, "password_wrong")
                    return
                answered += 1
                try:
                    await channel.write(f"{password.reveal()}\n".encode())
                except BrokenPipeError:
                    return  # it has ended, and what it said tells why
                continue
            self._heard.clear()
            left = last - loop.time()
            try:
                async with asyncio.timeout(min(self._limits.marker_seconds, left)):
                    await self._heard.wait()
            except TimeoutError:
                if reader.question:
                    self._give_up(channel, reader, "more_asked")
                elif loop.time() >= last:
                    self._give_up(channel, reader, "slow")

    def _give_up(self, channel: Channel, reader: SudoReader, cause: str) -> None:
        # With its input gone sudo ends; should it let the command in all the same,
        # that can't say that it begins, and then it does not.
        reader.cause = cause
        reader.finish()
        channel.close()


class _Answer:
    """Keeps the little that a short command under sudo prints to stderr."""

    def __init__(self, reader: SudoReader) -> None:
        self._reader = reader
        self.text = b""

    def received(self, stream: Stream, data: bytes) -> None:
        """Take output as it comes."""
        for kind, part in self._reader.feed(stream, data):
            if kind is Stream.ERR and len(self.text) < _SAID_BYTES:
                self.text += part


async def ask(
    site: Site, command: str, elevation: Elevation, seconds: float
) -> tuple[int | None, str]:
    """Run a short command under sudo; return its exit code and what it said.

    Raises:
        DaemonError: The host can't be asked, or sudo does not let it run.
    """
    talk = Talk(site.limits, elevation)
    inner = compose(ExecRequest(command=command), strict=True)
    preamble = sudo.raised(inner, elevation, plain=True)
    script = preamble.script(inner.script(command).line)
    reader = sudo.SudoReader(preamble, talk.heard)
    answer = _Answer(reader)
    async with await site.pool.lease(site.host, urgent=True) as lease:
        line = for_shell(script.line, await lease.facts())
        channel = await lease.open(line, answer, fresh=True)
        talking = asyncio.create_task(talk.go(channel, reader))
        try:
            async with asyncio.timeout(seconds):
                end = await channel.ended()
        except TimeoutError:
            raise channel_unanswered(site.host, seconds, sent=True) from None
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            channel.close()
    if cause := reader.verdict(lost=end.lost is not None):
        raise sudo.refusal(cause, site.host, elevation, reader)
    return end.exit_code, answer.text.decode("utf-8", "replace").strip()
