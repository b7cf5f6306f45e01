"""What people and programs read: tables, times, JSON documents, errors.

Knows neither the daemon nor click. Text that came from elsewhere passes `plain`, so
that no command, host or file name can write escapes to a person's terminal.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_shim.errors import CallError

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIB = 1024
# Between the columns of a table.
_GAP = 2
# Errors are written for agents too; a person has verbs where an agent has tools.
_VERBS = {
    "ssh_exec": "holdfast exec",
    "ssh_job_list": "holdfast jobs",
    "ssh_job_read": "holdfast job ID",
    "ssh_job_stop": "holdfast job ID --stop",
    "ssh_wait": "holdfast job ID --follow",
    "ssh_session_open": "holdfast shell",
    "ssh_session_run": "holdfast attach",
    "ssh_session_write": "holdfast attach",
    "ssh_session_read": "holdfast attach",
    "ssh_session_list": "holdfast sessions",
    "ssh_session_close": "holdfast sessions --close",
    "ssh_file_read": "holdfast exec HOST cat",
    "ssh_file_write": "holdfast copy",
    "ssh_file_edit": "holdfast copy",
    "ssh_dir_list": "holdfast exec HOST ls",
    "ssh_search": "holdfast exec HOST grep",
    "ssh_find": "holdfast exec HOST find",
    "ssh_copy": "holdfast copy",
    "ssh_sync": "holdfast sync",
    "ssh_forward_open": "holdfast forward",
    "ssh_forward_list": "holdfast forwards",
    "ssh_forward_close": "holdfast forwards --close",
    "ssh_hosts": "holdfast hosts list",
    "ssh_connect": "holdfast hosts test",
    "ssh_disconnect": "holdfast hosts disconnect",
}
_TOOL = re.compile(
    "`?(" + "|".join(_VERBS) + r")\b`?"
    r"(?: job_id=(?P<job>\w+))?(?: wait_seconds=\d+| with view `screen`)?"
)
_TWICE = re.compile(r"(`[^`]+`) and \1")
# The arguments of tools that are options of verbs, and where settings stand.
_OPTIONS = {
    "in the MCP client's configuration and restart it": "in your environment",
    "Set recursive": "Give --recursive",
    "Set overwrite": "Give --overwrite",
    "Leave new out": "Leave --new out",
    "another session_name": "another --name",
    "by ssh_file_write where make_parents is set, by": "by",
    "set connect.options RemoteCommand to none": "give -o RemoteCommand=none",
    "set connect.options SessionType to default": "give -o SessionType=default",
    "raise connect_timeout_seconds": "give -o ConnectTimeout=SECONDS",
    "Raise timeout_seconds": "Raise --timeout",
}


def plain(text: str, *, lines: bool = False) -> str:
    """Return `text` with everything made visible that a terminal would act on."""
    keep = "\n\t" if lines else ""
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in keep
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def span(seconds: float) -> str:
    """Return a span in its two largest units; tenths only of a float below 10."""
    if isinstance(seconds, float) and seconds < 10:  # noqa: PLR2004 - tenths matter
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _units(whole, _MINUTE, "m", 1, "s")
    if whole < _DAY:
        return _units(whole, _HOUR, "h", _MINUTE, "m")
    return _units(whole, _DAY, "d", _HOUR, "h")


def _units(whole: int, large: int, name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {name}" + (f" {rest} {small_name}" if rest else "")


def ago(timestamp: str, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time was, in its largest unit."""
    try:
        then = datetime.fromisoformat(timestamp)
        passed = (now or datetime.now(UTC)) - then
    except (ValueError, TypeError):  # TypeError: it names no zone
        return plain(timestamp)
    seconds = int(passed.total_seconds())
    for size, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{max(seconds, 0)} s ago"


def size(count: int) -> str:
    """Return a number of bytes as people say it."""
    if count < _KIB:
        return f"{count} B"
    value = count / _KIB
    units = ["KiB", "MiB", "GiB", "TiB"]
    while value >= _KIB and len(units) > 1:
        value /= _KIB
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def interactive() -> bool:
    """Return whether a person's terminal reads our stdout."""
    # A closed stdout is None, whatever its stub says.
    stdout: Any = sys.stdout
    return stdout is not None and stdout.isatty()


def emit(document: Mapping[str, Any], *, line: bool = False) -> None:
    """Print one JSON document; on one line with `line` or where no person reads."""
    print(written(document, line=line), flush=line)


def written(document: Mapping[str, Any], *, line: bool = False) -> str:
    """Return one JSON document as `emit` prints it, without the end of its line."""
    stdout: Any = sys.stdout
    encoding = "" if stdout is None else stdout.encoding or ""
    text = json.dumps(
        document,
        ensure_ascii=encoding.lower().replace("-", "") != "utf8",
        indent=2 if interactive() and not line else None,
    )
    if interactive():
        # JSON leaves DEL, C1 controls and reversed writing as they are.
        text = "".join(c if c.isprintable() or c == "\n" else _told(c) for c in text)
    return text


def _told(character: str) -> str:
    """Return a character as JSON can say it too."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def say(text: str) -> None:
    """Print `text`, which may hold line ends."""
    print(plain(text, lines=True))


def note(text: str) -> None:
    """Tell a person something beside the output."""
    print(f"holdfast: {plain(text, lines=True)}", file=sys.stderr)


def for_people(text: str) -> str:
    """Return an error's words with our verbs in place of an agent's tools."""
    for asked, option in _OPTIONS.items():
        text = text.replace(asked, option)
    return _TWICE.sub(r"\1", _TOOL.sub(_verb, text))


def _verb(found: re.Match[str]) -> str:
    verb, job = _VERBS[found[1]], found["job"]
    if job:
        # No other tool that is named takes the id of a job.
        verb = verb.replace("ID", job)
    return f"`{verb}`"


def fail(error: CallError, *, as_json: bool) -> None:
    """Tell what failed: to programs on stdout, to people on stderr."""
    hint, message = for_people(error.hint), for_people(error.message)
    if as_json:
        told = {
            "reason": error.reason,
            "message": message,
            "hint": hint,
            "ran": error.ran,
        }
        told |= {k: v for k, v in error.metadata.items() if k not in told}
        emit({"ok": False, "error": told})
        return
    note(message)
    if hint:
        print(f"  hint: {plain(hint, lines=True)}", file=sys.stderr)


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one to a line."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {plain(value)}".rstrip())


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = ""
) -> None:
    """Print a table: cut to the width of a person's terminal, whole for a program."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if interactive():
        _rich_table(columns, cells, title)
        return
    if title:
        print(title)
    lines = [[name.upper() for name in columns], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        joined = "  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True))
        print(joined.rstrip())


def _rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str
) -> None:
    from rich.cells import cell_len  # noqa: PLC0415 - only a terminal needs it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    # An id or an exit code that is cut is of no use: only the last column is. What has
    # no room beside its name is left to the terminal to wrap.
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    least = sum(width + _GAP for width in widths[:-1])
    room = max(console.width - least, cell_len(columns[-1]))
    widths[-1] = min(widths[-1], room)
    console.width = least + room
    grid = Table(box=None, pad_edge=False, title=Text(title) if title else None)
    grid.title_justify = "left"
    for name, width in zip(columns, widths, strict=True):
        grid.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
