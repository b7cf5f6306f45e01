"""The way to a server, step by step: its name, a TCP connection, its first words.

Says who it is and hangs up: `holdfast doctor` wants to know how far one gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import asyncssh

from holdfast_daemon.connection import diagnosis
from holdfast_daemon.connection.diagnosis import Step
from holdfast_daemon.connection.dial import dial
from holdfast_daemon.connection.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.hosts.host import Host

_GREETING = b"SSH-2.0-holdfast_doctor\r\n"
# RFC 4253 4.2: a server may say other lines first.
_MOST_BYTES = 8192
_SHOWN = 80
_FAMILIES = {
    "any": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}
_WHY = {
    errno.ECONNREFUSED: "refused: nothing listens there",
    errno.EHOSTUNREACH: "no route to it",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ETIMEDOUT: "no answer",
}


@dataclass(frozen=True, slots=True)
class Stride:
    """One step as it went.

    Attributes:
        told: What was found, or why it went no further.
        details: Values named in it.
    """

    step: Step
    good: bool
    told: str
    seconds: float
    details: dict[str, str] = field(default_factory=dict[str, str])


class _Reader(Protocol):
    async def read(self, n: int) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


async def reach(host: Host, via: Link | None, seconds: float) -> list[Stride]:
    """Go up to the server's first words, each step within `seconds`.

    Args:
        host: Where to; its ProxyCommand is not run.
        via: The connection to the jump host before it.
        seconds: What one step may take.
    """
    strides: list[Stride] = []
    if via is None:
        stride, addresses = await _look_up(host, seconds)
        strides.append(stride)
        if not stride.good:
            return strides
        stride, streams = await _connect(host, addresses, seconds)
    else:
        stride, streams = await _tunnel(host, via, seconds)
    strides.append(stride)
    if streams is None:
        return strides
    reader, writer = streams
    try:
        strides.append(await _listen(reader, writer, seconds))
    finally:
        writer.close()
    return strides


async def _look_up(host: Host, seconds: float) -> tuple[Stride, Sequence[str]]:
    begun = time.monotonic()

    def stride(told: str, *, good: bool, found: Sequence[str] = ()) -> Stride:
        details = {"addresses": ", ".join(found)} if found else {}
        return Stride(Step.NAME, good, told, time.monotonic() - begun, details)

    if diagnosis.is_address(host.hostname):
        told = f"{host.hostname} is an address"
        return stride(told, good=True, found=[host.hostname]), [host.hostname]
    try:
        async with asyncio.timeout(seconds):
            family = _FAMILIES[host.address_family]
            answer = await look_up(host.hostname, host.port, family=family)
    except TimeoutError:
        told = f"the name service did not answer for {host.hostname} in {seconds:g} s"
        return stride(told, good=False), ()
    except OSError as error:
        told = f"{host.hostname} does not resolve: {error.strerror or error}"
        return stride(told, good=False), ()
    found = list(dict.fromkeys(str(item[4][0]) for item in answer))
    six = sum(":" in address for address in found)
    told = f"{host.hostname} is {', '.join(found)}"
    told += f" ({len(found) - six} IPv4, {six} IPv6)"
    return stride(told, good=True, found=found), found


async def _connect(
    host: Host, addresses: Sequence[str], seconds: float
) -> tuple[Stride, tuple[_Reader, _Writer] | None]:
    """Try every address until one takes the connection, as a login does."""
    failed: list[str] = []
    begun = time.monotonic()
    for address in addresses:
        one = replace(host, hostname=address, wire=replace(host.wire, attempts=1))
        begun = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                made = await dial(one, seconds)
        except OSError as error:  # a TimeoutError is one
            failed.append(f"{address}: {_why(error, seconds)}")
            continue
        spent = time.monotonic() - begun
        reader, writer = await asyncio.open_connection(sock=made)
        told = f"{address} port {host.port} takes the connection"
        if failed:
            told += f" ({'; '.join(failed)})"
        details = {"address": address, "failed": "; ".join(failed)}
        return Stride(Step.TCP, True, told, spent, details), (reader, writer)
    told = f"port {host.port} can't be reached: {'; '.join(failed)}"
    spent = time.monotonic() - begun
    details = {"addresses": ", ".join(addresses), "port": str(host.port)}
    return Stride(Step.TCP, False, told, spent, details), None


async def _tunnel(
    host: Host, via: Link, seconds: float
) -> tuple[Stride, tuple[_Reader, _Writer] | None]:
    """Have the jump host make the connection; it looks up the name too."""
    begun = time.monotonic()
    place, hop = f"{host.hostname} port {host.port}", via.host.name

    def stride(told: str, *, good: bool) -> Stride:
        return Stride(Step.TCP, good, told, time.monotonic() - begun, {"via": hop})

    try:
        async with asyncio.timeout(seconds):
            streams = await via.connection.open_connection(
                host.hostname, host.port, encoding=None
            )
    except TimeoutError:
        told = f"{hop} did not say within {seconds:g} s whether it reaches {place}"
    except asyncssh.ChannelOpenError as error:
        told = f"{hop} could not open a connection to {place}: {error.reason}"
    except (asyncssh.Error, OSError) as error:
        told = f"the connection to {hop} was lost: {error}"
    else:
        return stride(f"{hop} reaches {place}", good=True), streams
    return stride(told, good=False), None


async def _listen(reader: _Reader, writer: _Writer, seconds: float) -> Stride:
    begun = time.monotonic()
    said = b""

    def stride(told: str, *, good: bool) -> Stride:
        details = {"said": told} if good else {}
        return Stride(Step.BANNER, good, told, time.monotonic() - begun, details)

    try:
        writer.write(_GREETING)
        async with asyncio.timeout(seconds):
            while (line := _banner(said)) is None and len(said) < _MOST_BYTES:
                data = await reader.read(_MOST_BYTES)
                if not data:
                    break
                said += data
    except TimeoutError:
        if not said:
            return stride(f"it says nothing within {seconds:g} s", good=False)
        line = None
    except (asyncssh.Error, OSError):
        line = None
    if line is not None:
        return stride(line, good=True)
    if not said:
        return stride("it took the connection, then hung up", good=False)
    return stride(f"it is no SSH server: it says “{_shown(said)}”", good=False)


def _banner(said: bytes) -> str | None:
    """Return the server's line of introduction, once it is there whole."""
    for line in said.splitlines(keepends=True):
        if line.startswith(b"SSH-") and line.endswith(b"\n"):
            return _shown(line)
    return None


def _shown(data: bytes) -> str:
    """Return the first line of what a stranger said, harmless and short."""
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    text = "".join(c if c.isprintable() else "." for c in lines[0])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _why(error: OSError, seconds: float) -> str:
    with contextlib.suppress(KeyError):
        return _WHY[diagnosis.number(error)]
    if isinstance(error, TimeoutError):
        return f"no answer in {seconds:g} s"
    return os.strerror(error.errno) if error.errno else str(error)
