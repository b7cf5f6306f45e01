"""What is built once for all tests of installations."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from fakes.image import ROOT, stages, words_of
from fakes.shelf import copy_of_tree, filled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.shelf import Shelf


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tree that the first stage makes: its very RUN lines, in order."""
    top = tmp_path_factory.mktemp("image")
    ignored = (ROOT / ".dockerignore").read_text().split()
    source = copy_of_tree(top / "src", frozenset(ignored))
    prefix = top / "opt"
    env = {k: v for k, v in os.environ.items() if not k.startswith("VIRTUAL_ENV")}
    for line in words_of(stages()[0], "RUN"):
        subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=source,
            env=env | {"PREFIX": str(prefix)},
            check=True,
            timeout=240,
        )
    return prefix


@pytest.fixture(scope="session")
def shelf() -> Iterator[Shelf]:
    """Yield what installers are given, where every user can read it."""
    top = Path(tempfile.mkdtemp(prefix="hf-"))
    top.chmod(0o755)
    try:
        yield filled(top)
    finally:
        shutil.rmtree(top)


@pytest.fixture(scope="session")
def project(shelf: Shelf) -> dict[str, Any]:
    """Return what pyproject.toml says of the project."""
    text = (shelf.source / "pyproject.toml").read_text()
    return cast("dict[str, Any]", tomllib.loads(text)["project"])


@pytest.fixture(scope="session")
def contract(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Return what follows from the .proto files, generated anew from them alone."""
    proto = tmp_path_factory.mktemp("contract") / "proto"
    shutil.copytree(shelf.source / "proto", proto)
    derived = ("v1/*_pb2*", "contract.py", "contract.txt", "catalog.json")
    for pattern in derived:
        for path in (proto / "holdfast").glob(pattern):
            path.unlink()
    done = subprocess.run(
        [sys.executable, proto / "generate.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {
        path.relative_to(proto).as_posix(): path.read_bytes()
        for pattern in derived
        for path in (proto / "holdfast").glob(pattern)
    }


@pytest.fixture(scope="session")
def digest(contract: dict[str, bytes]) -> str:
    """Return the hash of that contract."""
    (found,) = re.findall(
        rb'^HASH = "(\w+)"$', contract["holdfast/contract.py"], re.MULTILINE
    )
    return bytes(found).decode()
