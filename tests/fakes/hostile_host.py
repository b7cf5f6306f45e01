"""A host whose find, tar and checksums tell lies: what a test says, whatever is asked.

Run as a program it stands for all of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# name, mode, size, where a link leads
Row = tuple[str, int, int, str]
REGULAR, FOLDER, LINK = 0o100644, 0o040755, 0o120777


def programs(directory: Path) -> Path:
    """Make a directory of lying programs; `tell` says what they tell."""
    directory.mkdir()
    for name in ("find", "xargs"):
        path = directory / name
        path.write_text(
            f"#!{sys.executable}\nimport runpy, sys\n"
            f"sys.argv.insert(1, {str(path)!r})\n"
            f"runpy.run_path({str(Path(__file__).resolve())!r}, run_name='__main__')\n"
        )
        path.chmod(0o755)
    return directory


def tell(directory: Path, rows: Sequence[Row], members: Sequence[Row]) -> None:
    """Have them tell these names, and send these files."""
    text = json.dumps({"rows": rows, "members": members})
    (directory / "told.json").write_text(text)


def _find(told: dict[str, Any], words: list[str]) -> None:
    out = sys.stdout.buffer
    if "stat" in words:
        mark = words[words.index("stat") + 2].split(" ")[0]
        for name, mode, size, _ in told["rows"]:
            out.write(f"{mark} {mode:x} {size} 1700000000 {name}\n".encode())
    else:
        for name, _, _, target in told["rows"]:
            if target:
                out.write(f"{name}\0{target}\0".encode())


def _xargs(told: dict[str, Any], words: list[str]) -> None:
    # Names are asked for from the directory above, and sent both ways.
    members = [
        (sent, *rest)
        for name, *rest in told["members"]
        for sent in (name, "./t/" + name.removeprefix("./"))
    ]
    names = sys.stdin.buffer.read().split(b"\0")[:-1]
    if "tar" not in words:
        sizes = {name: size for name, _, size, _ in members}
        for name in map(os.fsdecode, names):
            content = b"x" * sizes.get(name, 0)
            sys.stdout.write(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        return
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for name, mode, size, target in members:
            about = tarfile.TarInfo(name)
            about.mode, about.linkname = mode & 0o777, target
            if mode == LINK:
                about.type = tarfile.SYMTYPE
            elif mode == FOLDER:
                about.type = tarfile.DIRTYPE
            else:
                about.size = size
            archive.addfile(about, io.BytesIO(b"x" * size))


def _main() -> None:
    program = Path(sys.argv[1])
    told = json.loads((program.parent / "told.json").read_text())
    {"find": _find, "xargs": _xargs}[program.name](told, sys.argv[2:])


if __name__ == "__main__":
    _main()
