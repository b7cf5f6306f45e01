"""A service manager's end of `NOTIFY_SOCKET`: records what it is told."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from pathlib import Path
from typing import Self

_MESSAGE_BYTES = 4096


class Supervisor:
    """Listens on a datagram socket in `directory`, or on an abstract one without it."""

    def __init__(self, directory: Path | None = None) -> None:
        if directory is None:
            self.address = f"@holdfast-test-{os.getpid()}-{secrets.token_hex(4)}"
        else:
            self.address = str(directory / "notify")
        self.told: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @property
    def environment(self) -> dict[str, str]:
        """What a supervised process finds in its environment."""
        return {"NOTIFY_SOCKET": self.address}

    def __enter__(self) -> Self:
        name = self.address
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if not self.address.startswith("@"):
            Path(self.address).unlink()

    def receive(self, seconds: float = 30.0) -> dict[str, str]:
        """Return the fields of the next message; TimeoutError when none comes."""
        self._socket.settimeout(seconds)
        text = self._socket.recv(_MESSAGE_BYTES).decode()
        fields = dict(line.split("=", 1) for line in text.splitlines())
        self.told.append(fields)
        return fields

    async def until(self, name: str, seconds: float = 30.0) -> dict[str, str]:
        """Wait for the first message that has the field `name`, and return it."""
        async with asyncio.timeout(seconds):
            while True:
                # a little past our own limit, so that the thread ends by itself
                fields = await asyncio.to_thread(self.receive, seconds)
                if name in fields:
                    return fields

    def silent(self) -> bool:
        """Return whether nothing more was told."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return True
        return False
