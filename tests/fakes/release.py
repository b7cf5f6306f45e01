"""Another release of holdfast: built from git, installed beside the one under test."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What to take for the previous release; by default its tag, the newest before HEAD.
REF = "HOLDFAST_PREVIOUS"
# Until there is a tag: a state before this one that is whole.
_BEFORE = "0fd5342"


def previous() -> str:
    """Return the commit of the previous release."""
    wanted = os.environ.get(REF, "")
    told = _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD~1")
    for ref in filter(None, (wanted, told, _BEFORE)):
        if found := _git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"):
            return found
        assert ref != wanted, f"{REF}={wanted} names no commit here"
    pytest.skip("git knows no earlier state here")


def install(ref: str, folder: Path) -> Path:
    """Build the wheel of `ref`, and return the directory of its programs."""
    source = folder / "source"
    source.mkdir()
    archive = folder / "source.tar"
    _run("git", "-C", str(ROOT), "archive", "--output", str(archive), ref)
    _run("tar", "-xf", str(archive), "-C", str(source))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    _run(*build, "--outdir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, system_site_packages=False)
    programs = folder / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    _run(*pip, "--quiet", "--no-deps", "--no-index", str(wheel))
    # The libraries are those of the environment that tests run in.
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "borrowed.pth").write_text(libraries + "\n")
    return programs


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(*words: str) -> None:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
