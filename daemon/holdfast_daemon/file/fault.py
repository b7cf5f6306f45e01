"""Why a host did not do what was asked of a file: from words to errors. Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import (
    DaemonError,
    DeniedError,
    InputError,
    NotFoundError,
    Ran,
    Reason,
    StateError,
)
from holdfast_daemon.file import sensitive

if TYPE_CHECKING:
    from collections.abc import Callable

# What strerror says in the C locale, as programs end their messages with it.
_CAUSES = (
    ("No such file or directory", "missing"),
    ("Permission denied", "permission"),
    ("Operation not permitted", "permission"),
    ("Read-only file system", "read_only"),
    ("No space left on device", "space"),
    ("Disk quota exceeded", "space"),
    ("File name too long", "name"),
    ("Too many levels of symbolic links", "links"),
    ("Not a directory", "not_a_directory"),
    ("Is a directory", "directory"),
    ("Text file busy", "busy"),
    ("Input/output error", "io"),
)
_HINTS = {
    "permission": "Set sudo to do it as root, where sudo lets this account in.",
    "read_only": "Nothing can be written there; choose another place.",
    "space": "The file is as it was. Make room there, or choose another place.",
    "links": "The links lead in a circle; give the path of the file itself.",
    "busy": "It is a program that runs just now; end it first.",
    "io": "The host's disk has trouble; its log says more (dmesg).",
}
_SAID = 300


def cause_of(said: str) -> tuple[str, str]:
    """Return (a stable word, the system's words) for what a program complained of."""
    for words, cause in _CAUSES:
        if words in said:
            return cause, words
    return "other", " ".join(said.split())[-_SAID:] or "it gave no reason"


def fault(fields: tuple[str, ...], *, write: bool, sudo: bool = False) -> DaemonError:
    """Return the error for a refusal `(word, path, more)` of a script."""
    word, path, more = (*fields, "", "", "")[:3]
    make = _MAKERS.get(word)
    if make is not None:
        return make(path, more)
    if word == "sensitive":
        return sensitive.refusal(path, write=write)
    return failed(path, more, sudo=sudo, doing=_DOING.get(word, ""))


def failed(path: str, said: str, *, sudo: bool = False, doing: str = "") -> DaemonError:
    """Return the error for what the host's system refused."""
    cause, words = cause_of(said)
    if cause == "missing":
        return _none(path, said)
    hint = _HINTS.get(cause, "Look at the path with ssh_dir_list, detailed.")
    if cause == "permission" and sudo:
        hint = "Even root may not: look at its attributes (lsattr) and its mount."
    return StateError(
        Reason.FILE_FAILED,
        f"{path}{doing}: {words}; the file is as it was",
        hint=hint,
        metadata={"path": path, "cause": cause},
    )


_DOING = {
    "stage": " can't be written: no new file can be made beside it",
    "write": " can't be written",
    "denied": " can't be had",
    "parents": " can't be made",
}


def _none(path: str, said: str) -> DaemonError:
    cause, words = cause_of(said)
    if cause not in ("missing", "other", "not_a_directory"):
        return failed(path, said)
    return NotFoundError(
        Reason.FILE_NOT_FOUND,
        f"there is no {path}: {words}",
        hint="ssh_dir_list shows what a directory holds, ssh_find looks for a name.",
        metadata={"path": path},
    )


def _parent(path: str, said: str) -> DaemonError:
    cause, _ = cause_of(said)
    if cause in ("permission", "links"):
        return failed(path, said)
    if cause in ("not_a_directory", "other"):
        return NotFoundError(
            Reason.FILE_NOT_FOUND,
            f"{path} is no directory",
            hint="Look at what is there with ssh_dir_list.",
            metadata={"path": path},
        )
    return NotFoundError(
        Reason.FILE_NOT_FOUND,
        f"there is no directory {path}",
        hint="Check the path. Missing directories are made by ssh_file_write where"
        " make_parents is set, by ssh_copy where the destination ends in a slash.",
        metadata={"path": path},
    )


def _kind(path: str, kind: str) -> DaemonError:
    hint = "ssh_dir_list shows a directory." if kind == "directory" else ""
    return StateError(
        Reason.NOT_TEXT,
        f"{path} is a {kind} and no regular file",
        hint=hint or "Only regular files are read and written by this tool.",
        metadata={"path": path, "type": kind},
    )


def _exists(path: str, _: str) -> DaemonError:
    return StateError(
        Reason.FILE_EXISTS,
        f"{path} is there already, and mode create replaces nothing",
        hint="Set mode to overwrite or append, or change it with ssh_file_edit.",
        metadata={"path": path},
    )


def _changed(path: str, now: str) -> DaemonError:
    told = f"; it has SHA-256 {now} now" if now else ""
    return StateError(
        Reason.FILE_CHANGED,
        f"{path} is not what was last seen of it: somebody changed it{told}",
        hint="Nothing was written. Read it again, and apply the change to what is"
        " there now.",
        metadata={"path": path, **({"sha256": now} if now else {})},
    )


def _gone(path: str, _: str) -> DaemonError:
    return StateError(
        Reason.FILE_CHANGED,
        f"{path} is not there, and expected_sha256 names what it should hold",
        hint="Nothing was written. Leave expected_sha256 out to make it anew.",
        metadata={"path": path},
    )


def _no_hash(path: str, _: str) -> DaemonError:
    return StateError(
        Reason.UNSUPPORTED,
        f"the host has no program for SHA-256, so {path} can't be compared",
        hint="Leave expected_sha256 out, or use ssh_file_edit, which compares.",
        metadata={"path": path},
    )


def _large(path: str, size: str) -> DaemonError:
    return StateError(
        Reason.NOT_TEXT,
        f"{path} has {size} bytes, too many to edit here",
        hint="limits.file_edit_bytes is the limit; a command (sed -i) edits it there.",
        metadata={"path": path, "size_bytes": size},
    )


def _no_directory(path: str, said: str) -> DaemonError:
    if said == "file":
        return StateError(
            Reason.FILE_FAILED,
            f"{path} is a file and no directory",
            hint="ssh_file_read reads a file.",
            metadata={"path": path, "cause": "not_a_directory"},
        )
    return _parent(path, said)


def _pattern(_: str, said: str) -> DaemonError:
    words = " ".join(said.split())[:_SAID]
    return InputError(
        "pattern",
        f"pattern is no regular expression that the host can search for: {words}",
        hint="Put a backslash before a character that is meant as it stands.",
    )


def _short(path: str, got: str) -> DaemonError:
    return StateError(
        Reason.FILE_FAILED,
        f"only {got} bytes of the text for {path} reached the host; nothing was"
        " replaced",
        hint="Call again.",
        metadata={"path": path, "cause": "short"},
    )


def _half(path: str, said: str) -> DaemonError:
    cause, words = cause_of(said)
    return StateError(
        Reason.FILE_FAILED,
        f"{path} was written in place and not to its end: {words}",
        hint="Read it before anything else is done with it.",
        ran=Ran.YES,
        metadata={"path": path, "cause": cause},
    )


_MAKERS: dict[str, Callable[[str, str], DaemonError]] = {
    "none": _none,
    "parent": _parent,
    "kind": _kind,
    "exists": _exists,
    "changed": _changed,
    "gone": _gone,
    "nohash": _no_hash,
    "large": _large,
    "nodir": _no_directory,
    "pattern": _pattern,
    "short": _short,
    "half": _half,
}


def unreadable(path: str, said: str) -> DaemonError:
    """Return the error for an answer that can't be understood."""
    if "ermission denied" in said or "No such file" in said:
        return failed(path, said)
    cause, words = cause_of(said)
    return DeniedError(
        Reason.FILE_FAILED,
        f"the host did not answer as a POSIX shell does when asked about {path}:"
        f" {words}",
        hint="Look whether a start-up file or a forced command of this account prints"
        " or ends the shell.",
        ran=Ran.UNKNOWN,
        metadata={"path": path, "cause": cause},
    )
