"""What may be waited for, and whether one thing of a request is one; sans I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from holdfast_daemon.errors import InputError

_MOST_PORT = 65535
# Nobody waits longer in one call; what was quiet before the call counts too.
_MOST_QUIET = 86_400.0
_ONE = "job_id, session, target or forward"
_STATES = {"up": True, "down": False}


class Asked(NamedTuple):
    """One entry as it was sent; empty and None: not given."""

    job_id: str = ""
    session: str = ""
    until: str = ""
    quiet_seconds: float | None = None
    exited: bool = False
    target: str = ""
    port: int | None = None
    forward: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class JobEnds:
    """A job ends."""

    job_id: str


@dataclass(frozen=True, slots=True)
class SessionPrints:
    """A session prints text that matches, or anything where `until` is empty."""

    session: str
    until: str = ""


@dataclass(frozen=True, slots=True)
class SessionQuiet:
    """Nothing comes from a session for so long."""

    session: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionEnds:
    """A session ends."""

    session: str


@dataclass(frozen=True, slots=True)
class HostIs:
    """A host can be reached, or not any more."""

    target: str
    up: bool


@dataclass(frozen=True, slots=True)
class PortOpens:
    """Something listens on a port of the host's loopback."""

    target: str
    port: int


@dataclass(frozen=True, slots=True)
class ForwardIs:
    """A forward carries connections, or not any more."""

    forward: str
    up: bool


Thing: TypeAlias = (
    JobEnds
    | SessionPrints
    | SessionQuiet
    | SessionEnds
    | HostIs
    | PortOpens
    | ForwardIs
)


def read(asked: Asked, path: str) -> Thing:
    """Return the one thing that `asked` is; `path` names it in errors.

    Raises:
        InputError: It is none, or several at once.
    """
    things = _given(asked, ("job_id", "session", "target", "forward"))
    if len(things) != 1:
        raise _not_one(path, things)
    thing = things[0]
    if thing == "job_id":
        _no_more(asked, path, thing, ())
        return JobEnds(asked.job_id.strip())
    if thing == "session":
        return _session(asked, path)
    if thing == "forward":
        _no_more(asked, path, thing, ("state",))
        return ForwardIs(asked.forward.strip(), _up(asked, path, thing))
    _no_more(asked, path, thing, ("state", "port"))
    return _host(asked, path)


def _session(asked: Asked, path: str) -> Thing:
    ways = ("until", "quiet_seconds", "exited")
    _no_more(asked, path, "session", ways)
    given = _given(asked, ways)
    if len(given) > 1:
        raise InputError(
            path,
            f"{path} has {' and '.join(given)}; a session is waited for in one way",
            hint="Name the session twice in any_of, each with one of them.",
        )
    name, quiet = asked.session.strip(), asked.quiet_seconds
    if asked.exited:
        return SessionEnds(name)
    if quiet is None:
        return SessionPrints(name, asked.until)
    # Written so that NaN fails too.
    if not 0 < quiet <= _MOST_QUIET:
        raise InputError(
            f"{path}.quiet_seconds",
            f"{path}.quiet_seconds must be above 0 and at most {_MOST_QUIET:g},"
            f" not {quiet:.15g}",
        )
    return SessionQuiet(name, quiet)


def _host(asked: Asked, path: str) -> Thing:
    name, port = asked.target.strip(), asked.port
    if port is None:
        return HostIs(name, _up(asked, path, "target"))
    if asked.state:
        raise InputError(
            path,
            f"{path} has port and state; it may have one",
            hint='Leave state out to wait for the port, or port out to wait for "up"'
            ' or "down" of the host.',
        )
    if not 1 <= port <= _MOST_PORT:
        raise InputError(
            f"{path}.port", f"{path}.port must be 1 to {_MOST_PORT}, not {port}"
        )
    return PortOpens(name, port)


def _up(asked: Asked, path: str, thing: str) -> bool:
    known = _STATES.get(asked.state)
    if known is not None:
        return known
    field = f"{path}.state"
    told = f"not {asked.state!r}" if asked.state else "and is not given"
    hint = "Or give port, to wait until it opens." if thing == "target" else ""
    raise InputError(field, f"{field} must be up or down, {told}", hint=hint)


def _given(asked: Asked, names: tuple[str, ...]) -> list[str]:
    values = asked._asdict()
    return [name for name in names if values[name] not in ("", None, False)]


def _not_one(path: str, things: list[str]) -> InputError:
    if things:
        return InputError(
            path,
            f"{path} names {' and '.join(things)}; one entry waits for one thing",
            hint="Give each its own entry in any_of.",
        )
    return InputError(path, f"{path} names nothing to wait for: give {_ONE}")


def _no_more(asked: Asked, path: str, thing: str, allowed: tuple[str, ...]) -> None:
    """Refuse what does not go with `thing`: to leave it out would wait for less."""
    odd = [
        name
        for name in _given(asked, Asked._fields)
        if name != thing and name not in allowed
    ]
    if odd:
        field = f"{path}.{odd[0]}"
        with_it = (
            f"may have {' or '.join(allowed)}" if allowed else "takes nothing else"
        )
        raise InputError(field, f"{field} does not go with {thing}, which {with_it}")
