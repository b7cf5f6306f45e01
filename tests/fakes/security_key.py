"""An ssh-agent that holds a security key: it signs only once somebody touches it.

The key is made of software and its signatures are those of a real one, so that a real
sshd judges them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from pathlib import Path

_KIND = b"sk-ssh-ed25519@openssh.com"
_APPLICATION = b"ssh:"
_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN, _SIGN_ANSWER = 13, 14
_FAILURE = b"\x05"
_USER_PRESENT = 1


class SecurityKey:
    """Listens on a socket as an agent.

    Attributes:
        blinks: How often it asked to be touched.
        lit: Set while it waits for a touch.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.blinks = 0
        self.lit = asyncio.Event()
        self._touched = asyncio.Event()
        self._key = Ed25519PrivateKey.generate()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def public(self) -> str:
        """Its line of authorized_keys."""
        return f"{_KIND.decode()} {base64.b64encode(self._blob).decode()} a key\n"

    def touch(self) -> None:
        """Touch it."""
        self._touched.set()

    @property
    def _blob(self) -> bytes:
        public = self._key.public_key().public_bytes_raw()
        return _string(_KIND) + _string(public) + _string(_APPLICATION)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                size = struct.unpack(">I", await reader.readexactly(4))[0]
                request = await reader.readexactly(size)
                writer.write(_string(await self._answer(request)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        if request[0] == _IDENTITIES:
            listed = struct.pack(">I", 1) + _string(self._blob) + _string(b"a key")
            return bytes([_IDENTITIES_ANSWER]) + listed
        if request[0] != _SIGN:
            return _FAILURE
        _, rest = _cut(request[1:])
        data, _ = _cut(rest)
        self.blinks += 1
        self.lit.set()
        await self._touched.wait()
        self.lit.clear()
        self._touched.clear()
        tail = struct.pack(">BI", _USER_PRESENT, self.blinks)
        digest = hashlib.sha256(data).digest()
        signed = self._key.sign(hashlib.sha256(_APPLICATION).digest() + tail + digest)
        return bytes([_SIGN_ANSWER]) + _string(_string(_KIND) + _string(signed) + tail)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _cut(data: bytes) -> tuple[bytes, bytes]:
    size = struct.unpack(">I", data[:4])[0]
    return data[4 : 4 + size], data[4 + size :]
