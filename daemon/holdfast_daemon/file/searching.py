"""The script that searches file contents, and what comes of its answer. Sans-I/O.

By rg where the host has it and it takes the pattern, else grep -P, else grep -E with
what a pattern of Perl's has in common with it. All three write the same form, so the
answer is the same.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError
from holdfast_daemon.file import globs, sensitive
from holdfast_daemon.file.dialect import extended
from holdfast_daemon.file.finding import SKIPPED
from holdfast_daemon.file.script import Script, alternatives, compose, quote_path, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_daemon.limits import Limits

_PATTERN_CHARS = 2000
_LINE_CHARS = 500
_NUL = "\u2400"
# What means the same in bytes as in letters: then a file in Latin-1 is text to grep.
_BYTES = re.compile(r"(?:[ -,/-Z^_-~-]|\\[bdst(){}|.+*?$^/])*")
# What a glob for rg had better not have.
_STRANGE = re.compile(rf"(?:\\.|{globs.SET}|[^A-Za-z0-9._-])+", re.DOTALL)
_ROW = re.compile(rb"(\d+)([:-])(.*)", re.DOTALL)

# A file that is named is looked through whatever it holds: many a log has a NUL.
_SEARCH = r"""p=PATH;y=.;i=-I
if [ -d "$p" ];then cd -P -- "$p" 2>/dev/null||no denied "$p" "Permission denied"
[ -r . ]||no denied "$p" "Permission denied"
r=$(pwd -P&&echo x);r=${r%??}
else resolve "$p";regular;GUARD
[ -r "$r" ]||no denied "$r" "Permission denied"
cd -P -- "$d"||no denied "$d" "Permission denied"
y=./$b;i=-a;fi
q=PATTERN;x=EXTENDED
LC_ALL=LOCALE;k=;v=
try(){ v=$(printf 'x\n'|"$@" - 2>&1 >/dev/null);[ $? -le 1 ];}
if command -v rg >/dev/null 2>&1&&try rg --no-config --engine=auto CASE -e "$q"
then k=rg
elif [ "$(printf x|grep -cP x 2>/dev/null)" = 1 ]
then try grep -P CASE -e "$q"||no pattern "$p" "$v"
k=grep;o=-P
elif [ "$x" ];then try grep -E CASE -e "$x"||no pattern "$p" "$v"
k=grep;o=-E;q=$x
else no pattern "$p" "this host has only grep -E, which does not know all of it";fi
[ $k = grep ]&&[ "$(printf x|grep --null -HIc x - 2>/dev/null|wc -c)" -lt 3 ]&&k=plain
ok "$r" "$([ "$y" = . ]&&printf d||printf f)" "$k"
case $k in
rg) set -- --no-config --engine=auto --hidden --no-ignore --color=never --no-heading
[ $i = -I ]||set -- "$@" -a
rg "$@" -H --null RGLOB NOGIT CASE RMODE -e "$q" -- "$y";;
grep) find "$y" FIND -exec grep $o -H $i --null CASE GMODE -e "$q" -- {} +;;
plain) find "$y" FIND -exec grep $o -l CASE -e "$q" -- {} +|while IFS= read -r f
do PLAIN
done;;
esac|head -c MOST
"""


class Output(StrEnum):
    """What a search tells."""

    FILES = "files"
    CONTENT = "content"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for."""

    pattern: str
    path: str = "."
    glob: str = ""
    ignore_case: bool = False
    output: Output = Output.FILES
    before: int = 0
    after: int = 0
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Match:
    """One match: a file, one of its lines, or how many of them."""

    path: str
    line: int | None = None
    text: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Searched:
    """Matches, by path and line."""

    matches: tuple[Match, ...]
    truncated: bool
    note: str = ""


def check(request: SearchRequest) -> None:
    """Refuse a pattern that can't be one.

    Raises:
        InputError: It is empty, too long, or has several lines.
    """
    if not request.pattern:
        raise InputError("pattern", "pattern is empty", hint="Give what to look for.")
    if len(request.pattern) > _PATTERN_CHARS:
        raise InputError(
            "pattern", f"pattern has more than {_PATTERN_CHARS} characters"
        )
    if "\n" in request.pattern:
        raise InputError(
            "pattern", "pattern has a newline: lines are searched one by one"
        )
    if request.glob.startswith("!"):
        raise InputError(
            "glob",
            "glob says which files are searched, and none that are not",
            hint="Put a backslash before a ! that is meant as it stands.",
        )
    _exact(request.glob)


def script(request: SearchRequest, limits: Limits) -> Script:
    """Return what is run to search."""
    check(request)
    names = globs.expand(request.glob) if request.glob else []
    rmode, gmode, plain = _modes(request)
    found = [f"-name {shlex.quote(name)}" for name in SKIPPED]
    tests = alternatives(f"-type d {name}" for name in found) + " -prune -o -type f"
    if names:
        tests += " " + alternatives(map(_test, names))
    replaced = {
        "GUARD": sensitive.case("r", write=False),
        "LOCALE": "C" if _BYTES.fullmatch(request.pattern) else "C.UTF-8",
        "EXTENDED": shlex.quote(extended(request.pattern) or ""),
        "NOGIT": " ".join(f"-g '!{name}'" for name in SKIPPED),
        "RGLOB": " ".join(f"-g {shlex.quote(_rg(n))}" for n in names),
        "CASE": "-i" if request.ignore_case else "",
        "RMODE": rmode,
        "GMODE": gmode,
        "PLAIN": plain,
        "FIND": tests,
        "MOST": str(limits.file_answer_bytes),
        "PATTERN": shlex.quote(request.pattern),
        "PATH": quote_path(request.path),
    }
    words = re.compile(r"\b(" + "|".join(replaced) + r")\b")
    return compose(words.sub(lambda found: replaced[found[1]], _SEARCH))


def _test(glob: str) -> str:
    """Return what `find` is asked about a name or, where it has a slash, a path."""
    if "/" not in glob:
        return f"-name {shlex.quote(globs.coarse(glob))}"
    inner = glob.removeprefix("./").lstrip("/")
    return f"-path {shlex.quote('./' + globs.coarse(inner))}"


def _rg(glob: str) -> str:
    """Return a glob for rg that misses nothing; one with a slash begins here.

    To rg more letters mean something, and it refuses what it can't read.
    """
    parts = glob.removeprefix("./").lstrip("/").split("/")
    told = "/".join(one if one == "**" else _STRANGE.sub("*", one) for one in parts)
    return f"/{told}" if "/" in glob else told


def _modes(request: SearchRequest) -> tuple[str, str, str]:
    if request.output is Output.FILES:
        return "-l", "-l", r"""printf '%s\0' "$f" """
    case = "-i" if request.ignore_case else ""
    if request.output is Output.COUNT:
        count = f'$(grep $o -c {case} -e "$q" -- "$f")'
        return "-c", "-c", f'printf \'%s\\0%s\\n\' "$f" "{count}"'
    mode = f"-n -m {request.limit + 1} -B {request.before} -A {request.after}"
    plain = f'printf \'%s\\0\\n\' "$f";grep $o {mode} {case} -e "$q" -- "$f"'
    return mode, mode, plain


def answer(
    request: SearchRequest,
    fields: tuple[str, ...],
    body: bytes,
    said: str,
    limits: Limits,
) -> Searched:
    """Return what a reply tells; `body` is what came behind its head."""
    root, kind, engine = fields
    cut = len(body) >= limits.file_answer_bytes
    glob = _exact(request.glob)
    matches: list[Match] = []
    hidden = 0
    secret: set[str] = set()
    rows = _rows(request, body, engine, cut=cut, named=kind == "f")
    for match in rows:
        name = match.path.removeprefix("./")
        if glob is not None and not glob.fullmatch(name):
            continue
        whole = root if kind == "f" else posixpath.join(root, name)
        if kind == "d" and sensitive.holds_secrets(whole):
            secret.add(whole)
            continue
        path = request.path if kind == "f" else posixpath.join(request.path, name)
        path = path.removeprefix("./")
        matches.append(Match(path, match.line, match.text, match.count))
    hidden = len(secret)
    matches.sort(key=lambda one: (one.path, one.line or 0))
    more = len(matches) > request.limit
    notes: list[str] = []
    if more:
        notes.append(f"more than {request.limit:,} matches: raise limit or narrow it")
    if cut:
        notes.append("there was too much to tell: narrow path, glob or pattern")
    if amiss := sum("ermission denied" in line for line in said.splitlines()):
        notes.append(f"{amiss} files or directories could not be searched")
    if hidden:
        notes.append(f"{hidden} files that hold secrets match, and are not shown")
    return Searched(tuple(matches[: request.limit]), more or cut, "; ".join(notes))


def _exact(glob: str) -> re.Pattern[str] | None:
    """Return what paths must match beyond what the host looked at; None: nothing."""
    if not glob:
        return None
    found = [
        one.removeprefix("./").lstrip("/") if "/" in one else f"**/{one}"
        for one in globs.expand(glob)
    ]
    return globs.matcher(found, hidden=True)


def _rows(
    request: SearchRequest, body: bytes, engine: str, *, cut: bool, named: bool
) -> Iterator[Match]:
    if request.output is Output.FILES:
        names = body.split(b"\0")
        names.pop()
        yield from (Match(shown(name.lstrip(b"\n"))) for name in names)
        return
    lines = body.split(b"\n")
    if cut:
        lines.pop()
    if request.output is Output.COUNT:
        for line in lines:
            name, found, count = line.partition(b"\0")
            if found and count.strip().isdigit() and int(count):
                yield Match(shown(name), count=int(count))
        return
    groups = _plain(lines, binary=named) if engine == "plain" else _named(lines)
    for name, rows in groups:
        yield from _matches(request, shown(name), rows)


_Row = tuple[int, bool, bytes]


def _row(text: bytes) -> _Row | None:
    found = _ROW.fullmatch(text)
    if found is None:
        return None
    return int(found[1]), found[2] == b":", found[3]


def _named(lines: list[bytes]) -> Iterator[tuple[bytes, list[_Row]]]:
    """Yield the rows of each file, from lines that each name it."""
    found: dict[bytes, list[_Row]] = {}
    for line in lines:
        name, marked, rest = line.partition(b"\0")
        row = _row(rest) if marked else None
        if row is not None:
            found.setdefault(name, []).append(row)
    yield from found.items()


def _plain(lines: list[bytes], *, binary: bool) -> Iterator[tuple[bytes, list[_Row]]]:
    """Yield the same from lines below one that names the file.

    `binary`: also those that only a file has that is no text.
    """
    name, rows = b"", list[_Row]()
    for line in lines:
        if line.endswith(b"\0"):
            if rows:
                yield name, rows
            name, rows = line[:-1], []
        elif (row := _row(line)) is not None and (binary or b"\0" not in row[2]):
            rows.append(row)
    if rows:
        yield name, rows


def _matches(request: SearchRequest, path: str, rows: list[_Row]) -> Iterator[Match]:
    known = {number: text for number, _, text in rows}
    for number, hit, text in rows:
        if not hit:
            continue
        if not (request.before or request.after):
            yield Match(path, number, _line(text))
            continue
        around = [
            f"{n}{':' if n == number else '-'}{_line(known[n])}"
            for n in range(number - request.before, number + request.after + 1)
            if n in known
        ]
        yield Match(path, number, "\n".join(around))


def _line(text: bytes) -> str:
    try:
        told = text.decode()
    except UnicodeDecodeError:
        told = text.decode("latin-1")
    told = told.removesuffix("\r").replace("\0", _NUL)
    return told if len(told) <= _LINE_CHARS else f"{told[:_LINE_CHARS]}…"
