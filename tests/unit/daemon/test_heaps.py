"""How a tree of many files is divided, and what makes its directories on a host."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.transfer.here.place import Last, Place, create, read
from holdfast_daemon.transfer.here.settling import present
from holdfast_daemon.transfer.shell.folders import made, settled
from holdfast_daemon.transfer.tree.compare import Entry, Kind
from holdfast_daemon.transfer.tree.plan import batches, plan

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
MOST = 8 * MIB
FILES = 8192


def names(count: int, size: int = 1024) -> dict[bytes, Entry]:
    return {b"t/%06d" % n: Entry(Kind.FILE, size) for n in range(count)}


@pytest.mark.parametrize(
    ("count", "at_once", "heaps"),
    [(1, 3, 1), (999, 3, 1), (2500, 3, 2), (10_000, 3, 3), (30_000, 3, 9), (300, 1, 1)],
)
def test_none_goes_alone_at_the_end(count: int, at_once: int, heaps: int) -> None:
    """FI-01: the fourth of four heaps went alone, while two channels had nothing."""
    found = batches(names(count), MOST, FILES, at_once)
    assert len(found) == heaps
    assert [path for heap in found for path in heap] == list(names(count))
    sizes = [len(heap) for heap in found]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("size", [0, 1, 5000, 256 * 1024])
def test_no_heap_is_larger_than_one_may_be(size: int) -> None:
    found = batches(names(40_000 if size < 9000 else 500, size), MOST, FILES, 3)
    for heap in found:
        assert heap
        assert len(heap) <= FILES
        assert len(heap) * size <= MOST + size


def test_large_ones_among_small_ones() -> None:
    sizes = [256 * 1024 if n % 97 == 0 else n % 50 for n in range(5000)]
    files = {b"%d" % n: Entry(Kind.FILE, size) for n, size in enumerate(sizes)}
    found = batches(files, MOST, FILES, 3)
    assert [path for heap in found for path in heap] == list(files)
    weights = [sum(files[path].size for path in heap) for heap in found]
    assert max(weights) <= MOST + 256 * 1024
    assert len(found) % 3 == 0


def test_nothing_makes_no_heap() -> None:
    assert batches({}, MOST, FILES, 3) == []


def test_what_is_in_the_way_counts_for_all_below_it() -> None:
    """FI-01: files beside each other are judged alike, in whatever order they come."""
    wanted = {
        b"a": Entry(Kind.DIRECTORY),
        b"a-b": Entry(Kind.FILE),
        b"a/1": Entry(Kind.FILE),
        b"a/2": Entry(Kind.FILE),
        b"a/d": Entry(Kind.DIRECTORY),
        b"a/d/3": Entry(Kind.FILE),
        b"b": Entry(Kind.DIRECTORY),
        b"b/4": Entry(Kind.FILE),
        b"c": Entry(Kind.DIRECTORY),
        b"c/5": Entry(Kind.FILE),
    }
    there = {b"a": Entry(Kind.LINK), b"b": Entry(Kind.FILE)}
    found = plan(wanted, there, overwrite=True)
    assert list(found.send) == [b"a-b", b"c/5"]
    assert set(found.blocked) == {b"a", b"a/1", b"a/2", b"a/d/3", b"b", b"b/4"}
    assert list(found.folders) == [b"c"]


def made_by_sh(place: Path, lines: list[str]) -> None:
    text = "\n".join(lines)
    subprocess.run(["/bin/sh", "-euc", text], cwd=place, check=True)


def test_directories_are_made_by_a_few_commands(tmp_path: Path) -> None:
    """FI-01: each directory took two programs, longer than the files in it."""
    modes = {b"t/%03d" % n: 0o755 if n % 2 else 0o500 for n in range(300)}
    modes |= {b"-r": 0o700, b"it's": 0o711, b"new\nline": 0o750, b"\xff": 0o755}
    lines = made(modes)
    assert len(lines) <= 10
    made_by_sh(tmp_path, lines)
    for name, mode in modes.items():
        about = (tmp_path / os.fsdecode(name)).stat()
        assert stat.S_IMODE(about.st_mode) == mode | 0o700, name
    times = {name: 10**9 + number % 3 for number, name in enumerate(modes)}
    lines = settled(modes, times)
    assert len(lines) <= 10
    made_by_sh(tmp_path, lines)
    for name, mode in modes.items():
        about = (tmp_path / os.fsdecode(name)).stat()
        assert stat.S_IMODE(about.st_mode) == mode, name
        assert about.st_mtime == times[name], name


def test_a_directory_is_shut_after_what_is_in_it() -> None:
    """FI-01: a directory that its owner may not enter kept its own from being set."""
    modes = {b"a": 0o500, b"a/b": 0o500, b"a/c": 0o400, b"d": 0o755}
    lines = settled(modes, dict.fromkeys(modes, 10**9))
    assert lines[0].startswith("TZ=UTC0 touch ")
    assert lines[0].endswith(" a a/b a/c d")
    assert lines[1:] == ["chmod 400 a/c", "chmod 500 a/b a"]
    assert settled(modes, {})[0] == "chmod 400 a/c"
    assert settled({b"d": 0o755}, {}) == []


def test_no_command_is_longer_than_a_system_takes() -> None:
    modes = {b"%0200d" % n: 0o755 for n in range(2000)}
    lines = made(modes)
    assert max(map(len, lines)) <= 33 * 1024
    told = [word for line in lines for word in line.split() if word.isdigit()]
    assert sum(len(word) == 200 for word in told) == 2 * len(modes)


def test_the_last_directory_stays_open(tmp_path: Path) -> None:
    place = Place(os.fsencode(tmp_path))
    last = Last(make=True)
    for path in (b"a/1", b"a/2", b"b/c/3", b"a/4", b"5"):
        os.close(create(*last.above(place, path)))
    last.close()
    last.close()
    found = present(place, [b"a", b"b", b"5", b"none"])
    assert {p for p, e in found.items() if e.kind is Kind.FILE} == {
        b"a/1",
        b"a/2",
        b"b/c/3",
        b"a/4",
        b"5",
    }


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"/etc/passwd", b"", b"a/"])
def test_no_name_leads_out_of_a_place(tmp_path: Path, path: bytes) -> None:
    """FI-15: neither for reading nor for writing."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "x").write_text("secret")
    place, last = Place(os.fsencode(root)), Last()
    with pytest.raises(OSError, match="no name below"):
        read(*last.above(place, path))
    with pytest.raises(OSError, match="no name below"):
        create(*last.above(place, path))
    last.close()


def test_no_link_is_followed(tmp_path: Path) -> None:
    """FI-15: a link in the way is neither gone through nor looked behind."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "x").write_text("secret")
    (root / "link").symlink_to(outside)
    place, last = Place(os.fsencode(root)), Last(make=True)
    with pytest.raises(OSError, match=r"Not a directory|[Ss]ymbolic"):
        last.above(place, b"link/x")
    assert list(present(place, [b"link"])) == [b"link"]
