"""The way to a host, hop by hop and step by step, up to its first fault.

The login is the pool's own, so that it goes as it would for a command: shared where one
is open, never repeated, within the same budgets.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from holdfast_daemon.connection import diagnosis
from holdfast_daemon.connection.diagnosis import Step
from holdfast_daemon.connection.known import known
from holdfast_daemon.connection.reach import Stride, reach
from holdfast_daemon.doctor import finding
from holdfast_daemon.doctor.resolution import hops
from holdfast_daemon.errors import DaemonError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.known import Known
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_HINTS = {
    Step.NAME: "check the name, and HostName in ssh config; `getent hosts NAME` asks"
    " the same",
    Step.TCP: "is sshd running there, and the port right? check network, VPN and"
    " firewall",
    Step.BANNER: "is it sshd's port? sshd itself hangs up when it is busy (MaxStartups)"
    " or blocks this address",
}
# What a login that failed had behind it.
_BEFORE = {
    Step.HOST_KEY: (Step.KEY_EXCHANGE,),
    Step.LOGIN: (Step.KEY_EXCHANGE, Step.HOST_KEY),
}


async def examine(pool: Pool, host: Host, limits: Limits) -> list[Finding]:
    """Go the whole way to `host`, as far as one gets."""
    walk = _Walk(pool, limits)
    way = hops(host)
    async with AsyncExitStack() as held:
        via: Link | None = None
        for number, hop in enumerate(way, 1):
            name = label(hop, number, len(way))
            lease = await walk.go(hop, via, name)
            if lease is None:
                told = f"not tried: {name} failed"
                walk.findings += [
                    finding.skip(label(left, at, len(way)), told)
                    for at, left in enumerate(way[number:], number + 1)
                ]
                break
            via = (await held.enter_async_context(lease)).link
    return walk.findings


def label(hop: Host, number: int, count: int) -> str:
    """Return what a hop is called: by its number where there are several."""
    return f"way to {hop.name}" if number == count else f"hop {number} {hop.name}"


class _Walk:
    """One way as it is gone, and what was found on it."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool = pool
        self._limits = limits
        self.findings: list[Finding] = []

    async def go(self, hop: Host, via: Link | None, name: str) -> Lease | None:
        """Go one hop; None: it was not reached."""
        seconds = hop.connect_timeout or self._limits.connect_timeout_seconds
        if hop.proxy_command and via is None:
            told = "its ProxyCommand makes the connection"
            self.findings.append(finding.skip(f"{name}: {Step.TCP}", told))
        else:
            strides = await reach(hop, via, seconds)
            self.findings += [told_of(stride, name, hop) for stride in strides]
            if not strides[-1].good:
                return None
        begun = time.monotonic()
        try:
            lease = await self._pool.lease(hop)
        except DaemonError as error:
            self.findings += refused(error, name, hop, time.monotonic() - begun)
            return None
        spent = time.monotonic() - begun
        try:
            found = await asyncio.to_thread(known, hop)
            self.findings += await _logged_in(lease, name, hop, found, spent)
        except BaseException:
            lease.release()
            raise
        return lease


def told_of(stride: Stride, name: str, hop: Host) -> Finding:
    """Return one step of the way as a finding; a hidden host's place stays hidden."""
    check = f"{name}: {stride.step}"
    details = {**stride.details, "ms": _ms(stride.seconds)}
    told = stride.told
    if hop.show == "purpose":
        details = {"ms": details["ms"]}
        told = "done" if stride.good else "it fails; the place is not shown"
    if not stride.good:
        hint = _HINTS[stride.step]
        if stride.step is Step.TCP and "via" in stride.details:
            hop_before = stride.details["via"]
            hint = f"check that {hop_before} reaches it and allows TCP forwarding"
        return finding.fail(check, told, hint, details)
    return finding.ok(check, f"{told}, {details['ms']} ms", details)


def refused(
    error: DaemonError, name: str, hop: Host, seconds: float
) -> Sequence[Finding]:
    """Return a login that failed, and the steps it had behind it, as findings."""
    step = _step(error)
    findings = [finding.ok(f"{name}: {done}", "done") for done in _BEFORE.get(step, ())]
    details = {"reason": str(error.reason), **error.metadata, "ms": _ms(seconds)}
    hint = diagnosis.without_doctor(error.hint, hop.name)
    findings.append(finding.fail(f"{name}: {step}", error.message, hint, details))
    return findings


def _step(error: DaemonError) -> Step:
    """Return which step an error is of."""
    if error.reason.startswith("HOST_KEY"):
        return Step.HOST_KEY
    said = error.metadata.get("step", "")
    if said in list(Step):
        return Step(said)
    if error.reason is Reason.PROTOCOL_ERROR:
        return Step.KEY_EXCHANGE
    return Step.LOGIN


async def _logged_in(
    lease: Lease, name: str, hop: Host, found: Known, seconds: float
) -> Sequence[Finding]:
    link = lease.link
    place = found.place_of(link.host_key_fingerprint)
    key = place or (
        f"{link.host_key_fingerprint}, which is pinned"
        if hop.pinned_fingerprint
        else f"{link.host_key_fingerprint}, of no line of known_hosts"
    )
    if lease.reused:
        login = f"open already, by {link.auth_method}"
    else:
        login = f"by {link.auth_method}, {_ms(seconds)} ms from the key exchange on"
    check = f"{name}: {Step.LOGIN}"
    details = {
        "reused": str(lease.reused),
        "ms": _ms(seconds),
        "auth_method": link.auth_method,
    }
    try:
        details["rtt_ms"] = _ms(await link.rtt())
    except DaemonError as error:
        last = finding.fail(check, error.message, error.hint, details)
    else:
        told = f"{login}; a round trip takes {details['rtt_ms']} ms"
        last = finding.ok(check, told, details)
    agreed = {"server_version": link.server_version, **_agreed(link)}
    words = ", ".join(filter(None, agreed.values()))
    return [
        finding.ok(f"{name}: {Step.KEY_EXCHANGE}", words, agreed),
        finding.ok(
            f"{name}: {Step.HOST_KEY}",
            key,
            {"fingerprint": link.host_key_fingerprint, "known": place},
        ),
        last,
    ]


def _agreed(link: Link) -> dict[str, str]:
    """Return which algorithms both sides agreed on."""
    ask = link.connection.get_extra_info
    return {"cipher": str(ask("send_cipher", "") or "")}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
