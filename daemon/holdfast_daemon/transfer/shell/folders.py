"""What makes a host's directories of a copy, as few commands for many. Sans-I/O."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.shell import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Every system takes as much for one command.
_LINE_BYTES = 32 * 1024
_OWN = 0o700


def made(modes: dict[bytes, int]) -> list[str]:
    """Return what makes directories, each of which its owner may fill yet."""
    lines = list(_lines("mkdir -p --", modes))
    for mode, paths in _heaps(modes, lambda path: modes[path] | _OWN):
        lines += _lines(f"chmod {mode:o}", paths)
    return lines


def missed(paths: Iterable[bytes]) -> list[str]:
    """Return what tells of directories that could not be made."""
    return list(_lines("dirs", paths))


def settled(modes: dict[bytes, int], times: dict[bytes, int]) -> list[str]:
    """Return what gives directories what has to wait until they are filled.

    Modes come last, and those of what lies below first: none shuts out what follows.
    """
    lines: list[str] = []
    for time, paths in _heaps(times, lambda path: times[path]):
        lines += _lines(f"TZ=UTC0 touch -m -t {words.stamp(time)} --", paths)
    shut = sorted((p for p, mode in modes.items() if mode | _OWN != mode), reverse=True)
    for mode, together in groupby(shut, lambda path: modes[path]):
        lines += _lines(f"chmod {mode:o}", together)
    return lines


def _heaps(
    paths: Iterable[bytes], key: Callable[[bytes], int]
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield those that share something together."""
    heaps: dict[int, list[bytes]] = {}
    for path in paths:
        heaps.setdefault(key(path), []).append(path)
    yield from heaps.items()


def _lines(command: str, paths: Iterable[bytes]) -> Iterator[str]:
    """Yield the command for all of them, as often as it takes."""
    line = command
    for path in paths:
        name = words.word(path)
        if len(line) + len(name) > _LINE_BYTES and line != command:
            yield line
            line = command
        line += f" {name}"
    if line != command:
        yield line
