"""Patterns of what to leave out, as rsync reads them. Sans-I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Excluded:
    """Says whether a path below the source is left out, with all below it."""

    def __init__(
        self,
        patterns: Iterable[str],
        guarded: Callable[[bytes], bool] | None = None,
        ours: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Read the patterns; one that ends in / is for directories only.

        What is `guarded` is left out too, and noted in `left`; what is `ours` never.
        """
        self._guarded = guarded
        self._ours = ours
        self.left: dict[bytes, None] = {}
        self._rules = [
            (re.compile(_expression(p), re.DOTALL), p.endswith("/")) for p in patterns
        ]

    def __call__(self, path: bytes, *, directory: bool) -> bool:
        """Return whether one of them is for `path`, relative and without a slash."""
        if self._ours is not None and self._ours(path):
            return False
        text = b"/" + path
        if any(
            rule.search(text) is not None
            for rule, directories in self._rules
            if directory or not directories
        ):
            return True
        if self._guarded is None or not self._guarded(path):
            return False
        self.left[path] = None
        return True


def _expression(pattern: str) -> bytes:
    """Return a regular expression for `/path`: without a first slash, its end fits."""
    bare = pattern.rstrip("/")
    # a directory and all in it, which goes with it anyhow
    bare = bare.removesuffix("/***")
    anchored = bare.startswith("/")
    body = _globbed(bare.removeprefix("/").encode())
    return (b"^/" if anchored else b"(?:^|/)") + body + b"$"


def _globbed(glob: bytes) -> bytes:
    found, at = b"", 0
    while at < len(glob):
        piece = glob[at : at + 1]
        at += 1
        if piece == b"*":
            stars = at
            while glob[at : at + 1] == b"*":
                at += 1
            found += b".*" if at > stars else b"[^/]*"
        elif piece == b"?":
            found += b"[^/]"
        elif piece == b"\\" and at < len(glob):
            found += re.escape(glob[at : at + 1])
            at += 1
        elif piece == b"[" and (end := _end(glob, at)) > 0:
            inner = glob[at:end]
            no = b"^/" if inner[:1] in (b"!", b"^") else b""
            inner = inner[1:] if no else inner
            found += b"[" + no + _class(inner) + b"]"
            at = end + 1
        else:
            found += re.escape(piece)
    return found


def _end(glob: bytes, at: int) -> int:
    """Return where a set of characters ends; a bracket first in it is one of them."""
    first = at + 1 if glob[at : at + 1] in (b"!", b"^") else at
    return glob.find(b"]", first + 1)


def _class(inner: bytes) -> bytes:
    """Return a set for a regular expression; only `-` between two keeps its meaning."""
    escaped = re.sub(rb"([\\\]\[^&~|])", rb"\\\1", inner)
    try:
        re.compile(b"[" + escaped + b"]")
    except re.error:
        return re.escape(inner)
    return escaped
