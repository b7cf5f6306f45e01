from __future__ import annotations

import asyncio
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fakes.audit import block, unblock
from fakes.served import Served, Told, file_with, info_of, metadata, resolve, served
from holdfast import v1
from holdfast.v1 import admin_pb2, common_pb2, exec_pb2, options_pb2
from holdfast_daemon.audit import query
from holdfast_daemon.config import Config, HostEntry
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.hosts.target import parse
from holdfast_daemon.policy.caller import Caller, CallerDefaults
from holdfast_daemon.policy.rules import Action
from holdfast_daemon.rpc.context import KEY
from holdfast_daemon.rpc.door import Door
from holdfast_daemon.rpc.methods import CONTRACT, UnruledError, methods
from holdfast_daemon.rpc.place import Places, default_port_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Ask = Callable[[Served, exec_pb2.RunRequest], Awaitable[list[Any]]]

ME = metadata(name="codex", version="1.2", instance="i1", pid=7, tool="ssh_exec")


@pytest.fixture
async def up(short_path: Path) -> AsyncGenerator[Served, None]:
    allowed = Config(allowed_hosts=("web*", "gone", "odd"))
    async with served(short_path, config=allowed) as up:
        yield up


# A client that goes away must cancel its call itself: gRPC's does not always do so when
# the task that reads is cancelled.


async def unary_unary(up: Served, request: exec_pb2.RunRequest) -> list[Any]:
    call = up.ask()(request, metadata=ME)
    try:
        return [await call]
    finally:
        call.cancel()


async def unary_stream(up: Served, request: exec_pb2.RunRequest) -> list[Any]:
    call = up.exec.Run(request, metadata=ME)
    try:
        return [frame async for frame in call]
    finally:
        call.cancel()


async def stream_unary(up: Served, request: exec_pb2.RunRequest) -> list[Any]:
    call = up.collect()(metadata=ME)
    try:
        await call.write(exec_pb2.InteractRequest(start=request))
        await call.done_writing()
        return [await call]
    finally:
        call.cancel()


async def stream_stream(up: Served, request: exec_pb2.RunRequest) -> list[Any]:
    # More before the first answer could cross a refusal, and gRPC's client would then
    # tell its own failed write instead.
    call = up.exec.Interact(metadata=ME)
    try:
        await call.write(exec_pb2.InteractRequest(start=request))
        answers = [await call.read()]
        await call.done_writing()
        while (frame := await call.read()) is not grpc.aio.EOF:
            answers.append(frame)
        return answers
    finally:
        call.cancel()


async def frames(
    start: exec_pb2.RunRequest,
) -> AsyncIterator[exec_pb2.InteractRequest]:
    yield exec_pb2.InteractRequest(start=start)
    yield exec_pb2.InteractRequest(stdin=b"abc")
    yield exec_pb2.InteractRequest(eof=True)


every_kind = pytest.mark.parametrize(
    "ask", [unary_unary, unary_stream, stream_unary, stream_stream]
)


def run(command: str, target: str = "web1", **more: Any) -> exec_pb2.RunRequest:
    return exec_pb2.RunRequest(command=command, target=target, **more)


async def failure(asking: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    return caught.value


async def phases(up: Served) -> list[tuple[str, str]]:
    return [(r["phase"], r.get("result", "")) for r in await up.records()]


# What the contract says


def test_every_rpc_of_the_contract_has_a_rule() -> None:
    """SC-09: no RPC without a rule; every file with services is known to the door."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(v1.__path__, "holdfast.v1."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            assert not file.services_by_name or file in CONTRACT, module.name
            found |= {
                f"/{service.full_name}/{method.name}": method
                for service in file.services_by_name.values()
                for method in service.methods
            }
    assert len(found) >= 15
    known = methods()
    assert known.keys() == found.keys()
    for path, method in found.items():
        rule = method.GetOptions().Extensions[options_pb2.rule]
        assert (
            known[path].action.value
            == options_pb2.Action.Name(rule.action)[len("ACTION_") :].lower()
        )
        assert known[path].event == rule.audit_event
        changes = known[path].action not in {Action.INSPECT, Action.READ}
        assert not changes or known[path].event, f"{path} leaves no record"


@pytest.mark.parametrize("action", [None, options_pb2.ACTION_UNSPECIFIED])
async def test_an_rpc_without_a_rule_is_refused_before_the_server_starts(
    up: Served, action: options_pb2.Action.ValueType | None
) -> None:
    """SC-09: nobody forgets a rule unnoticed."""
    name = f"holdfast/test/v1/unruled_{action}.proto"
    bad = file_with(name, f"Unruled{action}Service", (("Do", False, action),))
    with pytest.raises(UnruledError, match=r"Service\.Do has no"):
        Door(
            up.gate,
            lambda caller, target, connect: resolve(Told(), caller, target, connect),
            principal="uid:1",
            contract=(*CONTRACT, bad),
        )


async def test_an_rpc_outside_the_contract_is_not_served(up: Served) -> None:
    method = up.channel.unary_unary(
        "/holdfast.test.v1.ProbeService/Unruled",
        exec_pb2.RunRequest.SerializeToString,
        exec_pb2.StopJobResponse.FromString,
    )
    for _ in range(2):
        error = await failure(method(run("true")))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_rpc_that_is_not_there_is_unimplemented(up: Served) -> None:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    method = up.channel.unary_unary("/holdfast.v1.ExecService/Nothing")
    error = await failure(method(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


# Every kind of RPC


@every_kind
async def test_a_call_is_recorded_and_answered(up: Served, ask: Ask) -> None:
    """OB-01, SC-09: all four kinds go the same way."""
    answers = await ask(up, run("uptime", cwd="/srv", env={"K": "v"}))
    assert answers
    (call,) = up.told.calls
    assert call.caller.label == "codex/1.2"
    assert call.caller.principal == "uid:1"
    assert call.caller.instance == "i1"
    assert call.host is not None
    assert call.host.name == "web1"
    start, end = await up.records()
    assert (start["phase"], end["phase"]) == ("start", "end")
    assert start["command"] == "uptime"
    assert start["tool"] == "ssh_exec"
    assert start["server_name"] == "web1"
    assert start["metadata"]["cwd"] == "/srv"
    assert "env" not in start["metadata"]
    assert end["result"] == "ok"


@every_kind
async def test_an_error_reaches_the_client_with_its_details(
    up: Served, ask: Ask
) -> None:
    error = await failure(ask(up, run("refuse")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    info = info_of(error)
    assert info.reason == "NO_TARGET"
    assert info.metadata["hint"] == "do otherwise"
    assert await phases(up) == [("start", ""), ("end", "error")]
    assert (await up.records())[-1]["error"] == "as things stand, no"


@every_kind
async def test_a_fault_of_ours_is_an_incident_and_shows_nothing(
    up: Served, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure(ask(up, run("crash")))
    assert error.code() is grpc.StatusCode.INTERNAL
    info = info_of(error)
    assert info.metadata["ran"] == "unknown"
    assert "hunter22" not in str(error.details()) + str(info)
    assert info.metadata["incident"] in caplog.text
    assert "Unforeseen" in caplog.text
    assert await phases(up) == [("start", ""), ("end", "error")]


@every_kind
async def test_a_task_cancelled_inside_a_handler_is_an_incident_too(
    up: Served, ask: Ask
) -> None:
    """Otherwise the client would see a cancellation that nobody asked for."""
    error = await failure(ask(up, run("leak")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert await phases(up) == [("start", ""), ("end", "error")]


@every_kind
async def test_a_call_on_a_host_that_is_not_allowed_never_reaches_its_handler(
    up: Served, ask: Ask
) -> None:
    """SC-01: the refusal names what is allowed, and is recorded."""
    error = await failure(ask(up, run("uptime", target="mail")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    info = info_of(error)
    assert info.reason == "HOST_NOT_ALLOWED"
    assert "web*" in info.metadata["allowed"]
    assert info.metadata["ran"] == "no"
    assert up.told.calls == []
    (denied,) = await up.records()
    assert denied["event_type"] == "command_denied"
    assert denied["server_name"] == "mail"


@every_kind
async def test_a_denial_inside_a_handler_is_recorded_as_one(
    up: Served, ask: Ask
) -> None:
    error = await failure(ask(up, run("deny")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await phases(up) == [("start", ""), ("denied", "denied"), ("end", "denied")]


@every_kind
async def test_a_bad_request_is_refused_before_anything_is_resolved(
    up: Served, ask: Ask
) -> None:
    error = await failure(ask(up, run("  ")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "command" in info_of(error).metadata["field"]
    assert up.told.resolved == []
    assert await up.records() == []


@every_kind
async def test_a_name_that_does_not_resolve_leaves_no_record(
    up: Served, ask: Ask
) -> None:
    error = await failure(ask(up, run("uptime", target="gone")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert info_of(error).reason == "HOST_NOT_FOUND"
    assert await up.records() == []


@every_kind
async def test_a_fault_before_the_handler_ran_nothing(up: Served, ask: Ask) -> None:
    error = await failure(ask(up, run("uptime", target="odd")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert info_of(error).metadata["ran"] == "no"


@every_kind
async def test_a_client_that_goes_away_ends_the_call_as_cancelled(
    up: Served, ask: Ask
) -> None:
    task = asyncio.ensure_future(ask(up, run("wait")))
    await up.told.entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await up.told.closed.wait()
    assert await ended(up) == [("start", ""), ("end", "cancelled")]


@every_kind
async def test_work_that_was_detached_outlives_its_call(up: Served, ask: Ask) -> None:
    task = asyncio.ensure_future(ask(up, run("wait detached")))
    await up.told.entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await up.told.closed.wait()
    (call,) = up.told.calls
    assert not call.ticket.finished
    assert await phases(up) == [("start", "")]
    await call.ticket.finish("exited", exit_code=0)
    assert await phases(up) == [("start", ""), ("end", "exited")]


@every_kind
async def test_a_detached_outcome_is_not_told_by_the_door(up: Served, ask: Ask) -> None:
    await ask(up, run("detach"))
    assert await phases(up) == [("start", "")]


async def ended(up: Served) -> list[tuple[str, str]]:
    """Wait for the outcome: the client does not wait for the server's last words."""
    async for line in query.follow(up.log):
        if '"phase":"end"' in line:
            break
    return await phases(up)


# Streams


async def test_a_stream_that_fails_midway_keeps_what_came_before(up: Served) -> None:
    call = up.exec.Run(run("lose"), metadata=ME)
    frame: Any = await call.read()
    assert frame.progress.message == "going"
    error = await failure(call.read())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert info_of(error).metadata["ran"] == "unknown"


async def test_an_endless_answer_stops_when_its_reader_goes(up: Served) -> None:
    """The handler is closed at once, not when the garbage collector finds it."""
    call = up.exec.Run(run("endless"), metadata=ME)
    async for _ in call:
        break
    call.cancel()
    await up.told.closed.wait()
    assert await ended(up) == [("start", ""), ("end", "cancelled")]


async def test_every_frame_arrives_once_and_in_order(up: Served) -> None:
    call = up.exec.Interact(frames(run("true")), metadata=ME)
    assert [frame.started async for frame in call] == ["start", "stdin", "eof"]
    answer = await up.collect()(frames(run("true")), metadata=ME)
    assert answer.note == "start stdin eof"


async def test_answers_come_while_the_client_still_sends(up: Served) -> None:
    call = up.exec.Interact(metadata=ME)
    await call.write(exec_pb2.InteractRequest(start=run("true")))
    frame: Any = await call.read()
    assert frame.started == "start"
    await call.write(exec_pb2.InteractRequest(stdin=b"x"))
    frame = await call.read()
    assert frame.started == "stdin"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_stream_must_begin_with_start(up: Served) -> None:
    async def wrong() -> AsyncIterator[exec_pb2.InteractRequest]:
        yield exec_pb2.InteractRequest(stdin=b"x")

    async def nothing() -> AsyncIterator[exec_pb2.InteractRequest]:
        none: tuple[exec_pb2.InteractRequest, ...] = ()
        for frame in none:
            yield frame

    for stream in (wrong(), nothing()):
        error = await failure(up.collect()(stream, metadata=ME))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert info_of(error).metadata["field"] == "start"
    assert await up.records() == []


async def test_a_stream_that_never_begins_is_not_waited_for(short_path: Path) -> None:
    async with served(short_path, first_frame_seconds=0.05) as up:
        call = up.exec.Interact(metadata=ME)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no first frame" in str(caught.value.details())


async def test_handlers_of_every_form_are_served(up: Served) -> None:
    read = up.exec.ReadJob(exec_pb2.ReadJobRequest(job_id="j1"), metadata=ME)
    assert [frame.result.ok async for frame in read] == [True]
    follow = up.exec.FollowJob(exec_pb2.FollowJobRequest(job_id="j1"), metadata=ME)
    assert [frame.output.next_offset async for frame in follow] == [0, 1, 2]
    wait = up.exec.Wait(exec_pb2.WaitRequest(any_of=[exec_pb2.WaitFor(job_id="j1")]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_handler_that_aborts_by_hand_is_recorded(up: Served) -> None:
    error = await failure(up.ask()(run("abort"), metadata=ME))
    assert error.code() is grpc.StatusCode.ABORTED
    # The client has its answer before the handler has ended.
    await up.server.stop(10)
    assert await phases(up) == [("start", ""), ("end", "error")]


# Who calls


async def test_a_call_without_a_context_comes_from_an_unknown_client(
    up: Served,
) -> None:
    await up.exec.ListJobs(exec_pb2.ListJobsRequest())
    (call,) = up.told.calls
    assert call.caller.label == "unknown"
    assert call.caller.principal == "uid:1"
    assert not call.caller.read_only


@pytest.mark.parametrize("value", [b"\xff\xff\xff", b"\x08", b"text, no protobuf"])
async def test_a_context_that_is_none_is_refused(up: Served, value: bytes) -> None:
    asking = up.admin.Hello(admin_pb2.HelloRequest(), metadata=((KEY, value),))
    error = await failure(asking)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(error).metadata["field"] == KEY


async def test_two_contexts_are_refused(up: Served) -> None:
    """Otherwise it would be a matter of luck which restrictions hold."""
    asking = up.admin.Hello(admin_pb2.HelloRequest(), metadata=(*ME, *ME))
    assert (await failure(asking)).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"timeout_seconds": -1.0}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"connect_timeout_seconds": float("inf")}, "connect_timeout_seconds"),
        ({"default_port": 0}, "default_port"),
        ({"default_port": 70000}, "default_port"),
        ({"timeout_seconds": 31_536_001.0}, "timeout_seconds"),
        ({"connect_timeout_seconds": 601.0}, "connect_timeout_seconds"),
        ({"max_output_chars": 1_000_001}, "max_output_chars"),
    ],
)
async def test_a_setting_that_can_not_be_meant_is_refused(
    up: Served, context: dict[str, Any], field: str
) -> None:
    """The bounds of a call: a context's max_output_chars had none."""
    asking = up.admin.Hello(admin_pb2.HelloRequest(), metadata=metadata(**context))
    error = await failure(asking)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(error).metadata["field"] == field


async def test_the_settings_of_a_client_reach_the_handler(up: Served) -> None:
    """Contract 3: applied to that client only, sent with each call."""
    await up.exec.ListJobs(
        exec_pb2.ListJobsRequest(),
        metadata=metadata(
            name="a\x1b[31mb\n",
            pid=12,
            default_host="web7",
            default_user="me",
            default_port=2222,
            default_password="hunter22",
            private_key="KEY",
            timeout_seconds=5.0,
            connect_timeout_seconds=0.0,
            max_output_chars=100,
            auth_sock="/run/agent",
            allowed_hosts=["web*"],
        ),
    )
    (call,) = up.told.calls
    caller, given = call.caller, call.caller.defaults
    assert caller.name == "a[31mb"
    assert caller.allowed_hosts == ("web*",)
    assert (given.host, given.user, given.port) == ("web7", "me", 2222)
    assert given.password is not None
    assert given.password.reveal() == "hunter22"
    assert given.private_key is not None
    assert given.private_key.reveal() == "KEY"
    assert (given.timeout_seconds, given.connect_timeout_seconds) == (5.0, 0.0)
    assert given.max_output_chars == 100
    assert given.auth_sock == "/run/agent"
    assert "hunter22" not in repr(caller)


async def test_what_a_client_left_out_stays_unset(up: Served) -> None:
    await up.exec.ListJobs(exec_pb2.ListJobsRequest(), metadata=metadata(name="x"))
    given = up.told.calls[0].caller.defaults
    assert given.port is None
    assert given.timeout_seconds is None
    assert given.max_output_chars is None
    assert given.password is None


async def test_a_client_can_only_narrow_its_hosts(up: Served) -> None:
    """SC-01: SSH_ALLOWED_HOSTS of a client is no way around the configuration."""
    wide = metadata(name="x", allowed_hosts=["*"])
    narrow = metadata(name="x", allowed_hosts=["web2"])
    for context, target in ((wide, "mail"), (narrow, "web1")):
        error = await failure(up.ask()(run("true", target=target), metadata=context))
        assert info_of(error).reason == "HOST_NOT_ALLOWED"
    await up.ask()(run("true", target="web2"), metadata=narrow)


async def test_two_clients_of_one_person_are_told_apart(up: Served) -> None:
    """Each call has the rights of its own client, also side by side."""
    free = metadata(name="a", instance="1")
    bound = metadata(name="b", instance="2", read_only=True)
    answers = await asyncio.gather(
        *(up.ask()(run("true"), metadata=c) for c in (free, bound) * 20),
        return_exceptions=True,
    )
    assert [isinstance(a, grpc.aio.AioRpcError) for a in answers] == [False, True] * 20
    assert {call.caller.instance for call in up.told.calls} == {"1"}


async def test_a_read_only_client_may_still_look(up: Served) -> None:
    """SC-13: the daemon refuses the rest for that client."""
    bound = metadata(name="b", read_only=True)
    await up.exec.ListJobs(exec_pb2.ListJobsRequest(), metadata=bound)
    for asking in (
        up.ask()(run("true"), metadata=bound),
        up.exec.StopJob(exec_pb2.StopJobRequest(job_id="j1"), metadata=bound),
        up.admin.Reload(admin_pb2.ReloadRequest(), metadata=bound),
    ):
        assert info_of(await failure(asking)).reason == "READ_ONLY"


# What is recorded and what is not


async def test_looking_leaves_no_record(up: Served) -> None:
    await up.admin.Hello(admin_pb2.HelloRequest(), metadata=ME)
    await up.exec.ListJobs(exec_pb2.ListJobsRequest(), metadata=ME)
    assert await up.records() == []
    assert up.told.resolved == []


async def test_a_change_without_a_host_is_recorded(up: Served) -> None:
    await up.admin.Reload(admin_pb2.ReloadRequest(), metadata=ME)
    start, end = await up.records()
    assert start["event_type"] == "configuration"
    assert "server_name" not in start
    assert end["result"] == "ok"


async def test_stopping_a_job_is_recorded_with_the_job(up: Served) -> None:
    stop = exec_pb2.StopJobRequest(job_id="j7", signal=common_pb2.SIGNAL_INT)
    await up.exec.StopJob(stop, metadata=ME)
    start, _ = await up.records()
    assert start["metadata"]["job_id"] == "j7"
    assert start["metadata"]["signal"] == "SIGNAL_INT"


async def test_secrets_of_a_call_never_reach_the_audit_log(up: Served) -> None:
    """SC-12: neither as fields nor repeated in the command."""
    secrets = {
        "default_password": "pass-of-client",
        "private_key": "key-of-client",
        "token": "tok_of_client",
    }
    request = run(
        "echo pass-of-call pass-of-client key-of-client tok_of_client",
        stdin="stdin-of-call",
        env={"X": "value-of-call"},
        connect=common_pb2.ConnectOptions(password="pass-of-call"),
    )
    await up.ask()(request, metadata=metadata(name="x", **secrets))
    text = "".join(str(record) for record in await up.records())
    assert "echo [redacted]" in text
    for secret in (*secrets.values(), "pass-of-call", "stdin-of-call", "value-of-call"):
        assert secret not in text


async def test_secrets_are_remembered_only_so_many(up: Served) -> None:
    for number in range(300):
        connect = common_pb2.ConnectOptions(password=f"password-{number}")
        await up.ask()(run("true", connect=connect), metadata=ME)
    assert up.redactor.clean("password-299") == "[redacted]"
    assert up.redactor.clean("password-7") == "password-7"


async def test_a_jump_over_a_host_that_is_not_allowed_is_refused(up: Served) -> None:
    """SC-01."""
    over = common_pb2.ConnectOptions(jump="mail")
    error = await failure(up.ask()(run("true", connect=over), metadata=ME))
    assert info_of(error).metadata["host"] == "mail"
    by = common_pb2.ConnectOptions(jump="web9")
    await up.ask()(run("true", connect=by), metadata=ME)
    assert (await up.records())[-1]["metadata"]["jump"] == "web9"


async def test_the_default_target_is_resolved_and_decided(up: Served) -> None:
    context = metadata(name="x", default_host="web5")
    await up.ask()(run("true", target=""), metadata=context)
    assert (await up.records())[0]["server_name"] == "web5"
    context = metadata(name="x", default_host="mail")
    error = await failure(up.ask()(run("true", target=""), metadata=context))
    assert info_of(error).reason == "HOST_NOT_ALLOWED"


async def test_a_stopping_daemon_refuses_work_and_answers_questions(
    up: Served,
) -> None:
    up.gate.drain()
    error = await failure(up.ask()(run("true"), metadata=ME))
    assert info_of(error).reason == "DRAINING"
    await up.admin.Hello(admin_pb2.HelloRequest(), metadata=ME)


async def test_without_an_audit_log_work_is_refused_and_questions_answered(
    up: Served, short_path: Path
) -> None:
    """Issue 2, 4: through the public face."""
    directory = up.log.directory
    block(directory, short_path / "aside")
    error = await failure(up.ask()(run("true"), metadata=ME))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    info = info_of(error)
    assert info.reason == "AUDIT_UNAVAILABLE"
    assert "not a directory" in info.metadata["cause"]
    assert up.told.calls == []
    await up.admin.Hello(admin_pb2.HelloRequest(), metadata=ME)
    unblock(directory, short_path / "aside")
    await up.ask()(run("true"), metadata=ME)


async def test_a_burst_is_recorded_whole(up: Served) -> None:
    """Every start has its end, whatever comes at once."""
    await asyncio.gather(*(up.ask()(run("true"), metadata=ME) for _ in range(500)))
    found = await up.records()
    starts = [r["call_id"] for r in found if r["phase"] == "start"]
    ends = [r["call_id"] for r in found if r["phase"] == "end"]
    assert len(set(starts)) == 500
    assert sorted(starts) == sorted(ends)
    assert query.verify(up.log.directory).intact


# Where a call leads


async def place(
    caller: Caller, target: str, connect: common_pb2.ConnectOptions | None
) -> Host:
    """Resolve as the inventory does: `box` has port 2201, everything else 22."""
    user, name, port = parse(target or "box")
    port = port or (2201 if name == "box" else caller.defaults.port)
    jump = None
    if connect is not None:
        options = {key.lower(): value for key, value in connect.options.items()}
        port = int(options.get("port", connect.port or port or 22))
        if connect.jump:
            jump = await place(caller, connect.jump, None)
    return Host(
        name=target or "box",
        hostname=f"{name}.example",
        user=user or "me",
        port=port or 22,
        proxy_jump=jump,
    )


def options(**given: Any) -> common_pb2.ConnectOptions:
    return common_pb2.ConnectOptions(**given)


@pytest.mark.parametrize(
    ("target", "connect", "name"),
    [
        ("box", None, "box"),
        ("", None, "box"),
        ("box:2201", None, "box"),
        ("me@box:2201", None, "me@box"),
        ("ssh://me@box:2201", None, "me@box"),
        ("ssh://me@box", None, "ssh://me@box"),
        ("box:22", None, "box:22"),
        ("box", options(user="me"), "box"),
        ("box", options(port=2201), "box"),
        ("box", options(port=99), "box:99"),
        ("me@box", options(options={"Port": "99"}), "me@box:99"),
        ("box", options(options={"port": "99"}), "box:99"),
        ("[::1]:99", None, "[::1]:99"),
        ("::1", options(port=99), "[::1]:99"),
        ("[::1]:22", None, "[::1]"),
        ("10.0.0.5:22", None, "10.0.0.5"),
    ],
)
async def test_a_name_carries_a_port_where_the_call_chose_an_unusual_one(
    target: str, connect: common_pb2.ConnectOptions | None, name: str
) -> None:
    """SC-01: the name was `box` wherever connect.port led, for rules and records."""
    given = str(connect)
    host = await Places(place).resolve(Caller("uid:1"), target, connect)
    assert host.name == name
    assert str(connect) == given


async def test_a_default_port_of_the_client_shows_in_the_name() -> None:
    """SC-01: SSH_DEFAULT_PORT leads away from what the configuration says."""
    caller = Caller("uid:1", defaults=CallerDefaults(port=99))
    assert (await Places(place).resolve(caller, "box", None)).name == "box"
    assert (await Places(place).resolve(caller, "web", None)).name == "web:99"
    assert default_port_of(caller, "web", None) == 99
    assert default_port_of(caller, "web:99", None) is None
    assert default_port_of(caller, "web", options(port=99)) is None


async def test_a_jump_host_is_named_likewise() -> None:
    places = Places(place)
    for jump, name in (("box", "box"), ("box:2201", "box"), ("box:99", "box:99")):
        caller = Caller("uid:1")
        host = await places.resolve(caller, "web", options(jump=jump))
        assert [hop.name for hop in await places.hops(caller, host)] == [name]


async def test_a_disabled_host_that_does_not_resolve_stops_nobody(
    up: Served,
) -> None:
    async def find(
        caller: Caller, target: str, connect: common_pb2.ConnectOptions | None
    ) -> Host:
        return await resolve(up.told, caller, target, connect)

    found = await Places(find).named(Caller("uid:1"), ["web1", "gone", "web2"])
    assert [host.name for host in found] == ["web1", "web2"]


async def test_a_disabled_server_is_refused_at_the_door(short_path: Path) -> None:
    """`enabled = false` held for the alias alone."""
    off = HostEntry(name="off", host="off", enabled=False)
    async with served(short_path, config=Config(hosts={"off": off})) as up:
        error = await failure(up.ask()(run("true", target="OFF."), metadata=ME))
        assert info_of(error).reason == "HOST_DISABLED"
        await up.ask()(run("true", target="web1"), metadata=ME)
