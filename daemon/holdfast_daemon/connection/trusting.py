"""Trust in a host's key as a person gives or takes it: looked at, decided, written."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.connection import need
from holdfast_daemon.connection.glance import glance
from holdfast_daemon.connection.retire import Retired
from holdfast_daemon.errors import (
    DaemonError,
    DeniedError,
    InputError,
    Reason,
    StateError,
)
from holdfast_daemon.hosts import known_change, known_file
from holdfast_daemon.hosts.known_change import Change
from holdfast_daemon.hosts.known_hosts import KnownHosts
from holdfast_daemon.hosts.refusal import lines_told, refusal
from holdfast_daemon.hosts.trust import Trust, files, is_loopback, names, with_port
from holdfast_daemon.hosts.verdict import Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Examined:
    """What a host shows now, and what trusting it would change.

    Attributes:
        verdict: What is known of the key; None: the host was not asked.
        known_as: What known_hosts calls it.
    """

    verdict: Verdict | None
    known_as: str
    change: Change
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> str:
        """Stands for all that was found."""
        said = repr((self.verdict and self.verdict.blob, self.known_as, self.change))
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()


class Trusting:
    """Gives and takes trust, one person at a time."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        """Go the ways of `pool`."""
        self._pool = pool
        self._limits = limits
        self._lock = asyncio.Lock()

    async def examine(self, host: Host) -> Examined:
        """Look at the key `host` shows now; it is offered nothing.

        Raises:
            DaemonError: It can't be reached, or its key is not for a person to trust
                by known_hosts.
        """
        if host.pinned_fingerprint:
            raise _pinned(host)
        seconds = self._limits.known_hosts_command_seconds
        trust = await asyncio.to_thread(Trust.load, host, seconds)
        if host.proxy_jump is None:
            seen = await glance(host, self._limits, trust, None)
        else:
            try:
                lease = await self._pool.lease(host.proxy_jump)
            except DaemonError as error:
                raise need.on_the_way(host, error) from None
            async with lease:
                tunnel = lease.link.connection
                seen = await glance(host, self._limits, trust, tunnel)
        return await asyncio.to_thread(_examined, host, trust, seen.blob, seen.address)

    async def examine_removal(self, host: Host) -> Examined:
        """Tell which lines `forget` takes away; the host is not reached."""
        return await asyncio.to_thread(_removal, host)

    async def give(
        self, host: Host, fingerprint: str, plan: str
    ) -> tuple[Examined, Retired]:
        """Trust the key of this fingerprint, if `host` still shows it.

        Raises:
            DaemonError: It shows another one, the key is revoked, or known_hosts
                can't be written.
        """
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise InputError(
                "fingerprint",
                f"{fingerprint[:80]!r} is no fingerprint: SHA256: and 43 characters",
            )
        async with self._lock:
            found = await self.examine(host)
            verdict = found.verdict
            assert verdict is not None  # noqa: S101 - the host was asked
            if not hmac.compare_digest(verdict.fingerprint, fingerprint):
                raise _another(host, verdict, fingerprint)
            if verdict.status is Status.REVOKED:
                raise refusal(host, verdict)
            if verdict.status is Status.KNOWN:
                return found, Retired(0, 0)
            await self._write(host, found, plan)
            after = await asyncio.to_thread(Trust.load, host)
            now = await asyncio.to_thread(after.judge, verdict.blob)
            if now.status is not Status.KNOWN:
                raise _still_not(host, now)
            return found, self._pool.retire(host, fingerprint)

    async def forget(self, host: Host, plan: str) -> tuple[Examined, Retired]:
        """Take the keys of `host` out of the person's known_hosts files.

        Raises:
            DaemonError: They can't be written, or say something else than examined.
        """
        async with self._lock:
            found = await self.examine_removal(host)
            if not found.change.edits:
                return found, Retired(0, 0)
            await self._write(host, found, plan)
            return found, self._pool.retire(host, "")

    async def _write(self, host: Host, found: Examined, plan: str) -> None:
        if plan and not hmac.compare_digest(plan, found.plan):
            raise StateError(
                Reason.IN_USE,
                f"what known_hosts says of {host.shown} has changed since it was"
                " shown; nothing was written",
                hint="look again and decide on what it says now",
                metadata={"host": host.shown},
            )
        try:
            await asyncio.to_thread(
                known_file.apply, found.change, hash_names=host.hash_known_hosts
            )
        except OSError as error:
            where = error.filename or ", ".join(found.change.files)
            raise StateError(
                Reason.BAD_CONFIGURATION,
                f"known_hosts could not be written: {where}: {error.strerror or error}",
                hint="a person makes it writable for the user of the holdfast service",
                metadata={"host": host.shown, "file": str(where)},
            ) from error


def _examined(host: Host, trust: Trust, blob: bytes, address: str) -> Examined:
    verdict = trust.judge(blob, address)
    known_as = names(host)[0]
    if verdict.status in (Status.KNOWN, Status.REVOKED):
        return Examined(verdict, known_as, Change())
    own = _own_files(host)
    wanted = [known_as]
    there = with_port(address, host.port)
    local = not address or is_loopback(address)
    if host.check_host_ip and not local and there != known_as:
        wanted.append(there)
    lines = KnownHosts.read(files(host)).keys
    change = known_change.trusting(lines, wanted, blob, own)
    return Examined(verdict, known_as, change, _notes(change))


def _removal(host: Host) -> Examined:
    known_as = names(host)[0]
    lines = KnownHosts.read(files(host)).keys
    change = known_change.forgetting(lines, [known_as], host.user_known_hosts)
    marked = [k for k in KnownHosts(lines).about(known_as) if k.marker]
    notes = _notes(change)
    if marked:
        notes = (*notes, f"lines that revoke or certify stay: {lines_told(marked)}")
    return Examined(None, known_as, change, notes)


def _notes(change: Change) -> tuple[str, ...]:
    if not change.left:
        return ()
    told = lines_told(change.left)
    return (f"another key stays named in files that are not yours: {told}",)


def _own_files(host: Host) -> Sequence[str]:
    """Return the files to write to.

    Raises:
        StateError: There is none.
    """
    own = host.user_known_hosts
    try:
        usable = bool(own) and stat.S_ISREG(Path(own[0]).stat().st_mode)
    except FileNotFoundError:
        usable = True
    except OSError as error:
        raise _no_file(host, f"{own[0]}: {error.strerror or error}") from None
    if not usable:
        raise _no_file(host, own[0] if own else "none")
    return own


def _no_file(host: Host, what: str) -> DaemonError:
    return StateError(
        Reason.BAD_CONFIGURATION,
        f"there is no known_hosts file to write the key of {host.shown} to:"
        f" UserKnownHostsFile is {what}",
        hint="name a file in ssh config, or pin the key by host_key in config.toml",
        metadata={"host": host.shown},
    )


def _pinned(host: Host) -> DaemonError:
    return StateError(
        Reason.POLICY_DENIED,
        f"the key of {host.shown} is pinned to {host.pinned_fingerprint} in the"
        " configuration, so known_hosts does not decide",
        hint="if the host's key has changed, correct host_key there;"
        " `holdfast hosts test` shows which key it has now",
        metadata={"host": host.shown, "known_fingerprint": host.pinned_fingerprint},
    )


def _another(host: Host, verdict: Verdict, wanted: str) -> DaemonError:
    return DeniedError(
        Reason.HOST_KEY_CHANGED,
        f"{host.shown} shows the key {verdict.key_type} {verdict.fingerprint}, not"
        f" {wanted}; nothing was written",
        hint="the key changed since it was shown, or the fingerprint is of another"
        " host or kind of key: find out which key is the right one",
        metadata={
            "host": host.shown,
            "fingerprint": verdict.fingerprint,
            "wanted": wanted,
        },
    )


def _still_not(host: Host, now: Verdict) -> DaemonError:
    return StateError(
        Reason.BAD_CONFIGURATION,
        f"the key of {host.shown} was written down, but is still {now.status}"
        f" ({lines_told(now.known) or now.why or 'nothing names it'})",
        hint="another file or command of ssh config has a say; look at what it names",
        metadata={"host": host.shown, "fingerprint": now.fingerprint},
    )
