"""The errors of a login that needs a person, or first one somewhere on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, LinkError, NeedsError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host


def ask_a_person(name: str) -> str:
    """Return the next step of whoever can't answer what `name` asks."""
    return f"ask a person to run `holdfast login {name}` in a terminal"


def login_needed(
    host: Host,
    asks: Sequence[str],
    *,
    methods: Sequence[str] = (),
    tried: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> DaemonError:
    """Return the error for a host that asks what only a person can answer."""
    what = ", ".join(dict.fromkeys(asks))
    known = [f"tried so far: {'; '.join(tried)}", *notes] if tried else [*notes]
    return NeedsError(
        Reason.LOGIN_NEEDED,
        f"{host.name} asks for: {what}",
        hint="; ".join([ask_a_person(host.name), *known]),
        metadata={
            "host": host.shown,
            "name": host.name,
            "asks": what,
            "methods": ", ".join(methods),
            "tried": "; ".join(tried),
        },
    )


def gave_up(host: Host, asks: str) -> DaemonError:
    """Return the error for a person who does not answer."""
    return NeedsError(
        Reason.LOGIN_NEEDED,
        f"{host.name} asks for: {asks or 'a login'}; the person who logged in gave up",
        hint=ask_a_person(host.name),
        metadata={"host": host.shown, "name": host.name, "asks": asks},
    )


def failed_for_others(host: Host, error: DaemonError) -> DaemonError:
    """Return what those are told who waited for a person's login that failed."""
    if not isinstance(error, NeedsError) or error.reason is Reason.LOGIN_NEEDED:
        return error
    return NeedsError(
        Reason.LOGIN_NEEDED,
        f"{host.name} needs a login by a person, and one just failed: {error.message}",
        hint=ask_a_person(host.name),
        metadata={**error.metadata, "name": host.name},
    )


def took_too_long(host: Host, seconds: float) -> DaemonError:
    """Return the error for a person who was too slow for us."""
    return LinkError(
        Reason.CONNECT_TIMEOUT,
        f"the login to {host.name} was not done within {seconds:g} s",
        hint="begin again; limits.login_person_seconds is what a person gets",
        metadata={"host": host.shown, "seconds": f"{seconds:g}"},
    )


def cut_off(host: Host, after: float) -> DaemonError:
    """Return the error for a host that hung up while a person was asked."""
    return LinkError(
        Reason.PROTOCOL_ERROR,
        f"{host.name} hung up {after:.0f} s after it began to ask",
        hint="sshd waits for a login as long as its LoginGraceTime says, 120 s by"
        " default; begin again with the answers at hand",
        metadata={"host": host.shown, "seconds": f"{after:.0f}"},
    )


def on_the_way(host: Host, error: DaemonError) -> DaemonError:
    """Say of a jump host's error whose way it was on."""
    if type(error).__init__ is not DaemonError.__init__:
        return error
    return type(error)(
        error.reason,
        f"on the way to {host.shown}: {error.message}",
        hint=error.hint,
        ran=error.ran,
        metadata={**error.metadata, "hop": error.metadata.get("host", "")},
        retry_after=error.retry_after,
    )
