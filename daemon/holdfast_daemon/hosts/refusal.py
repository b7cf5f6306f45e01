"""The errors for host keys that are not taken; nothing was sent to the host."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason
from holdfast_daemon.hosts.verdict import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.known_hosts import KnownKey

_NAMED = 4


class UntrustedKeyError(DeniedError):
    """A key that only a person may trust, or nobody.

    Attributes:
        host: Who showed it.
        verdict: What is known of it.
    """

    host: Host | None = None
    verdict: Verdict | None = None


def refusal(host: Host, verdict: Verdict) -> UntrustedKeyError:
    """Return the error for a key that is not taken."""
    if verdict.status is Status.REVOKED:
        error = _revoked(host, verdict)
    elif verdict.status is Status.CHANGED:
        error = _changed(host, verdict)
    else:
        error = _unknown(host, verdict)
    error.host, error.verdict = host, verdict
    return error


def way_to_trust(host: Host) -> str:
    """Return the command by which a person decides."""
    return f"`holdfast hosts trust {shlex.quote(host.name)}`"


def _presented(verdict: Verdict) -> str:
    return f"{verdict.key_type} {verdict.fingerprint}"


def _metadata(host: Host, verdict: Verdict) -> dict[str, str]:
    told = {
        "host": host.shown,
        "name": host.name,
        "fingerprint": verdict.fingerprint,
        "key_type": verdict.key_type,
    }
    if verdict.known:
        first = verdict.known[0]
        told |= {
            "known_fingerprint": _joined([k.fingerprint for k in verdict.known]),
            "known_in": _joined([key.place for key in verdict.known]),
            "file": first.file,
            "line": str(first.line),
        }
    return told


def _revoked(host: Host, verdict: Verdict) -> UntrustedKeyError:
    what = "certificate authority" if verdict.authority else "key"
    metadata = _metadata(host, verdict)
    where = _why(host, verdict) or f"@revoked in {metadata.get('known_in', '')}"
    return UntrustedKeyError(
        Reason.HOST_KEY_REVOKED,
        f"the {what} of {host.shown} ({_presented(verdict)}) is revoked: {where};"
        " no credential was sent",
        hint="do not connect; a person must find out why this key was revoked. Nothing"
        " makes it trusted again but taking that line out by hand",
        metadata=metadata,
    )


def _changed(host: Host, verdict: Verdict) -> UntrustedKeyError:
    metadata = _metadata(host, verdict)
    presented = _presented(verdict)
    if host.pinned_fingerprint:
        pinned = host.pinned_fingerprint
        return UntrustedKeyError(
            Reason.HOST_KEY_CHANGED,
            f"{host.shown} shows the key {presented}, but {pinned} is pinned"
            " for it; no credential was sent",
            hint="a person checks the host and corrects host_key in the configuration",
            metadata={**metadata, "known_fingerprint": pinned},
        )
    known = lines_told(verdict.known) or "none that fits"
    why = f" ({_why(host, verdict)})" if verdict.why else ""
    return UntrustedKeyError(
        Reason.HOST_KEY_CHANGED,
        f"the key of {host.shown} has CHANGED: it shows {presented}, known is"
        f" {known}{why}; no credential was sent",
        hint="the host was reinstalled, or somebody stands in between: a person finds"
        f" out which; if the new key is right, they run {way_to_trust(host)} in a"
        " terminal, and the next call goes through. No argument of a call gets past"
        " this",
        metadata=metadata,
    )


def _unknown(host: Host, verdict: Verdict) -> UntrustedKeyError:
    presented = _presented(verdict)
    message = f"the key of {host.shown} is not known: it shows {presented}"
    if verdict.why:
        message = (
            f"the certificate {host.shown} shows is not valid: {_why(host, verdict)};"
            f" and its"
            f" key {presented} is not known by itself"
        )
    return UntrustedKeyError(
        Reason.HOST_KEY_UNKNOWN,
        f"{message}; no credential was sent",
        hint=f"ask a person to run {way_to_trust(host)} in a terminal: it shows the key"
        " to compare with the host's own; or they allow host_key_checking accept-new"
        " for hosts seen for the first time",
        metadata=_metadata(host, verdict),
    )


def _why(host: Host, verdict: Verdict) -> str:
    """Return what may be told: names and addresses only of hosts that are shown."""
    if verdict.why and host.show != "all":
        return "the place is not shown"
    return verdict.why


def _joined(items: Sequence[str]) -> str:
    told = list(dict.fromkeys(items))
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return ", ".join(told[:_NAMED]) + more


def lines_told(known: Sequence[KnownKey]) -> str:
    """Return lines of known_hosts in words."""
    return _joined([f"{k.key_type} {k.fingerprint} ({k.place})" for k in known])
