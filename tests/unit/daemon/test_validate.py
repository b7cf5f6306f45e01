from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from fakes.probe import needs, probe, wrong
from holdfast.v1 import admin_pb2, exec_pb2
from holdfast_daemon.errors import InputError, Ran, Reason
from holdfast_daemon.rpc.validate import validate

if TYPE_CHECKING:
    from google.protobuf.message import Message

WHOLE: dict[str, Any] = {
    "text": "x",
    "content": "",
    "items": ["a"],
    "mode": 1,
    "part": {"word": "w"},
}


def refusal(message: Message) -> InputError:
    with pytest.raises(InputError) as caught:
        validate(message)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.ran is Ran.NO
    return caught.value


def test_a_right_request_passes() -> None:
    validate(exec_pb2.RunRequest(command="true", env={"A": "b"}, timeout_seconds=0))
    validate(admin_pb2.HelloRequest())
    validate(needs(**WHOLE))
    validate(probe())


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("text", "text is missing or blank"),
        ("content", "content is missing"),
        ("items", "items must have at least one entry"),
        ("mode", "mode must be one of fast, slow"),
        ("part", "part is missing"),
    ],
)
def test_what_is_required_must_be_given(missing: str, said: str) -> None:
    error = refusal(needs(**{k: v for k, v in WHOLE.items() if k != missing}))
    assert (error.metadata["field"], error.message) == (missing, said)


@pytest.mark.parametrize("command", ["", " ", "\n\t ", "\u00a0"])
def test_a_blank_command_is_refused(command: str) -> None:
    """EX-19: blank refused."""
    error = refusal(exec_pb2.RunRequest(command=command))
    assert error.message == "command is missing or blank"


def test_what_is_required_inside_is_named_by_its_path() -> None:
    error = refusal(needs(**WHOLE | {"part": {}}))
    assert error.metadata["field"] == "part.word"
    error = refusal(probe(parts=[{"word": "a"}, {"word": " "}]))
    assert error.metadata["field"] == "parts[1].word"
    error = refusal(probe(by_name={"k": {}}))
    assert error.metadata["field"] == "by_name.k.word"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"percent": -1}, "percent", "percent must be between 0 and 100, not -1"),
        ({"percent": 100.5}, "percent", "percent must be between 0 and 100, not 100.5"),
        (
            {"percent": math.nan},
            "percent",
            "percent must be between 0 and 100, not nan",
        ),
        ({"level": -2}, "level", "level must be at least -1.5, not -2"),
        ({"level": math.inf}, "level", "level must be at least -1.5, not inf"),
        ({"most": 10}, "most", "most must be at most 9, not 10"),
        ({"real": math.inf}, "real", "real must be a finite number, not inf"),
        ({"real_list": [0, math.nan]}, "real_list[1]", None),
        ({"by_flag": {True: math.nan}}, "by_flag.True", None),
        (
            {"part": {"word": "a", "port": 65536}},
            "part.port",
            "part.port must be between 1 and 65535, not 65536",
        ),
    ],
)
def test_numbers_stay_in_their_range(
    fields: dict[str, Any], field: str, said: str | None
) -> None:
    error = refusal(probe(**fields))
    assert error.metadata["field"] == field
    assert said is None or error.message == said


def test_the_ends_of_a_range_are_in_it() -> None:
    for value in (0, 100):
        validate(probe(percent=value))
    validate(probe(level=-1.5, most=9))


@pytest.mark.parametrize("name", ["abc1", "1abc", "abc\n", ""])
def test_a_pattern_holds_for_the_whole_value(name: str) -> None:
    assert refusal(probe(name=name)).message == "name must match [a-z]+"


def test_a_value_that_matches_passes() -> None:
    validate(probe(name="abc"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": "a\0"}, "text"),
        ({"text_list": ["a", "\0"]}, "text_list[1]"),
        ({"env": {"A": "\0"}}, "env.A"),
        ({"env": {"\0": "a"}}, "env.'\\x00'"),
        ({"part": {"word": "\0a"}}, "part.word"),
        ({"secret": "hunter2\0"}, "secret"),
    ],
)
def test_nul_is_refused_in_any_text(fields: dict[str, Any], field: str) -> None:
    """SC-10: NUL."""
    error = refusal(probe(**fields))
    assert error.metadata["field"] == field
    assert error.message == f"{field} must not contain NUL"


def test_bytes_may_hold_nul() -> None:
    validate(probe(data=b"\0"))


def test_an_enum_value_must_be_known() -> None:
    assert refusal(probe(mode=7)).message == "mode must be one of fast, slow, not 7"
    assert refusal(probe(mode_list=[1, 7])).metadata["field"] == "mode_list[1]"
    validate(probe(mode=2))


def test_a_planned_field_is_refused_not_ignored() -> None:
    error = refusal(probe(planned="x"))
    assert error.message == "planned does not work in this release"


def test_a_contract_that_can_not_be_checked_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="flag is required"):
        validate(wrong())


def test_a_stream_frame_is_checked_inside() -> None:
    frame = exec_pb2.InteractRequest(start=exec_pb2.RunRequest(command=" "))
    assert refusal(frame).metadata["field"] == "start.command"


@given(st.binary())
def test_whatever_parses_is_right_or_refused(data: bytes) -> None:
    for message in (exec_pb2.RunRequest(), probe()):
        try:
            message.ParseFromString(data)
        except DecodeError:
            continue
        try:
            validate(message)
        except InputError as error:
            error.metadata["field"].encode()
            error.message.encode()
