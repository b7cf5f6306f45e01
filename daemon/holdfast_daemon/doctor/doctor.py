"""Runs the checks: those of the daemon, and those of one host."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.connection import diagnosis, survey
from holdfast_daemon.connection.known import known
from holdfast_daemon.doctor import (
    agents,
    finding,
    keys,
    leftovers,
    machine,
    named,
    person,
    places,
    records,
    resolution,
    service,
    way,
)
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.hosts.tokens import me

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.config import ConfigHolder
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.paths import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Looks at a daemon's parts and at what is around them.

    Attributes:
        ours: Whether the socket's path leads to this daemon.
        jobs: Ids of the jobs that are known.
    """

    version: str
    places: Places
    config: ConfigHolder
    audit: AuditLog
    pool: Pool
    limits: Limits
    ours: Callable[[], bool]
    jobs: Callable[[], set[str]]
    environ: Mapping[str, str]

    async def daemon(self, auth_sock: str) -> Sequence[Finding]:
        """Look at the daemon; `auth_sock` is the agent of the client that asks."""
        local = asyncio.to_thread(self._local)
        nobody = Host(name="", hostname="", user="", auth_sock=auth_sock)
        own, programs, seen = await asyncio.gather(
            local, machine.programs(self.environ), self._agents(nobody)
        )
        return [*own, *programs, *agents.judge(seen)]

    async def host(self, host: Host) -> Sequence[Finding]:
        """Look at one host, and go the way to it."""
        limits = self.limits
        entry = host.name in self.config.current.hosts
        origins, seen = await asyncio.gather(
            resolution.origins(host, self.environ), self._agents(host)
        )
        held = {key.fingerprint for one in seen for key in one.keys}
        findings = resolution.judge(host, origins, inventory=entry)
        findings += await self._offered(host, seen, held)
        findings += await named.secrets(host, self.environ)
        findings += await asyncio.to_thread(_trust, host)
        findings += await way.examine(self.pool, host, limits)
        return [_veiled(host, one) for one in findings]

    async def _agents(self, host: Host) -> Sequence[survey.AgentSeen]:
        return await survey.agents(host, self.environ, self.limits.agent_seconds)

    async def _offered(
        self, host: Host, seen: Sequence[survey.AgentSeen], held: set[str]
    ) -> list[Finding]:
        """Look at what there is to log in with."""
        if host.password is not None:
            told = "a password was given: neither keys nor agent are used"
            return [finding.skip("key", told)]
        if host.private_key is not None:
            told = "a key was given as text: neither files nor agent are used"
            return [finding.skip("key", told)]
        found = await asyncio.to_thread(_keys, host)
        now = time.time()
        findings = agents.judge(seen, forbidden=host.identity_agent == "none")
        findings += keys.judge(found, held, host.name, now)
        for path in host.certificate_files:
            one = await asyncio.to_thread(survey.certificate, path)
            findings.append(keys.certificate(one, now))
        return findings

    def _local(self) -> list[Finding]:
        """Look at files, processes and limits. Blocks."""
        where, limits, config = self.places, self.limits, self.config
        mine = me()
        log = records.read_log(where.audit)
        found = service.manager(self.environ, Path(mine.home), mine.name)
        current = config.current
        chosen = self.environ.get("HOLDFAST_SSH_CONFIG", "")
        ssh = Path(mine.home, ".ssh")
        return [
            finding.ok(
                "daemon",
                f"holdfast {self.version}, pid {os.getpid()}, user {mine.name}",
                {"version": self.version, "pid": str(os.getpid())},
            ),
            places.socket(where, mine.uid, ours=self.ours()),
            places.state(where, mine.uid),
            places.config(where, mine.uid),
            records.configuration(
                str(current.path or ""), config.error, len(current.hosts)
            ),
            records.audit(str(where.audit), self.audit.error, log),
            records.clock(time.time(), log.newest),
            machine.disk(where.state, int(limits.spool_total_bytes)),
            machine.descriptors(int(limits.descriptors)),
            leftovers.others(where.socket),
            leftovers.judge_files(leftovers.files(where, self.jobs(), time.time())),
            service.unit(found),
            service.linger(found, mine.name),
            person.folder(ssh, mine.uid),
            person.config(
                Path(chosen) if chosen else ssh / "config",
                mine.uid,
                chosen=bool(chosen),
            ),
            person.judge_known_hosts([person.known_hosts(str(ssh / "known_hosts"))]),
        ]


def _veiled(host: Host, one: Finding) -> Finding:
    """Return a finding that tells no place of a host shown by its purpose only."""
    veil = partial(diagnosis.veiled, host)
    details = {veil(name): veil(value) for name, value in one.details.items()}
    return replace(one, told=veil(one.told), hint=veil(one.hint), details=details)


def _trust(host: Host) -> list[Finding]:
    """Look at what is known of a host's key. Blocks."""
    files = dict.fromkeys([*host.user_known_hosts, *host.global_known_hosts])
    lines = [person.known_hosts(path) for path in files]
    return [person.judge_known_hosts(lines), resolution.known(host, known(host))]


def _keys(host: Host) -> list[survey.KeySeen]:
    """Look at the key files; the configured defaults need not be there. Blocks."""
    found = [survey.key_file(path) for path in host.identity_files]
    return [seen for seen in found if seen.there or seen.beside or _wanted(host, seen)]


def _wanted(host: Host, seen: survey.KeySeen) -> bool:
    """Whether a file that is missing was asked for: no default of ssh stands for it."""
    standard = Path(seen.path).name.startswith("id_") and (
        Path(seen.path).parent == Path(me().home, ".ssh")
    )
    return host.explicit_identity or not standard
