"""What of a file with holes is sent, and what GNU tar tells of one."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.transfer.here.holes import (
    LEAST,
    Filler,
    pass_over,
    resize,
    stretches,
)
from holdfast_daemon.transfer.tree.thin import BrokenError, Reader

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def made(path: Path, parts: list[tuple[int, int]], size: int) -> bytes:
    """Write a file with data at offsets only; return what it holds."""
    with path.open("wb") as file:
        for offset, count in parts:
            file.seek(offset)
            file.write(os.urandom(count))
        file.truncate(size)
    return path.read_bytes()


def told(path: Path, at: int, size: int) -> list[tuple[int, int]]:
    file = os.open(path, os.O_RDONLY)
    try:
        return stretches(file, at, size)
    finally:
        os.close(file)


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([], 0),
        ([], 64 * MIB),
        ([(0, 10)], 10),
        ([(0, 10)], 64 * MIB),
        ([(32 * MIB, 10)], 64 * MIB),
        ([(0, 5 * MIB), (40 * MIB, MIB), (63 * MIB, MIB)], 64 * MIB),
        ([(n * 6 * MIB, 4096) for n in range(60)], 361 * MIB),
    ],
)
def test_all_data_is_in_a_stretch(
    tmp_path: Path, parts: list[tuple[int, int]], size: int
) -> None:
    path = tmp_path / "file"
    content = made(path, parts, size)
    for at in {0, size // 3, size}:
        found = told(path, at, size)
        assert found[-1][1] == size
        assert len(found) <= 32
        if at == 0:
            assert found[0][0] == 0
        last = at
        for begin, end in found:
            assert last <= begin <= end
            assert not content[last:begin].strip(b"\0")
            last = end


def test_small_holes_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    made(path, [(0, 10), (LEAST - 8192, 10), (64 * MIB - 10, 10)], 64 * MIB)
    assert [end > begin for begin, end in told(path, 0, 64 * MIB)] == [True, True]


def test_zeros_are_added_up() -> None:
    running = hashlib.sha256(b"x")
    pass_over(running, 3 * MIB + 5)
    assert running.digest() == hashlib.sha256(b"x" + bytes(3 * MIB + 5)).digest()


@pytest.mark.parametrize("name", ["file", "n" * 180])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 60])
def test_what_gnu_tar_writes_is_read(tmp_path: Path, count: int, name: str) -> None:
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("no tar here")
    size = 61 * MIB + 77
    content = made(
        tmp_path / name, [(n * MIB, 1000 + n) for n in range(1, count + 1)], size
    )
    words = [tar, "--format=gnu", "-cSf", "-", name]
    done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert len(done.stdout) < size // 2
    dice = random.Random(count)
    reader, at = Reader(), 0
    target = tmp_path / "copy"
    file = os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        filler = Filler(file)
        while at < len(done.stdout):
            step = dice.choice([1, 511, 512, 513, 100_000])
            filler.put(reader.feed(done.stdout[at : at + step]))
            at += step
        assert reader.whole
        assert reader.size == size
        filler.end(size)
    finally:
        os.close(file)
    assert filler.running.digest() == hashlib.sha256(content).digest()
    assert target.read_bytes() == content
    assert target.stat().st_blocks * 512 < size // 2


def header(kind: bytes, pairs: list[tuple[int, int]], size: int = 0) -> bytes:
    """Return the first block of such a tar."""
    block = bytearray(512)
    block[124:136] = b"%011o\0" % size
    block[156:157] = kind
    for number, (offset, length) in enumerate(pairs):
        at = 386 + 24 * number
        block[at : at + 24] = b"%011o\0%011o\0" % (offset, length)
    block[483:495] = b"%011o\0" % size
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        header(b"5", []),
        header(b"2", []),
        header(b"S", [(100, 50), (120, 10)]),
        header(b"S", [(100, 50), (0, 10)]),
        header(b"S", []).replace(b"0000", b"zzzz"),
        b"\xff" * 512,
    ],
)
def test_what_is_no_such_tar_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenError):
        Reader().feed(data)


def test_anything_at_all_is_read_or_refused() -> None:
    dice = random.Random(7)
    for _ in range(300):
        block = bytearray(header(b"S", [(0, 512), (8192, 100)], 9000))
        for _ in range(dice.randrange(6)):
            block[dice.randrange(512)] = dice.randrange(256)
        reader, last = Reader(), 0
        try:
            for offset, piece in reader.feed(bytes(block) + bytes(4096)):
                assert offset >= last
                last = offset + len(piece)
        except BrokenError:
            continue


def test_a_file_of_the_right_size_is_not_cut(tmp_path: Path) -> None:
    """Closing a file that was cut to nothing waits until it is on the disk."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    os.utime(path, ns=(0, 0))
    with path.open("rb+") as file:
        resize(file.fileno(), 0)
        assert os.fstat(file.fileno()).st_mtime_ns == 0
        resize(file.fileno(), 5)
        assert os.fstat(file.fileno()).st_size == 5
        resize(file.fileno(), 0)
    assert path.read_bytes() == b""
