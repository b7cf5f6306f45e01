"""A call that is made again after a broken pipe keeps to its time."""

from __future__ import annotations

import pytest

from holdfast.v1 import exec_pb2, host_pb2
from holdfast_shim.calls import spend


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
