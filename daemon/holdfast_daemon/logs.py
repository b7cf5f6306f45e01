"""The daemon's own log: where it goes, in which form, and that no secret goes with it.

Built on stdlib logging. One handler stands at the root; it makes a clean copy of each
record, and only copies reach the journal, stderr and the file.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from holdfast_daemon.clock import rfc3339
from holdfast_daemon.limits import Limits
from holdfast_daemon.paths import private_dir, private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from holdfast_daemon.secrets import Redactor

_ROOT = "holdfast_daemon"

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# What every record has; anything else came in by `extra`.
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN = re.compile(r"""[^\s"'=\\]+""")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


# What the work of this task, and of those it starts, is about.
_about: ContextVar[dict[str, str]] = ContextVar("about")


def about(**fields: str) -> None:
    """Say what this task's records are about, such as host, session and client."""
    _about.set({name: value for name, value in fields.items() if value})


def also_about(**fields: str) -> None:
    """Say more of what this task's records are about, now that it is known."""
    about(**{**_about.get({}), **fields})


def logger(name: str) -> logging.Logger:
    """Return the logger of the module `name` (its `__name__`)."""
    return logging.getLogger(name)


class _Root(logging.Handler):
    """Gives clean copies of records to the real handlers."""

    def __init__(self, redactor: Redactor, targets: Iterable[logging.Handler]) -> None:
        super().__init__()
        self._redactor = redactor
        self._targets = tuple(targets)

    def emit(self, record: logging.LogRecord) -> None:
        copy = self._copy(record)
        for target in self._targets:
            target.handle(copy)

    def close(self) -> None:
        for target in self._targets:
            target.close()
        super().close()

    def _copy(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a record with no arguments, no exception objects, and clean texts."""
        copy = logging.LogRecord(
            record.name,
            record.levelno,
            record.pathname,
            record.lineno,
            self._line(_message(record)),
            None,
            None,
            record.funcName,
        )
        copy.created, copy.msecs = record.created, record.msecs
        copy.thread, copy.threadName = record.thread, record.threadName
        copy.exc_text = self._text(_trace(record)) or None
        fields: dict[str, str] = {}
        for name, value in {**_about.get({}), **record.__dict__}.items():
            if name not in _OWN and _NAME.fullmatch(name) and value not in (None, ""):
                # with its name, so that password=… is seen as what it is
                pair = self._redactor.clean(f"{name}={_shown(value)}")
                fields[name] = _escaped(pair.partition("=")[2])
        copy.__dict__.update(
            {f"HOLDFAST_{name.upper()}": value for name, value in fields.items()}
        )
        copy.__dict__["fields"] = fields
        return copy

    def _line(self, text: str) -> str:
        return _escaped(self._redactor.clean(_encodable(text)))

    def _text(self, text: str) -> str:
        lines = self._redactor.clean(_encodable(text)).splitlines()
        return "\n".join(_escaped(line) for line in lines)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a log call must not fail its caller
        return f"{_shown(record.msg)} (its arguments don't fit: {type(error).__name__})"


def _shown(value: object) -> str:
    try:
        return _encodable(str(value))
    except Exception as error:  # noqa: BLE001 - a log call must not fail its caller
        return f"({type(error).__name__})"


def _trace(record: logging.LogRecord) -> str:
    parts: list[str] = []
    if record.exc_info and record.exc_info[0]:
        parts += traceback.format_exception(*record.exc_info)
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "".join(parts).rstrip()


def _encodable(text: str) -> str:
    """Lone surrogates come in with file names and hostile arguments."""
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(line: str) -> str:
    """One record is one line, and none can colour or forge another."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], line)


class _Format(logging.Formatter):
    """`time level name: message key=value …`, an exception indented below."""

    def __init__(self, *, head: Callable[[logging.LogRecord], str], mark: bool) -> None:
        super().__init__()
        self._head = head
        self._mark = mark

    def format(self, record: logging.LogRecord) -> str:
        fields = cast("Mapping[str, str]", record.__dict__.get("fields", {}))
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        lines = [f"{self._head(record)}{record.getMessage()}{pairs}"]
        lines += [f"  {line}" for line in (record.exc_text or "").splitlines()]
        # the journal reads a priority at the start of each line
        prefix = f"<{_priority(record.levelno)}>" if self._mark else ""
        return "\n".join(prefix + line for line in lines)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _short(name: str) -> str:
    return name.removeprefix(_ROOT + ".")


def _full_head(record: logging.LogRecord) -> str:
    moment = rfc3339(datetime.fromtimestamp(record.created, UTC))
    return f"{moment} {record.levelname.lower():7} {_short(record.name)}: "


def _name_head(record: logging.LogRecord) -> str:
    return f"{_short(record.name)}: "


def _no_head(_: logging.LogRecord) -> str:
    return ""


def _priority(level: int) -> int:
    """Return syslog's number for `level`: 3 error, 4 warning, 6 info, 7 debug."""
    for least, number in ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return number
    return 7


class _PrivateFile(RotatingFileHandler):
    """Rotating files, 0600 whatever the umask, and never through a symbolic link."""

    def _open(self) -> Any:
        descriptor = os.open(
            self.baseFilename,
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        return os.fdopen(descriptor, "a", encoding="utf-8")


class _Journal(Protocol):
    """What we use of `systemd.journal`; no type stubs exist for it."""

    @property
    def JournalHandler(self) -> Callable[..., logging.Handler]:  # noqa: N802 - theirs
        """Make a handler that sends each attribute of a record as a field."""
        ...


def _journal_library() -> _Journal | None:
    try:
        module = importlib.import_module("systemd.journal")
    except (ImportError, OSError):  # OSError: its libsystemd is gone
        return None
    return cast("_Journal", module) if hasattr(module, "JournalHandler") else None


def journal_handler(
    sender: Callable[..., object] | None = None,
) -> logging.Handler | None:
    """Return a handler for the journal, None without systemd-python."""
    library = _journal_library()
    if library is None:
        return None
    options: dict[str, Any] = {"SYSLOG_IDENTIFIER": "holdfastd"}
    if sender is not None:
        options["sender_function"] = sender
    handler = library.JournalHandler(**options)
    handler.setFormatter(_Format(head=_no_head, mark=False))
    return handler


def stream_handler(stream: TextIO, *, marked: bool = False) -> logging.Handler:
    """Return a handler for stderr; `marked` for one that the journal reads."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _Format(head=_name_head if marked else _full_head, mark=marked)
    )
    return handler


def file_handler(path: Path, limits: Limits) -> logging.Handler:
    """Return a handler for rotating files at `path`, 0600 in a directory of our own."""
    private_dir(path.parent)
    if os.path.lexists(path):
        private_file(path)
    handler = _PrivateFile(
        path,
        maxBytes=limits.log_file_bytes,
        backupCount=max(1, limits.log_files - 1),  # 0 would never rotate
        encoding="utf-8",
    )
    handler.setFormatter(_Format(head=_full_head, mark=False))
    return handler


def stderr_is_journal(env: Mapping[str, str], descriptor: int = 2) -> bool:
    """Return whether the journal reads our stderr, as `JOURNAL_STREAM` tells."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def configure(
    level: str,
    redactor: Redactor,
    *,
    log_file: Path | None = None,
    journal: bool | None = None,
    limits: Limits | None = None,
) -> None:
    """Send the log where it belongs; called again, it replaces what was set up before.

    Args:
        level: debug, info, warning or error.
        redactor: What no text may hold.
        log_file: Also write here, rotated.
        journal: Write to the journal; None: if it reads our stderr.
        limits: Sizes of the files.
    """
    if journal is None:
        journal = stderr_is_journal(os.environ)
    handler = journal_handler() if journal else None
    targets = [handler or stream_handler(sys.stderr, marked=journal)]
    if log_file is not None:
        if _same_file(sys.stderr, log_file):
            # Whoever started us sent our stderr there too: each line once is enough.
            targets.clear()
        targets.append(file_handler(log_file, limits or Limits()))
    install(level, redactor, targets)


def _same_file(stream: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except (OSError, ValueError):
        return False


def install(level: str, redactor: Redactor, targets: Iterable[logging.Handler]) -> None:
    """Put `targets` behind the one handler at the root."""
    shutdown()
    logging.getLogger().addHandler(_Root(redactor, targets))
    set_level(level)


def set_level(level: str) -> None:
    """Set what is logged from now on.

    Libraries stay at warning: asyncssh logs each command line at info.
    """
    logging.getLogger(_ROOT).setLevel(_LEVELS[level])
    logging.getLogger().setLevel(logging.WARNING)


def shutdown() -> None:
    """Take the handlers away and close their files."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Root):
            root.removeHandler(handler)
            handler.close()
