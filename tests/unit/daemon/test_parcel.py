"""Parcels of small files that are unpacked into one directory at the same time."""

from __future__ import annotations

import asyncio
import os
import tarfile
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast_daemon.transfer.here.parcel import Parcel, Sent
from holdfast_daemon.transfer.here.place import Place
from holdfast_daemon.transfer.tree.compare import Entry, Kind

if TYPE_CHECKING:
    from pathlib import Path


def mode_of(_path: bytes, _entry: Entry) -> int:
    return 0o644


async def packed(root: Path, names: list[bytes], number: int) -> dict[str, bytes]:
    """Return what a parcel holds, by name."""
    entry = Entry(Kind.FILE, size=1, mode=0o644)
    source = cast("Any", SimpleNamespace(place=Place(os.fsencode(root))))

    async def take(_: int) -> None:
        await asyncio.sleep(0)

    means = SimpleNamespace(
        rate=SimpleNamespace(take=take), tally=SimpleNamespace(move=lambda _: None)
    )
    parcel = Parcel(
        dict.fromkeys(names, entry),
        cast("Any", means),
        lambda path: (source, path),
        mode_of,
        number,
    )
    data = b"".join([piece async for piece in parcel.packed(names, Sent())])
    with tarfile.open(fileobj=BytesIO(data)) as found:
        held = {one.name: found.extractfile(one) for one in found.getmembers()}
        return {name: file.read() for name, file in held.items() if file is not None}


async def test_each_has_a_list_of_its_own(tmp_path: Path) -> None:
    """FI-12: two lists of one name undid each other where both were unpacked."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    one = await packed(tmp_path, [b"a"], 1)
    two = await packed(tmp_path, [b"b"], 2)
    assert not one.keys() & two.keys()
    (sums,) = (data for name, data in one.items() if "sums" in name)
    assert sums.endswith(b"  ./a\n")
