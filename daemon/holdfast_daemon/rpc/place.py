"""Where a call leads, named so that rules and records can tell it from elsewhere.

A call may choose a port itself. Its host's name then carries the port, and only then:
`box:2222` is not `box`, whichever argument made it so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.v1.common_pb2 import ConnectOptions
from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts.inventory import those
from holdfast_daemon.hosts.target import parse
from holdfast_daemon.policy.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from holdfast_daemon.hosts.host import Host

    Resolve = Callable[[Caller, str, ConnectOptions | None], Awaitable[Host]]


class Places:
    """Resolves what a call names, beside what the configuration says of it."""

    def __init__(self, resolve: Resolve) -> None:
        """Use `resolve`, which keeps its answers while the configuration stays."""
        self._resolve = resolve

    async def resolve(
        self, caller: Caller, target: str, connect: ConnectOptions | None
    ) -> Host:
        """Return the host of a call, with the port in its name if it is unusual."""
        host = await self._resolve(caller, target, connect)
        if caller.defaults.port is None and not _names_port(host.name, connect):
            return host
        defaults = replace(caller.defaults, port=None)
        usual = await self._resolve(
            replace(caller, defaults=defaults),
            _without_port(host.name),
            _without_port_option(connect),
        )
        return _named(host, usual)

    async def hops(self, caller: Caller, host: Host) -> list[Host]:
        """Return the jump hosts before `host`, named likewise."""
        hops: list[Host] = []
        hop = host.proxy_jump
        while hop is not None:
            if _names_port(hop.name, None):
                plain = Caller(caller.principal)
                usual = await self._resolve(plain, _without_port(hop.name), None)
                hops.append(_named(hop, usual))
            else:
                hops.append(hop)
            hop = hop.proxy_jump
        return hops

    async def named(self, caller: Caller, names: Iterable[str]) -> list[Host]:
        """Return the configuration's hosts of these names; without any that fail."""
        plain = Caller(caller.principal)
        return await those(names, lambda name: self._resolve(plain, name, None))


def default_port_of(
    caller: Caller, target: str, connect: ConnectOptions | None
) -> int | None:
    """Return the client's default port, unless the call itself names a port."""
    if _names_port(target or caller.defaults.host, connect):
        return None
    return caller.defaults.port


def _names_port(target: str, connect: ConnectOptions | None) -> bool:
    if connect is not None and (connect.HasField("port") or _port_options(connect)):
        return True
    try:
        return parse(target).port is not None
    except InputError:
        return False


def _port_options(connect: ConnectOptions) -> list[str]:
    return [name for name in connect.options if name.lower() == "port"]


def _without_port_option(connect: ConnectOptions | None) -> ConnectOptions | None:
    if connect is None:
        return None
    rest = ConnectOptions()
    rest.CopyFrom(connect)
    rest.ClearField("port")
    for name in _port_options(rest):
        del rest.options[name]
    return rest


def _without_port(name: str) -> str:
    try:
        user, host, _ = parse(name)
    except InputError:
        return name
    host = f"[{host}]" if ":" in host else host
    return f"{user}@{host}" if user is not None else host


def _named(host: Host, usual: Host) -> Host:
    """Return `host` with the port in its name exactly where it is not the usual one."""
    name = _without_port(host.name)
    if host.place == usual.place:
        return replace(host, name=name) if _names_port(host.name, None) else host
    return replace(host, name=f"{name}:{host.port}")
