"""One value set in a JSON text, every other byte as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_shim.cli.json_text import JsonText

NEW = {"command": "/x", "args": []}


def put(text: str, *path: str, value: object = 1, comments: bool = False) -> str:
    """Return `text` with a value."""
    file = JsonText(text, comments=comments)
    file.put(path, value)
    return file.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "a": 1\n}\n'),
        ("  \n", '{\n  "a": 1\n}\n'),
        ("{}", '{\n  "a": 1\n}'),
        ('{"b": 2}', '{"b": 2, "a": 1}'),
        ('{"a": 2}', '{"a": 1}'),
        ('{"a": 2, "a": 3}', '{"a": 2, "a": 1}'),
        ('{"a": {"a": [3]}}', '{"a": 1}'),
        ('{\n\t"b": "}"\n}\n', '{\n\t"b": "}",\n\t"a": 1\n}\n'),
        ('{\r\n  "b": 2\r\n}', '{\r\n  "b": 2,\r\n  "a": 1\r\n}'),
        ('{\n    "b": {\n    }\n}', '{\n    "b": {\n    },\n    "a": 1\n}'),
        ('{ "b": 2\n}', '{ "b": 2,\n  "a": 1\n}'),
        ('{\n  "b": 2}', '{\n  "b": 2,\n  "a": 1\n}'),
    ],
)
def test_only_the_value_is_new(before: str, after: str) -> None:
    assert put(before, "a") == after
    json.loads(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '{\n  // mine\n  "b": 2, // two\n}\n',
            '{\n  // mine\n  "b": 2, // two\n  "a": 1\n}\n',
        ),
        ('{\n  "b": 2 // two\n}\n', '{\n  "b": 2, // two\n  "a": 1\n}\n'),
        (
            '{\n  "b": 2 /* , */ // }\n  // "a": 0\n}\n',
            '{\n  "b": 2, /* , */ // }\n  "a": 1\n  // "a": 0\n}\n',
        ),
        ("{ // empty\n}", '{ // empty\n  "a": 1\n}'),
        ('{"b": [1,],}', '{"b": [1,], "a": 1,}'),
        ('{"b": "// no", /* c */ "a": 0}', '{"b": "// no", /* c */ "a": 1}'),
        ('{"b": "\\"//", "c": ",}"}', '{"b": "\\"//", "c": ",}", "a": 1}'),
    ],
)
def test_comments_stay_where_they_were(before: str, after: str) -> None:
    assert put(before, "a", comments=True) == after
    JsonText(after, comments=True)
    if '"c"' not in before:
        with pytest.raises(ValueError, match="line"):
            JsonText(before)


def test_what_lies_between_is_made() -> None:
    assert json.loads(put("{}", "a", "b", "c")) == {"a": {"b": {"c": 1}}}
    assert json.loads(put('{"a": null}', "a", "b")) == {"a": {"b": 1}}
    told = put('{\n  "a": {\n    "x": 1\n  }\n}', "a", "b", value=NEW)
    assert told == (
        '{\n  "a": {\n    "x": 1,\n    "b": {\n      "command": "/x",\n'
        '      "args": []\n    }\n  }\n}'
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "it is not an object"),
        ("3", "it is not an object"),
        ("{", "line 1"),
        ('{"a": 1} x', "Extra data"),
        ('{"a": 1,}', "line 1 column"),
        ("{" * 100_000, "line 1"),
        ('{"a":' * 100_000, "nested too deeply|line 1"),
        ('{"a": [1]}', "a is not an object"),
    ],
)
def test_what_is_no_object_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        JsonText(text).get("a", "b")
    with pytest.raises(ValueError, match=why):
        put(text, "a", "b")


_KEYS = st.sampled_from(["a", "b", "mcpServers", 'q"//', ",}", "\u2028"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.dictionaries(_KEYS, _VALUES),
    st.lists(_KEYS, min_size=1, max_size=3),
    _VALUES,
    st.sampled_from([None, 1, 2, 4, "\t"]),
)
def test_any_value_in_any_text(
    data: dict[str, object], path: list[str], value: object, indent: int | str | None
) -> None:
    """It reads as a dictionary with the value set would, however it is laid out."""
    text = json.dumps(data, indent=indent)
    wanted = json.loads(text)
    there = wanted
    for key in path[:-1]:
        if there.get(key) is None:
            there[key] = {}
        there = there[key]
        if not isinstance(there, dict):
            with pytest.raises(ValueError, match="is not an object"):
                put(text, *path, value=value)
            return
    there[path[-1]] = value
    assert json.loads(put(text, *path, value=value)) == wanted
    assert json.loads(put(text, *path, value=value, comments=True)) == wanted
