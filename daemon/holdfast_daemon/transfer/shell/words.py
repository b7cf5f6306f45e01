"""What a host's shell does in a copy, in its own words. Sans-I/O.

What is sent up lies in a directory of its own beside its destination (`STAGE`, which
only the account may enter) until all of it is there and was verified; then it is
renamed. Scripts and paths come over standard input: no list of processes shows them.
"""

from __future__ import annotations

import datetime as dt
import shlex
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.file.script import Script, compose
from holdfast_daemon.transfer.shell.moving import PUT
from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGE = b".holdfast-"
# A host may tell anything; no system here knows of more.
_LATEST = 253402300799  # the last second of the year 9999
_MOST_BYTES = 1 << 62

_GO = r"""go(){ cd -P -- "$1" 2>/dev/null&&return
[ -d "$1" ]||no parent "$1" "$(why "$1")"
no denied "$1" "Permission denied";}
"""
# Where things go: what is there, and what a new file may do.
_WHERE = r"""p=PATH
if [ -d "$p" ];then resolve "$p";k=dir
else while :;do case $p in ?*/) p=${p%/};;*) break;;esac;done
if [ WANT = 1 ];then
[ -e "$p" ]&&{ resolve "$p";no nodir "$r" file;}
e=$(mkdir -p -- "$p" 2>&1)||no parents "$p" "$e"
resolve "$p";k=dir
else resolve "$p";k=none
[ -e "$r" ]&&{ k=other;[ -f "$r" ]&&k=file;}
fi;fi
ok "$r" "$k" "$(umask)"
"""
# What is to be fetched, with its real name.
_WHAT = r"""p=PATH
resolve "$p"
[ -e "$r" ]||no none "$r" "$(why "$r")"
k=other;[ -d "$r" ]&&k=dir;[ -f "$r" ]&&k=file
if [ $k = file ];then [ -r "$r" ]||no denied "$r" "Permission denied";fi
"""
# GNU, busybox and toybox have stat -c, the BSDs and macOS stat -f. Records begin with
# words that no name has: a name may hold anything else.
_TELL = r"""if stat -c %f / >/dev/null 2>&1;
then f=-c;g="$m %f %s %Y %n"
else f=-f;g="$m %Xp %z %m %N";fi
tell(){ find "$@" -exec stat "$f" "$g" {} +
printf '%s\0' "$m"
find "$@" -type l -exec sh -c 'for l;do
printf "%s\0" "$l";readlink -n -- "$l";printf "\0";done' sh {} +;}
"""
_LIST = r"""ok "$r" "$k"
if [ $k = dir ];then cd -P -- "$r"&&tell . DEPTH
else cd -P -- "${r%/*}/"&&tell "./${r##*/}";fi
"""
# The staging directory, and what an earlier attempt left in it; then the names that
# are there already where it will go. -m: a directory may hand down an access list,
# which counts for more than a mask; the bit of a group (S) it hands down too.
_STAGE = r"""go DIR
t=NAME
e=$(umask 077&&mkdir -m 700 -- "$t" 2>&1)||{
[ -d "$t" ]&&[ ! -L "$t" ]&&[ -O "$t" ]||no stage DIR "$e"
case $(ls -ld -- "$t") in d???--[-S]---*);;*) no stage DIR "$t is in the way";;esac;}
x=no;command -v tar >/dev/null 2>&1&&x=tar
ok "$x"
(cd -P -- "$t"&&tell .)
printf '%s\0' "$m"
for n in TOPS;do [ -e "$n" ]||[ -L "$n" ]&&tell "$n";printf '%s\0' "$m";done
"""
# Each attempt unpacks into a directory of its own: a tar whose channel was given up for
# dead may still write later, and would make files anew that were checked since.
_TAR = r"""go DIR
w=1;apart=;i=.holdfast-in-$c
trap 'rm -rf -- "$i"' EXIT;trap 'exit 1' HUP INT TERM PIPE
e=$( (umask 077;mkdir -m 700 -- "$i"&&cd -P -- "$i"&&exec tar -xpof -) 2>&1)||
no write DIR "$e"
[ -f "$i/SUMS" ]||no write DIR "it did not come whole"
s=:
if [ ! -s "$i/SUMS" ];then :
elif command -v sha256sum >/dev/null 2>&1;then s="sha256sum -c ./SUMS"
elif command -v shasum >/dev/null 2>&1;then s="shasum -a 256 -c ./SUMS";fi
e=$( (cd -P -- "$i"&&$s) 2>&1 >/dev/null)||no sum DIR "$e"
rm -f -- "$i/SUMS"
set +f
e=$(merge "./$i" .|tr '\0' ' ')
[ -z "$e" ]||no write DIR "$e"
ok
"""
# It writes at its offset and does not append: a channel that was given up for dead may
# still write later, and then what it writes is there already. What came of a file that
# nobody may write has its mode already.
_APPEND = r"""go DIR
umask 077
# a heap's directory may take the place of the one just made
case FILE in */*) p=FILE;d=${p%/*};mkdir -p -- "$d" 2>/dev/null||mkdir -p -- "$d";;esac
[ -L FILE ]&&no stage FILE "it is a link"
if [ AT = 0 ];then rm -f -- FILE;e=$( (set -C;: >FILE) 2>&1)||no write FILE "$e"
else chmod u+rw FILE 2>/dev/null
dd if=/dev/null of=FILE bs=1 seek=AT 2>/dev/null||no write FILE "$(why FILE)";fi
e=$( { { dd if=/dev/null bs=1 seek=AT conv=notrunc 2>/dev/null&&cat;} 2>&1 >&3;
} 3<>FILE)||no write FILE "${e:-$(why FILE)}"
set -- $(wc -c <FILE)
n=$1
[ "$n" = SIZE ]||no short FILE "$n"
s=$(hash FILE)
e=$( { chmod MODE FILE&&TZ=UTC0 touch -m -t STAMP -- FILE;} 2>&1)
ok "$n" "$s" "$e"
"""
# `openssl` is by far the fastest where it is there.
_QUICK = r"""if command -v openssl >/dev/null 2>&1;then
h(){ openssl dgst -sha256 -r;};fi
"""
_PREFIX = r"""go DIR
[ -f FILE ]&&[ ! -L FILE ]||no gone FILE
set -- $(wc -c <FILE)
n=$1
set -- $(head -c "$n" FILE|h)
ok "$n" "$1"
"""
# Names come in, NUL behind each; what they hold goes out.
_SEND_MANY = r"""go DIR
ok
exec xargs -0 tar -cf -
"""
# Not as links to each other, as a tar tells of names of the same file.
_SEND_EACH = r"""go DIR
ok
if tar --hard-dereference -cf /dev/null /dev/null </dev/null 2>/dev/null
then exec xargs -0 tar --hard-dereference -cf -;fi
exec xargs -0 -n 1 tar -cf -
"""
_SUMS = r"""go DIR
ok
if command -v sha256sum >/dev/null 2>&1;then xargs -0 sha256sum
elif command -v shasum >/dev/null 2>&1;then xargs -0 shasum -a 256
fi
"""
_SEND = r"""go DIR
[ -f FILE ]&&[ ! -L FILE ]||no gone FILE
[ -r FILE ]||no denied FILE "Permission denied"
ok
if [ AT = 0 ];then exec cat <FILE;else exec tail -c +NEXT <FILE;fi
"""
# As its data alone, where it has less than MOST KiB of it and this tar can tell.
_SEND_THIN = r"""go DIR
[ -f FILE ]&&[ ! -L FILE ]||no gone FILE
[ -r FILE ]||no denied FILE "Permission denied"
set -- $(du -k FILE)
[ "${1:-MOST}" -lt MOST ]||no dense
case $(tar --version 2>/dev/null) in *GNU*);;*) no dense;;esac
ok
exec tar --format=gnu -cSf - FILE
"""
_SUM = r"""go DIR
[ -f FILE ]||no gone FILE
ok "$(hash FILE)"
"""
# It may have to copy all onto another disk, and tells meanwhile that it is at it: by
# two empty names.
_FINISH = r"""go DIR
dirs(){ for o;do [ -d "$o" ]||e=$(mkdir -p -- "$o" 2>&1)||tell_of "$o" "$e";done;}
link(){ rm -f -- "$2";e=$(ln -s -- "$1" "$2" 2>&1)||tell_of "$2" "$e";}
t=NAME;w=OVER;apart=1
[ -d "$t" ]&&[ ! -L "$t" ]&&[ -O "$t" ]||no gone "$t"
ok
(trap 'kill $s;exit' TERM
while sleep BEAT >/dev/null& s=$!;wait $s;do printf '\0\0'
done) </dev/null 2>/dev/null &
beat=$!
trap 'kill $beat 2>/dev/null' EXIT
(cd -P -- "$t"&&{ AFTER
:;})
set +f
for n in TOPS;do [ -e "$t/$n" ]||[ -L "$t/$n" ]||continue
put "$t/$n" "$n";done
rm -rf -- "$t"
{ kill $beat&&wait $beat;} 2>/dev/null
printf '%s\0' "$m"
"""
# What an earlier attempt has put, whose answer was lost.
_PLACED = r"""go DIR
for n in TOPS;do [ -e "$n" ]||[ -L "$n" ]||no gone DIR;done
ok
"""
_AFTER = r"""go DIR
e=$( { LINES
:;} 2>&1)
ok "$e"
"""
# Names come in, NUL behind each.
_SWEEP = r"""go DIR
ok
exec xargs -0 rm -rf --
"""
_DROP = r"""go DIR
t=NAME
[ -d "$t" ]&&[ ! -L "$t" ]&&[ -O "$t" ]&&rm -rf -- "$t"
ok
"""


def word(name: bytes) -> str:
    """Return a name as one shell word; it is no option, whatever it begins with."""
    text = name.decode("utf-8", "surrogateescape")
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def _script(
    body: str, put: dict[str, str], *, hashes: bool = False, quick: bool = False
) -> Script:
    """Put words into their places, all at once: none is looked for in another."""
    text = _GO + (_QUICK if quick else "") + body
    for name in put:
        text = text.replace(name, f"\0{name}\0")
    parts = text.split("\0")
    done = "".join(put.get(one, one) if at % 2 else one for at, one in enumerate(parts))
    return compose(done, hashes=hashes)


def where(path: str, *, want: bool) -> Script:
    """Ask where `path` (quoted) leads; `want`: it is to be a directory."""
    return _script(_WHERE, {"PATH": path, "WANT": "1" if want else "0"})


def what(path: str, *, recursive: bool) -> Script:
    """Ask what `path` (quoted) is, and for all below it."""
    depth = "" if recursive else "-prune"
    return _script(_WHAT + _TELL + _LIST, {"PATH": path, "DEPTH": depth})


def stage(folder: bytes, name: bytes, tops: Iterable[bytes]) -> Script:
    """Make the staging directory; tell what is in it, and what is in the way."""
    put = {"DIR": word(folder), "NAME": word(name), "TOPS": _names(tops)}
    return _script(_TELL + _STAGE, put)


def take_many(folder: bytes, sums: bytes) -> Script:
    """Take a tar, with a file `sums` in it that tells the rest's checksums."""
    return _script(PUT + _TAR, {"DIR": word(folder), "SUMS": word(sums)})


def take(
    folder: bytes,
    file: bytes,
    at: int,
    entry: Entry,
    *,
    sums: bool = True,
    since: int = 0,
) -> Script:
    """Take a file from `at` on, which then is as `entry`; tell its checksum.

    `sums`: look at the whole of it, once all has come, or at all `since` there.
    """
    body = _APPEND
    if since:
        late = f"set -- $(tail -c +{since + 1} <FILE|h);s=$1"
        body = body.replace("s=$(hash FILE)", late)
    if not sums:  # more comes; both may read the whole file
        body = body.replace("$(hash FILE)", "").replace("$(wc -c <FILE)", "SIZE")
    put = {
        "DIR": word(folder),
        "FILE": word(file),
        "AT": str(at),
        "SIZE": str(entry.size),
        "MODE": f"{entry.mode:o}",
        "STAMP": stamp(entry.modified),
    }
    return _script(body, put, hashes=True, quick=True)


def prefix(folder: bytes, file: bytes, upto: int = 0) -> Script:
    """Tell how much of a file is there, and its checksum; `upto`: of so much of it."""
    put = {"DIR": word(folder), "FILE": word(file)}
    body = _PREFIX.replace("$(wc -c <FILE)", str(upto)) if upto else _PREFIX
    return _script(body, put, hashes=True, quick=True)


def send_many(folder: bytes, *, alone: bool) -> Script:
    """Send files, whose names come, as a tar; none `alone` is told as a link."""
    return _script(_SEND_EACH if alone else _SEND_MANY, {"DIR": word(folder)})


def send(folder: bytes, file: bytes, at: int) -> Script:
    """Send a file from `at` on."""
    put = {"DIR": word(folder), "FILE": word(file), "AT": str(at)}
    return _script(_SEND.replace("NEXT", str(at + 1)), put)


def send_thin(folder: bytes, file: bytes, most: int) -> Script:
    """Send a file as a tar without its holes, where it holds less than `most` bytes."""
    put = {"DIR": word(folder), "FILE": word(file), "MOST": str(most // 1024)}
    return _script(_SEND_THIN, put)


def sums(folder: bytes) -> Script:
    """Tell the checksums of files, whose names come, in their order."""
    return _script(_SUMS, {"DIR": word(folder)})


def checksum(folder: bytes, file: bytes) -> Script:
    """Tell the checksum of a file."""
    put = {"DIR": word(folder), "FILE": word(file)}
    return _script(_SUM, put, hashes=True, quick=True)


def finish(
    folder: bytes,
    name: bytes,
    tops: Iterable[bytes],
    after: str,
    *,
    overwrite: bool,
    beat: float,
) -> Script:
    """Put everything in its place; tell what could not be.

    `beat`: after so many seconds each, that it is still at it.
    """
    put = {
        "DIR": word(folder),
        "NAME": word(name),
        "TOPS": _names(tops),
        "AFTER": after,
        "OVER": "1" if overwrite else "0",
        "BEAT": f"{beat:.2g}",
    }
    return _script(PUT + _FINISH, put)


def placed(folder: bytes, tops: Iterable[bytes]) -> Script:
    """Ask whether all names are there."""
    return _script(_PLACED, {"DIR": word(folder), "TOPS": _names(tops)})


def after(folder: bytes, lines: str) -> Script:
    """Do what comes when all is in its place; tell what went wrong in it."""
    return _script(_AFTER, {"DIR": word(folder), "LINES": lines})


def sweep(folder: bytes) -> Script:
    """Delete names, which come."""
    return _script(_SWEEP, {"DIR": word(folder)})


def drop(folder: bytes, name: bytes) -> Script:
    """Delete the staging directory."""
    return _script(_DROP, {"DIR": word(folder), "NAME": word(name)})


def stamp(modified: int) -> str:
    """Return a time as touch -t takes it."""
    at = dt.datetime.fromtimestamp(min(max(modified, 0), _LATEST), dt.UTC)
    return at.strftime("%Y%m%d%H%M.%S")


def _names(names: Iterable[bytes]) -> str:
    return " ".join(word(b"./" + name) for name in names)


class Told(NamedTuple):
    """What one listing told, and how many of its names can't be names."""

    tree: Tree
    odd: list[bytes]


def listing(records: bytes, links: bytes, mark: bytes) -> Told:
    """Return the names of a listing, relative to where it was made.

    A host tells what it wants: a name that would lead elsewhere is no name.
    """
    tree: Tree = {}
    odd: list[bytes] = []
    targets = _pairs(links)
    for record in records.split(mark.rstrip(b"\0") + b" ")[1:]:
        found = _record(record, targets)
        if found is None:
            continue
        path, entry = found
        if not path:
            continue
        if any(part in (b"", b".", b"..") for part in path.split(b"/")):
            odd.append(path)
        else:
            tree[path] = entry
    return Told(tree, odd)


def _pairs(data: bytes) -> dict[bytes, bytes]:
    fields = data.split(b"\0")
    return {_bare(a): b for a, b in zip(fields[::2], fields[1::2], strict=False)}


def _bare(name: bytes) -> bytes:
    return b"" if name == b"." else name.removeprefix(b"./")


_KINDS = {0x8000: Kind.FILE, 0x4000: Kind.DIRECTORY, 0xA000: Kind.LINK}


def _record(record: bytes, targets: dict[bytes, bytes]) -> tuple[bytes, Entry] | None:
    fields = record.removesuffix(b"\n").split(b" ", 3)
    if len(fields) < 4:  # noqa: PLR2004
        return None
    mode, size, modified, name = fields
    path = _bare(name)
    try:
        bits = int(mode, 16)
        kind = _KINDS.get(bits & 0xF000, Kind.OTHER)
        entry = Entry(
            kind,
            min(max(int(size), 0), _MOST_BYTES),
            min(max(int(modified), -_LATEST), _LATEST),
            bits & 0o7777,
            targets.get(path, b""),
        )
    except ValueError:
        return None
    return path, entry
