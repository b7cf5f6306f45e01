"""How long a call may take, and one that is made again after a broken pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.v1 import exec_pb2, file_pb2, forward_pb2, host_pb2
from holdfast_daemon.limits import bounds
from holdfast_shim.calls import patience, spend

if TYPE_CHECKING:
    from google.protobuf.message import Message


@pytest.mark.parametrize(
    ("given", "waited", "left"),
    [(None, 0.0, 45), (None, 40.0, 5), (10.0, 4.0, 6), (10.0, 11.0, 0), (0.0, 1.0, 0)],
)
def test_what_was_waited_before_counts(
    given: float | None, waited: float, left: float
) -> None:
    """NF-02, NF-17: a call and its repetition wait no longer than one call."""
    request = exec_pb2.RunRequest(command="x")
    if given is not None:
        request.wait_seconds = given
    spend(request, waited)
    assert request.wait_seconds == left


def test_a_call_that_waits_for_nothing_is_left_alone() -> None:
    request = host_pb2.ConnectRequest(target="x")
    spend(request, 5)
    assert request == host_pb2.ConnectRequest(target="x")


@pytest.mark.parametrize(
    ("request_", "limits"),
    [
        (file_pb2.SearchFilesRequest(pattern="x"), ["file_seconds"]),
        (host_pb2.ConnectRequest(target="x"), ["wait_max_seconds"]),
        (forward_pb2.OpenForwardRequest(target="x"), ["wait_max_seconds"]),
        (exec_pb2.StopJobRequest(job_id="x"), ["stop_grace_seconds"] * 3),
    ],
    ids=lambda value: "" if isinstance(value, list) else type(value).__name__,
)
def test_no_daemon_is_taken_for_lost_within_its_own_limits(
    request_: Message, limits: list[str]
) -> None:
    """NF-02: the buggy shim cut off at 140 s what the configuration gave 300 s."""
    found = [bounds(name) for name in limits]
    assert patience(request_, None) > sum(one.high for one in found if one is not None)


def test_a_look_at_the_daemon_alone_is_not_waited_for_as_long() -> None:
    request = exec_pb2.ListJobsRequest()
    assert patience(request, None, at_host=False) < patience(request, None)
