"""The scripts about files, in every POSIX shell that is here, and their answers."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_daemon.errors import InputError, StateError
from holdfast_daemon.file import (
    content,
    editing,
    finding,
    globs,
    listing,
    nearest,
    reading,
    searching,
    writing,
)
from holdfast_daemon.file.dialect import extended
from holdfast_daemon.file.editing import Edit
from holdfast_daemon.file.script import Reply, Script, take_apart
from holdfast_daemon.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = {
    "dash": ["dash"],
    "bash": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
    "sh": ["sh"],
}
LIMITS = Limits()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} here: run packaging/test-packages.sh")
    return words


def run(shell: list[str], script: Script, data: bytes = b"") -> Reply:
    done = subprocess.run(
        [*shell, "-c", script.command],
        check=False,
        input=script.text + data,
        capture_output=True,
        timeout=20,
    )
    reply = take_apart(b"noise of start-up files\n" + done.stdout, script.mark)
    assert reply is not None, done
    return reply


def test_a_file_goes_there_and_back(shell: list[str], tmp_path: Path) -> None:
    """FI-10: written, appended to, read whole and in part, by each shell."""
    path = tmp_path / "it's a\nname"
    data = b"one\r\n\0\xff\ntwo"
    request = writing.WriteRequest(str(path), data)
    assert run(shell, writing.script(request, LIMITS), data).ok
    assert path.read_bytes() == data
    refused = run(shell, writing.script(request, LIMITS), data)
    assert (refused.ok, refused.fields[0]) == (False, "exists")
    more = writing.WriteRequest(str(path), data, writing.Mode.APPEND)
    told = writing.answer(
        data, run(shell, writing.script(more, LIMITS), data), append=True
    )
    assert path.read_bytes() == data * 2
    assert (told.created, told.size) == (False, len(data) * 2)
    path.write_bytes(b"a\nb\nc\n" * 100_000)
    wanted = reading.ReadRequest(str(path), first=2, last=3)
    reply = run(shell, reading.script(wanted, LIMITS))
    answer = reading.answer(wanted, reply, "", LIMITS)
    assert (answer.piece.text, answer.lines) == ("b\nc\n", 300_000)
    assert (answer.piece.first, answer.piece.last) == (2, 3)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_input_that_is_cut_off_replaces_nothing(
    shell: list[str], tmp_path: Path
) -> None:
    """FI-13: the connection was lost while the text was under way."""
    path = tmp_path / "a"
    path.write_text("old")
    data = b"x" * 1000
    request = writing.WriteRequest(str(path), data, writing.Mode.OVERWRITE)
    reply = run(shell, writing.script(request, LIMITS), data[:500])
    assert (reply.ok, reply.fields[0]) == (False, "short")
    script = writing.edit_script(str(path), LIMITS)
    reply = run(shell, script, b"1000\n" + data[:500])
    assert reply.ok
    assert reply.parts[0] == b"old"
    assert b"short" in reply.parts[3]
    assert run(shell, script, b"quit\n").ok
    assert run(shell, script, b"").ok
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_directories_and_names(shell: list[str], tmp_path: Path) -> None:
    """FI-07, FI-08, FI-09: by each shell."""
    for name in ("a b.py", "new\nline.py", "-x.py"):
        (tmp_path / name).write_text("needle\n")
    listed = listing.script(listing.ListRequest(str(tmp_path)), LIMITS)
    reply = run(shell, listed)
    body = b"".join(reply.parts)
    told = listing.answer(reply, listed.mark, body, "", LIMITS)
    assert [one.path for one in told.entries] == ["-x.py", "a b.py", "new\nline.py"]
    wanted = finding.FindRequest("**/*.py", str(tmp_path))
    reply = run(shell, finding.script(wanted, LIMITS))
    found = finding.answer(wanted, reply.parts[0], "", LIMITS)
    assert len(found.matches) == 3
    search = searching.SearchRequest("need.e", str(tmp_path))
    reply = run(shell, searching.script(search, LIMITS))
    matches = searching.answer(search, reply.fields, reply.parts[0], "", LIMITS).matches
    assert len(matches) == 3


def scripts() -> list[Script]:
    limits = LIMITS
    return [
        reading.script(reading.ReadRequest("a", first=2), limits),
        writing.script(writing.WriteRequest("~/a/b", b"", make_parents=True), LIMITS),
        writing.edit_script("a", limits),
        listing.script(listing.ListRequest("a"), limits),
        finding.script(finding.FindRequest("*.{py,js}"), limits),
        searching.script(searching.SearchRequest("a", glob="*.py"), limits),
    ]


def test_shellcheck_finds_nothing_new(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: run packaging/test-packages.sh")
    for script in scripts():
        path = tmp_path / "script.sh"
        path.write_bytes(b"#!/bin/sh\n" + script.text.rsplit(b"\nend-", 1)[0] + b"\n")
        # Words are split on purpose with `set -f`; the rest is style of one-liners.
        done = subprocess.run(
            ["shellcheck", "-S", "error", "-s", "sh", str(path)],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stdout


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=20))
def test_an_edit_changes_one_place_only(before: bytes, after: bytes, new: str) -> None:
    """FI-06, FI-10: every other byte stays."""
    data = before + b"<<one place>>" + after
    encoding = content.encoding_of(data)
    if not encoding:
        with pytest.raises(StateError):
            editing.apply(data, [Edit("<<one place>>", new)], "a")
        return
    try:
        raw = new.encode(encoding)
    except UnicodeEncodeError:
        return
    told = editing.apply(data, [Edit("<<one place>>", new)], "a")
    assert told == before + raw + after


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 400))
def test_pages_are_the_file(data: bytes, first: int, size: int) -> None:
    """FI-03: pages put together are what was there."""
    if not content.encoding_of(data):
        return
    part = content.lines_of(data, first, None)
    piece = content.piece(part, first, size)
    if piece is None:
        return
    raw = piece.text.encode(piece.encoding)
    assert part.startswith(raw)
    assert len(raw) <= size
    assert piece.truncated is (len(part) > size)
    if not piece.midline:
        assert content.lines_of(data, piece.last + 1, None) == part[len(raw) :]


@given(st.text("ab*?[]!.{},/", min_size=1, max_size=12))
@settings(max_examples=300)
def test_a_coarse_glob_misses_nothing(glob: str) -> None:
    """FI-09: what the exact one takes, `find` was asked for."""
    try:
        found = globs.expand(glob)
    except InputError:
        return
    exact = globs.matcher(found)
    for path in ("a", "b/a", "a/b/ab", ".a", "a.b", "a,b", "{a}", "a/.b", "[a]"):
        if exact.fullmatch(path):
            assert any(fnmatch.fnmatchcase(path, globs.coarse(one)) for one in found), (
                path
            )


@pytest.mark.parametrize(
    ("perl", "wanted"),
    [
        (r"\d+", "[0-9]+"),
        (r"[\d.]+\s", "[0-9.]+[[:space:]]"),
        (r"(?:a|b)", "(a|b)"),
        (r"[]a]", "[]a]"),
        (r"\.", r"\."),
        (r"a.*?b", None),
        (r"(?=a)", None),
        (r"\x41", None),
        ("a{2,3}", "a{2,3}"),
    ],
)
def test_a_pattern_for_grep_e(perl: str, wanted: str | None) -> None:
    """FI-08: what both have, and nothing else."""
    assert extended(perl) == wanted


@given(st.text(max_size=300), st.text(min_size=1, max_size=60))
def test_the_nearest_place_is_one_of_the_file(text: str, old: str) -> None:
    """FI-06: a line that is there, or none."""
    near = nearest.nearest(text, old)
    if near is not None:
        assert 1 <= near.line <= text.count("\n") + 1
