"""TrustService: keys that wait for a person, and what that person decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import trust_pb2, trust_pb2_grpc
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.connection.trusting import Trusting
from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts import public_key
from holdfast_daemon.hosts.randomart import randomart
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc.aio

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.known_change import Edit
    from holdfast_daemon.hosts.known_hosts import KnownKey
    from holdfast_daemon.hosts.pending import Request
    from holdfast_daemon.limits import Limits

    type_context = grpc.aio.ServicerContext[Any, Any]


class TrustServicer(trust_pb2_grpc.TrustServiceServicer):
    """Thin: converts, and calls those who look and write."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        """Serve the keys that `pool` refused."""
        self._pool = pool
        self._trusting = Trusting(pool, limits)

    async def ListTrustRequests(
        self, request: trust_pb2.ListTrustRequestsRequest, context: type_context
    ) -> trust_pb2.ListTrustRequestsResponse:
        """List what waits, without what somebody has settled by other means."""
        ticket, pending = current().ticket, self._pool.pending
        requests = [
            _request(one)
            for one in await pending.waiting()
            if ticket.allows_name(one.host.name, one.host.display)
        ]
        return trust_pb2.ListTrustRequestsResponse(requests=requests)

    async def ExamineHostKey(
        self, request: trust_pb2.ExamineHostKeyRequest, context: type_context
    ) -> trust_pb2.ExamineHostKeyResponse:
        """Tell what the host shows, and what would change."""
        host = _host()
        if request.remove:
            found = await self._trusting.examine_removal(host)
        else:
            found = await self._trusting.examine(host)
        change, verdict = found.change, found.verdict
        response = trust_pb2.ExamineHostKeyResponse(
            host=host.name,
            target=host.display if host.show == "all" else "",
            known_as=found.known_as if host.show == "all" else "",
            file=change.file if change.added else "",
            edits=map(_edit, change.edits),
            notes=found.notes,
            plan=found.plan,
        )
        if verdict is not None:
            response.status = verdict.status.value
            response.key.CopyFrom(_key(verdict.blob))
            response.known.extend(_lines(verdict.known))
            if verdict.why and host.show == "all":
                response.notes.append(verdict.why)
        return response

    async def TrustHostKey(
        self, request: trust_pb2.TrustHostKeyRequest, context: type_context
    ) -> trust_pb2.TrustHostKeyResponse:
        """Trust the key, if it is still the one."""
        host, ticket = _host(), current().ticket
        found, retired = await self._trusting.give(
            host, request.fingerprint, request.plan
        )
        self._settle(host, request.fingerprint)
        change = found.change
        replaced = list(dict.fromkeys(e.known.fingerprint for e in change.edits))
        ticket.add(known_as=found.known_as, file=change.file, replaced=replaced)
        return trust_pb2.TrustHostKeyResponse(
            host=host.name,
            fingerprint=request.fingerprint,
            changed=bool(change.added or change.edits),
            file=change.file,
            replaced=replaced,
            connections_closed=retired.closed,
            connections_ending=retired.ending,
        )

    async def ForgetHostKeys(
        self, request: trust_pb2.ForgetHostKeysRequest, context: type_context
    ) -> trust_pb2.ForgetHostKeysResponse:
        """Take the host's keys away."""
        host, ticket = _host(), current().ticket
        found, retired = await self._trusting.forget(host, request.plan)
        edits = found.change.edits
        removed = list(dict.fromkeys(edit.known.fingerprint for edit in edits))
        ticket.add(known_as=found.known_as, files=found.change.files, removed=removed)
        return trust_pb2.ForgetHostKeysResponse(
            host=host.name,
            removed=removed,
            connections_closed=retired.closed,
            connections_ending=retired.ending,
        )

    def _settle(self, host: Host, fingerprint: str) -> None:
        """Forget the requests that this answers, under whatever name they came."""
        for one in self._pool.pending:
            same = one.verdict.fingerprint == fingerprint
            if same and one.host.place == host.place:
                self._pool.pending.drop(one)


def _host() -> Host:
    host = current().host
    if host is None:
        raise InputError("target", "target names no host")
    return host


def _request(one: Request) -> trust_pb2.TrustRequest:
    host, shown = one.host, one.host.show == "all"
    return trust_pb2.TrustRequest(
        id=one.id,
        host=host.name,
        target=host.display if shown else "",
        address=host.hostname if shown else "",
        port=host.port if shown else 0,
        via=host.proxy_jump.name if host.proxy_jump else "",
        status=one.verdict.status.value,
        key=_key(one.verdict.blob),
        known=_lines(one.verdict.known),
        first=rfc3339(one.first),
        last=rfc3339(one.last),
        times=one.times,
        clients=one.clients,
    )


def _key(blob: bytes) -> trust_pb2.PublicKey:
    return trust_pb2.PublicKey(
        key_type=public_key.key_type(blob),
        short_type=public_key.short_type(blob),
        bits=public_key.bits(blob),
        fingerprint=public_key.fingerprint(blob),
        md5=public_key.md5(blob),
        randomart=randomart(blob),
    )


def _line(known: KnownKey) -> trust_pb2.KnownHostsLine:
    return trust_pb2.KnownHostsLine(
        file=known.file, line=known.line, key=_key(known.blob), marker=known.marker
    )


def _lines(known: Iterable[KnownKey]) -> list[trust_pb2.KnownHostsLine]:
    return [_line(one) for one in known]


def _edit(edit: Edit) -> trust_pb2.KnownHostsEdit:
    return trust_pb2.KnownHostsEdit(line=_line(edit.known), patterns=edit.patterns)
