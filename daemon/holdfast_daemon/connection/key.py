"""Keys that are made ready only when they are to sign: unlocked, touched, or neither.

A server is shown the public half first, so that nobody is asked for the passphrase of a
key it would not take.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncssh
from asyncssh import SSHKeyPair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncssh import SSHKey


class PublicHalf(SSHKeyPair):
    """A key whose private half is not at hand yet."""

    def __init__(self, key: SSHKey) -> None:
        super().__init__(
            key.algorithm,
            key.algorithm,
            key.sig_algorithms,
            key.sig_algorithms,
            key.public_data,
            key.get_comment_bytes(),
        )

    def sign(self, data: bytes) -> bytes:  # noqa: ARG002
        """Refuse: there is nothing to sign with."""
        raise ValueError("the private key is locked")


class Signer(SSHKeyPair):
    """A key as the library sees it; `ready` gives the one that signs.

    A key that can't be had, and an agent that does not sign, is a ValueError: then the
    library goes on with the next key.
    """

    def __init__(
        self, shape: SSHKeyPair, ready: Callable[[], Awaitable[SSHKeyPair | None]]
    ) -> None:
        super().__init__(
            shape.key_algorithm,
            shape.sig_algorithm,
            shape.sig_algorithms,
            shape.host_key_algorithms,
            shape.key_public_data,
            shape.get_comment_bytes(),
            use_webauthn=shape.use_webauthn,
        )
        self._shape = shape
        self._ready = ready
        self.algorithm = shape.algorithm
        self.public_data = shape.public_data

    @property
    def has_cert(self) -> bool:
        """Whether it is shown with a certificate."""
        return self._shape.has_cert

    def set_sig_algorithm(self, sig_algorithm: bytes) -> None:
        """Sign that way."""
        self._shape.set_sig_algorithm(sig_algorithm)
        super().set_sig_algorithm(sig_algorithm)

    async def sign_async(self, data: bytes) -> bytes:
        """Sign, once the key is ready.

        Raises:
            ValueError: It can't be had, or does not sign.
        """
        pair = await self._ready()
        if pair is None:
            raise ValueError("the key can't be used")
        if pair is not self._shape:
            pair.set_sig_algorithm(self.sig_algorithm)
        sign = getattr(pair, "sign_async", None)
        try:
            if sign is not None:
                signature: bytes = await sign(data)
                return signature
            return await asyncio.to_thread(pair.sign, data)
        except (OSError, asyncssh.Error, EOFError) as error:
            raise ValueError(str(error)) from error
