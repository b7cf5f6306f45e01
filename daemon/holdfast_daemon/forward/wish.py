"""What somebody wants forwarded, and whether that can be meant. Sans-I/O."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from holdfast_daemon.connection.tunnel import Place
from holdfast_daemon.errors import DeniedError, InputError, Reason

LOOPBACK = "127.0.0.1"
# Linux's own bound for the path of a socket, less the NUL.
_PATH_BYTES = 107
_HOST = re.compile(r"(?!-)[\w.:%-]{1,255}")


class Direction(StrEnum):
    """Which side listens, and how."""

    LOCAL = "local"
    REMOTE = "remote"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, slots=True)
class Wish:
    """A forward as it was asked for.

    Attributes:
        listen: Where; port 0 picks one.
        connect: Where to; None: each SOCKS client says it.
        durable: Opened again after a restart of the daemon.
    """

    direction: Direction
    listen: Place
    connect: Place | None
    name: str = ""
    durable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The words of a call; None and empty: not said."""

    direction: Direction
    name: str = ""
    bind_address: str = ""
    local_port: int | None = None
    remote_host: str = ""
    remote_port: int | None = None
    local_socket: str = ""
    remote_socket: str = ""
    durable: bool = False


def read(asked: Asked, *, wildcard: bool) -> Wish:
    """Return what is meant.

    `wildcard`: the configuration lets forwards listen on every address.

    Raises:
        InputError: Something is missing, or does not go together.
        DeniedError: It would listen for everybody.
    """
    _check_pairs(asked)
    make = {
        Direction.LOCAL: _local,
        Direction.REMOTE: _remote,
        Direction.DYNAMIC: _dynamic,
    }[asked.direction]
    listen, connect = make(asked)
    if not wildcard and everybody(listen):
        raise DeniedError(
            Reason.POLICY_DENIED,
            f"a forward does not listen on {listen.host}: everybody who reaches that"
            " machine could use it",
            hint="Leave bind_address out for 127.0.0.1, or name one address; a person"
            " allows it by forward_wildcard = true in the configuration.",
            metadata={"field": "bind_address", "bind_address": listen.host},
        )
    return Wish(asked.direction, listen, connect, asked.name, asked.durable)


def _check_pairs(asked: Asked) -> None:
    for field, path in (
        ("local_socket", asked.local_socket),
        ("remote_socket", asked.remote_socket),
    ):
        if path:
            _check_path(field, path)
    if asked.local_socket and asked.local_port is not None:
        raise InputError("local_socket", "give local_socket or local_port, not both")
    if asked.remote_socket and (asked.remote_port is not None or asked.remote_host):
        raise InputError(
            "remote_socket", "give remote_socket or remote_host and remote_port"
        )


def _check_path(field: str, path: str) -> None:
    if not path.startswith("/"):
        raise InputError(field, f"{field} must be an absolute path, not {path!r}")
    if len(path.encode()) > _PATH_BYTES:
        raise InputError(
            field, f"{field} is longer than {_PATH_BYTES} bytes, the most for a socket"
        )
    if not path.isprintable():
        raise InputError(field, f"{field} holds control characters")


def _local(asked: Asked) -> tuple[Place, Place]:
    if asked.remote_socket:
        connect = Place(path=asked.remote_socket)
    else:
        if not asked.remote_port:
            raise InputError(
                "remote_port",
                "remote_port is missing: the port that the host is to connect to",
                hint="local: this machine listens on local_port (0 picks one), and the"
                " host connects to remote_host:remote_port.",
            )
        connect = Place(_target(asked.remote_host or LOOPBACK), asked.remote_port)
    return _here(asked), connect


def _remote(asked: Asked) -> tuple[Place, Place]:
    if asked.remote_host:
        raise InputError(
            "remote_host",
            "remote_host goes with local only: where a remote one listens on the host"
            " is bind_address",
        )
    if asked.local_socket:
        connect = Place(path=asked.local_socket)
    else:
        if not asked.local_port:
            raise InputError(
                "local_port",
                "local_port is missing: the port of this machine to connect to",
                hint="remote: the host listens on remote_port (0 picks one), and this"
                " machine connects to its own local_port.",
            )
        connect = Place(LOOPBACK, asked.local_port)
    if asked.remote_socket:
        _no_address(asked)
        return Place(path=asked.remote_socket), connect
    if asked.remote_port is None:
        raise InputError(
            "remote_port", "remote_port is missing: where the host listens; 0 picks one"
        )
    return Place(_bind(asked.bind_address), asked.remote_port), connect


def _dynamic(asked: Asked) -> tuple[Place, None]:
    if asked.remote_host or asked.remote_port is not None or asked.remote_socket:
        field = "remote_socket" if asked.remote_socket else "remote_port"
        field = "remote_host" if asked.remote_host else field
        raise InputError(
            field,
            f"{field} does not go with dynamic: each SOCKS client says where it wants",
        )
    return _here(asked), None


def _here(asked: Asked) -> Place:
    if asked.local_socket:
        _no_address(asked)
        return Place(path=asked.local_socket)
    return Place(_bind(asked.bind_address), asked.local_port or 0)


def _no_address(asked: Asked) -> None:
    if asked.bind_address:
        raise InputError("bind_address", "bind_address does not go with a socket")


def _target(host: str) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(bare):
        raise InputError(
            "remote_host", f"remote_host {host!r} is no host name or address"
        )
    return bare


def _bind(address: str) -> str:
    bare = address.strip().removeprefix("[").removesuffix("]")
    if bare in ("", "localhost"):
        return LOOPBACK
    if bare == "*":
        return "0.0.0.0"  # noqa: S104  refused further up, unless allowed
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise InputError(
            "bind_address", f"bind_address must be an IP address, not {address!r}"
        ) from None


def everybody(place: Place) -> bool:
    """Say whether whoever reaches the machine reaches what listens there.

    So it is with what is no address, as a damaged record may have it.
    """
    if place.path:
        return False
    try:
        found = ipaddress.ip_address(place.host)
    except ValueError:
        return True
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_unspecified or bool(mapped and mapped.is_unspecified)
