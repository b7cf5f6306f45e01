from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_daemon import logs
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.limits import Limits
from holdfast_daemon.secrets import Redactor, Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CANARY = "c4nary-p4ss"
log = logs.logger("holdfast_daemon.exec.runner")


class Sent:
    """What reached a handler; the same face for stderr, file and journal."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.stream = io.StringIO()
        self.path = directory / "log" / "holdfastd.log"
        self.fields: list[dict[str, Any]] = []
        self.handler = self._make()

    def _make(self) -> logging.Handler:
        if self.kind == "stderr":
            return logs.stream_handler(self.stream)
        if self.kind == "marked":
            return logs.stream_handler(self.stream, marked=True)
        if self.kind == "file":
            return logs.file_handler(self.path, Limits())
        pytest.importorskip("systemd.journal", reason="the extra is not installed")
        handler = logs.journal_handler(self._send)
        assert handler is not None
        return handler

    def _send(self, message: str, **fields: object) -> None:
        self.fields.append({"MESSAGE": message, **fields})

    @property
    def text(self) -> str:
        if self.kind == "file":
            return self.path.read_text()
        if self.kind == "journal":
            return repr(self.fields)
        return self.stream.getvalue()


@pytest.fixture
def redactor() -> Redactor:
    found = Redactor()
    found.add(CANARY)
    return found


@pytest.fixture(params=["stderr", "marked", "file", "journal"])
def sent(
    request: pytest.FixtureRequest,
    redactor: Redactor,
    tmp_path: Path,
) -> Iterator[Sent]:
    found = Sent(request.param, tmp_path)
    logs.install("debug", redactor, [found.handler])
    yield found
    logs.shutdown()


@pytest.fixture(autouse=True)
def clean_up() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("holdfast_daemon")
    levels = root.level, ours.level
    yield
    logs.shutdown()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


class Shy:
    """An object whose text is a secret."""

    def __str__(self) -> str:
        return CANARY

    def __repr__(self) -> str:
        return f"<{CANARY}>"


class Broken:
    def __str__(self) -> str:
        raise ValueError(CANARY)


def fail(depth: int = 0) -> None:
    if depth:
        error = ValueError(f"inner {CANARY}")
        error.add_note(f"note {CANARY}")
        raise error
    try:
        fail(1)
    except ValueError as inner:
        raise RuntimeError(f"outer {CANARY}") from inner


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take away pytest's handlers, which come after the fixtures.

    They fail on purpose at calls whose arguments don't fit, and keep surrogates.
    """

    def take_away() -> None:
        root = logging.getLogger()
        ours = [
            item for item in root.handlers if type(item).__module__ == logs.__name__
        ]
        monkeypatch.setattr(root, "handlers", ours)

    return take_away


def test_no_canary_gets_through_by_any_door(
    sent: Sent, alone: Callable[[], None]
) -> None:
    """A5.23, SC-12: message, arguments, extra, exception, traceback, stack."""
    alone()
    log.debug("message " + CANARY)  # noqa: G003 - as a careless call would
    log.info("argument %s %r", CANARY, {"password": CANARY})
    log.info("mapping %(a)s", {"a": CANARY})
    log.info("object %s %r", Shy(), Shy())
    log.info("secret %s", Secret(CANARY))
    log.info("extra", extra={"host": CANARY, "job": Shy(), "password": "unknown-0ne"})
    log.info("does not fit %d", CANARY)
    log.info(*("too few %s %s", CANARY))
    log.info("broken %s", Broken(), extra={"host": Broken()})
    log.info("object as message is %s", "fine", stack_info=True)
    log.info(Shy())
    log.info(Broken())
    log.info("unknown but obvious: password=unknown-0ne tok_unknown-0ne")
    try:
        fail()
    except RuntimeError:
        log.exception("failed with %s", CANARY)
    group = ExceptionGroup(CANARY, [ValueError(CANARY), KeyError(CANARY)])
    log.error("group", exc_info=group)
    logging.getLogger("somebody.else").warning("library %s", CANARY)
    assert sent.text.count("[redacted]") >= 14
    assert CANARY not in sent.text
    assert "unknown-0ne" not in sent.text
    for words in (
        "RuntimeError: outer",
        "ValueError: inner",
        "note ",
        "arguments don't",
    ):
        assert words in sent.text


def test_records_of_the_caller_stay_as_they_are(
    redactor: Redactor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only copies are cleaned; another handler sees what was logged."""
    sent = Sent("stderr", tmp_path)
    logs.install("debug", redactor, [sent.handler])
    log.warning("with %s", "argument", extra={"host": "web1"})
    assert caplog.records[-1].args == ("argument",)
    assert "with argument" in sent.text


def test_extra_fields_are_shown_as_pairs(sent: Sent) -> None:
    """OB-02, structured: host, job, client, session, and whatever else is given."""
    log.info(
        "started", extra={"host": "web1", "job": "j7", "client": "a b", "session": None}
    )
    assert 'started host=web1 job=j7 client="a b"' in sent.text.replace("\\'", "'")
    assert "session" not in sent.text


def test_the_journal_gets_fields_of_its_own(redactor: Redactor, tmp_path: Path) -> None:
    sent = Sent("journal", tmp_path)
    logs.install("info", redactor, [sent.handler])
    log.warning("lost %s", "it", extra={"host": "web1", "job": "j7"})
    (fields,) = sent.fields
    assert fields["MESSAGE"] == "lost it host=web1 job=j7"
    assert fields["PRIORITY"] == "4"
    assert fields["HOLDFAST_HOST"] == "web1"
    assert fields["HOLDFAST_JOB"] == "j7"
    assert fields["SYSLOG_IDENTIFIER"] == "holdfastd"
    assert fields["LOGGER"] == "holdfast_daemon.exec.runner"
    assert fields["CODE_FUNC"] == "test_the_journal_gets_fields_of_its_own"
    assert "CODE_ARGS" not in fields
    assert "EXCEPTION_INFO" not in fields


def test_a_line_tells_time_level_and_place(redactor: Redactor, tmp_path: Path) -> None:
    sent = Sent("stderr", tmp_path)
    logs.install("info", redactor, [sent.handler])
    log.warning("slow", extra={"host": "web1"})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
        r"warning exec\.runner: slow host=web1\n",
        sent.text,
    )


def test_one_record_is_one_line_and_forges_no_other(
    sent: Sent, alone: Callable[[], None]
) -> None:
    alone()
    log.info("a\nINFO: forged \x1b[31mred\r \x9b \u2028 \udcff", extra={"host": "b\nc"})
    if sent.kind != "journal":
        assert len(sent.text.splitlines()) == 1
        assert "\x1b" not in sent.text
    else:
        assert len(sent.fields[0]["MESSAGE"].splitlines()) == 1
        assert sent.fields[0]["HOLDFAST_HOST"] == "b\\nc"


def test_lines_for_the_journal_are_marked_with_their_priority(
    redactor: Redactor, tmp_path: Path
) -> None:
    sent = Sent("marked", tmp_path)
    logs.install("debug", redactor, [sent.handler])
    log.debug("a")
    log.info("b")
    log.warning("c")
    try:
        fail()
    except RuntimeError:
        log.exception("d")
    lines = sent.text.splitlines()
    assert lines[:3] == [
        "<7>exec.runner: a",
        "<6>exec.runner: b",
        "<4>exec.runner: c",
    ]
    assert all(line.startswith("<3>") for line in lines[3:])


def test_the_level_can_be_changed_and_libraries_stay_quiet(
    redactor: Redactor, tmp_path: Path
) -> None:
    """OB-02: level by config. asyncssh tells each command line at info."""
    sent = Sent("stderr", tmp_path)
    logs.install("warning", redactor, [sent.handler])
    log.info("one")
    logs.set_level("debug")
    log.debug("two")
    logging.getLogger("asyncssh").info("Command: three")
    logs.set_level("error")
    log.warning("four")
    assert sent.text.count("\n") == 1
    assert "two" in sent.text


def test_the_file_is_private_and_rotated(redactor: Redactor, tmp_path: Path) -> None:
    """OB-02: rotation. SC-11: 0600 in 0700, whatever the umask."""
    path = tmp_path / "log" / "holdfastd.log"
    limits = Limits(log_file_bytes=10_000, log_files=3)
    before = os.umask(0)
    try:
        logs.configure("info", redactor, log_file=path, journal=False, limits=limits)
        for number in range(1000):
            log.info("line %d %s", number, "x" * 60)
    finally:
        os.umask(before)
    logs.shutdown()
    files = sorted(path.parent.iterdir())
    assert [file.name.removeprefix(path.name) for file in files] == ["", ".1", ".2"]
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert 0 < file.stat().st_size <= 10_000
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "line 999 " in path.read_text()


def test_a_log_file_that_is_not_ours_alone_is_refused(
    redactor: Redactor, tmp_path: Path
) -> None:
    """SC-11."""
    (tmp_path / "log").mkdir(mode=0o700)
    path = tmp_path / "log" / "x.log"
    path.write_text("")
    path.chmod(0o644)
    with pytest.raises(DaemonError, match="open to others"):
        logs.configure("info", redactor, log_file=path)
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(DaemonError, match="symbolic link"):
        logs.configure("info", redactor, log_file=path)


def test_setting_up_again_replaces_what_was_there(
    redactor: Redactor, tmp_path: Path
) -> None:
    paths = [tmp_path / "a" / "x.log", tmp_path / "b" / "x.log"]
    for path in paths:
        logs.configure("info", redactor, log_file=path, journal=False)
        log.info("once")
    assert [path.read_text().count("once") for path in paths] == [1, 1]


PROGRAM = """
import os, sys
if "block" in sys.argv:
    sys.modules["systemd.journal"] = None
found = os.fstat(2)
if "match" in sys.argv:
    os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
from holdfast_daemon import logs, secrets
logs.configure("info", secrets.Redactor())
logs.logger("holdfast_daemon.x").info("hello")
"""


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ([], r"\S+Z info    x: hello\n"),
        (["block"], r"\S+Z info    x: hello\n"),
        (["block", "match"], r"<6>x: hello\n"),
        (["match"], r""),
    ],
)
def test_stderr_is_marked_only_for_a_journal_without_its_library(
    words: list[str], pattern: str
) -> None:
    """With systemd-python the record goes to the journal itself, not to stderr."""
    if words == ["match"]:
        pytest.importorskip("systemd.journal", reason="the extra is not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={**os.environ, "JOURNAL_STREAM": "1:2"},
    )
    assert re.fullmatch(pattern, done.stderr)
    assert done.stdout == ""


def test_a_log_that_is_our_stderr_gets_each_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On BUGGY code: a daemon started by a client logged every line twice."""
    path = tmp_path / "holdfastd.log"
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure("info", Redactor(), log_file=path, journal=False)
        logging.getLogger("holdfast_daemon.test").info("one line")
        logs.shutdown()
    assert path.read_text().count("one line") == 1
