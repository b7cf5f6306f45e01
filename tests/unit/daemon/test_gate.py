from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fakes.audit import audit_log, block, records, unblock
from holdfast_daemon.audit import files, query
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.config import Config, HostEntry
from holdfast_daemon.errors import DaemonError, DeniedError, Reason, StateError
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.gate import Gate
from holdfast_daemon.policy.rules import Action, Operation
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast_daemon.audit.chain import AuditLog

WEB = Host(name="web1", hostname="10.0.0.5", user="deploy", port=2222)
MAIL = Host(name="mail", hostname="10.0.0.9", user="deploy")
OFF = Host(name="web2", hostname="10.0.0.6", user="deploy", enabled=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
async def log(directory: Path, redactor: Redactor) -> AsyncIterator[AuditLog]:
    log = audit_log(directory, redactor=redactor)
    await log.open()
    yield log
    await log.close()


@pytest.fixture
def gate(log: AuditLog) -> Gate:
    return Gate(lambda: Config(allowed_hosts=("web*",)), log, SystemClock())


def run(
    *,
    action: Action = Action.EXECUTE,
    event: str = "command_execution",
    **caller: Any,
) -> Operation:
    who = Caller("uid:1", "codex", "1.2", tool="ssh_exec", **caller)
    return Operation("ExecService/Run", action, event, who)


async def all_records(log: AuditLog) -> list[dict[str, Any]]:
    await log.flush()
    return records(log.directory)


async def test_the_start_is_written_before_work_begins(
    gate: Gate, log: AuditLog
) -> None:
    """OB-01: on return the record is in the file, without a flush."""
    ticket = await gate.enter(run(), WEB, command="uptime", metadata={"cwd": "/srv"})
    (start,) = records(log.directory)
    assert start["phase"] == "start"
    assert start["event_type"] == "command_execution"
    assert start["call_id"] == ticket.call_id
    assert start["client"] == "codex/1.2"
    assert start["principal"] == "uid:1"
    assert start["tool"] == "ssh_exec"
    assert start["server_name"] == "web1"
    assert start["command"] == "uptime"
    assert start["metadata"] == {
        "method": "ExecService/Run",
        "address": "deploy@10.0.0.5:2222",
        "cwd": "/srv",
    }


async def test_the_outcome_is_told_exactly_once(gate: Gate, log: AuditLog) -> None:
    """OB-01: one end record, with exit code, duration and what was added."""
    ticket = await gate.enter(run(), WEB, command="false")
    ticket.add(job_id="j1")
    await ticket.finish("exited", exit_code=1, metadata={"stdout_length": 0})
    await ticket.finish("error", error="too late")
    assert ticket.finished
    start, end = await all_records(log)
    assert (start["phase"], end["phase"]) == ("start", "end")
    assert end["call_id"] == start["call_id"]
    assert end["result"] == "exited"
    assert end["exit_code"] == 1
    assert end["duration_ms"] >= 0
    assert end["command"] == "false"
    assert end["metadata"]["job_id"] == "j1"
    assert end["metadata"]["stdout_length"] == 0
    assert "error" not in end


@pytest.mark.parametrize(
    ("operation", "host", "reason"),
    [
        (run(), MAIL, Reason.HOST_NOT_ALLOWED),
        (run(allowed_hosts=("web9",)), WEB, Reason.HOST_NOT_ALLOWED),
        (run(), OFF, Reason.HOST_DISABLED),
        (run(read_only=True), WEB, Reason.READ_ONLY),
    ],
)
async def test_every_refusal_is_recorded_with_its_reason(
    gate: Gate, log: AuditLog, operation: Operation, host: Host, reason: Reason
) -> None:
    """OB-01: `command_denied`; SC-01. One record, and neither start nor end."""
    with pytest.raises(DeniedError) as caught:
        await gate.enter(operation, host, command="uptime")
    assert caught.value.reason is reason
    (denied,) = records(log.directory)
    assert denied["event_type"] == "command_denied"
    assert denied["phase"] == "denied"
    assert denied["result"] == "denied"
    assert denied["server_name"] == host.name
    assert denied["command"] == "uptime"
    assert denied["metadata"]["reason"] == reason.value
    assert denied["error"] == caught.value.message


async def test_a_call_without_an_event_leaves_no_record(
    gate: Gate, log: AuditLog
) -> None:
    ticket = await gate.enter(run(action=Action.INSPECT, event=""), None)
    await ticket.finish("ok")
    assert await all_records(log) == []


async def test_a_call_without_an_event_is_recorded_when_it_is_refused(
    gate: Gate, log: AuditLog
) -> None:
    with pytest.raises(DeniedError):
        await gate.enter(run(action=Action.READ, event=""), MAIL)
    (denied,) = await all_records(log)
    assert denied["event_type"] == "command_denied"


async def test_jump_hosts_of_the_call_must_be_allowed_too(
    gate: Gate, log: AuditLog
) -> None:
    """SC-01: nobody reaches a host that is not allowed by jumping over it."""
    with pytest.raises(DeniedError) as caught:
        await gate.enter(run(), WEB, hops=[MAIL])
    assert caught.value.metadata["host"] == "mail"


async def test_secrets_do_not_reach_the_record(
    gate: Gate, log: AuditLog, redactor: Redactor, directory: Path
) -> None:
    """SC-12."""
    redactor.add("hunter22")
    ticket = await gate.enter(
        run(), WEB, command="login -p hunter22", metadata={"jump": "hunter22@x"}
    )
    await ticket.finish("error", error="hunter22 is wrong")
    await log.flush()
    text = "\n".join(query.read(directory))
    assert "hunter22" not in text
    assert "login -p" in text


async def test_a_draining_daemon_takes_no_new_work_and_still_answers(
    gate: Gate, log: AuditLog
) -> None:
    ticket = await gate.enter(run(), WEB)
    gate.drain()
    with pytest.raises(StateError) as caught:
        await gate.enter(run(), WEB)
    assert caught.value.reason is Reason.DRAINING
    await gate.enter(run(action=Action.INSPECT, event=""), None)
    await ticket.finish("exited", exit_code=0)
    phases = [(r["phase"], r["event_type"]) for r in await all_records(log)]
    assert phases == [
        ("start", "command_execution"),
        ("denied", "command_denied"),
        ("end", "command_execution"),
    ]


async def test_without_an_audit_log_no_work_is_taken(
    gate: Gate, log: AuditLog, directory: Path, tmp_path: Path
) -> None:
    """Issue 2, 4: refused loudly with cause and hint; looking goes on; it recovers."""
    running = await gate.enter(run(), WEB, command="sleep 9")
    aside = tmp_path / "aside"
    block(directory, aside)

    with pytest.raises(DeniedError) as caught:
        await gate.enter(run(), WEB, command="uptime")
    error = caught.value
    assert error.reason is Reason.AUDIT_UNAVAILABLE
    assert "not a directory" in error.message
    assert error.metadata["path"] == str(directory)
    assert error.hint
    await gate.enter(run(action=Action.INSPECT, event=""), None)
    with pytest.raises(DeniedError) as refused:
        await gate.enter(run(), MAIL)
    assert refused.value.reason is Reason.HOST_NOT_ALLOWED
    await running.finish("exited", exit_code=0)

    unblock(directory, aside)
    await gate.enter(run(), WEB, command="date")
    found = await all_records(log)
    assert [r["event_type"] for r in found] == [
        "command_execution",
        "recovered",
        "command_denied",
        "command_denied",
        "command_execution",
        "command_execution",
    ]
    assert found[2]["metadata"]["reason"] == "AUDIT_UNAVAILABLE"
    assert found[4]["phase"] == "end"
    assert found[4]["call_id"] == running.call_id
    assert log.error == ""


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_refusal_that_a_slow_disk_takes_late_is_recorded_once(
    gate: Gate, log: AuditLog, monkeypatch: pytest.MonkeyPatch, *, refuses: bool
) -> None:
    """OB-01: it was handed over anew, and stood there twice.

    `refuses`: the disk takes it at the second attempt only.
    """
    held = threading.Event()
    real = files.write_all
    tries = 0

    def slowly(fd: int, data: bytes) -> None:
        nonlocal tries
        assert held.wait(20)
        tries += 1
        if refuses and tries == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd, data)

    monkeypatch.setattr(files, "write_all", slowly)
    monkeypatch.setattr(log, "_write_seconds", 0.05)
    with pytest.raises(DeniedError) as refused:
        await gate.enter(run(), MAIL)
    assert refused.value.reason is Reason.HOST_NOT_ALLOWED
    held.set()
    with log.watch() as changed:
        while log.error or not records(log.directory):
            await changed.wait()
            changed.clear()
    found = [r for r in await all_records(log) if r["event_type"] != "recovered"]
    assert [r["event_type"] for r in found] == ["command_denied"]


async def test_a_configuration_that_changes_decides_the_next_call(
    log: AuditLog,
) -> None:
    now = Config()
    gate = Gate(lambda: now, log, SystemClock())
    await gate.enter(run(), MAIL)
    now = Config(allowed_hosts=("web*",))
    with pytest.raises(DeniedError):
        await gate.enter(run(), MAIL)


async def test_a_call_that_touches_another_host_is_decided_again(
    gate: Gate, log: AuditLog
) -> None:
    stop = Operation(
        "ExecService/StopJob", Action.EXECUTE, "command_execution", run().caller
    )
    ticket = await gate.enter(stop, None, metadata={"job_id": "j1"})
    assert ticket.allows(WEB)
    assert not ticket.allows(MAIL)
    ticket.check(WEB)
    with pytest.raises(DeniedError):
        ticket.check(MAIL)
    await ticket.finish("denied")
    start, denied, end = await all_records(log)
    assert "server_name" not in start
    assert denied["event_type"] == "command_denied"
    assert denied["server_name"] == "mail"
    assert denied["call_id"] == start["call_id"]
    assert end["server_name"] == "web1"


async def test_a_job_of_the_past_is_decided_by_its_names(
    gate: Gate, log: AuditLog
) -> None:
    """SC-01: two clients of one principal, of which one may see less."""
    look = run(action=Action.INSPECT, event="", allowed_hosts=("web1",))
    ticket = await gate.enter(look, None)
    assert ticket.allows_name("web1", "deploy@10.0.0.5")
    assert not ticket.allows_name("web2", "deploy@10.0.0.6")
    ticket.check_name("web1", "deploy@10.0.0.5")
    with pytest.raises(DeniedError):
        ticket.check_name("web2", "deploy@10.0.0.6")
    wide = await gate.enter(run(action=Action.INSPECT, event=""), None)
    wide.check_name("web2", "deploy@10.0.0.6")
    (denied,) = await all_records(log)
    assert denied["server_name"] == "web2"
    assert denied["metadata"]["address"] == "deploy@10.0.0.6"


async def test_the_end_of_a_call_names_what_it_was_about(
    gate: Gate, log: AuditLog
) -> None:
    """OB-01: the end record of a stopped job named no host and no job."""
    ticket = await gate.enter(run(), None, metadata={"job_id": "j1"})
    ticket.check_name("web1", "deploy@10.0.0.5:2222")
    ticket.add(job_id="j1", stopped_command="sleep 9")
    await ticket.finish("ok")
    start, end = await all_records(log)
    assert "server_name" not in start
    assert end["server_name"] == "web1"
    assert end["metadata"] == {
        "method": "ExecService/Run",
        "address": "deploy@10.0.0.5:2222",
        "job_id": "j1",
        "stopped_command": "sleep 9",
    }


async def test_a_disabled_server_is_refused_to_a_handler_too(
    log: AuditLog,
) -> None:
    """`enabled = false` held for the alias alone, also where a handler asked."""
    off = HostEntry(name="off", host="10.0.0.6", enabled=False)
    gate = Gate(lambda: Config(hosts={"off": off}), log, SystemClock())
    assert gate.disabled() == ["off"]
    disabled = [Host(name="off", hostname="10.0.0.6", user="deploy", enabled=False)]
    ticket = await gate.enter(run(), WEB, disabled=disabled)
    asked = Host(name="root@10.0.0.6", hostname="10.0.0.6", user="root")
    assert not ticket.allows(asked)
    with pytest.raises(DeniedError) as caught:
        ticket.check(asked)
    assert caught.value.reason is Reason.HOST_DISABLED
    with pytest.raises(DeniedError):
        await gate.enter(run(), WEB, hops=[asked], disabled=disabled)


async def test_a_default_port_of_the_client_is_not_for_jump_hosts(
    log: AuditLog,
) -> None:
    """SC-01: a hop's port counts as the call's own choice."""
    gate = Gate(Config, log, SystemClock())
    operation = replace(run(allowed_hosts=("web1",)), default_port=2222)
    hop = Host(name="web1:2222", hostname="web1", user="deploy", port=2222)
    await gate.enter(operation, hop)
    with pytest.raises(DeniedError):
        await gate.enter(operation, hop, hops=[hop])


async def test_a_caller_that_leaves_at_the_door_is_ended_in_the_log(
    gate: Gate, log: AuditLog
) -> None:
    tasks = [asyncio.create_task(gate.enter(run(), WEB)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    for end in done:
        assert not isinstance(end, DaemonError)
        if not isinstance(end, BaseException):
            await end.finish("exited", exit_code=0)
    found = await all_records(log)
    started = sorted(r["call_id"] for r in found if r["phase"] == "start")
    ended = sorted(r["call_id"] for r in found if r["phase"] == "end")
    assert len(started) == 200
    assert started == ended


async def test_every_call_has_one_start_and_one_end_or_one_denial(
    gate: Gate, log: AuditLog
) -> None:
    """OB-01: whatever many callers do at once."""

    async def call(number: int) -> None:
        try:
            ticket = await gate.enter(run(), WEB if number % 3 else MAIL)
        except DeniedError:
            return
        await asyncio.gather(ticket.finish("exited"), ticket.finish("error"))

    await asyncio.gather(*(call(number) for number in range(900)))
    phases: dict[str, list[str]] = {}
    for record in await all_records(log):
        phases.setdefault(record["call_id"], []).append(record["phase"])
    kinds = list(phases.values())
    assert kinds.count(["denied"]) == 300
    assert kinds.count(["start", "end"]) == 600
    assert len(kinds) == 900
