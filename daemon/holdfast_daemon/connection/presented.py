"""Meets a host's key on its way in, so that the verdict is ours and comes first.

The library asks about keys only in part, and cannot wait for an answer; here one may
read files and run programs, and sees the key as the server sent it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from asyncssh import HostKeyNotVerifiable, KeyImportError, ProtocolError
from asyncssh.constants import MSG_KEXINIT
from asyncssh.kex_dh import _KexDHBase  # pyright: ignore[reportPrivateUsage]
from asyncssh.kex_rsa import _KexRSA  # pyright: ignore[reportPrivateUsage]
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.public_key import decode_ssh_public_key, get_public_key_algs

from holdfast_daemon.hosts import public_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncssh import SSHClientConnection, SSHKey

    Judge = Callable[[bytes], Awaitable[bytes]]
    _Handler = Callable[[Any, int, int, SSHPacket], Awaitable[None] | None]

# The messages that begin with the host's key. The library has no public name for them.
_WITH_KEY = (_KexDHBase._process_reply, _KexRSA._process_pubkey)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

# Of a key or certificate: room for RSA of 16384 bits and many names.
_MOST_BYTES = 64 * 1024
_NONE = "what it shows as its key is none"


def attend(connection: SSHClientConnection, judge: Judge) -> None:
    """Have `judge` decide on each key that the host shows; what is none ends it.

    It takes the key as sent, returns what proves to hold it (the key inside, of a
    certificate), and raises what ends the connection.
    """
    judged: dict[bytes, bytes] = {}

    async def meet(
        handle: _Handler, kex: Any, kind: int, number: int, packet: SSHPacket
    ) -> None:
        try:
            blob = SSHPacket(packet.get_remaining_payload()).get_string()
            _check(blob)
            judged[blob] = await judge(blob)
            await _done(handle(kex, kind, number, packet))
        except PacketDecodeError as error:
            raise ProtocolError(str(error)) from None

    handlers: dict[int, _Handler] = dict(connection._packet_handlers)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    begin = handlers[MSG_KEXINIT]

    async def begun(
        made: SSHClientConnection, kind: int, number: int, packet: SSHPacket
    ) -> None:
        await _done(begin(made, kind, number, packet))
        kex: Any = made._kex  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if kex is not None:
            kex._packet_handlers = {  # noqa: SLF001
                key: _bound(meet, handle) if handle in _WITH_KEY else handle
                for key, handle in kex._packet_handlers.items()  # noqa: SLF001
            }

    connection._packet_handlers = {**handlers, MSG_KEXINIT: begun}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    validate = connection.validate_server_host_key

    def checked(key_data: bytes) -> SSHKey:
        if key_data not in judged:
            raise HostKeyNotVerifiable("the host's key came by an unknown way")
        return validate(judged[key_data])

    setattr(connection, validate.__name__, checked)


def _check(blob: bytes) -> None:
    """Let only keys through: whatever else is in there would be told to agents.

    Raises:
        ProtocolError: It is none.
    """
    told = public_key.certificate(blob) if public_key.is_certificate(blob) else None
    usual = told is None or told.signed_with.encode() in get_public_key_algs()
    if len(blob) > _MOST_BYTES or not usual:
        raise ProtocolError(_NONE)
    try:
        for key in (told.key, told.authority) if told else (blob,):
            decode_ssh_public_key(key)
    except KeyImportError:
        raise ProtocolError(_NONE) from None


def _bound(
    meet: Callable[[_Handler, Any, int, int, SSHPacket], Awaitable[None]],
    handle: _Handler,
) -> _Handler:
    def met(
        kex: Any, kind: int, number: int, packet: SSHPacket
    ) -> Awaitable[None] | None:
        return meet(handle, kex, kind, number, packet)

    return met


async def _done(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result
