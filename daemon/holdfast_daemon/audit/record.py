"""One record of the audit log, and how records are chained. Sans-I/O.

A line is the record as JSON (compact, ASCII, keys in the order below) whose last member
is `hash`: the SHA-256 of the same text without that member. `prev` is the hash of the
line before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GENESIS = "0" * 64
# One disk sector: written in place it is old or new, never half.
HEAD_BYTES = 512

_HEX = frozenset("0123456789abcdef")
_HASH_DIGITS = 64
_TAIL_BYTES = len(',"hash":"') + _HASH_DIGITS + len('"}')


class Phase(StrEnum):
    """Which part of a call a record tells."""

    START = "start"
    END = "end"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is recorded; what does not apply stays None and is left out."""

    event_type: str
    phase: Phase
    call_id: str
    client: str = ""
    principal: str = ""
    tool: str = ""
    server_name: str | None = None
    command: str | None = None
    result: str | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Damaged(ValueError):  # noqa: N818 - reads as what it says of a line
    """A line, or the head, is not what was written."""


class Link(NamedTuple):
    """A record's place in the chain."""

    seq: int
    prev: str
    hash: str
    findings: tuple[str, ...] = ()


class Head(NamedTuple):
    """Where the kept chain begins and where it ends."""

    first_seq: int
    first_prev: str
    last_seq: int
    last_hash: str


EMPTY = Head(1, GENESIS, 0, GENESIS)


def fields_of(
    record: Record, timestamp: str, clean: Callable[[str], str]
) -> dict[str, Any]:
    """Return the members of `record` in order, every text passed through `clean`."""
    members: dict[str, Any] = {
        "timestamp": timestamp,
        "event_type": record.event_type,
        "phase": record.phase.value,
        "call_id": record.call_id,
        "client": record.client,
        "principal": record.principal,
        "tool": record.tool,
    }
    if record.server_name is not None:
        members["server_name"] = record.server_name
    if record.command is not None:
        members["command"] = record.command
    if record.result is not None:
        members["result"] = record.result
    if record.exit_code is not None:
        members["exit_code"] = record.exit_code
    if record.duration_ms is not None:
        members["duration_ms"] = record.duration_ms
    if record.error is not None:
        members["error"] = record.error
    if record.metadata:
        members["metadata"] = {k: _plain(v) for k, v in record.metadata.items()}
    # Nearly always there is nothing to hide, and one look at all of it is enough.
    whole = "\n".join(
        filter(
            None,
            (
                record.client,
                record.tool,
                record.server_name,
                record.command,
                record.error,
                *_texts(record.metadata),
            ),
        )
    )
    if clean(whole) != whole:
        members = {key: _cleaned(value, clean) for key, value in members.items()}
    return members


def _plain(value: Any) -> Any:
    """Return `value` made of nothing but what JSON has."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): _plain(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[object]", value)]
    return str(value)


def _texts(value: Any) -> list[str]:
    """Return the texts in a mapping or list, however deep."""
    found: list[str] = []
    items = value.values() if isinstance(value, Mapping) else value
    for item in cast("Iterable[object]", items):
        if isinstance(item, Mapping | list | tuple):
            found += _texts(item)
        elif not isinstance(item, bool | int | float):
            found.append(str(item))
    return found


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: _cleaned(item, clean) for key, item in items}
    if isinstance(value, list):
        return [_cleaned(item, clean) for item in cast("list[object]", value)]
    return value


def seal(members: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """Return the line for `members` as record `seq` after `prev`, and its hash."""
    text = json.dumps({"seq": seq, **members, "prev": prev}, separators=(",", ":"))
    body = text.encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode("ascii")), digest


def unseal(line: bytes) -> Link:
    """Return the place that `line` (without its newline) claims, its own hash checked.

    Raises:
        Damaged: It is not a line as it was written.
    """
    body, tail = line[:-_TAIL_BYTES] + b"}", line[-_TAIL_BYTES:]
    claimed = tail[-_HASH_DIGITS - 2 : -2].decode("ascii", "replace")
    if tail != b',"hash":"%b"}' % claimed.encode("ascii", "replace"):
        raise Damaged("is not a record")
    if hashlib.sha256(body).hexdigest() != claimed:
        raise Damaged("does not match its hash")
    try:
        members: object = json.loads(body)
    except ValueError as error:
        raise Damaged("is not JSON") from error
    if not isinstance(members, dict):
        raise Damaged("is not a record")
    known = cast("dict[str, object]", members)
    seq, prev = known.get("seq"), known.get("prev")
    if not isinstance(seq, int) or not _is_hash(prev):
        raise Damaged("has no place in the chain")
    return Link(seq, cast("str", prev), claimed, _findings(known))


def _findings(members: dict[str, object]) -> tuple[str, ...]:
    """Return what a `recovered` record says was lost before it."""
    if members.get("event_type") != RECOVERED or members.get("result") != "damaged":
        return ()
    return (str(members.get("error", "something was lost before it")),)


RECOVERED = "recovered"


def _is_hash(value: object) -> bool:
    return (
        isinstance(value, str) and len(value) == _HASH_DIGITS and _HEX.issuperset(value)
    )


def encode_head(head: Head) -> bytes:
    """Return `audit.head`: one line of fixed length that carries its own checksum."""
    text = json.dumps(
        {
            "first": {"seq": head.first_seq, "prev": head.first_prev},
            "last": {"seq": head.last_seq, "hash": head.last_hash},
        },
        separators=(",", ":"),
    )
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    line = f'{text[:-1]},"check":"{digest}"}}'
    return line.ljust(HEAD_BYTES - 1).encode("ascii") + b"\n"


def decode_head(data: bytes) -> Head:
    """Return what `audit.head` says.

    Raises:
        Damaged: It is not as it was written.
    """
    try:
        found = json.loads(data)
        first, last = found["first"], found["last"]
        head = Head(first["seq"], first["prev"], last["seq"], last["hash"])
        if data == encode_head(head):
            return head
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged("is not as it was written") from error
    raise Damaged("is not as it was written")
