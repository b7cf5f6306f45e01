"""The words common to scripts about files, and the frame of answers. Sans-I/O.

A script comes over standard input, line by line, up to a line that nobody can guess;
what follows there is data. So neither paths nor contents are seen in a list of
processes, and the command that carries them is short enough for a shell that waits.
Its answer stands between marks that nobody can guess either: what start-up files print
is no part of it.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOME = re.compile(r"~([A-Za-z0-9._-]*)(/.*)?", re.DOTALL)
_PATH_BYTES = 4096

# `read` takes a byte at a time, so nothing of the data is lost to the shell.
_BOOT = 'n=\'\n\';s=;while IFS= read -r l&&[ "$l" != {end} ];do s=$s$l$n;done;eval "$s"'
# no WORD PATH [MORE]: the answer is a refusal, and it ends here.
_PRELUDE = r"""LC_ALL=C;export LC_ALL;CDPATH=;m=MARK;c=${m#*-};set -f
no(){ printf '%s\0' "$m" no "$@" "$m";exit 0;}
ok(){ printf '%s\0' "$m" ok "$@" "$m";}
"""
# It goes there itself: to whoever else would, /proc/self is another process.
_RESOLVE = r"""why(){ ls -d -- "$1" 2>&1 >/dev/null;}
resolve(){ r=$1;k=0
while :;do
case $r in */*) d=${r%/*}/;b=${r##*/};;*) d=./;b=$r;;esac
case $b in ''|.|..) d=$r;b=;;esac
[ -d "$d" ]||no parent "$d" "$(why "$d")"
cd -P -- "$d" 2>/dev/null||no denied "$d" "Permission denied"
d=$(pwd -P&&echo x);d=${d%??};r=${d%/}/$b
[ -n "$b" ]||{ r=$d;return;}
[ -L "$r" ]||return 0
k=$((k+1));[ $k -lt 40 ]||no parent "$1" "Too many levels of symbolic links"
t=$(readlink -- "$r"&&echo x)||no denied "$r" "Permission denied"
t=${t%??};case $t in /*) r=$t;;*) r=${d%/}/$t;;esac
done;}
regular(){ [ -f "$r" ]&&return
[ -d "$r" ]&&no kind "$r" directory
[ -p "$r" ]&&no kind "$r" FIFO
[ -b "$r" ]&&no kind "$r" 'block device'
[ -c "$r" ]&&no kind "$r" 'character device'
[ -S "$r" ]&&no kind "$r" socket
no none "$r" "$(why "$r")";}
"""
_HASH = r"""if command -v sha256sum >/dev/null 2>&1;then h(){ sha256sum;}
elif command -v shasum >/dev/null 2>&1;then h(){ shasum -a 256;}
elif command -v sha256 >/dev/null 2>&1;then h(){ sha256 -q;}
elif command -v openssl >/dev/null 2>&1;then h(){ openssl dgst -sha256 -r;}
else h(){ :;};fi
hash(){ set -- $(h <"$1");printf %s "$1";}
"""


def quote_path(path: str, field: str = "path") -> str:
    """Return a path as one shell word; `~` and `~user` mean what they mean to a shell.

    Raises:
        InputError: It can't be one.
    """
    if not path:
        raise InputError(field, f"{field} is empty", hint="Give a path on the host.")
    if len(path.encode()) > _PATH_BYTES:
        raise InputError(field, f"{field} is longer than {_PATH_BYTES} bytes")
    if "\0" in path:
        raise InputError(field, f"{field} has a NUL, which no path can have")
    home = _HOME.fullmatch(path)
    if home is not None:
        user, rest = home.group(1), home.group(2) or ""
        base = f"~{user}" if user else '"$HOME"'
        return base + (shlex.quote(rest) if rest else "")
    return shlex.quote(path)


def sftp_path(path: str, field: str = "path") -> bytes:
    """Return a path as SFTP has it: it begins in the home directory.

    Raises:
        InputError: It can't be one, or only a shell knows where it is.
    """
    quote_path(path, field)  # what can be no path for a shell can be none here
    if path.startswith("~") and path[:2] not in ("~", "~/"):
        raise InputError(
            field,
            f"{path}: whose directory that is only a shell knows, and files of this"
            " host are reached by SFTP",
            hint="Give the whole path, or ./ before a name that begins so.",
        )
    inner = path[1:].lstrip("/") if path[:1] == "~" else path
    return inner.encode() or b"."


@dataclass(frozen=True, slots=True)
class Script:
    """One script, with the marks of its answer.

    Attributes:
        command: What is run on the host.
        text: What it reads first; data may follow.
        mark: What stands before, between and after the parts of the answer.
    """

    command: str
    text: bytes
    mark: bytes


def compose(body: str, *, resolve: bool = True, hashes: bool = False) -> Script:
    """Return `body`, after the functions it uses."""
    nonce = secrets.token_hex(12)
    mark, end = f"holdfast-{nonce}", f"end-{nonce}"
    text = _PRELUDE.replace("MARK", mark)
    text += (_RESOLVE if resolve else "") + (_HASH if hashes else "")
    text += body
    lines = f"{text}\n{end}\n"
    data = lines.encode("utf-8", "surrogateescape")
    return Script(_BOOT.format(end=end), data, mark.encode() + b"\0")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer taken apart: the fields at its start, and the parts between marks.

    Attributes:
        fields: Decoded so that they can be encoded again (surrogateescape).
        parts: What follows: contents, and then what is told at the end.
    """

    ok: bool
    fields: tuple[str, ...]
    parts: tuple[bytes, ...]


def take_apart(output: bytes, mark: bytes) -> Reply | None:
    """Return the answer in `output`; None: there is none, or not all of its head."""
    _, found, rest = output.partition(mark)
    head, closed, rest = rest.partition(mark)
    if not found or not closed:
        return None
    word, *fields = texts(head)
    return Reply(word == "ok", tuple(fields), tuple(rest.split(mark)))


def texts(data: bytes) -> list[str]:
    """Return NUL-terminated fields."""
    parts = data.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return [shown(part) for part in parts]


def shown(name: bytes) -> str:
    r"""Return a name of the host as text; a byte that is no UTF-8 is shown as \xNN."""
    return name.decode("utf-8", "backslashreplace")


def alternatives(words: Iterable[str]) -> str:
    """Return tests of `find` of which one must hold."""
    return r"\( " + " -o ".join(words) + r" \)"
