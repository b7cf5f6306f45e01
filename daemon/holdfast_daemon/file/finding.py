"""The script that finds files by name, and what comes of its answer. Sans-I/O."""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError
from holdfast_daemon.file import globs
from holdfast_daemon.file.script import Script, alternatives, compose, quote_path, shown

if TYPE_CHECKING:
    from holdfast_daemon.limits import Limits

# What no search goes into, unless its name is asked for.
SKIPPED = (".git", ".hg", ".svn", ".bzr", ".jj")
_ENTER = r"""p=PATH
[ -d "$p" ]||{ [ -e "$p" ]&&no nodir "$p" file;no nodir "$p" "$(why "$p")";}
cd -P -- "$p" 2>/dev/null||no denied "$p" "Permission denied"
r=$(pwd -P&&echo x);r=${r%??}
"""
_FIND = (
    _ENTER
    + r"""ok "$r"
find . -mindepth 1 DEPTH PRUNED TESTS -print0|head -c MOST
"""
)


@dataclass(frozen=True, slots=True)
class FindRequest:
    """What to find."""

    glob: str
    path: str = "."
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Found:
    """Paths, by name."""

    matches: tuple[str, ...]
    truncated: bool
    note: str = ""


def _placed(request: FindRequest) -> tuple[str, list[str]]:
    """Return the directory to begin in, and the globs below it.

    Raises:
        InputError: The globs lead out of it.
    """
    found = globs.expand(request.glob)
    path = request.path
    if all(glob.startswith("/") for glob in found):
        path, found = "/", [glob.lstrip("/") for glob in found]
    elif any(glob.startswith(("/", "~")) for glob in found):
        raise InputError(
            "glob",
            "glob is below path, and can't begin with / or ~",
            hint="Give the directory in path.",
        )
    found = [glob.removeprefix("./") for glob in found]
    if any(".." in glob.split("/") for glob in found):
        raise InputError(
            "glob", "glob can't have ..", hint="Give the directory in path."
        )
    found = [glob.rstrip("/") for glob in found]
    if not all(found):
        raise InputError("glob", "glob names nothing below path")
    # What is no pattern at the beginning is a directory to begin in.
    while len(found) == 1 and "/" in found[0]:
        head, _, rest = found[0].partition("/")
        if re.search(r"[*?\[\\]", head) or not head:
            break
        path, found = posixpath.join(path, head), [rest]
    return path, found


def script(request: FindRequest, limits: Limits) -> Script:
    """Return what is run to find names."""
    path, found = _placed(request)
    depth = globs.depth(found)
    pruned = [f"-name {shlex.quote(name)}" for name in skipped(found)]
    if not globs.names_hidden(found):
        pruned = ["-name '.*'"]
    globs.matcher(found)  # one that is none is refused before anything is sent
    tests = [f"-path {shlex.quote('./' + globs.coarse(glob))}" for glob in found]
    text = _FIND.replace("MOST", str(limits.file_answer_bytes))
    text = text.replace("DEPTH", "" if depth is None else f"-maxdepth {depth}")
    prune = alternatives(pruned) + " -prune -o" if pruned else ""
    head, _, tail = text.partition("PRUNED TESTS")
    head = head.replace("PATH", quote_path(path), 1)
    return compose(f"{head}{prune} {alternatives(tests)}{tail}")


def skipped(found: list[str]) -> list[str]:
    """Return what is not gone into, less what a glob names."""
    named = {part for glob in found for part in glob.split("/")}
    return [name for name in SKIPPED if name not in named]


def _told(path: str, name: str) -> str:
    """Return where a file is; behind a link, `..` leads where no text can tell."""
    whole = posixpath.join(path, name)
    return whole if ".." in path.split("/") else posixpath.normpath(whole)


def answer(request: FindRequest, body: bytes, said: str, limits: Limits) -> Found:
    """Return what a reply tells; `body` is what came behind its head."""
    path, found = _placed(request)
    match = globs.matcher(found)
    names = body.split(b"\0")
    cut = len(body) >= limits.file_answer_bytes
    names.pop()  # after the last NUL: nothing, or half a name
    matches = sorted(
        _told(path, name)
        for name in (shown(one.removeprefix(b"./")) for one in names)
        if match.fullmatch(name)
    )
    notes: list[str] = []
    if len(matches) > request.limit:
        notes.append(f"{len(matches):,} match, {request.limit:,} are told: raise limit")
    if cut:
        notes.append("there was too much to look through: give a narrower path")
    if amiss := sum("find:" in line for line in said.splitlines()):
        notes.append(f"{amiss} directories could not be read")
    return Found(
        tuple(matches[: request.limit]),
        cut or len(matches) > request.limit,
        "; ".join(notes),
    )
