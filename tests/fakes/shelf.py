"""What installers are given: this tree's wheel and sdist, all they need, the tools.

Fetched and built once; what installs then sees these directories alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The one that a distribution's package would be for.
PYTHON = "/usr/bin/python3"
OFFLINE = "--no-index --find-links FROM"
PIP = f"-m pip --disable-pip-version-check install --quiet {OFFLINE}"
# FROM: the directory with the wheels; WHAT: a name, or the file itself.
INSTALL = {
    "pip": f"{PYTHON} -m venv env && env/bin/python {PIP} WHAT",
    "pipx": f"pipx install --quiet --python {PYTHON} --pip-args='{OFFLINE}' WHAT",
    "uv": f"uv tool install --quiet --offline --python {PYTHON} {OFFLINE} WHAT",
}
_TOOLS = {"uv": ("uv",), "pip": ("pip", "pipx")}
_OUR_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@dataclass(frozen=True)
class Shelf:
    """One directory that everybody may read.

    Attributes:
        top: That directory.
        wheel: This tree's.
        sdist: This tree's.
        names: The files of the tree they were built from.
    """

    top: Path
    wheel: Path
    sdist: Path
    names: frozenset[str]

    @property
    def source(self) -> Path:
        """The clean copy of this tree that they were built from."""
        return self.top / "source"

    @property
    def now(self) -> Path:
        """The wheel with all that it needs."""
        return self.top / "now"

    @property
    def building(self) -> Path:
        """What the wheel needs, and what building one does; not the wheel."""
        return self.top / "building"

    def tool(self, name: str) -> Path:
        """Return where the programs of `uv`, `pip` or `pipx` are; pipx sees no uv."""
        return self.top / ("uv" if name.startswith("uv") else "pip") / "bin"

    def beside(self, name: str, wheel: Path) -> Path:
        """Make one more directory with a wheel of ours and what it needs."""
        made = self.top / name
        made.mkdir()
        for path in (wheel, *self.building.iterdir()):
            (made / path.name).hardlink_to(path)
        return made


def copy_of_tree(top: Path, without: frozenset[str] = frozenset()) -> Path:
    """Copy what git has of this tree or would add, without some top directories."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, told.decode().split("\0")):
        if name.split("/")[0] not in without and (ROOT / name).is_file():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, top / name)
    return top


def files_below(top: Path) -> list[str]:
    """Return the names of the files of a directory, as seen from there."""
    found = (path for path in top.rglob("*") if not path.is_dir())
    return sorted(path.relative_to(top).as_posix() for path in found)


def build(kind: str, source: Path, out: Path) -> Path:
    """Build the `wheel` or `sdist` of a tree, with this environment's builder."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(out), str(source)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def filled(top: Path) -> Shelf:
    """Build and fetch everything into an empty directory."""
    source = copy_of_tree(top / "source")
    names = frozenset(files_below(source))
    wheel = build("wheel", source, top / "wheel")
    shelf = Shelf(top, wheel, build("sdist", source, top / "sdist"), names)
    asked = "import sys; print(*sys.version_info[:2], sep='.')"
    version = _run(PYTHON, "-c", asked).strip()
    fetch = [*_OUR_PIP, "download", "--quiet", "--only-binary=:all:"]
    limits = ["--python-version", version, "-c", str(source / "constraints.txt")]
    wanted = [str(wheel), "pip", "hatchling"]
    _run(*fetch, "--dest", str(shelf.building), *limits, *wanted)
    (shelf.building / wheel.name).unlink()
    shelf.beside("now", wheel)
    for tools, programs in _TOOLS.items():
        venv.create(top / tools, with_pip=False)
        python = str(top / tools / "bin" / "python")
        _run(*_OUR_PIP, "--python", python, "install", "--quiet", *programs)
    return shelf


def _run(*words: str) -> str:
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
