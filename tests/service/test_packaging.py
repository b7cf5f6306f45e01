"""What a wheel holds, and that installing it gives three working commands."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("holdfast", "holdfast-mcp", "holdfastd")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(out), str(ROOT)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_a_wheel_holds_the_three_packages_compiled(wheel: Path) -> None:
    """PK-01: without .pyc files the shim starts five times slower."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"holdfast", "holdfast_daemon", "holdfast_shim"} <= tops
    assert not {"tests", "proto", "daemon", "shim", "packaging"} & tops
    tag = sys.implementation.cache_tag
    sources = [name for name in names if name.endswith(".py")]
    for name in sources:
        folder, _, file = name.rpartition("/")
        assert f"{folder}/__pycache__/{file[:-3]}.{tag}.pyc" in names
    for name in (
        "holdfast/catalog.json",
        "holdfast/v1/exec.proto",
        "holdfast/py.typed",
    ):
        assert name in names


def test_an_installed_wheel_has_three_commands(wheel: Path, tmp_path: Path) -> None:
    """PK-01: console scripts; the environment's own libraries serve as dependencies."""
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    subprocess.run(
        [*install, "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
        timeout=60,
    )
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "borrowed.pth").write_text(libraries + "\n")
    for name in PROGRAMS:
        program = tmp_path / "venv" / "bin" / name
        done = subprocess.run(
            [program, "--version"], check=True, capture_output=True, text=True
        )
        assert re.search(r"\d+\.\d+\.\d+", done.stdout), name


def test_other_peoples_names_stay_theirs() -> None:
    """The top folders are no packages, so `packaging` is still the library."""
    code = "import packaging.version, importlib.util as u; print(u.find_spec('daemon'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
    )
    assert "holdfast" not in done.stdout


def test_no_file_names_an_index_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line), line
