"""Write all that follows from the .proto files: `python proto/generate.py`.

That is: Python code beside them, the MCP catalogue, the contract's dump and its hash.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "holdfast"
CODE = PACKAGE / "v1"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def run_protoc(arguments: Sequence[str], names: Iterable[str]) -> None:
    """Run protoc over `names`, seen from the proto folder; stop at a mistake."""
    program = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
    done = subprocess.run([*program, *arguments, *names], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def plugin(name: str) -> str:
    """Return the argument that finds a protoc plugin installed beside this Python."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is missing: make setup")
    return f"--plugin={name}={path}"


def write_code(out: Path) -> bytes:
    """Generate Python below `out`; return the descriptor set with its comments."""
    names = sorted(str(path.relative_to(ROOT)) for path in CODE.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "contract.binpb")
        run_protoc(
            [
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={binary}",
            ],
            names,
        )
        raw = binary.read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(raw).file
    served = sorted(file.name for file in files if file.service)
    run_protoc(
        [plugin("protoc-gen-mypy"), f"--python_out={out}", f"--mypy_out=quiet:{out}"],
        names,
    )
    run_protoc(
        [
            plugin("protoc-gen-mypy_grpc"),
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out=quiet,only_async:{out}",
        ],
        served,
    )
    return raw


def replace_code(fresh: Path) -> None:
    """Bring the tree's generated code to what `fresh` holds; touch only changes."""
    wanted = {path.name: path.read_bytes() for path in fresh.iterdir()}
    for pattern in GENERATED:
        for path in CODE.glob(pattern):
            if path.name not in wanted:
                path.unlink()
    for name, content in wanted.items():
        write(CODE / name, content)


def write(path: Path, content: bytes) -> None:
    """Write a file, unless it holds just that."""
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)
        print(f"wrote {path.relative_to(ROOT)}")


def main() -> None:
    """Generate code first: the options it defines are needed to read the rest."""
    with tempfile.TemporaryDirectory() as folder:
        raw = write_code(Path(folder))
        replace_code(Path(folder, "holdfast", "v1"))

    import derive  # noqa: PLC0415  (they read the options module written just now)
    import dump  # noqa: PLC0415
    from descriptors import Contract  # noqa: PLC0415

    contract = Contract(raw)
    text = dump.dump(contract)
    digest = dump.digest(text)
    write(PACKAGE / "contract.txt", text.encode())
    write(PACKAGE / "contract.py", dump.module(digest).encode())
    write(PACKAGE / "catalog.json", derive.catalogue_json(contract, digest).encode())


if __name__ == "__main__":
    main()
