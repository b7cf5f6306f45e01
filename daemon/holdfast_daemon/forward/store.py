"""The forwards that were declared durable, in one private file."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast_daemon import shape
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.connection.tunnel import Place
from holdfast_daemon.forward.about import About
from holdfast_daemon.forward.wish import Direction, Wish
from holdfast_daemon.ids import ForwardId

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.forward.forward import Forward

_log = logging.getLogger(__name__)


class Saved:
    """A durable forward as it was written down."""

    def __init__(self, about: About, wish: Wish, row: dict[str, Any]) -> None:
        self.about = about
        self.wish = wish
        self.user: str = row["user"]
        self.port: int = row["port"]
        self.row = row


class Found(NamedTuple):
    """What was written down.

    Attributes:
        saved: The forwards.
        odd: Rows that this release can't read, as they stand: another one may.
        unread: The file itself can't be read.
    """

    saved: list[Saved]
    odd: list[Any]
    unread: bool = False


def write(path: Path, rows: Iterable[Any], *, aside: bool = False) -> None:
    """Write down forwards as `row` tells them, whole or not at all.

    `aside`: what is there can't be read, and is kept beside it.

    Raises:
        OSError: It can't be written.
    """
    text = json.dumps(list(rows), indent=1)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    if aside and os.path.lexists(path):
        _put_aside(path)
    fresh.rename(path)


def _put_aside(path: Path) -> None:
    number = 1
    while os.path.lexists(kept := path.with_name(f"{path.name}.unread.{number}")):
        number += 1
    path.rename(kept)
    _log.warning("the durable forwards that can't be read are in %s now", kept)


def read(path: Path, clock: Clock) -> Found:
    """Return what was written down, and what of it can't be read, which is told."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Found([], [])
    except (OSError, ValueError) as error:
        _log.warning("durable forwards can't be read from %s: %s", path, error)
        return Found([], [], unread=True)
    if not isinstance(rows, list):
        _log.warning("durable forwards can't be read from %s: it is no list", path)
        return Found([], [], unread=True)
    found = Found([], [])
    for one in rows:
        try:
            found.saved.append(_saved(one, clock))
        except (TypeError, ValueError) as error:
            _log.warning("a durable forward in %s can't be read: %s", path, error)
            found.odd.append(one)
    return found


def row(forward: Forward) -> dict[str, Any]:
    """Return what is written down of a forward."""
    about, wish, host = forward.about, forward.wish, forward.host
    return {
        "id": about.id,
        "names": about.names,
        "target": about.target,
        "address": about.address,
        "user": host.user,
        "port": host.port,
        "client": about.client,
        "principal": about.principal,
        "allowed_hosts": list(about.allowed_hosts),
        "default_port": about.default_port,
        "opened": rfc3339(about.opened),
        "direction": wish.direction.value,
        "listen": list(forward.listen),
        "connect": None if wish.connect is None else list(wish.connect),
    }


_PLACE = shape.each(shape.text, shape.count, shape.path)
_SHAPE = shape.fields(
    {
        "id": shape.text,
        "names": shape.several(shape.text),
        "target": shape.text,
        "address": shape.text,
        "user": shape.text,
        "port": shape.count,
        "client": shape.text,
        "principal": shape.text,
        "allowed_hosts": shape.several(shape.text),
        "opened": shape.text,
        "direction": shape.text,
        "listen": _PLACE,
        "connect": shape.maybe(_PLACE),
    },
    {"default_port": shape.maybe(shape.count)},
)


def _saved(row: dict[str, Any], clock: Clock) -> Saved:
    _SHAPE("it", row)
    opened = datetime.fromisoformat(row["opened"])
    age = max(0.0, (clock.now() - opened).total_seconds())
    about = About(
        id=ForwardId(row["id"]),
        names=list(row["names"]),
        target=row["target"],
        address=row["address"],
        client=row["client"],
        principal=row["principal"],
        allowed_hosts=tuple(row["allowed_hosts"]),
        opened=opened,
        begun=clock.monotonic() - age,
        default_port=row.get("default_port"),
    )
    wish = Wish(
        Direction(row["direction"]),
        Place(*row["listen"]),
        None if row["connect"] is None else Place(*row["connect"]),
        about.names[0] if about.names else "",
        durable=True,
    )
    return Saved(about, wish, row)


def does(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two forwards can't both do: to listen there."""
    remote = row["direction"] == Direction.REMOTE
    return row["address"] if remote else None, tuple(row["listen"])
