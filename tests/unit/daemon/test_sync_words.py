"""What goes to rsync, and what is made of what it says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.errors import InputError
from holdfast_daemon.transfer.sync import guard, outcome, rsync
from holdfast_daemon.transfer.sync.itemize import Reader, Report
from holdfast_daemon.transfer.sync.outcome import Complaints
from holdfast_daemon.transfer.sync.rsync import HOST, PLACE, SyncRequest

REQUEST = SyncRequest(upload=True, here="/here", there="/there")
SAID = b"""created directory /x
M cd+++++++++ ./
M <f+++++++++ a file
M cL+++++++++ link -> a\\#012b
M .f...p..... mode
M <f.st...... back\\#134slash
M .d..t...... sub/
M .d...p..... sub/
M *deleting   old/
M >f+++++++++ M <f+++++++++ not a second one
[sender] hiding file .netrc because of pattern .netrc
[sender] hiding file x.log because of pattern *.log

Number of files: 1,234 (reg: 1,000, dir: 234)
Total bytes sent: 12
"""


def words(**changed: object) -> list[str]:
    request = SyncRequest(**{"upload": True, "here": "/here", "there": "x", **changed})  # type: ignore[arg-type]  # any of its fields
    return rsync.words(request, ["sh"], mark="M", number=(3, 2), idle=60)


def read(pieces: list[bytes]) -> tuple[Report, bytes]:
    reader = Reader("M", 100, ["- .netrc"])
    told = b"".join(map(reader.feed, pieces)) + reader.finish()
    return reader.report, told


def test_what_is_made_of_its_lines() -> None:
    report, told = read([SAID])
    assert told.decode().splitlines() == [
        "created ./",
        "created a file",
        "created link -> a\\#012b",
        "updated mode (mode)",
        "updated back\\slash (contents, time)",
        "updated sub/ (mode)",
        "deleted old/",
        "created M <f+++++++++ not a second one",
    ]
    assert report.changes == told.decode().splitlines()
    assert (report.created, report.updated, report.deleted) == (4, 3, 1)
    assert (report.files, report.left) == (1234, [".netrc"])


@given(st.lists(st.integers(0, len(SAID)), max_size=20))
def test_how_it_comes_does_not_matter(cuts: list[int]) -> None:
    ends = sorted({0, len(SAID), *cuts})
    pieces = [SAID[a:b] for a, b in pairwise(ends)]
    assert read(pieces) == read([SAID])


@given(st.binary(max_size=300))
def test_whatever_it_prints_is_survived(data: bytes) -> None:
    read([data, b"\nM ", data])


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_no_value_is_an_option(text: str) -> None:
    """FI-02: names are behind --, patterns in the word of their own option."""
    found = words(here=f"/{text}", there=text, exclude=(text, text))
    at = found.index("--")
    assert found[at + 1].startswith("/")
    assert found[at + 2 :] == [f"{HOST}:{PLACE}"]
    free = [w for w in found[:at] if not w.startswith("--filter=- ")]
    assert free == words()[: words().index("--")]


@given(st.text(), st.text())
def test_the_words_of_the_shell_stay_words(first: str, second: str) -> None:
    """FI-02: as rsync reads --rsh: blanks divide, and a quote is doubled."""
    (given_,) = [
        word
        for word in rsync.words(
            REQUEST, [first, second], mark="", number=(3, 2), idle=1
        )
        if word.startswith("--rsh=")
    ]
    assert unquoted(given_.removeprefix("--rsh=")) == [first, second]


def unquoted(text: str) -> list[str]:
    found: list[str] = [""]
    inside = False
    at = 0
    while at < len(text):
        char = text[at]
        if char == "'" and inside and text[at + 1 : at + 2] == "'":
            found[-1] += "'"
            at += 1
        elif char == "'":
            inside = not inside
        elif char == " " and not inside:
            found.append("")
        else:
            found[-1] += char
        at += 1
    return found


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [HOST, "rsync", "--server", ".", "/etc/"],
        ["elsewhere", "rsync", "--server", "-a", ".", PLACE],
        [HOST, "sh", "-c", "x", ".", PLACE],
        [HOST, "rsync", "--daemon", ".", PLACE],
        [HOST, "rsync", "--server", "-s"],
        ["-l", "root", HOST, "rsync", "--server", ".", PLACE],
    ],
    ids=str,
)
def test_other_words_for_the_host_are_not_run(asked: list[str]) -> None:
    assert rsync.remote(asked) is None


def test_its_own_words_are_run_without_the_place() -> None:
    asked = [HOST, "rsync", "--server", "--sender", "-logDtpr", ".", PLACE]
    assert rsync.remote(asked) == ["rsync", "--server", "--sender", "-logDtpr", "."]


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("rsync  version 3.2.7  protocol version 31\n", (3, 2)),
        ("rsync  version v3.4.1  protocol", (3, 4)),
        ("rsync  version 2.6.9  protocol version 29", None),
        ("openrsync: protocol version 29\nrsync version 2.6.9 compatible", None),
        ("", None),
    ],
)
def test_versions(told: str, number: tuple[int, int] | None) -> None:
    assert rsync.version(told) == number


@pytest.mark.parametrize("pattern", ["", "/", "//", "a\0b", "x" * 5000])
def test_patterns_that_can_not_be_meant(pattern: str) -> None:
    request = SyncRequest(upload=True, here="/a", there="b", exclude=("ok", pattern))
    with pytest.raises(InputError) as caught:
        rsync.check(request, "/root")
    assert caught.value.metadata["field"] == "exclude[1]"


@pytest.mark.parametrize(
    ("code", "said", "reason", "ran"),
    [
        (23, b'rsync: [sender] send_files failed to open "/a": Permission denied (13)',
         "FILE_FAILED", "yes"),
        (11, b'rsync: [receiver] write failed on "/a": No space left on device (28)',
         "FILE_FAILED", "yes"),
        (30, b"rsync error: timeout in data send/receive (code 30)",
         "CONNECTION_LOST", "unknown"),
        (2, b"protocol version mismatch -- is your shell clean?",
         "SHELL_FAILED", "yes"),
        (12, b"rsync error: error in rsync protocol data stream (code 12)",
         "FILE_FAILED", "yes"),
        (1, b"", "FILE_FAILED", "yes"),
    ],
)  # fmt: skip
def test_exit_codes(code: int, said: bytes, reason: str, ran: str) -> None:
    complaints = Complaints()
    complaints.feed(said)
    complaints.finish()
    error = outcome.fault(REQUEST, "box", code, complaints, Report(files=3))
    assert (error.reason.value, error.ran.value) == (reason, ran)
    assert error.hint


def test_rules_below_a_directory() -> None:
    """FI-11: of whole paths, what is said of names below the root."""
    found = guard.rules("/home/me/.ssh", write=True)
    assert {"- /id_*", "+ /id_*.pub", "- /authorized_keys", "- .netrc"} <= set(found)
    assert found.index("+ /id_*.pub") < found.index("- /id_*")
    assert "- /authorized_keys" not in guard.rules("/home/me/.ssh", write=False)
    assert "- /shadow" in guard.rules("/etc", write=False)
    assert "- /ssl/private/*" in guard.rules("/mnt/etc", write=False)
    assert "- /proc/*/environ" in guard.rules("/", write=False)
    assert "- /*/environ" in guard.rules("/proc", write=False)
