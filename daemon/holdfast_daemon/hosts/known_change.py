"""What giving or taking trust changes in known_hosts files, line by line. Pure.

As `ssh-keygen -R` and an answer of yes would, but a line that speaks of other hosts too
is kept for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.hosts.known_hosts import hashed, is_hashed, matches, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast_daemon.hosts.known_hosts import KnownKey


class Edit(NamedTuple):
    """One line that is taken away, or kept for other hosts only.

    Attributes:
        known: The line as it is.
        patterns: Whom it is to speak about from then on; empty: it goes.
    """

    known: KnownKey
    patterns: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """All that changes.

    Attributes:
        file: Where the new lines go.
        added: New lines, without their ends; nothing of them is hashed yet.
        edits: Old lines that go or change.
        left: Lines that still name another key and are not touched.
    """

    file: str = ""
    added: tuple[tuple[str, bytes], ...] = ()
    edits: tuple[Edit, ...] = ()
    left: tuple[KnownKey, ...] = ()

    @property
    def files(self) -> list[str]:
        """Every file that changes, once."""
        changed = [edit.known.file for edit in self.edits]
        return list(dict.fromkeys([*([self.file] if self.added else []), *changed]))


def trusting(
    lines: Iterable[KnownKey], names: Sequence[str], blob: bytes, own: Sequence[str]
) -> Change:
    """Return what makes `blob` the one key of `names`.

    Args:
        lines: Every line of the files.
        names: The host as known_hosts calls it, and its address where that counts.
        blob: The key.
        own: The person's own files; the first one gets the new line.
    """
    lines = list(lines)
    known = {
        name
        for name in names
        for key in lines
        if not key.marker and key.blob == blob and matches(key.patterns, name)
    }
    edits, left = _without(
        [key for key in lines if key.blob != blob], names, frozenset(own)
    )
    added = tuple((name, blob) for name in names if name not in known)
    return Change(own[0] if own else "", added, edits, left)


def forgetting(
    lines: Iterable[KnownKey], names: Sequence[str], own: Sequence[str]
) -> Change:
    """Return what takes away every key of `names`."""
    edits, left = _without(lines, names, frozenset(own))
    return Change("", (), edits, left)


def new_lines(change: Change, *, hash_names: bool) -> list[str]:
    """Return the lines to write."""
    return [
        written(hashed(name) if hash_names else name, blob)
        for name, blob in change.added
    ]


def edited(line: str, edit: Edit) -> str | None:
    """Return a line as it is to be; None: it goes."""
    if not edit.patterns:
        return None
    return line.replace(edit.known.patterns, edit.patterns, 1)


def _without(
    lines: Iterable[KnownKey], names: Sequence[str], own: frozenset[str]
) -> tuple[tuple[Edit, ...], tuple[KnownKey, ...]]:
    edits: list[Edit] = []
    left: list[KnownKey] = []
    for key in lines:
        # who is revoked stays so, and who signs may do so for others
        if key.marker or not any(matches(key.patterns, name) for name in names):
            continue
        if key.file in own:
            edits.append(Edit(key, _others(key.patterns, names)))
        else:
            left.append(key)
    return tuple(edits), tuple(left)


def _others(patterns: str, names: Sequence[str]) -> str:
    """Return `patterns` so that they stand for none of `names` any more."""
    if is_hashed(patterns):
        return ""
    kept = [item for item in patterns.split(",") if item.lower() not in names]
    if not any(not item.startswith("!") for item in kept):
        return ""
    rest = ",".join(kept)
    # a wildcard that goes on for the others
    excluded = [f"!{name}" for name in names if matches(rest, name)]
    return ",".join([*kept, *excluded])
