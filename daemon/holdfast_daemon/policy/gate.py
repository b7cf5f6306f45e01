"""The one gate: every call is decided here and recorded before its work begins.

Knows rules and the audit log; nothing of gRPC, of hosts' connections or of what the
work is.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from holdfast_daemon import ids
from holdfast_daemon.audit.chain import AuditError
from holdfast_daemon.audit.record import Phase, Record
from holdfast_daemon.errors import DaemonError, DeniedError, Reason, StateError
from holdfast_daemon.policy import rules
from holdfast_daemon.policy.entry import names_from
from holdfast_daemon.policy.rules import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.clock import Clock
    from holdfast_daemon.config import Config
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.rules import Operation

_log = logging.getLogger(__name__)

DENIED = "command_denied"


class Placed(Protocol):
    """Something that is on a host."""

    @property
    def target(self) -> str:
        """The host as it was named."""
        ...

    @property
    def address(self) -> str:
        """The host as user@host."""
        ...


class Gate:
    """Decides each call by the rules in force now, and keeps the evidence."""

    def __init__(
        self, config: Callable[[], Config], audit: AuditLog, clock: Clock
    ) -> None:
        self._config = config
        self._audit = audit
        self._clock = clock
        self._draining = False

    @property
    def draining(self) -> bool:
        """No new work is taken."""
        return self._draining

    def drain(self) -> None:
        """Take no new work from now on; who only looks is still answered."""
        self._draining = True

    async def enter(
        self,
        operation: Operation,
        host: Host | None,
        *,
        command: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        hops: Sequence[Host] = (),
        disabled: Sequence[Host] = (),
    ) -> Ticket:
        """Admit one call; on return its start is written in the audit log.

        `hops` are jump hosts that the call itself names: the same rules hold for them.
        `disabled` are the hosts that `disabled()` names, as resolved.

        Raises:
            DeniedError: A rule forbids it, or the audit log can't take it.
            StateError: The daemon is stopping.
        """
        ticket = Ticket(self, operation, host, command, metadata, disabled=disabled)
        try:
            if self._draining and operation.action is not Action.INSPECT:
                raise StateError(
                    Reason.DRAINING,
                    "the daemon is stopping and takes no new work",
                    hint="Call again in a moment.",
                )
            self.decide(operation, host, disabled)
            for hop in hops:
                # A client's default port is for its targets.
                self.decide(replace(operation, default_port=None), hop, disabled)
        except DaemonError as refusal:
            await self._record_refusal(ticket, refusal)
            raise
        if operation.event:
            await self._record_start(ticket)
        return ticket

    def disabled(self) -> list[str]:
        """Return the names of the hosts that are switched off just now."""
        entries = self._config().hosts.values()
        return [entry.name for entry in entries if not entry.enabled]

    def decide(
        self, operation: Operation, host: Host | None, disabled: Sequence[Host] = ()
    ) -> None:
        """Ask the rules; nothing is recorded."""
        rules.decide(operation, self._config(), host, disabled)

    def decide_names(self, operation: Operation, name: str, shown: str) -> None:
        """Ask the allow-lists about a host of which only names were kept."""
        caller = operation.caller
        names = names_from(name, shown)
        rules.check_names(caller, self._config(), names, caller.defaults.port)

    def decide_enabled(self, host: Host, disabled: Sequence[Host]) -> None:
        """Ask whether a host that was let in before is switched off by now."""
        rules.check_enabled(self._config(), host, disabled)

    def now(self) -> float:
        """Return the monotonic clock."""
        return self._clock.monotonic()

    def post(self, record: Record) -> None:
        """Hand over a record that nobody waits for."""
        self._audit.post(record)

    async def _record_refusal(self, ticket: Ticket, refusal: DaemonError) -> None:
        record = ticket.refusal(refusal)
        try:
            await self._audit.append(record, lasting=True)
        except AuditError as trouble:
            _log.warning("refusal not recorded yet: %s", trouble)

    async def _record_start(self, ticket: Ticket) -> None:
        try:
            await self._audit.append(
                ticket.record(Phase.START), otherwise=ticket.given_up
            )
        except AuditError as trouble:
            refusal = DeniedError(
                Reason.AUDIT_UNAVAILABLE,
                f"the audit log can't be written, so no new work is taken: {trouble}",
                hint="Make it writable again (space, permissions); "
                "the daemon then goes on by itself. Looking still works.",
                metadata={"path": str(self._audit.directory), "cause": str(trouble)},
            )
            self._audit.post(ticket.refusal(refusal))
            raise refusal from trouble


class Ticket:
    """One admitted call: what it may touch, and its one end in the audit log."""

    __slots__ = (
        "_about",
        "_added",
        "_begun",
        "_call_id",
        "_command",
        "_disabled",
        "_finished",
        "_gate",
        "_metadata",
        "detached",
        "host",
        "operation",
    )

    def __init__(
        self,
        gate: Gate,
        operation: Operation,
        host: Host | None,
        command: str | None,
        metadata: Mapping[str, Any] | None,
        *,
        disabled: Sequence[Host] = (),
    ) -> None:
        self.operation = operation
        self.host = host
        self.detached = False
        self._gate = gate
        self._command = command
        self._metadata = metadata
        self._disabled = disabled
        self._about = (host.name, host.display) if host else None
        self._added: dict[str, Any] = {}
        self._begun = gate.now()
        self._call_id = ""
        self._finished = False

    @property
    def call_id(self) -> str:
        """Ties the records of this call together."""
        if not self._call_id:
            self._call_id = ids.call_id()
        return self._call_id

    @property
    def finished(self) -> bool:
        """The outcome is told."""
        return self._finished

    def check(self, host: Host) -> None:
        """Decide the same call for another host.

        Raises:
            DeniedError: It is not allowed there; the refusal is recorded.
        """
        try:
            self._gate.decide(self.operation, host, self._disabled)
        except DeniedError as refusal:
            self._gate.post(self.refusal(refusal, (host.name, host.display)))
            raise
        if self.host is None:
            self.host = host
        self._tell_about(host.name, host.display)

    def check_enabled(self, host: Host, disabled: Sequence[Host]) -> None:
        """Check what is reached through something that was opened before.

        Raises:
            DeniedError: It was switched off meanwhile; the refusal is recorded.
        """
        try:
            self._gate.decide_enabled(host, disabled)
        except DeniedError as refusal:
            self._gate.post(self.refusal(refusal, (host.name, host.display)))
            raise

    def check_again(self, host: Host, disabled: Sequence[Host]) -> None:
        """Decide the same call once more, by the rules in force now.

        `disabled` are the hosts that `Gate.disabled()` names by now.

        Raises:
            DeniedError: It is not allowed any more; the refusal is recorded.
        """
        self._disabled = disabled
        self.check(host)

    def allows(self, host: Host) -> bool:
        """Say whether `check` would pass; nothing is recorded."""
        try:
            self._gate.decide(self.operation, host, self._disabled)
        except DeniedError:
            return False
        return True

    def check_name(self, name: str, shown: str) -> None:
        """Check by the allow-lists alone, where only `name` and `user@host` are known.

        Records of this call name that host from then on.

        Raises:
            DeniedError: It is not allowed there; the refusal is recorded.
        """
        try:
            self._gate.decide_names(self.operation, name, shown)
        except DeniedError as refusal:
            self._gate.post(self.refusal(refusal, (name, shown)))
            raise
        self._tell_about(name, shown)

    def allows_name(self, name: str, shown: str) -> bool:
        """Say whether `check_name` would pass; nothing is recorded."""
        try:
            self._gate.decide_names(self.operation, name, shown)
        except DeniedError:
            return False
        return True

    def sees(self, thing: Placed) -> bool:
        """Say whether something that is on a host may be seen."""
        return self.allows_name(thing.target, thing.address)

    def _tell_about(self, name: str, address: str) -> None:
        """Name the host in the records to come, where none is named yet."""
        if self._about is None:
            self._about = (name, address)

    def add(self, **metadata: Any) -> None:
        """Put more into the metadata of the end record; never a secret."""
        self._added.update(metadata)

    def detach(self) -> None:
        """Take over the outcome: the call may end before the work does."""
        self.detached = True

    async def finish(
        self,
        result: str,
        *,
        exit_code: int | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the outcome, once; whoever comes later is not heard."""
        if self._finished:
            return
        self._finished = True
        if not self.operation.event:
            return
        self.add(**(metadata or {}))
        end = self.record(
            Phase.END, result=result, exit_code=exit_code, error=error or None
        )
        self._gate.post(end)

    def given_up(self) -> Record:
        """Return the end of a call that was left before its start was written."""
        return self.record(
            Phase.END,
            result="cancelled",
            error="given up before the record was written; nothing ran",
        )

    def refusal(
        self, error: DaemonError, about: tuple[str, str] | None = None
    ) -> Record:
        """Return the record of a refusal; `about`: another host and its address."""
        return self.record(
            Phase.DENIED,
            event=DENIED,
            about=about,
            result="denied",
            error=error.message,
            metadata={"reason": error.reason.value},
        )

    def record(
        self,
        phase: Phase,
        *,
        event: str = "",
        about: tuple[str, str] | None = None,
        result: str | None = None,
        exit_code: int | None = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """Return a record of this call as it stands."""
        caller = self.operation.caller
        about = about or self._about
        began = self._begun if phase is Phase.END else None
        return Record(
            event_type=event or self.operation.event,
            phase=phase,
            call_id=self.call_id,
            client=caller.label,
            principal=caller.principal,
            tool=caller.tool,
            server_name=about[0] if about else None,
            command=self._command,
            result=result,
            exit_code=exit_code,
            duration_ms=None if began is None else self._ms_since(began),
            error=error,
            metadata={
                "method": self.operation.method,
                **({"address": about[1]} if about else {}),
                **(self._metadata or {}),
                **(self._added if phase is Phase.END else {}),
                **(metadata or {}),
            },
        )

    def _ms_since(self, began: float) -> int:
        return round((self._gate.now() - began) * 1000)
