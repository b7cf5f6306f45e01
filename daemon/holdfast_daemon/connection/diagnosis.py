"""What a connection error tells of its cause, kept short: which step, what was tried.

Pure: reads errors and hosts, and asks nobody. `holdfast doctor` tells the rest.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast_daemon.hosts.host import Host

# A model reads it: more of them says nothing more.
_ITEMS = 6
_CHARS = 600
_CALLED = re.compile(r"Connect call failed \('([^']{1,64})'")
_NUMBER = re.compile(r"\[Errno (\d{1,4})\]")


class Step(StrEnum):
    """The steps on the way to a host, in their order."""

    NAME = "name"
    TCP = "TCP"
    BANNER = "banner"
    KEY_EXCHANGE = "key exchange"
    HOST_KEY = "host key"
    LOGIN = "login"


# How a login calls what it is doing.
_DOING = {
    "reaching it": Step.TCP,
    "a word from it": Step.BANNER,
    "the key exchange": Step.KEY_EXCHANGE,
    "the login": Step.LOGIN,
}


def step_of(doing: str) -> Step | None:
    """Return the step that a login was at; None: it was past all of them."""
    if doing.startswith("a touch"):
        return Step.LOGIN
    return _DOING.get(doing)


def addresses(host: Host, error: BaseException | None = None) -> tuple[str, ...]:
    """Return the addresses that were tried, as far as the error names them."""
    if host.show != "all":
        return ()
    found = tuple(dict.fromkeys(_CALLED.findall(str(error)))) if error else ()
    if not found and is_address(host.hostname):
        found = (host.hostname,)
    return found[:_ITEMS]


def number(error: OSError) -> int:
    """Return the system's error number, of the last address where there were several.

    The event loop then keeps only the words of each.
    """
    if error.errno:
        return error.errno
    found = _NUMBER.findall(str(error))
    return int(found[-1]) if found else 0


def is_address(name: str) -> bool:
    """Whether `name` needs no looking up."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def where(host: Host, step: Step | None, tried: Sequence[str] = ()) -> str:
    """Return the words that stand behind a message: the step, and what was tried."""
    if step is None:
        return ""
    told = [f"step: {step}"]
    if tried and list(tried) != [host.hostname]:
        told.append(f"tried {', '.join(tried)}")
    return f" ({'; '.join(told)})"


def facts(step: Step | None, tried: Sequence[str] = ()) -> dict[str, str]:
    """Return the same for programs."""
    found = {"step": str(step)} if step is not None else {}
    return found | ({"addresses": ", ".join(tried)} if tried else {})


def advice(host: Host, *hints: str) -> str:
    """Return a hint that ends with whom to ask for more."""
    return "; ".join([*filter(None, hints), doctor(host.name)])


def doctor(name: str) -> str:
    """Return the next step when nothing better is known, and besides it."""
    return f"`holdfast doctor {name}` checks each step"


def without_doctor(hint: str, name: str) -> str:
    """Return a hint as the doctor itself says it."""
    parts = (part for part in hint.split("; ") if part != doctor(name))
    return "; ".join(parts)


def veiled(host: Host, text: str) -> str:
    """Return `text` without the place of a host that is shown by its purpose only.

    Paths with %h in them and a server's own words may name it.
    """
    hop: Host | None = host
    while hop is not None:
        if hop.show == "purpose" and hop.hostname != hop.name:
            place = re.escape(hop.hostname)
            pattern = rf"(?<![A-Za-z0-9]){place}(?![A-Za-z0-9])"
            text = re.sub(pattern, hop.name.replace("\\", r"\\"), text)
        hop = hop.proxy_jump
    return text


def bounded(items: Iterable[str], *, most: int = _ITEMS, chars: int = _CHARS) -> str:
    """Join `items` to one text that an agent can bear to read."""
    told = list(items)
    kept, size = 0, 0
    while kept < min(len(told), most) and (not kept or size < chars):
        size += len(told[kept])
        kept += 1
    text = "; ".join(told[:kept])
    if len(text) > chars:
        text = text[:chars] + "…"
    left = len(told) - kept
    return f"{text}; and {left} more" if left else text
