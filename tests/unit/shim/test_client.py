"""What failed calls mean, and where units are looked for."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from grpc import aio

from fakes.daemon import FakeDaemon
from holdfast.v1 import common_pb2
from holdfast_shim import autostart, managers
from holdfast_shim.client import DaemonClient, error_of
from holdfast_shim.errors import CallError


def failure(
    code: grpc.StatusCode, details: str = "", trailers: Any = ()
) -> aio.AioRpcError:
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(*trailers), details)


def told(domain: str = "holdfast", **metadata: str) -> list[tuple[str, bytes]]:
    info = import_module("google.rpc.error_details_pb2").ErrorInfo(
        reason="NO_TARGET", domain=domain, metadata=metadata
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    status = import_module("google.rpc.status_pb2").Status(
        message="no target", details=[packed]
    )
    return [("grpc-status-details-bin", status.SerializeToString())]


def test_what_the_daemon_told_is_what_is_raised() -> None:
    """Design section 4: canonical code and ErrorInfo."""
    trailers = told(ran="no", hint="name one", known="a, b")
    error = error_of(failure(grpc.StatusCode.FAILED_PRECONDITION, "x", trailers))
    assert (error.reason, error.message) == ("NO_TARGET", "no target")
    assert (error.hint, error.ran) == ("name one", "no")
    assert error.metadata == {"known": "a, b"}
    assert error.code == "FAILED_PRECONDITION"
    assert str(error) == "no target"


def test_details_of_another_domain_are_not_ours() -> None:
    trailers = told("elsewhere", ran="no")
    error = error_of(failure(grpc.StatusCode.UNAVAILABLE, "x", trailers))
    assert error.reason == "DAEMON_LOST"


def test_a_daemon_that_hangs_is_not_told_as_one_that_went_away() -> None:
    """PK-06: the buggy shim promised that the next call reconnects; it hung as long."""
    hangs = error_of(failure(grpc.StatusCode.DEADLINE_EXCEEDED, ""))
    assert "did not answer in time" in hangs.message
    assert "service upgrade" in hangs.hint
    assert "reconnects" in error_of(failure(grpc.StatusCode.UNAVAILABLE, "")).hint


@pytest.mark.parametrize(
    ("code", "sent", "reason", "ran"),
    [
        (grpc.StatusCode.UNAVAILABLE, True, "DAEMON_LOST", "unknown"),
        (grpc.StatusCode.CANCELLED, True, "DAEMON_LOST", "unknown"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, "DAEMON_LOST", "unknown"),
        (grpc.StatusCode.UNAVAILABLE, False, "DAEMON_UNAVAILABLE", "no"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False, "DAEMON_UNAVAILABLE", "no"),
        (grpc.StatusCode.UNIMPLEMENTED, True, "UNSUPPORTED", "no"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True, "LIMIT_REACHED", "unknown"),
        (grpc.StatusCode.UNKNOWN, True, "INTERNAL", "unknown"),
        (grpc.StatusCode.INTERNAL, False, "INTERNAL", "no"),
    ],
)
def test_without_details_the_status_decides_and_no_path_leaks(
    code: grpc.StatusCode, sent: bool, reason: str, ran: str
) -> None:
    """PK-06: a daemon that went away is told apart from one that never was there."""
    error = error_of(failure(code, "unix:/run/user/1/hf.sock: refused"), sent=sent)
    assert (error.reason, error.ran) == (reason, ran)
    assert error.hint
    assert "/run" not in error.message + error.hint


async def test_callers_share_one_greeting(short_path: Path) -> None:
    """Contract section 1: ten at once end with one connection."""
    context = common_pb2.ClientContext(name="test")
    async with (
        FakeDaemon(short_path / "hf.sock") as daemon,
        DaemonClient(daemon.socket, context, autostart=False) as client,
    ):
        hello = await client.connect()
        assert hello.instance == "first"
        assert (await client.connected()).instance == "first"
        assert daemon.hellos == 1
        ((key, value),) = client.metadata("ssh_exec")
        assert key == "holdfast-client-bin"
        caller = common_pb2.ClientContext.FromString(value)
        assert (caller.name, caller.tool) == ("test", "ssh_exec")


async def test_the_socket_may_lie_in_a_directory_of_any_name(short_path: Path) -> None:
    """Contract section 2: gRPC reads targets as URIs, people name directories."""
    place = short_path / os.fsdecode(b"a b%41#?\xc3\xbc\xff")
    place.mkdir(0o700)
    context = common_pb2.ClientContext(name="test")
    async with (
        FakeDaemon(place / "hf.sock") as daemon,
        DaemonClient(daemon.socket, context, autostart=False) as client,
    ):
        assert daemon.socket.is_socket()
        assert (await client.connect()).instance == "first"


async def test_an_environment_that_says_too_much_is_named(short_path: Path) -> None:
    """Contract section 2: nobody would guess it from a message that is too large."""
    hosts = [f"web{number:014}" for number in range(4000)]
    context = common_pb2.ClientContext(allowed_hosts=hosts)
    async with (
        FakeDaemon(short_path / "s") as daemon,
        DaemonClient(daemon.socket, context, autostart=False) as client,
    ):
        with pytest.raises(CallError) as caught:
            await client.connect()
    assert (caught.value.reason, caught.value.ran) == ("LIMIT_REACHED", "no")
    assert "SSH_ALLOWED_HOSTS" in caught.value.hint


async def test_a_missing_daemon_is_not_started_unless_asked(short_path: Path) -> None:
    """Contract section 1: --no-autostart."""
    context = common_pb2.ClientContext(name="test")
    async with DaemonClient(short_path / "s", context, autostart=False) as client:
        with pytest.raises(CallError) as caught:
            await client.connect()
    assert (caught.value.reason, caught.value.ran) == ("DAEMON_UNAVAILABLE", "no")


async def test_a_file_that_is_no_socket_is_refused(short_path: Path) -> None:
    """Contract section 2: symbolic links and foreign things are refused."""
    place = short_path / "s"
    place.touch(0o600)
    with pytest.raises(CallError):
        await autostart.answers(place)
    place.unlink()
    place.symlink_to(short_path / "elsewhere")
    with pytest.raises(CallError):
        await autostart.answers(place)


def test_units_are_looked_for_where_systemd_looks() -> None:
    folders = managers.unit_folders({"HOME": "/home/me"}, Path("/run/user/7"))
    assert Path("/home/me/.config/systemd/user") in folders
    assert Path("/run/user/7/systemd/user") in folders
    assert Path("/usr/lib/systemd/user") in folders
