"""One spelling for each address, so that no other one gets round a rule. Pure."""

from __future__ import annotations

import ipaddress
import re

_V4_BYTES = 4
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")


def canonical(hostname: str) -> str:
    """Return the one spelling of an address; a name is only a name, in lower case."""
    text = _looked_up(hostname).lower().rstrip(".")
    try:
        address = _short(text) or ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    # To connect to no address in particular leads here too; a zone changes nothing.
    six = isinstance(address, ipaddress.IPv6Address) and address.is_loopback
    if six or address.is_unspecified or str(address) == "127.0.0.1":
        return "localhost"
    return str(address)


def _looked_up(hostname: str) -> str:
    """Return the name a lookup asks for: it takes wide letters for the plain ones."""
    if hostname.isascii():
        return hostname
    try:
        return hostname.encode("idna").decode("ascii")
    except UnicodeError:
        return hostname  # nobody can look it up


def _short(text: str) -> ipaddress.IPv4Address | None:
    """Read what the system takes for an address too: 127.1, 0x7f.1, 2130706433."""
    parts = text.split(".")
    if len(parts) > _V4_BYTES or not all(map(_NUMBER.fullmatch, parts)):
        return None
    *first, last = map(_number, parts)
    rest = _V4_BYTES - len(first)
    if last >= 256**rest:
        return None
    # Bytes above 255 are a ValueError, as anything else that is no address.
    return ipaddress.IPv4Address(bytes(first) + last.to_bytes(rest, "big"))


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)
