"""The person's own ssh files: modes, and lines of known_hosts that can't be read."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.doctor import finding, modes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.doctor.modes import Seen

_MARKERS = ("@cert-authority", "@revoked")
_FIELDS = 3
_PIPE = "it is a pipe"
_LENGTH = 4
_NAMED = 8
_MOST_BYTES = 50_000_000


def folder(path: Path, uid: int) -> Finding:
    """Look at ~/.ssh. Blocks."""
    return judge_folder(modes.look(path, follow=True), uid)


def judge_folder(seen: Seen, uid: int) -> Finding:
    """Say whether others could put keys and trust into it."""
    check, details = "~/.ssh", {"path": seen.path}
    if not seen.there:
        return finding.skip(check, f"{seen.path} is not there", "", details)
    if trouble := modes.safe(seen, uid):
        told = f"{seen.path}: {trouble}"
        return finding.fail(check, told, modes.remedy(seen), details)
    return finding.ok(check, f"{seen.path}, mode {seen.mode:04o}", details)


def config(path: Path, uid: int, *, chosen: bool) -> Finding:
    """Look at the ssh configuration. Blocks."""
    return judge_config(modes.look(path, follow=True), uid, chosen=chosen)


def judge_config(seen: Seen, uid: int, *, chosen: bool) -> Finding:
    """Say whether ssh takes its configuration file; one that is `chosen` it does."""
    check, details = "ssh config", {"path": seen.path}
    if not seen.there:
        return finding.skip(check, f"{seen.path} is not there", "", details)
    if chosen and seen.kind == "device":
        return finding.ok(check, f"{seen.path}: none", details)
    if trouble := modes.safe(seen, uid):
        told = f"{seen.path}: {trouble}" + ("" if chosen else "; ssh refuses it")
        return finding.fail(check, told, modes.remedy(seen), details)
    return finding.ok(check, f"{seen.path}, mode {seen.mode:04o}", details)


class Lines(NamedTuple):
    """One known_hosts file: how many keys, and which lines say nothing.

    Attributes:
        trouble: Why it can't be read; empty: it can, or is not there.
    """

    path: str
    there: bool
    keys: int = 0
    bad: tuple[int, ...] = ()
    trouble: str = ""


def known_hosts(path: str) -> Lines:
    """Read a known_hosts file. Blocks."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                return Lines(path, there=True, trouble=_PIPE)
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return Lines(path, there=False)
    except OSError as error:
        return Lines(path, there=True, trouble=error.strerror or str(error))
    keys, bad = 0, list[int]()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if readable(words):
            keys += 1
        else:
            bad.append(number)
    return Lines(path, True, keys, tuple(bad))


def _at_once(path: str, flags: int) -> int:
    """Open without waiting: who should write to a pipe may not be there."""
    return os.open(path, flags | os.O_NONBLOCK)


def readable(words: Sequence[str]) -> bool:
    """Whether a line of known_hosts holds a key; others are passed over in silence."""
    if words[0].startswith("@"):
        if words[0] not in _MARKERS:
            return False
        words = words[1:]
    if len(words) < _FIELDS:
        return False
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return False
    size = int.from_bytes(blob[:_LENGTH], "big")
    return blob[_LENGTH : _LENGTH + size] == words[1].encode("ascii", "replace")


def _remedy(lines: Lines) -> str:
    if lines.trouble == _PIPE:
        return "name a file in UserKnownHostsFile"
    return f"chmod u+r {lines.path}"


def judge_known_hosts(found: Sequence[Lines]) -> Finding:
    """Say whether what is known of hosts can be read."""
    check = "known_hosts"
    there = [lines for lines in found if lines.there]
    if not there:
        told = f"none: {', '.join(lines.path for lines in found) or 'no file is named'}"
        return finding.skip(check, told, "hosts are unknown until a person trusts them")
    details = {lines.path: str(lines.keys) for lines in there}
    for lines in there:
        if lines.trouble:
            told = f"{lines.path} can't be read: {lines.trouble}"
            return finding.fail(check, told, _remedy(lines), details)
    broken = next((lines for lines in there if lines.bad), None)
    if broken is not None:
        named = ", ".join(map(str, broken.bad[:_NAMED]))
        more = f" and {len(broken.bad) - _NAMED} more" if broken.bad[_NAMED:] else ""
        return finding.warn(
            check,
            f"{broken.path}: {len(broken.bad)} line(s) can't be read: {named}{more}",
            "correct or delete them: they protect no host",
            details,
        )
    told = "; ".join(
        f"{one.path}: {one.keys} key{'' if one.keys == 1 else 's'}" for one in there
    )
    return finding.ok(check, told, details)
