"""Sees that what ssh resolved for a host is done, or refused by name beforehand.

Judges by the table in `meaning`; how an honoured option is done is for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.hosts.meaning import MEANINGS, OFF, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.meaning import Meaning
    from holdfast_daemon.hosts.settings import Settings

_SHOWN = 120
_ASIDE = (
    "take it out of ssh config for this host, or list it in ssh_options_ignored under"
    " [defaults] of holdfast's configuration to go on without it"
)


def check(settings: Settings, ignored: Collection[str] = ()) -> tuple[str, ...]:
    """Return what the configuration asks for that is left undone, in sentences.

    An option that nobody here knows is refused too: it may be there to protect. A
    person says in the configuration which ones to go on without.

    Raises:
        StateError: An option asks for what can't be done; names it and its value.
    """
    aside = {name.lower() for name in ignored}
    notes: list[str] = []
    for name, values in settings.raw.items():
        meaning = MEANINGS.get(name)
        asked = _asked(settings, name, values, meaning)
        if not asked or (meaning and meaning.kind in (Kind.HONOURED, Kind.HARMLESS)):
            continue
        said = f"{meaning.name if meaning else name} {asked}"
        if name in aside:
            notes.append(f"{said}: ignored, as the configuration says")
        elif meaning is None:
            text = "this release does not know this option"
            raise _refusal(settings, name, said, text, _ASIDE)
        elif meaning.kind is Kind.NOTED:
            notes.append(f"{said}: {meaning.text}")
        else:
            hint = _ASIDE if meaning.name == "RefuseConnection" else ""
            hint = hint or f"{meaning.text}; or {_ASIDE}"
            text = "ssh config refuses it" if hint is _ASIDE else "holdfast can't do so"
            raise _refusal(settings, meaning.name, said, text, hint)
    return tuple(notes)


def check_command(host: Host) -> None:
    """Refuse a command for a host whose configuration leaves no room for one.

    Raises:
        StateError: Nothing was connected.
    """
    if host.remote_command:
        name, said = "RemoteCommand", f"RemoteCommand {host.remote_command[:_SHOWN]}"
        hint = "set connect.options RemoteCommand to none for this call"
    elif host.session_type != "default":
        name, said = "SessionType", f"SessionType {host.session_type}"
        hint = "set connect.options SessionType to default for this call"
    else:
        return
    raise StateError(
        Reason.UNSUPPORTED,
        f"no command can run on {host.name}: ssh config sets {said}, and ssh too takes"
        " no command beside it",
        hint=f"{hint}; or take it out of ssh config for this host",
        metadata={"host": host.name, "option": name},
    )


def _asked(
    settings: Settings, name: str, values: Sequence[str], meaning: Meaning | None
) -> str:
    """Return what an option asks for beyond ssh's own default, or nothing."""
    plain = settings.plain.get(name)
    if plain is not None and list(values) == list(plain):
        return ""
    off = meaning.off if meaning else ()
    asked = [value for value in values if value.lower() not in off]
    if meaning and meaning.where and settings.one(meaning.where).lower() in OFF:
        return ""
    return " ".join(asked)[:_SHOWN]


def _refusal(
    settings: Settings, name: str, said: str, why: str, hint: str
) -> StateError:
    return StateError(
        Reason.UNSUPPORTED,
        f"{settings.original} is not connected: ssh config sets {said}; {why}",
        hint=hint,
        metadata={"host": settings.original, "option": name},
    )
