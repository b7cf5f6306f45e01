"""What an attached channel sends, taken apart byte exactly. Sans-I/O."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.connection.shell import ShellFacts
from holdfast_daemon.kept import script
from holdfast_daemon.kept.reader import AttachReader, Trailer
from holdfast_daemon.kept.standing import Plan, standings
from holdfast_daemon.limits import Limits

HEADER = b"\x1eholdfast-from:h1:7:3\n"
TRAILER = b"\x1eholdfast-end:n1:exit 3\n"
HOST = Path(script.__file__).parent / "host"


def read(data: bytes, cuts: list[int]) -> tuple[AttachReader, bytes]:
    reader = AttachReader("h1", "n1")
    out = b""
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for begin, end in pairwise(edges):
        out += reader.feed(data[begin:end])
    return reader, out


LOOK_ALIKES = st.sampled_from(
    [b"\x1e", b"\x1eholdfast-end:", b"\x1eholdfast-end:n2:exit 0\n", TRAILER[:-9], b"a"]
)


@given(
    st.lists(st.binary(max_size=20) | LOOK_ALIKES, max_size=8),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_all_bytes_between_header_and_trailer_come_out(
    parts: list[bytes], cuts: list[int]
) -> None:
    """SE-06: whatever the shell prints, and however it is cut, nothing is taken out."""
    # the last part does not run into a real trailer
    body = b"".join(parts).replace(b"holdfast-end:n1:", b"")
    reader, out = read(b"noise\n" + HEADER + body + TRAILER + b"late", cuts)
    assert out == body
    assert reader.offset == 7 + len(body)
    assert reader.earliest == 3
    assert reader.trailer == Trailer(exit_code=3)


def test_every_single_cut_gives_the_same() -> None:
    """SE-06: a header or a trailer may be split anywhere."""
    data = b"motd" + HEADER + b"\x1ehold\xff\x00" + TRAILER
    for cut in range(len(data)):
        reader, out = read(data, [cut])
        assert (out, reader.trailer) == (b"\x1ehold\xff\x00", Trailer(3))


def test_a_trailer_without_a_code_is_no_success() -> None:
    """SE-08: absence of an exit code is never 0."""
    for text in (b"exit \n", b"lost\n", b"exit x\n", b"\n"):
        reader, _ = read(HEADER + b"\x1eholdfast-end:n1:" + text, [])
        assert reader.trailer == Trailer()
    reader, _ = read(HEADER + b"\x1eholdfast-end:n1:signal HUP\n", [])
    assert reader.trailer == Trailer(signal="HUP")


def test_what_is_awaited_is_not_held_back_longer_than_needed() -> None:
    """SE-03: a keystroke's echo comes at once; only a trailer's beginning waits."""
    reader = AttachReader("h1", "n1")
    reader.feed(HEADER)
    assert reader.feed(b"a") == b"a"
    assert reader.feed(b"b\x1e") == b"b"
    assert reader.feed(b"c") == b"\x1ec"


@pytest.mark.parametrize("name", ["a'b", "$(id)", "a\nb=c", 'x"; rm -rf /; "'])
def test_no_name_breaks_the_words_of_a_plan(name: str) -> None:
    """SE-05: what a caller names is never a command, nor another line of a list."""
    plan = Plan("s1", "n", name=name, cwd=name, shell=name, env={"V": name})
    text = plan.words(Limits()).decode()
    told = subprocess.run(
        [
            "/bin/sh",
            "-c",
            text + 'environment; printf "%s|%s|%s" "$V" "$hf_cwd" "$hf_meta"',
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout
    assert told.startswith(f"{name}|{name}|name={' '.join(name.split())}\nowner=\n")


def test_a_standing_is_read_and_half_of_one_is_none() -> None:
    """SE-07: what can't be understood is not reported as a shell."""
    said = b"motd\n\nident=s1\nstate=exited\nexit=3\nsize=9\n\nident=s2\nstate=odd\n\n"
    (only,) = standings(said)
    assert (only.ident, only.state, only.exit_code, only.size) == ("s1", "exited", 3, 9)


@pytest.mark.parametrize("told", ["²", "9" * 5000, "99999999999", "-1", "1_0"])
def test_what_a_host_tells_is_a_number_or_none(told: str) -> None:
    """SE-11: a digit of another script, or thousands of them, broke off the reading."""
    said = f"ident=s1\nstate=exited\nexit={told}\nseen={told[:25]}x\n\n".encode()
    (only,) = standings(said)
    assert (only.exit_code, only.seen) == (None, 0)
    reader = AttachReader("h", "n")
    reader.feed(f"\x1eholdfast-from:h:0:0\n\x1eholdfast-end:n:exit {told}\n".encode())
    assert reader.trailer == (None, None)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash --posix", "busybox ash"])
def test_every_posix_shell_reads_the_script(shell: str) -> None:
    """SE-06: the host's part is plain POSIX sh."""
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"no {shell} here")
    told = subprocess.run(
        [*shell.split(), "-n"],
        input=script.source(),
        capture_output=True,
        check=False,
        timeout=10,
    )
    assert (told.returncode, told.stderr) == (0, b"")


def test_shellcheck_finds_nothing() -> None:
    """SE-06: the parts, as one script, are clean."""
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here")
    told = subprocess.run(
        ["shellcheck", "-e", "SC2154,SC2034,SC2015", *sorted(HOST.glob("*.sh"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert told.returncode == 0, told.stdout


def test_a_call_fits_every_login_shell() -> None:
    """SE-06: fish and csh hand it on to sh in one word."""
    for family in ("posix", "fish", "csh"):
        words = script.call(ShellFacts(family), "look", "s1")
        line = words if isinstance(words, str) else words.line
        assert script.name() in line
        assert len(line) < 4096
