"""Makes the TCP connection to a host as its configuration wants it made.

Nothing is said to the host here, so every step may be tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.connection import lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host

_FAMILIES = {
    "any": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}
# ssh's own: «one per second».
_PAUSE_SECONDS = 1.0
# An address that does not answer leaves the others this share of the time.
_SHARE = 0.5
_SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" else 0x8915
_INET6_TABLE = Path("/proc/net/if_inet6")

_Address = tuple[socket.AddressFamily, tuple[object, ...]]


async def dial(host: Host, seconds: float) -> socket.socket:
    """Return a socket that is connected to `host`, within `seconds` or longer.

    Raises:
        OSError: It can't be reached; of several addresses, why each could not.
    """
    for _ in range(host.wire.attempts - 1):
        with contextlib.suppress(OSError):
            return await _try(host, seconds)
        await asyncio.sleep(_PAUSE_SECONDS)
    return await _try(host, seconds)


async def _try(host: Host, seconds: float) -> socket.socket:
    loop = asyncio.get_running_loop()
    family = _FAMILIES[host.address_family]
    found = await lookup.look_up(host.hostname, host.port, family=family)
    own = await _own_addresses(host)
    addresses: list[_Address] = [(item[0], item[4]) for item in found]
    if own is not None:
        families = {family for family, _ in own}
        addresses = [item for item in addresses if item[0] in families]
        if not addresses:
            raise OSError(f"no address of it can be reached from {_from(host)}")
    until = loop.time() + seconds
    failed: list[str] = []
    for index, (family, address) in enumerate(addresses):
        last = index == len(addresses) - 1
        bound = next((a for f, a in own if f == family), None) if own else None
        try:
            async with asyncio.timeout(
                None if last else (until - loop.time()) * _SHARE
            ):
                return await _connect(host, family, address, bound)
        except OSError as error:  # a TimeoutError is one
            if last and not failed:
                raise
            failed.append(_why(error, address))
    if failed:
        # as the event loop tells it
        raise OSError(f"Multiple exceptions: {', '.join(failed)}")
    raise OSError("it has no address")


def _why(error: OSError, address: tuple[object, ...]) -> str:
    if isinstance(error, TimeoutError) and not error.errno:
        return f"[Errno {errno.ETIMEDOUT}] Connect call failed {address}"
    return str(error)


async def _connect(
    host: Host,
    family: socket.AddressFamily,
    address: tuple[object, ...],
    own: tuple[object, ...] | None,
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        _mark(made, family, host.wire.qos)
        if own is not None:
            made.bind(own)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


def _mark(made: socket.socket, family: socket.AddressFamily, qos: int | None) -> None:
    """Set the type of service; a system that won't have it carries it all the same."""
    if qos is None:
        return
    with contextlib.suppress(OSError):
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, qos)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, qos)


async def _own_addresses(host: Host) -> Sequence[_Address] | None:
    """Return where to come from, per family; None where nothing is said."""
    if host.bind_address:
        family = _FAMILIES[host.address_family]
        found = await lookup.look_up(
            host.bind_address, 0, family=family, flags=socket.AI_PASSIVE
        )
        return [(item[0], item[4]) for item in found]
    if host.wire.bind_interface:
        return await asyncio.to_thread(_addresses_of, host.wire.bind_interface)
    return None


def _addresses_of(interface: str) -> list[_Address]:
    """Return the addresses of an interface.

    Raises:
        OSError: There is no such interface, or it has none.
    """
    found: list[_Address] = []
    name = interface.encode()[:15]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
        contextlib.suppress(OSError),
    ):
        told = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, struct.pack("256s", name))
        found.append((socket.AF_INET, (socket.inet_ntoa(told[20:24]), 0)))
    with contextlib.suppress(OSError):
        for line in _INET6_TABLE.read_text("ascii").splitlines():
            number, index, _, _, _, owner = line.split()
            if owner == interface:
                text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))
                scope = int(index, 16) if text.startswith("fe80") else 0
                found.append((socket.AF_INET6, (text, 0, 0, scope)))
    if not found:
        raise OSError(f"BindInterface {interface} has no address here")
    return found


def _from(host: Host) -> str:
    return host.bind_address or host.wire.bind_interface
