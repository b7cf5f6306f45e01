"""The script that lists a directory, and what comes of its answer. Sans-I/O."""

from __future__ import annotations

import datetime as dt
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.file.script import Script, compose, quote_path, shown

if TYPE_CHECKING:
    from holdfast_daemon.file.script import Reply
    from holdfast_daemon.limits import Limits

# GNU, busybox and toybox have stat -c, the BSDs and macOS stat -f. Records begin with
# words that no name has: a name may hold anything else. Names of users and groups have
# no colon, as the files of accounts have it; blanks they may ("domain users").
_LIST = r"""p=PATH
[ -d "$p" ]||{ [ -e "$p" ]&&no nodir "$p" file;no nodir "$p" "$(why "$p")";}
cd -P -- "$p" 2>/dev/null||no denied "$p" "Permission denied"
[ -r . ]||no denied "$p" "Permission denied"
r=$(pwd -P&&echo x);r=${r%??}
if stat -c %f . >/dev/null 2>&1;
then f=-c;g="$m %f %s %Y %U:%G:%n"
else f=-f;g="$m %Xp %z %m %Su:%Sg:%N";fi
ok "$r"
find . -mindepth 1 -maxdepth DEPTH HIDDEN -exec stat "$f" "$g" {} +|head -c MOST
"""
_NUMBERS = 3
_NAMES = 3


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What to list."""

    path: str
    depth: int = 1
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory; `mode` as the system has it, `modified` since 1970."""

    path: str
    mode: int
    size: int
    owner: str
    modified: int

    @property
    def kind(self) -> str:
        """What it is: file, directory, link or other."""
        if stat.S_ISREG(self.mode):
            return "file"
        if stat.S_ISDIR(self.mode):
            return "directory"
        return "link" if stat.S_ISLNK(self.mode) else "other"

    @property
    def shown_mode(self) -> str:
        """Its mode as ls shows it."""
        return stat.filemode(self.mode)

    @property
    def shown_time(self) -> str:
        """When it was changed, RFC 3339."""
        try:
            at = dt.datetime.fromtimestamp(self.modified, dt.UTC)
        except (OverflowError, ValueError, OSError):
            return ""
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a directory holds, by name."""

    path: str
    entries: tuple[Entry, ...]
    truncated: bool
    note: str = ""


def script(request: ListRequest, limits: Limits) -> Script:
    """Return what is run to list a directory."""
    hidden = "" if request.hidden else r"\( -name '.*' -prune \) -o"
    text = _LIST.replace("DEPTH", str(request.depth)).replace("HIDDEN", hidden)
    text = text.replace("MOST", str(limits.file_answer_bytes))
    return compose(text.replace("PATH", quote_path(request.path), 1))


def answer(
    reply: Reply, mark: bytes, body: bytes, said: str, limits: Limits
) -> Listing:
    """Return what a reply tells; `body` is what came behind its head."""
    records = body.split(mark.rstrip(b"\0") + b" ")[1:]
    cut = len(body) >= limits.file_answer_bytes
    if cut and records:
        records.pop()
    entries = sorted(filter(None, map(_entry, records)), key=lambda one: one.path)
    truncated = cut or len(entries) > limits.file_entries
    amiss = sum("find:" in line for line in said.splitlines())
    notes = [f"{amiss} directories could not be read"] if amiss else []
    if truncated:
        notes.append(
            f"more than {len(entries[: limits.file_entries])} entries: list a directory"
            " below it, or look for names with ssh_find"
        )
    shortened = tuple(entries[: limits.file_entries])
    return Listing(reply.fields[0], shortened, truncated, "; ".join(notes))


def _entry(record: bytes) -> Entry | None:
    *numbers, names = record.removesuffix(b"\n").split(b" ", _NUMBERS)
    owner = names.split(b":", _NAMES - 1)
    if len(numbers) < _NUMBERS or len(owner) < _NAMES:
        return None
    mode, size, modified = numbers
    user, group, name = owner
    try:
        return Entry(
            shown(name.removeprefix(b"./")),
            int(mode, 16),
            int(size),
            f"{shown(user)}:{shown(group)}",
            int(modified),
        )
    except ValueError:
        return None
