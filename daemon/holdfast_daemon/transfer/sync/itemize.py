"""What rsync prints, line by line, as figures and a list of changes. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILES = re.compile(rb"Number of files: ([\d,]+)")
_HIDDEN = re.compile(rb"\[sender\] hiding \w+ (.*) because of pattern (.*)")
_CHANGED = re.compile(r"[<>ch.][fdLDS][^ ]{9}")
_ITEM = 11
_ESCAPE = re.compile(rb"\\#([0-7]{3})")
# Of a line that has no end.
_LINE_BYTES = 64 * 1024
_WHAT = {
    "c": "contents",
    "s": "contents",
    "t": "time",
    "p": "mode",
    "o": "owner",
    "g": "group",
}


@dataclass(slots=True)
class Report:
    """What a sync did, or would do.

    Attributes:
        files: What was compared, directories too.
        changes: The first of them, in words.
        more: Changes beyond those.
        left: What was left out because it holds secrets or lets people in.
        note: What else must be known.
    """

    files: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    bytes: int = 0
    changes: list[str] = field(default_factory=list[str])
    more: int = 0
    left: list[str] = field(default_factory=list[str])
    note: str = ""

    @property
    def skipped(self) -> int:
        """What was left as it was."""
        return max(0, self.files - self.created - self.updated)

    def add(self, text: str, most: int) -> None:
        """Keep a change, up to `most` of them."""
        if len(self.changes) < most:
            self.changes.append(text)
        else:
            self.more += 1

    def summary(self, *, dry_run: bool) -> str:
        """Return one line for people."""
        would = "would be " if dry_run else ""
        return (
            f"{self.files} compared: {self.created} {would}created,"
            f" {self.updated} {would}updated, {self.deleted} {would}deleted,"
            f" {self.skipped} left as they were; {self.bytes} bytes on the wire"
        )


class Reader:
    """Takes rsync's output apart as it comes."""

    def __init__(self, mark: str, most: int, guards: Sequence[str] = ()) -> None:
        """Know changes by `mark`, and keep the first `most` of them.

        What one of the rules `guards` leaves out is noted.
        """
        self._guards = {rule[2:].encode() for rule in guards}
        self._mark = mark.encode() + b" "
        self._most = most
        self._rest = b""
        self.report = Report()

    def feed(self, data: bytes) -> bytes:
        """Return the lines of changes in `data`, in words."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return b"".join(self._line(line) for line in lines)

    def finish(self) -> bytes:
        """Return what the last line, without an end, tells."""
        rest, self._rest = self._rest, b""
        return self._line(rest)

    def _line(self, line: bytes) -> bytes:
        if line.startswith(self._mark):
            return self._change(line[len(self._mark) :])
        if found := _FILES.match(line):
            self.report.files = int(found[1].replace(b",", b""))
        elif (found := _HIDDEN.match(line)) and found[2] in self._guards:
            self.report.left.append(_shown(found[1]).decode("utf-8", "replace"))
        return b""

    def _change(self, line: bytes) -> bytes:
        item = line[:_ITEM].decode("ascii", "replace")
        name = line[_ITEM + 1 :]
        told = self._told(item)
        if not told:
            return b""
        word, _, more = told.partition(" ")
        change = word.encode() + b" " + _shown(name) + more.encode()
        self.report.add(change.decode("utf-8", "replace"), self._most)
        return change + b"\n"

    def _told(self, item: str) -> str:
        """Return the word for a change, and behind a blank what follows its name."""
        report = self.report
        if item.startswith("*deleting"):
            report.deleted += 1
            return "deleted"
        if not _CHANGED.fullmatch(item):
            return ""
        kind, attributes = item[1], item[2:]
        if not attributes.strip("+"):
            report.created += 1
            return "created"
        changed = [_WHAT[c.lower()] for c in attributes if c.lower() in _WHAT]
        if kind == "d" and item[0] == "." and changed in ([], ["time"]):
            # It holds what changed, and that is told already.
            return ""
        if not changed and item[0] == ".":
            return ""
        report.updated += 1
        what = ", ".join(dict.fromkeys(changed))
        return f"updated  ({what})" if what else "updated"


def _shown(name: bytes) -> bytes:
    """Return a name as rsync escaped it, but for a backslash, which stands for itself.

    What would end the line stays escaped.
    """
    return _ESCAPE.sub(lambda m: b"\\" if m[1] == b"134" else m[0], name)
