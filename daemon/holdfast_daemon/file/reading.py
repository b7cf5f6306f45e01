"""The script that reads a file, and what comes of its answer. Sans-I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, InputError, RangeError, Reason
from holdfast_daemon.file import content, sensitive
from holdfast_daemon.file.editing import not_text
from holdfast_daemon.file.fault import failed
from holdfast_daemon.file.script import Script, compose, quote_path

if TYPE_CHECKING:
    from holdfast_daemon.file.content import Piece
    from holdfast_daemon.file.script import Reply
    from holdfast_daemon.limits import Limits

DEFAULT_BYTES = 20_480
MOST_BYTES = 1_000_000
# Lines are counted so much faster than bytes are hashed.
_COUNTED = 4

# A small file comes whole, and is measured and cut here; of a large one its part, its
# number of lines and its hash, up to the size it had: it may grow as fast as it is
# read. A file of /proc says that it has 0 bytes, and has more.
_READ = r"""p=PATH;resolve "$p"
GUARD
regular
[ -r "$r" ]||no denied "$r" "Permission denied"
set -- $(ls -ldn -- "$r");z=$5
if [ "$z" -le WHOLE ];then
ok "$r" "$z" whole
head -c TAKEN <"$r";e=$?
printf '%s\0' "$m" "$e"
else
now(){ head -c "$z" <"$r";}
ok "$r" "$z" part
PART;e=$?
printf '%s\0' "$m" "$e"
if [ "$z" -le COUNTED ];then printf '%s\0' "$(now|wc -l)" "$(now|tail -c 1|wc -l)"
else printf '%s\0' - -;fi
[ "$z" -le HASHED ]&&q=$(now|h)||q=
q=${q%% *};set -- $(ls -ldn -- "$r")
printf '%s\0' "$q" "$5"
fi"""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What to read.

    Attributes:
        first: First line, from 1; None: the first.
        last: Last line; None: the last.
        size: Cut after so many bytes; None: the default, or with `force` the most.
        force: Also what holds secrets or is no text.
    """

    path: str
    first: int | None = None
    last: int | None = None
    size: int | None = None
    force: bool = False

    @property
    def most(self) -> int:
        """How many bytes of content to show."""
        if self.size is not None:
            return self.size
        return MOST_BYTES if self.force else DEFAULT_BYTES


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What a file holds, as far as it was asked for."""

    path: str
    piece: Piece
    size: int
    lines: int
    sha256: str
    note: str = ""


def check(request: ReadRequest) -> None:
    """Refuse lines that are no range.

    Raises:
        InputError: The last comes before the first.
    """
    first, last = request.first or 1, request.last
    if last is not None and last < first:
        raise InputError("end_line", f"end_line {last} comes before start_line {first}")


def script(request: ReadRequest, limits: Limits) -> Script:
    """Return what is run to read a file."""
    check(request)
    path = quote_path(request.path)
    taken = request.most + 1
    part = f'head -c {taken} <"$r"'
    if request.first is not None or request.last is not None:
        first = request.first or 1
        part = f"now|tail -n +{first}"
        if request.last is not None:
            part += f"|head -n {request.last - first + 1}"
        part += f"|head -c {taken}"
    guard = "" if request.force else sensitive.case("r", write=False)
    whole = limits.file_whole_bytes
    text = _READ.replace("GUARD", guard).replace("PART", part)
    text = text.replace("WHOLE", str(whole)).replace("TAKEN", str(whole + 1))
    text = text.replace("HASHED", str(limits.file_hash_bytes))
    text = text.replace("COUNTED", str(limits.file_hash_bytes * _COUNTED))
    return compose(text.replace("PATH", path, 1), hashes=True)


def answer(request: ReadRequest, reply: Reply, said: str, limits: Limits) -> ReadAnswer:
    """Return what a reply tells.

    Raises:
        DaemonError: It could not be read, is no text, or may not be shown.
    """
    path, told, how = reply.fields
    body, tail = (
        reply.parts[0],
        (reply.parts[1].split(b"\0") if reply.parts[1:] else []),
    )
    if not tail or tail[0] != b"0":
        raise failed(path, said)
    if how == "part":
        return _of_part(request, path, int(told), body, tail)
    if len(body) > limits.file_whole_bytes:
        # It grew since it was looked at, or is one that has no size.
        return _shown(request, path, body, len(body), more=True)
    return of_whole(request, path, body)


def of_whole(request: ReadRequest, path: str, body: bytes) -> ReadAnswer:
    """Return the answer for a file of which all is here."""
    return _shown(request, path, body, len(body), more=False)


def _shown(
    request: ReadRequest, path: str, body: bytes, size: int, *, more: bool
) -> ReadAnswer:
    _look(request, path, body)
    encoding = content.encoding_of(body, cut=more)
    if not encoding:
        return _binary(request, path, body, size, more=more)
    lines = content.line_count(body)
    first = request.first or 1
    if first > max(lines, 1) and not more:
        raise _beyond(path, first, lines)
    part = content.lines_of(body, first, request.last)
    piece = content.piece(part, first, request.most, more=False)
    if piece is None:  # the part has what the whole file has not: can't be
        return _binary(request, path, body, size, more=more)
    digest = "" if more else hashlib.sha256(body).hexdigest()
    note = "it grew, or has no size of its own, and was cut off" if more else ""
    if encoding == content.LATIN1 and piece.encoding != encoding:
        part = part[: request.most]
        piece = content.Piece(
            part[: len(piece.text.encode())].decode(encoding),
            encoding,
            piece.first,
            piece.last,
            piece.truncated,
            piece.midline,
        )
    return ReadAnswer(path, piece, size, lines, digest, _note(piece, note))


def _of_part(
    request: ReadRequest, path: str, size: int, body: bytes, tail: list[bytes]
) -> ReadAnswer:
    _look(request, path, body)
    ends, closed, digest, after = (*tail[1:5], b"", b"", b"", b"")[:4]
    counted = ends.strip().isdigit()
    lines = int(ends) + (closed.strip() == b"0") if counted else 0
    first = request.first or 1
    if not body and first > lines:
        raise _beyond(path, first, lines)
    piece = content.piece(body, first, request.most)
    ranged = request.last is not None and request.last < lines
    if piece is None:
        return _binary(request, path, body, size, more=True)
    if not piece.truncated and not ranged and piece.last < lines:
        piece = content.piece(body, first, request.most, more=True) or piece
    note = ""
    if after.strip() != str(size).encode():
        note = "it changed while it was read: read it again"
        digest = b""
    elif not digest:
        note = f"it is too large for a SHA-256{'' if counted else ' and total_lines'}"
    sha = digest.decode("ascii", "replace")
    return ReadAnswer(path, piece, size, lines, sha, _note(piece, note))


def _look(request: ReadRequest, path: str, body: bytes) -> None:
    if not request.force and (sensitive.holds_secrets(path) or sensitive.is_key(body)):
        raise sensitive.refusal(path, write=False)


def _binary(
    request: ReadRequest, path: str, body: bytes, size: int, *, more: bool
) -> ReadAnswer:
    if not request.force:
        raise not_text(path, content.kind_of(body), size)
    piece = content.as_base64(body, request.most, more=more and len(body) < size)
    digest = "" if more else hashlib.sha256(body).hexdigest()
    note = f"{content.kind_of(body)}, told as base64"
    return ReadAnswer(path, piece, size, 0, digest, note)


def _beyond(path: str, first: int, lines: int) -> DaemonError:
    return RangeError(
        Reason.INVALID_ARGUMENT,
        f"start_line {first} is beyond the end: {path} has {lines} lines",
        hint="Leave start_line out to read from the beginning.",
        metadata={"field": "start_line", "end": str(lines)},
    )


def _note(piece: Piece, note: str) -> str:
    notes = [note]
    if piece.midline:
        notes.append(
            f"line {piece.last} is cut: it is longer than max_bytes; raise it, or read"
            " on by a command (tail -c)"
        )
    elif piece.truncated:
        notes.append(f"more follows: read on with start_line={piece.last + 1}")
    if piece.encoding == content.LATIN1:
        notes.append("it is no UTF-8 and is shown as Latin-1; edits keep its bytes")
    if piece.text.startswith("\ufeff"):
        notes.append("it begins with a byte order mark (U+FEFF)")
    return "; ".join(filter(None, notes))
