"""Recordings as they are read: both versions, cut ones, and what is none."""

from __future__ import annotations

import json

import pytest

from holdfast_shim.cli.cast import CastError, Event, Header, events, header


def test_version_3_tells_pauses() -> None:
    found = header('{"version": 3, "term": {"cols": 100, "rows": 30}, "title": "x"}')
    assert found == Header(3, 100, 30)
    lines = ["# a note\n", '[0.5, "o", "a"]\n', "\n", '[0.25, "r", "80x24"]\n']
    assert list(events(found, lines)) == [
        Event(0.5, "o", "a"),
        Event(0.25, "r", "80x24"),
    ]


def test_version_2_tells_times() -> None:
    found = header('{"version": 2, "width": 90, "height": 20}')
    assert found == Header(2, 90, 20)
    lines = ['[1, "o", "a"]', '[1.5, "o", "b"]', '[1.25, "o", "c"]']
    assert [e.pause for e in events(found, lines)] == [1.0, 0.5, 0.0]


def test_a_last_line_that_is_cut_off_is_left_out() -> None:
    lines = ['[0, "o", "a"]\n', '[0.1, "o", "b']
    assert len(list(events(Header(3), lines))) == 1


@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", '[-1, "o", "x"]', '["1", "o", "x"]', '[1, "o", 2]', '[1e99, "o", ""]',
     json.dumps([float("inf"), "o", ""]), "x"],
)  # fmt: skip
def test_what_is_no_event_is_named(line: str) -> None:
    reading = events(Header(3), ['[0, "o", "a"]', line, '[0, "o", "b"]'])
    assert next(reading).data == "a"
    with pytest.raises(CastError, match="line 3"):
        next(reading)


@pytest.mark.parametrize(
    "line",
    ["", "x", "[]", "{}", '{"version": 1}', '{"version": 4}',
     '{"version": 2, "width": "a"}', '{"version": 3, "term": {"cols": "a"}}'],
)  # fmt: skip
def test_what_is_no_recording_is_refused(line: str) -> None:
    with pytest.raises(CastError):
        header(line)
