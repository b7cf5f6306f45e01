"""The forwards that were declared durable, in one private file."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

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
        self.user = str(row["user"])
        self.port = int(row["port"])
        self.row = row


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write down forwards as `row` tells them, whole or not at all.

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
    fresh.rename(path)


def read(path: Path, clock: Clock) -> list[Saved]:
    """Return what was written down; what is damaged is told and left out."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        _log.warning("durable forwards can't be read from %s: %s", path, error)
        return []
    found: list[Saved] = []
    for one in rows if isinstance(rows, list) else []:
        try:
            found.append(_saved(one, clock))
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("a durable forward in %s is damaged: %s", path, error)
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
        "opened": rfc3339(about.opened),
        "direction": wish.direction.value,
        "listen": list(forward.listen),
        "connect": None if wish.connect is None else list(wish.connect),
    }


def _saved(row: dict[str, Any], clock: Clock) -> Saved:
    opened = datetime.fromisoformat(row["opened"])
    age = max(0.0, (clock.now() - opened).total_seconds())
    about = About(
        id=ForwardId(str(row["id"])),
        names=[str(name) for name in row["names"]],
        target=str(row["target"]),
        address=str(row["address"]),
        client=str(row["client"]),
        principal=str(row["principal"]),
        allowed_hosts=tuple(str(name) for name in row["allowed_hosts"]),
        opened=opened,
        begun=clock.monotonic() - age,
    )
    wish = Wish(
        Direction(row["direction"]),
        _place(row["listen"]),
        None if row["connect"] is None else _place(row["connect"]),
        about.names[0] if about.names else "",
        durable=True,
    )
    return Saved(about, wish, row)


def does(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two forwards can't both do: to listen there."""
    remote = row["direction"] == Direction.REMOTE
    return row["address"] if remote else None, tuple(row["listen"])


def _place(row: list[Any]) -> Place:
    host, port, path = row
    return Place(str(host), int(port), str(path))
