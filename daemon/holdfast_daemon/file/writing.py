"""The scripts that write and edit a file, and what comes of their answers. Sans-I/O.

The text goes into a new file in the same directory, which then takes the old one's
place in one step, with its mode, owner and ACL. Where that can't be - they can't be
kept, the file has several names, nothing can be made beside it - the old file is
written in place once all of the text is on the host, and the answer says so.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.script import Script, compose, quote_path

if TYPE_CHECKING:
    from holdfast_daemon.file.script import Reply
    from holdfast_daemon.limits import Limits

_MODE = re.compile(r"[0-7]{3,4}")
_SUM = re.compile(r"[0-9a-f]{64}")

# $r resolved, $d its directory, $g 1 when it is there; $w the bytes to come, $x what
# the file's sum must be, $i 1 when it is written in place.
# The new file is made in a directory that only we may enter, and in which we stand: so
# whoever owns the one above it puts no link under its name meanwhile. That one's group
# and access list, which are handed down, are a new file's too.
_STAGE = r"""w=BYTES;i=;u=$(umask);v=ASKED;t=./${r##*/};k=.holdfast.$c
alone(){ [ "$1" ]&&e=$( (umask 077;mkdir -m 700 -- "${1%/}/$k") 2>&1)||return 1
cd -P -- "${1%/}/$k"&&[ "$(pwd -P)" = "${1%/}/$k" ]&&[ -O . ]&&z=1||{
e="it is not ours alone";return 1;}
[ -g . ]||[ ! -g .. ]||chmod g+s . 2>/dev/null||:;}
z=;trap '[ -z "$z" ]||{ rm -f -- "$t";cd -P ..&&rmdir -- "$k" 2>/dev/null;}' EXIT
trap 'exit 1' HUP INT TERM PIPE
alone "$d"||{ f=$e;i=1
[ "$g" ]||no stage "$r" "$f"
alone "$(cd -P -- "${TMPDIR:-/tmp}"&&pwd -P)"||no stage "$r" "$f"
}
e=$( ([ -z "$g$v" ]||umask 077;set -C;: >"$t") 2>&1)||no stage "$r" "$e"
attrs(){ set -- $(ls -ldn -- "$1");printf %s "$1 $3 $4";}
if [ "$g" ]&&[ -z "$i" ]&&[ "$j" != append ];then
set -- $(ls -ldn -- "$r");[ "$2" = 1 ]||i=1
[ "$i" ]||{ a=--preserve=mode,ownership,xattr
cp --attributes-only $a -- "$r" "$t"||cp -p -- "$r" "$t"||i=1;} 2>/dev/null
fi
if dd of="$t" conv=fsync </dev/null 2>/dev/null
then e=$(dd of="$t" bs=65536 conv=fsync 2>&1)||no write "$r" "$e"
else e=$(cat 2>&1 >"$t")||no write "$r" "$e";fi
set -- $(ls -ldn -- "$t");[ "$5" = "$w" ]||no short "$r" "$5"
if [ "$g" ]&&[ -z "$i" ]&&[ "$j" != append ]
then [ "$(attrs "$r")" = "$(attrs "$t")" ]||i=1;fi
"""
# What something is mounted on is busy: nothing can take its place.
_SWAP = r"""umask "$u"
over(){ i=1;e=$(cat 2>&1 <"$t" >"$r")||no half "$r" "$e";}
late(){ g=1;i=1;e=$(cat 2>&1 <"$t" >>"$r")||no half "$r" "$e";}
if [ "$g" ]&&[ "$v" ]&&{ [ "$i" ]||[ "$j" = append ];};then chmod go= "$r";fi
if [ "$g" ]&&[ "$j" = append ];then i=1
e=$(cat 2>&1 <"$t" >>"$r")||no half "$r" "$e"
elif [ "$i" ];then over
elif [ "$g" ];then [ -z "$v" ]||chmod PERMS "$t"
e=$(mv -f -- "$t" ../ 2>&1)||case $e in
*busy) [ -z "$v" ]||chmod go= "$r";over;;
*)no write "$r" "$e";;esac
else [ -z "$v" ]||chmod PERMS "$t"
e=$(ln -- "$t" ../ 2>&1)||{ [ -e "$r" ]||[ -L "$r" ]&&[ "$j" = create ]&&no exists "$r"
if [ "$j" = append ]&&[ -f "$r" ];then late;else
e=$(mv -f -- "$t" ../ 2>&1)||no write "$r" "$e";fi;}
fi
[ -z "$i" ]||CHMOD
q=;set -- $(ls -ldn -- "$r")
[ "$j" = append ]&&[ "$5" -le HASHED ]&&q=$(hash "$r")
ok "$r" "${g:-0}" "${i:-0}" "$5" "$q"
"""
_WRITE = (
    r"""p=PATH;o=PARENT;y=EXPECTED;j=MODE
LEXICAL
[ -z "$o" ]||[ -d "$o" ]||e=$(mkdir -p -- "$o" 2>&1)||no parents "$o" "$e"
resolve "$p"
GUARD
g=;if [ -e "$r" ];then regular;g=1
[ "$j" = create ]&&no exists "$r"
[ -w "$r" ]||no denied "$r" "Permission denied"
elif [ "$r" = "$d" ]||[ -L "$r" ];then no none "$r" "$(why "$r")"
elif [ "$y" ];then no gone "$r";fi
"""
    + _STAGE
    + r"""if [ "$y" ];then q=$(hash "$r");[ "$q" ]||no nohash "$r"
[ "$q" = "$y" ]||no changed "$r" "$q";fi
"""
    + _SWAP
)
# A talk: the file there, and then how many bytes of the new one follow, or none.
_EDIT = (
    r"""p=PATH;j=edit;resolve "$p"
GUARD
regular;g=1
[ -r "$r" ]||no denied "$r" "Permission denied"
[ -w "$r" ]||no denied "$r" "Permission denied"
set -- $(ls -ldn -- "$r");[ "$5" -le LARGEST ]||no large "$r" "$5"
sum(){ q=$(hash "$1");[ "$q" ]||q=$(cksum <"$1");printf %s "$q";}
x=$(sum "$r")
ok "$r" "$x"
head -c TAKEN <"$r";printf '%s\0' "$m" "$?" "$m"
IFS= read -r w||exit 0
[ "$w" = quit ]&&exit 0
"""
    + _STAGE.replace("w=BYTES;", "")
    + r"""q=$(sum "$r");[ "$q" = "$x" ]||{ [ ${#q} = 64 ]||q=;no changed "$r" "$q";}
"""
    + _SWAP
)


class Mode(StrEnum):
    """What to do when the file is there, or is not."""

    CREATE = "create"
    OVERWRITE = "overwrite"
    APPEND = "append"


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What to write; `permissions` and `expected` are empty where nothing is asked."""

    path: str
    data: bytes
    mode: Mode = Mode.CREATE
    permissions: str = ""
    make_parents: bool = False
    expected: str = ""


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """What was written."""

    path: str
    written: int
    created: bool
    sha256: str
    size: int
    note: str = ""


def check(request: WriteRequest) -> None:
    """Refuse what can't be meant.

    Raises:
        InputError: A value is wrong; nothing was sent.
    """
    if request.permissions and not _MODE.fullmatch(request.permissions):
        raise InputError("permissions", "permissions is three or four octal digits")
    if request.expected and not _SUM.fullmatch(request.expected):
        raise InputError("expected_sha256", "expected_sha256 is 64 hex digits, small")
    if request.expected and request.mode is Mode.CREATE:
        raise InputError(
            "expected_sha256",
            "expected_sha256 goes with mode overwrite or append: create refuses any"
            " file that is there",
        )
    if request.path.endswith("/"):
        raise InputError("path", "path ends with / and names a directory")


def script(request: WriteRequest, limits: Limits) -> Script:
    """Return what is run to write a file; the data follow it."""
    check(request)
    path = quote_path(request.path)
    parent = posixpath.dirname(request.path) if request.make_parents else ""
    parents = quote_path(parent) if parent else "''"
    perms, chmod, asked = "''", ":", ""
    if request.permissions:
        asked = "1"
        perms = request.permissions
        chmod = f'chmod {perms} "$r"||no half "$r" "its mode could not be set"'
    text = _WRITE.replace("LEXICAL", sensitive.case("p", write=True))
    text = text.replace("GUARD", sensitive.case("r", write=True))
    text = text.replace("BYTES", str(len(request.data)))
    text = text.replace("HASHED", str(limits.file_hash_bytes))
    text = text.replace("EXPECTED", f"'{request.expected}'")
    text = text.replace("PERMS", perms).replace("CHMOD", chmod)
    text = text.replace("ASKED", asked)
    text = text.replace("MODE", request.mode.value)
    text = text.replace("PARENT", parents, 1).replace("PATH", path, 1)
    return compose(text, hashes=True)


def edit_script(path: str, limits: Limits) -> Script:
    """Return what is run to edit a file: it tells the file, and waits for the new."""
    largest = limits.file_edit_bytes
    text = _EDIT.replace("GUARD", sensitive.case("r", write=True))
    text = text.replace("LARGEST", str(largest)).replace("TAKEN", str(largest + 1))
    text = text.replace("PERMS", "''").replace("CHMOD", ":").replace("ASKED", "")
    text = text.replace("HASHED", "0")
    return compose(text.replace("PATH", quote_path(path), 1), hashes=True)


def answer(data: bytes, reply: Reply, *, append: bool = False) -> WriteAnswer:
    """Return what a reply tells of a file that was written."""
    path, there, in_place, size, digest = reply.fields
    if not append or there == "0":
        digest = hashlib.sha256(data).hexdigest()
    note = ""
    if in_place == "1" and not append:
        note = (
            "written in place, not swapped in one step: its owner, mode, other names or"
            " mount could not be kept otherwise"
        )
    return WriteAnswer(path, len(data), there == "0", digest, int(size or 0), note)
