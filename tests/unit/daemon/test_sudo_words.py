"""What sudo says, in whatever pieces it comes; and the words that lead to it."""

from __future__ import annotations

import subprocess

import pytest

from holdfast_daemon.exec.preamble import Preamble, compose
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.exec.sudo import Elevation, SudoReader, raised, refusal
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.secrets import Secret
from holdfast_daemon.streams import Stream

OUT, ERR = Stream.OUT, Stream.ERR
M = "holdfast:0011:"
HOST = Host(name="web", hostname="web", user="me")
WITH = Elevation(Secret("canary"), "env:X")


def reader() -> SudoReader:
    return SudoReader(Preamble(M, ""), lambda: None)


def feed(one: SudoReader, text: str, stream: Stream = ERR, size: int = 0) -> str:
    """Feed `text`, in pieces of `size`; return what belongs to the output."""
    data = text.encode()
    size = size or len(data)
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(p for d in parts for _, p in one.feed(stream, d)).decode()


@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_what_is_the_command_s_comes_through(size: int, end: str) -> None:
    """EX-17: prompt, lecture and marks stay out; a start-up file's noise does not."""
    one = reader()
    said = (
        f"noise{end}{M}sudo41{end}We trust you{end}{M}ask{end}{M}42{end}err {M}ask{end}"
    )
    assert feed(one, said, size=size) == f"noise{end}err {M}ask{end}"
    assert (one.asked, one.group, one.outer, one.done) == (1, 42, 41, True)
    assert one.verdict(lost=False) == ""
    assert one.finish() == []


def test_output_that_overtakes_the_mark_is_kept() -> None:
    """EX-17: sshd may send stdout first."""
    one = reader()
    assert feed(one, f"{M}sudo41\n") == ""
    assert feed(one, "early ", OUT) == ""
    assert one.feed(ERR, f"{M}ask{M}42\nrest".encode()) == [
        (OUT, b"early "),
        (ERR, b"rest"),
    ]


@pytest.mark.parametrize(
    ("said", "question"),
    [
        (f"{M}ask", ""),
        (f"[sudo: {M}ask] Password: ", ""),
        (f"{M}askVerification code: ", "Verification code:"),
        (f"{M}ask\nSorry\nCode\x1b: ", "Code:"),
        ("Place your finger on the reader\n", ""),
    ],
)
def test_what_else_is_asked_is_known_from_the_prompt(said: str, question: str) -> None:
    """EX-17: sudo's own prompt, and that of sudo-rs, are no question of others."""
    one = reader()
    feed(one, f"{M}sudo1\n{said}")
    assert one.question == question


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("sudo: a password is required\n", "password_needed"),
        ("sudo: interactive authentication is required\n", "password_needed"),
        ("me is not in the sudoers file.\nThis incident...\n", "not_allowed"),
        ("Sorry, user me may not run sudo on web.\n", "not_allowed"),
        ("sudo: I'm sorry me. I'm afraid I can't do that\n", "not_allowed"),
        ("sudo: sorry, you must have a tty to run sudo\n", "tty_needed"),
        (f"{M}ask\nsudo: 1 incorrect password attempt\n", "password_wrong"),
        ("sudo: Maximum 3 incorrect authentication attempts\n", "password_wrong"),
        ("sudo: ein Passwort ist notwendig {}\n", "other"),
        ("", "other"),
    ],
)
def test_an_end_without_a_beginning_is_a_no(said: str, cause: str) -> None:
    """EX-17, EX-20: told apart by sudo's words, else quoted; never the password."""
    one = reader()
    feed(one, f"{M}sudo1\n{said} canary\n")
    one.finish()
    assert one.verdict(lost=False) == cause
    assert one.verdict(lost=True) == ""
    error = refusal(cause, HOST, WITH, one)
    assert error.reason == "SUDO_REFUSED"
    assert error.ran == "no"
    assert error.hint
    assert "canary" not in f"{error.message}{error.hint}{error.metadata}{error!r}"
    if cause == "other" and said:
        assert "notwendig {}" in error.message


def test_a_host_that_never_mentions_sudo_is_not_trusted() -> None:
    """EX-17: a forced command may have run something else."""
    one = reader()
    assert feed(one, "hello\n") == ""
    assert one.finish() == [(ERR, b"hello\n")]
    assert one.verdict(lost=False) == "unheard"
    assert refusal("unheard", HOST, WITH, one).ran == "unknown"


def test_much_noise_is_passed_on_and_the_mark_still_found() -> None:
    """EX-17: a start-up file that prints megabytes."""
    one = reader()
    noise = "x" * 200_000
    seen = feed(one, noise, size=30_000) + feed(one, f"{M}sudo1\n{M}2\n", size=3)
    assert seen == noise
    assert one.begun


def test_the_words_run_as_they_should_without_sudo_and_as_root(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """EX-17: quoting holds through both shells; the password is in no word."""
    command = "printf '%s|' \"it's\" '$HOME' \\\\x; echo a\necho b"
    inner = compose(ExecRequest(command=command), strict=True)
    outer = raised(inner, WITH)
    line = outer.script(inner.script(command).line).line
    assert "canary" not in line
    tools = tmp_path_factory.mktemp("bin")
    fake = tools / "sudo"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; "$@"\n')
    fake.chmod(0o755)
    told = subprocess.run(
        ["/bin/sh", "-c", line],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": f"{tools}:/usr/bin:/bin", "SHELL": "/bin/sh"},
    )
    assert told.stdout == "it's|$HOME|\\x|a\nb\n"
    marks = told.stderr.split()
    assert [mark.startswith(inner.marker) for mark in marks] == [True, True]
    assert marks[0].removeprefix(inner.marker).startswith("sudo")
