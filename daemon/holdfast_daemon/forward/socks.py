"""SOCKS 5 as far as a proxy of CONNECT needs it (RFC 1928). Sans-I/O."""

from __future__ import annotations

import ipaddress
from enum import IntEnum

_VERSION = 5
_NO_AUTH = 0
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
# Up to the byte before the first that differs in meaning.
_GREETING, _HEAD, _PORT = 2, 5, 2
_SIZES = {_IPV4: 4, _IPV6: 16}


class Reply(IntEnum):
    """What a request came to."""

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    COMMAND = 7
    ADDRESS = 8


# What sshd says why it could not connect, in its system's words.
_WORDS = (
    ("refused", Reply.REFUSED),
    ("network is unreachable", Reply.NETWORK_UNREACHABLE),
    ("no route", Reply.HOST_UNREACHABLE),
    ("timed out", Reply.HOST_UNREACHABLE),
    ("name or service", Reply.HOST_UNREACHABLE),
    ("resol", Reply.HOST_UNREACHABLE),
)


def answer(reply: Reply) -> bytes:
    """Return the answer to a request; the address bound is nobody's business."""
    return bytes((_VERSION, reply, 0, _IPV4, 0, 0, 0, 0, 0, 0))


def reply_to(why: str, *, prohibited: bool) -> Reply:
    """Return what tells a failure best."""
    if prohibited:
        return Reply.NOT_ALLOWED
    low = why.lower()
    return next((reply for word, reply in _WORDS if word in low), Reply.FAILED)


class Greeting:
    """One client's words until it is known where it wants to go.

    Attributes:
        target: Host and port, once they are known.
        refused: It can't be served; what `feed` returned is the last word.
        why: In words for people.
        rest: What came behind the request.
    """

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.refused = False
        self.why = ""
        self.rest = b""
        self._held = b""
        self._greeted = False

    @property
    def over(self) -> bool:
        """Nothing more is to be fed."""
        return self.refused or self.target is not None

    def feed(self, data: bytes) -> bytes:
        """Take `data`; return what to send."""
        self._held += data
        said = b""
        if not self._greeted and not self.refused:
            said += self._greet()
        if self._greeted and not self.over:
            said += self._request()
        return said

    def _refuse(self, why: str, said: bytes = b"") -> bytes:
        self.refused, self.why = True, why
        return said

    def _greet(self) -> bytes:
        held = self._held
        if held and held[0] != _VERSION:
            return self._refuse("it does not speak SOCKS 5")
        if len(held) < _GREETING or len(held) < _GREETING + held[1]:
            return b""
        end = _GREETING + held[1]
        methods, self._held = held[_GREETING:end], held[end:]
        if _NO_AUTH not in methods:
            return self._refuse("it wants a login", bytes((_VERSION, 0xFF)))
        self._greeted = True
        return bytes((_VERSION, _NO_AUTH))

    def _request(self) -> bytes:
        held = self._held
        if len(held) < _HEAD:
            return b""
        version, command, _, kind = held[:4]
        if version != _VERSION or command != _CONNECT:
            reply = Reply.COMMAND if version == _VERSION else Reply.FAILED
            return self._refuse("only CONNECT is served", answer(reply))
        start = 5 if kind == _NAME else 4
        size = held[4] if kind == _NAME else _SIZES.get(kind)
        if size is None:
            return self._refuse("its kind of address", answer(Reply.ADDRESS))
        end = start + size
        if len(held) < end + _PORT:
            return b""
        host = _host(kind, held[start:end])
        if not host:
            return self._refuse("its host is no name", answer(Reply.ADDRESS))
        port, self.rest = held[end : end + _PORT], held[end + _PORT :]
        self.target = (host, int.from_bytes(port, "big"))
        return b""


def _host(kind: int, data: bytes) -> str:
    if kind != _NAME:
        return str(ipaddress.ip_address(data))
    try:
        name = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return name if name.isprintable() and " " not in name else ""
