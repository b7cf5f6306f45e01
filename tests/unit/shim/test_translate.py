from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakes.probe import probe
from holdfast.v1 import admin_pb2, exec_pb2
from holdfast_shim.translate import ArgumentError, fill, to_json

if TYPE_CHECKING:
    from google.protobuf.message import Message


def filled(**arguments: Any) -> Any:
    message: Any = probe()
    fill(message, arguments)
    return message


def refusal(message: Message, arguments: Any) -> ArgumentError:
    with pytest.raises(ArgumentError) as caught:
        fill(message, arguments)
    assert str(caught.value) == caught.value.message
    caught.value.message.encode()  # can always be sent
    return caught.value


class TestNearlyRight:
    @pytest.mark.parametrize(
        ("value", "number"),
        [(5, 5), ("5", 5), ("-3", -3), ("+7", 7), (" 8 ", 8), (5.0, 5), (-2.0, -2)],
    )
    def test_whole_numbers_in_any_spelling(self, value: Any, number: int) -> None:
        assert filled(small=value).small == number

    @pytest.mark.parametrize(
        ("value", "number"),
        [
            (5, 5.0),
            (1.5, 1.5),
            ("1.5", 1.5),
            ("-.5", -0.5),
            ("1e3", 1000.0),
            ("7", 7.0),
        ],
    )
    def test_numbers_in_any_spelling(self, value: Any, number: float) -> None:
        assert filled(real=value).real == number

    @pytest.mark.parametrize("value", [True, "true", "True", " TRUE "])
    def test_true_in_any_spelling(self, value: Any) -> None:
        assert filled(flag=value).flag is True

    @pytest.mark.parametrize("value", [False, "false", "False"])
    def test_false_in_any_spelling(self, value: Any) -> None:
        assert filled(flag_maybe=value).HasField("flag_maybe")

    def test_objects_and_lists_as_json_text(self) -> None:
        message = filled(
            part='{"word": "a", "port": "22"}',
            parts='[{"word": "b"}]',
            env='{"A": "b"}',
            small_list="[1, 2]",
        )
        assert (message.part.word, message.part.port) == ("a", 22)
        assert message.parts[0].word == "b"
        assert dict(message.env) == {"A": "b"}
        assert list(message.small_list) == [1, 2]

    def test_null_is_as_if_left_out(self) -> None:
        message = filled(text=None, part=None, env={"A": None, "B": "c"}, mode=None)
        assert message.ListFields() == [
            (message.DESCRIPTOR.fields_by_name["env"], {"B": "c"})
        ]

    def test_the_argument_that_gemini_adds_is_ignored_at_the_top_only(self) -> None:
        """TR-08: Gemini CLI adds wait_for_previous to every call."""
        assert filled(wait_for_previous=True).ListFields() == []
        error = refusal(probe(), {"part": {"wait_for_previous": True}})
        assert error.field == "part.wait_for_previous"

    def test_an_unlisted_field_is_taken(self) -> None:
        assert filled(unlisted="x").unlisted == "x"


class TestTaken:
    def test_text_of_any_script(self) -> None:
        assert filled(text="naïve ✓ 🎉\n\x1b").text == "naïve ✓ 🎉\n\x1b"

    def test_enum_labels(self) -> None:
        message = filled(mode="slow", mode_list=["fast", "slow"])
        assert (message.mode, list(message.mode_list)) == (2, [1, 2])

    def test_bytes_as_base64(self) -> None:
        assert filled(data="AP8=").data == b"\x00\xff"

    def test_an_empty_object_is_present(self) -> None:
        assert filled(part={}).HasField("part")

    def test_zero_is_present_where_it_means_something(self) -> None:
        assert filled(count_maybe=0).HasField("count_maybe")

    def test_maps_with_keys_of_any_kind(self) -> None:
        message = filled(
            by_number={"1": True, "-2": "false"},
            by_flag={"true": 1.5},
            by_name={"x": {"word": "y"}},
        )
        assert dict(message.by_number) == {1: True, -2: False}
        assert dict(message.by_flag) == {True: 1.5}
        assert message.by_name["x"].word == "y"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("small", -(2**31)),
            ("small", 2**31 - 1),
            ("big", -(2**63)),
            ("big", 2**63 - 1),
            ("count", 2**32 - 1),
            ("size_bytes", 2**64 - 1),
        ],
    )
    def test_the_ends_of_every_range(self, field: str, value: int) -> None:
        assert getattr(filled(**{field: value}), field) == value
        assert getattr(filled(**{field: str(value)}), field) == value


REFUSALS: list[tuple[str, Any, str | None]] = [
    ("text", 5, "text must be text, not a number"),
    ("text", None, None),
    ("text", ["a"], "text must be text, not a list"),
    ("text", "a\0b", "text must not contain NUL (\\u0000)"),
    ("text", "a\ud800", "text has half a surrogate pair at character 1"),
    ("text_list", ["a", "\0"], "text_list[1] must not contain NUL (\\u0000)"),
    ("text_list", [None], "text_list[0] must be text, not null"),
    ("text_list", "a", "text_list must be a list, not text"),
    ("text_list", {"a": 1}, "text_list must be a list, not an object"),
    ("text_list", "[1", "text_list must be a list, not text"),
    ("text_list", "[" * 100_000, "text_list must be a list, not text"),
    ("flag", 1, "flag must be true or false, not a number"),
    ("flag", "yes", "flag must be true or false, not 'yes'"),
    ("small", True, "small must be a whole number, not true"),
    ("small", 1.5, "small must be a whole number, not 1.5"),
    ("small", "5 s", "small must be a whole number, not '5 s'"),
    ("small", "", "small must be a whole number, not ''"),
    ("small", "\uff15", "small must be a whole number, not '\uff15'"),
    ("small", math.nan, "small must be a whole number, not nan"),
    ("small", math.inf, "small must be a whole number, not inf"),
    ("small", {}, "small must be a whole number, not an object"),
    ("small", 2**31, f"small must be between {-(2**31)} and {2**31 - 1}"),
    ("big", 10**5000, f"big must be between {-(2**63)} and {2**63 - 1}"),
    ("big", 1e300, f"big must be between {-(2**63)} and {2**63 - 1}"),
    ("big", "9" * 5000, f"big must be a whole number, not '{'9' * 60}'…"),
    ("count", -1, f"count must be between 0 and {2**32 - 1}"),
    ("most", 2**31, f"most must be between {-(2**31)} and 9"),
    ("real", "x", "real must be a number, not 'x'"),
    ("real", "NaN", "real must be a number, not 'NaN'"),
    ("real", "Infinity", "real must be a number, not 'Infinity'"),
    ("real", False, "real must be a number, not false"),
    ("real", math.nan, "real must be a finite number"),
    ("real", -math.inf, "real must be a finite number"),
    ("real", 10**400, "real must be a finite number"),
    ("real", "1e999", "real must be a finite number"),
    ("short_real", 1e39, "short_real must be at most 3.403e+38"),
    ("mode", "rapid", "mode must be one of fast, slow, not 'rapid'"),
    ("mode", "MODE_FAST", "mode must be one of fast, slow, not 'MODE_FAST'"),
    ("mode", "", "mode must be one of fast, slow, not ''"),
    ("mode", 1, "mode must be one of fast, slow, not a number"),
    ("data", "a", "data must be base64"),
    ("data", "ä", "data must be base64"),
    ("data", 1, "data must be text, not a number"),
    ("part", [], "part must be an object, not a list"),
    ("part", "5", "part must be an object, not text"),
    ("env", {"A": 1}, "env.A must be text, not a number"),
    ("env", {"A B": "\0"}, "env.'A B' must not contain NUL (\\u0000)"),
    ("env", {"\0": "x"}, "env.'\\x00' must not contain NUL (\\u0000)"),
    ("by_number", {"x": True}, "by_number.x must be a whole number, not 'x'"),
]


class TestRefused:
    @pytest.mark.parametrize("case", range(len(REFUSALS)))
    def test_the_field_and_the_fault_are_named(self, case: int) -> None:
        """EX-20: bad input is told by name."""
        field, value, said = REFUSALS[case]
        if said is None:
            assert filled(**{field: value}).ListFields() == []
            return
        error = refusal(probe(), {field: value})
        assert error.message == said
        assert error.message.startswith(error.field)

    def test_a_field_inside_is_named_by_its_path(self) -> None:
        error = refusal(probe(), {"parts": [{"word": "a"}, {"port": "x"}]})
        assert error.field == "parts[1].port"
        error = refusal(probe(), {"by_name": {"k": {"port": []}}})
        assert error.field == "by_name.k.port"

    def test_an_unknown_argument_names_the_known_and_the_nearest(self) -> None:
        error = refusal(exec_pb2.StopJobRequest(), {"jobid": "x"})
        assert error.field == "jobid"
        assert error.message == (
            "unknown argument jobid; did you mean job_id? (known: job_id, signal)"
        )

    def test_a_message_without_fields_says_so(self) -> None:
        error = refusal(admin_pb2.ReloadRequest(), {"zzz": 1})
        assert error.message == "unknown argument zzz (it takes none)"

    @pytest.mark.parametrize("name", ["", "a b", "\ud800", "\0", "x" * 5000])
    def test_an_unknown_argument_of_any_name_can_be_told(self, name: str) -> None:
        assert len(refusal(exec_pb2.StopJobRequest(), {name: 1}).message) < 5200

    def test_a_hidden_field_is_unknown(self) -> None:
        error = refusal(probe(), {"hidden": "x"})
        assert error.message.startswith("unknown argument hidden")
        assert "hidden," not in error.message

    def test_a_planned_field_says_that_it_does_not_work_yet(self) -> None:
        error = refusal(probe(), {"planned": "x"})
        assert error.message == "planned does not work in this release"

    def test_neither_is_named_among_the_known(self) -> None:
        error = refusal(probe(), {"x": 1})
        assert "planned" not in error.message
        error = refusal(exec_pb2.RunRequest(), {"x": 1})
        assert "timeout_ms" not in error.message

    @pytest.mark.parametrize("arguments", [None, [], 5, True, "x", "[]"])
    def test_arguments_that_are_no_object(self, arguments: Any) -> None:
        error = refusal(probe(), arguments)
        assert error.message.startswith("arguments must be an object")

    def test_a_refused_value_that_may_be_a_secret_is_not_repeated(self) -> None:
        """SC-12: no secret in an error."""
        for value in (["hunter2"], {"hunter2": 1}, "hunter2\0", "hunter2\ud800"):
            error = refusal(
                exec_pb2.RunRequest(), {"connect": {"password": value}, "command": "x"}
            )
            assert "hunter2" not in error.message


class TestShown:
    def test_integers_stay_integers_and_names_stay_as_they_are(self) -> None:
        message = exec_pb2.ExecResult(stdout_bytes=2**63, exit_code=0, job_id="j1")
        shown = to_json(message)
        assert shown["stdout_bytes"] == 2**63
        assert isinstance(shown["stdout_bytes"], int)
        assert shown["exit_code"] == 0

    def test_what_is_not_set_is_absent_only_where_absence_means_something(self) -> None:
        """EX-01: no exit code is never 0."""
        shown = to_json(exec_pb2.ExecResult())
        assert "exit_code" not in shown
        assert "status" not in shown
        assert (shown["ok"], shown["stdout"], shown["stdout_bytes"]) == (False, "", 0)

    def test_enums_are_labels_and_bytes_base64(self) -> None:
        shown = to_json(probe(mode=2, mode_list=[1, 2], data=b"\x00\xff"))
        assert (shown["mode"], shown["mode_list"]) == ("slow", ["fast", "slow"])
        assert shown["data"] == "AP8="

    def test_an_enum_value_of_a_newer_contract_is_its_number(self) -> None:
        assert to_json(probe(mode=9))["mode"] == "9"

    def test_maps_have_text_keys_as_json_demands(self) -> None:
        shown = to_json(probe(by_number={-1: True}, by_flag={True: 0.5}))
        assert (shown["by_number"], shown["by_flag"]) == ({"-1": True}, {"true": 0.5})

    def test_what_json_has_no_number_for_is_absent(self) -> None:
        shown = to_json(probe(real=math.nan, real_maybe=math.inf))
        assert "real" not in shown
        assert "real_maybe" not in shown

    def test_hidden_fields_are_shown_on_request_secrets_never(self) -> None:
        message = probe(hidden="h", secret="hunter2", planned="p", unlisted="u")
        assert not to_json(message).keys() & {"hidden", "secret", "planned", "unlisted"}
        everything = to_json(message, hidden=True)
        assert everything["hidden"] == "h"
        assert "secret" not in everything

    def test_hidden_is_passed_to_what_is_inside(self) -> None:
        response = exec_pb2.RunResponse(result=exec_pb2.ExecResult(lines=3))
        assert "lines" not in to_json(response)["result"]
        assert to_json(response, hidden=True)["result"]["lines"] == 3


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
numbers = st.floats(allow_nan=False, allow_infinity=False)
int32s = st.integers(-(2**31), 2**31 - 1)
parts = st.fixed_dictionaries({"word": texts, "port": st.integers(0, 2**32 - 1)})
labels = st.sampled_from(["fast", "slow"])

round_trips = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "text_list": st.lists(texts),
        "flag_maybe": st.booleans(),
        "small_maybe": int32s,
        "big": st.integers(-(2**63), 2**63 - 1),
        "count_list": st.lists(st.integers(0, 2**32 - 1)),
        "size_bytes": st.integers(0, 2**64 - 1),
        "real": numbers,
        "short_real": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "mode": labels,
        "mode_list": st.lists(labels),
        "part": parts,
        "parts": st.lists(parts),
        "env": st.dictionaries(texts, texts),
        "by_number": st.dictionaries(int32s.map(str), st.booleans()),
        "by_name": st.dictionaries(texts, parts),
    },
)

# Anything a JSON parser may hand over, with keys that often hit.
names = st.sampled_from(sorted(f.name for f in probe().DESCRIPTOR.fields)) | st.text()
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**18, 10**30)
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Cc"]))
    | st.sampled_from(["5", "true", "{}", "[]", '{"word":"a"}', "[1]", "fast", "AA=="]),
    lambda inner: st.lists(inner) | st.dictionaries(names | st.just("word"), inner),
    max_leaves=12,
)


@given(round_trips)
def test_what_is_taken_is_shown_again(arguments: dict[str, Any]) -> None:
    shown = to_json(filled(**arguments))
    for name, value in arguments.items():
        assert shown[name] == value
    json.dumps(shown, allow_nan=False).encode()


@given(round_trips)
def test_what_survives_the_wire_is_shown_alike(arguments: dict[str, Any]) -> None:
    message = filled(**arguments)
    again: Any = probe()
    again.ParseFromString(message.SerializeToString())
    assert to_json(again) == to_json(message)


@given(st.dictionaries(names, anything))
@example({"text": "\ud800"})
@example({"env": {"\ud800": "x"}})
@example({"big": 10**5000})
@example({"parts": "[{}, 5]"})
def test_arbitrary_json_is_taken_or_refused_by_argument_error(
    arguments: dict[str, Any],
) -> None:
    message: Any = probe()
    try:
        fill(message, arguments)
    except ArgumentError as error:
        error.message.encode()
        error.field.encode()
    else:
        message.SerializeToString()
        json.dumps(to_json(message), allow_nan=False).encode()


@given(anything)
def test_arguments_of_any_shape_are_taken_or_refused(arguments: Any) -> None:
    with contextlib.suppress(ArgumentError):
        fill(exec_pb2.RunRequest(), arguments)


@pytest.mark.parametrize(
    ("name", "near"),
    [("cmd", "command"), ("timeout", "timeout_seconds"), ("enviroment", "")],
)
def test_an_unknown_argument_is_not_taken_for_another(name: str, near: str) -> None:
    message = refusal(exec_pb2.RunRequest(), {name: "x"}).message
    assert ("did you mean" in message) == bool(near)
    assert f"did you mean {near}? (" in message or not near
