"""Which session a client means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError, NotFoundError, Reason
from holdfast_daemon.hosts.host import keys_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.session.session import Session

# So many sessions are named where a name fits several.
_NAMED = 5


def named(sessions: Iterable[Session], name: str, host: Host) -> list[Session]:
    """Return those of that name on `host`, but for those of a key apart."""
    return [
        one
        for one in sessions
        if one.name == name
        and (
            one.host.account == host.account and _fits(one, one.host, host)
            if one.host is not None
            else one.address == host.display
        )
    ]


def _fits(one: Session, have: Host, host: Host) -> bool:
    """Say whether it was opened with the keys that are meant.

    What a call named in place of the configuration's an adopted session's host does not
    tell; and the configuration may name others by now for the same.
    """
    mark = host.asked_keys
    if one.about.asked_keys or mark:
        bound = have.identities_only or host.identities_only
        return one.about.asked_keys == mark or not bound
    same = have.asked is not None and have.asked == host.asked
    return same or keys_fit(have, host)


def pick(
    sessions: Mapping[str, Session],
    text: str,
    visible: Callable[[Session], bool],
    keep_seconds: float,
) -> Session:
    """Return a session by id or name; of several the living one that is `visible`.

    `keep_seconds`: so long ended ones are in `sessions`, for who asks too late.

    Raises:
        NotFoundError: There is none.
        InputError: A name fits several.
    """
    text = text.strip()
    if (session := sessions.get(text)) is not None:
        return session
    named = [one for one in sessions.values() if one.name == text and text]
    found = [one for one in named if visible(one)] or named[-1:]
    living = [one for one in found if one.running]
    if len(living) > 1:
        told = ", ".join(f"{one.id} on {one.target}" for one in living[:_NAMED])
        raise InputError(
            "session",
            f"{len(living)} sessions are named {text!r}: {told}",
            hint="Name it by its id.",
        )
    if living or found:
        return (living or found)[-1]
    raise NotFoundError(
        Reason.SESSION_NOT_FOUND,
        f"there is no session {text!r}; ended ones are kept for"
        f" {keep_seconds / 3600:g} h",
        hint="ssh_session_list shows them; ssh_session_open opens one.",
        metadata={"session": text},
    )
