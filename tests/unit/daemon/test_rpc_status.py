from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from fakes.served import Served, decode, info_of, retry_ms_of, served, status_of
from holdfast.v1 import common_pb2, exec_pb2
from holdfast_daemon import errors
from holdfast_daemon.errors import DaemonError, InputError, Ran, Reason
from holdfast_daemon.rpc import status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
async def up(short_path: Path) -> AsyncGenerator[Served, None]:
    async with served(short_path) as up:
        yield up


async def caught(up: Served, command: str) -> grpc.aio.AioRpcError:
    request = exec_pb2.RunRequest(command=command, target="web1")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await up.ask()(request)
    return error.value


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
        (errors.StateError, grpc.StatusCode.FAILED_PRECONDITION),
        (errors.DeniedError, grpc.StatusCode.PERMISSION_DENIED),
        (errors.NeedsError, grpc.StatusCode.UNAUTHENTICATED),
        (errors.LimitError, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.RangeError, grpc.StatusCode.OUT_OF_RANGE),
        (errors.LinkError, grpc.StatusCode.UNAVAILABLE),
        (DaemonError, grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_the_class_of_an_error_is_its_code(
    kind: type[DaemonError], code: grpc.StatusCode
) -> None:
    assert status.code_of(kind(Reason.POLICY_DENIED, "no")) is code


def test_what_has_no_class_goes_by_its_reason() -> None:
    internal = DaemonError(Reason.INTERNAL, "x")
    unsupported = DaemonError(Reason.UNSUPPORTED, "x")
    assert status.code_of(InputError("f", "x")) is grpc.StatusCode.INVALID_ARGUMENT
    assert status.code_of(internal) is grpc.StatusCode.INTERNAL
    assert status.code_of(unsupported) is grpc.StatusCode.UNIMPLEMENTED


def test_every_reason_is_one_of_the_contract() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_")
        for name in common_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert {reason.value for reason in Reason} <= contract


async def test_a_client_reads_reason_hint_and_ran(up: Served) -> None:
    """Issue 2, bad input: what was wrong, whether anything ran, and the next step."""
    error = await caught(up, "refuse")
    assert error.details() == "as things stand, no"
    found = status_of(error)
    assert found.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert found.message == "as things stand, no"
    info = info_of(error)
    assert info.domain == "holdfast"
    assert info.reason == "NO_TARGET"
    assert dict(info.metadata) == {"ran": "no", "hint": "do otherwise"}
    assert len(found.details) == 1


async def test_a_client_reads_when_to_try_again(up: Served) -> None:
    error = await caught(up, "lose")
    info = info_of(error)
    assert info.metadata["ran"] == "unknown"
    assert retry_ms_of(error) == 1500


async def test_an_incident_is_logged_and_only_its_number_told(
    up: Served, caplog: pytest.LogCaptureFixture
) -> None:
    error = await caught(up, "crash")
    info = info_of(error)
    assert info.reason == "INTERNAL"
    assert (
        error.details() == f"the daemon failed (incident {info.metadata['incident']})"
    )
    (logged,) = [
        r for r in caplog.records if info.metadata["incident"] in r.getMessage()
    ]
    assert logged.exc_info is not None


@pytest.mark.parametrize("text", ["\ud800 surrogate", "ü" * 5000, "line\nline", "\x00"])
def test_any_text_travels(text: str) -> None:
    """A status that is too large, or no UTF-8, would be dropped with its error."""
    many = {f"{text[:20]}{n}": text for n in range(50)}
    error = errors.LinkError(Reason.PROTOCOL_ERROR, text, hint=text, metadata=many)
    data = status.details(error)
    assert len(data) < 12_000
    _, info = decode(data)
    assert info.metadata["ran"] == "no"


async def test_a_large_error_reaches_a_client_with_default_limits(up: Served) -> None:
    request = exec_pb2.RunRequest(command="\0" + "ü" * 100_000, target="web1")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await up.ask()(request)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_error_that_ran_says_so() -> None:
    error = errors.LinkError(Reason.CONNECTION_LOST, "x", ran=Ran.YES)
    _, info = decode(status.details(error))
    assert info.metadata["ran"] == "yes"
