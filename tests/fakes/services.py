"""Plain TCP services for forwards to lead to, each in threads of its own."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

PATIENCE = 40.0
_CHUNK = 256 * 1024
BLOCK = bytes(range(256)) * 1024


@contextlib.contextmanager
def serve(
    handle: Callable[[socket.socket], None], path: str = "", host: str = "127.0.0.1"
) -> Generator[int]:
    """Answer each connection by `handle`, in a thread; yields the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(socket.AF_UNIX if path else family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(path or (host, 0))
    server.listen(1024)
    open_now: set[socket.socket] = set()

    def one(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            handle(peer)
        open_now.discard(peer)

    def accept() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            peer.settimeout(PATIENCE)
            open_now.add(peer)
            threading.Thread(target=one, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield 0 if path else int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(PATIENCE)
        for peer in list(open_now):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)


def echo(peer: socket.socket) -> None:
    """Send back what comes, then the end."""
    while data := peer.recv(_CHUNK):
        peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)


def digest(peer: socket.socket) -> None:
    """Read to the end; then answer with the SHA-256 of it."""
    found = hashlib.sha256()
    while data := peer.recv(_CHUNK):
        found.update(data)
    peer.sendall(found.hexdigest().encode())
    peer.shutdown(socket.SHUT_WR)
    peer.recv(1)


def source(size: int) -> Callable[[socket.socket], None]:
    """Return what sends `size` bytes and the end."""

    def send(peer: socket.socket) -> None:
        for at in range(0, size, len(BLOCK)):
            peer.sendall(BLOCK[: size - at])
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)

    return send


def expected(size: int) -> str:
    """Return the SHA-256 of what `source` sends."""
    found = hashlib.sha256()
    for at in range(0, size, len(BLOCK)):
        found.update(BLOCK[: size - at])
    return found.hexdigest()


def dial(address: str) -> socket.socket:
    """Connect to `HOST:PORT` or a path."""
    if address.startswith("/"):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(PATIENCE)
        one.connect(address)
        return one
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), PATIENCE)


def read_all(one: socket.socket) -> bytes:
    """Read to the end."""
    parts: list[bytes] = []
    while data := one.recv(_CHUNK):
        parts.append(data)
    return b"".join(parts)


def digest_of(one: socket.socket) -> str:
    """Read to the end; return the SHA-256."""
    found = hashlib.sha256()
    while data := one.recv(_CHUNK):
        found.update(data)
    return found.hexdigest()


def exchange(address: str, data: bytes) -> bytes:
    """Send `data` and the end; return all of the answer."""
    with dial(address) as one:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        return read_all(one)


def reset(one: socket.socket) -> None:
    """Break a connection off."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def socks(proxy: str, host: str, port: int) -> tuple[socket.socket, int]:
    """Ask a SOCKS proxy for a connection; return it and the reply's code."""
    one = dial(proxy)
    one.sendall(b"\x05\x01\x00")
    assert one.recv(2) == b"\x05\x00"
    name = host.encode()
    one.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2))
    told = b""
    while len(told) < 10:
        data = one.recv(10 - len(told))
        assert data, told
        told += data
    assert told[0] == 5
    return one, told[1]
