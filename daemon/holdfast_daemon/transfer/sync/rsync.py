"""How rsync is called, and what its version and exit codes mean. Sans-I/O."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the place of a host and of the directory on it: rsync never sees their names, so
# nothing in them can be an option, another host, a user or a pattern.
HOST = "holdfast"
PLACE = "/holdfast-remote/"
# Older ones know neither --outbuf nor --debug.
_OLDEST = (3, 1)
# Has a sender say which names its rules leave out.
TELLING = "--debug=FILTER1"
# From here on a receiver makes sure by itself that a sender's list stays inside.
_CAREFUL = (3, 4)
_VERSION = re.compile(r"rsync\s+version v?(\d+)\.(\d+)")
_PATTERNS = 1000
_PATTERN_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """One sync.

    Attributes:
        upload: To the host; else from it.
        here: The directory on this machine, absolute, its links resolved.
        there: The directory on the host, as it was named.
    """

    upload: bool
    here: str
    there: str
    delete: bool = False
    dry_run: bool = False
    exclude: tuple[str, ...] = ()
    compress: bool = False
    checksum: bool = False


def check(request: SyncRequest, home: str) -> None:
    """Refuse what can't be meant; `home` is the one of this machine.

    Raises:
        InputError: The field is named.
    """
    if len(request.exclude) > _PATTERNS:
        raise InputError("exclude", f"exclude has more than {_PATTERNS} patterns")
    for at, pattern in enumerate(request.exclude):
        if not pattern.strip("/"):
            raise InputError(
                f"exclude[{at}]",
                f"exclude[{at}] is {pattern!r}: it would leave out everything or"
                " nothing",
                hint="Give a name, a glob, or a path that begins at the source with /.",
            )
        if len(pattern.encode()) > _PATTERN_BYTES or "\0" in pattern:
            raise InputError(
                f"exclude[{at}]",
                f"exclude[{at}] has a NUL or more than {_PATTERN_BYTES} bytes",
            )
    where = request.there if request.upload else request.here
    # "~user" is a home directory, too: the name is whose
    inner = where.partition("/")[2] if where.startswith("~") else where
    bare = posixpath.normpath(inner.lstrip("/") or ".")
    whole = bare == "." or bare.startswith("..")
    if request.delete and (whole or (not request.upload and where == home)):
        raise _emptied(where)


def empties(request: SyncRequest) -> bool:
    """Say whether it may delete what the host alone can tell the place of."""
    return request.upload and request.delete


def check_place(request: SyncRequest, place: str, home: str) -> None:
    """Refuse what only the host's answers show; both have no links.

    Args:
        request: What is asked, one that `empties`.
        place: What its directory on the host is.
        home: The account's home directory there; empty: unknown.

    Raises:
        InputError: The field is named.
    """
    if _whole(place) in ("/", _whole(home)):
        raise _emptied(request.there)


def _whole(path: str) -> str:
    return posixpath.normpath("/" + path.strip("/"))


def _emptied(where: str) -> InputError:
    return InputError(
        "delete",
        f"delete would empty {where!r} of all that the source does not have",
        hint="Name a directory below it.",
    )


def version(told: str) -> tuple[int, int] | None:
    """Return the version of a program that says it is rsync; None: it is none we know.

    Some systems have another program under that name, which knows fewer options.
    """
    found = _VERSION.match(told)
    if found is None:
        return None
    number = int(found[1]), int(found[2])
    return number if number >= _OLDEST else None


def words(
    request: SyncRequest,
    shell: Sequence[str],
    *,
    mark: str,
    number: tuple[int, int],
    idle: float,
    guards: Sequence[str] = (),
) -> list[str]:
    """Return the arguments for rsync of version `number`, without its own name.

    Args:
        request: What is wanted.
        shell: The words of the program in the place of ssh.
        mark: What begins the line of each change.
        number: The version of the program.
        idle: Seconds without a byte after which it gives up.
        guards: Rules for what must not be touched; what the user leaves out is first.
    """
    found = ["--archive", "--stats", "--no-human-readable"]
    found += ["--8-bit-output", "--outbuf=L", f"--out-format={mark} %i %n%L"]
    found += [f"--timeout={max(1, round(idle))}", f"--rsh={_shell(shell)}"]
    if request.delete:
        found.append("--delete")
    if request.dry_run:
        found.append("--dry-run")
    if request.compress:
        found.append("--compress")
    if request.checksum:
        found.append("--checksum")
    if not request.upload and number < _CAREFUL:
        found.append("--no-inc-recursive")
    # Not --exclude: there "+ x" would include, and "!" would forget the patterns.
    found += [f"--filter=- {pattern}" for pattern in request.exclude]
    found += [f"--filter={rule}" for rule in guards]
    if guards and request.upload:
        # Names that are left out are told; nobody else could know of them.
        found.append(TELLING)
    here, there = request.here.rstrip("/") + "/", f"{HOST}:{PLACE}"
    found.append("--")
    return [*found, here, there] if request.upload else [*found, there, here]


def _shell(words: Sequence[str]) -> str:
    """Return words as `--rsh` takes them: quoted, a quote within is doubled."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in words)


def environment(inherited: dict[str, str]) -> dict[str, str]:
    """Return the variables for rsync: none that changes what it does.

    The home directory is none, because an alias in ~/.popt could.
    """
    kept = {k: v for k, v in inherited.items() if k in ("PATH", "TMPDIR", "TZ")}
    return kept | {
        "LC_ALL": "C",
        "HOME": "/dev/null",
        # The words are to come as they are; each is quoted for the host.
        "RSYNC_OLD_ARGS": "1",
        "RSYNC_PROTECT_ARGS": "0",
    }


def remote(words_asked: Sequence[str]) -> list[str] | None:
    """Return the words that rsync wants to have run, up to the directory.

    None: they are not what was to be expected of it.
    """
    if len(words_asked) < 5:  # noqa: PLR2004  holdfast rsync --server . PLACE
        return None
    host, program, server, *options, dot, place = words_asked
    as_expected = (host, program, server, dot, place) == (
        HOST,
        "rsync",
        "--server",
        ".",
        PLACE,
    )
    return [program, server, *options, dot] if as_expected else None
