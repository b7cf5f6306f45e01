"""Check that generated files follow from the .proto files, and that nothing breaks.

`python proto/check.py` regenerates in a copy and compares, then compares the contract
with the last commit's. Prints what differs; exit 1 when anything does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from breaking import Dump, breaks

ROOT = Path(__file__).resolve().parent
DUMP = "holdfast/contract.txt"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, without what Python caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def stale(root: Path) -> list[str]:
    """Return the files of the tree that a fresh generation would change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "proto")
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("__pycache__"))
        before = contents(copy)
        subprocess.run(
            [sys.executable, str(copy / "generate.py")],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = contents(copy)
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def committed(root: Path) -> str | None:
    """Return the last commit's contract, or None when it has none."""
    shown = subprocess.run(
        ["git", "show", f"HEAD:./{DUMP}"],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
    )
    return shown.stdout if shown.returncode == 0 else None


def main() -> int:
    """Run both checks; return the exit status."""
    faults = [f"stale: proto/{name} (make proto)" for name in stale(ROOT)]
    old = committed(ROOT)
    if old is not None:
        new = Path(ROOT, DUMP).read_text("utf-8")
        faults += [
            f"breaking: {line}"
            for line in sorted(breaks(Dump.read(old), Dump.read(new)))
        ]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
