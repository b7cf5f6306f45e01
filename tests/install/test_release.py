"""A release before it is installed: what wheel and sdist hold, and that it agrees.

`make release-check` runs this, and test_release_installed.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.shelf import ROOT, build

if TYPE_CHECKING:
    from email.message import EmailMessage

    from fakes.shelf import Shelf

pytestmark = pytest.mark.timeout(600)

PACKAGES = ("proto/holdfast", "daemon/holdfast_daemon", "shim/holdfast_shim")
PROGRAMS = ("holdfast", "holdfast-mcp", "holdfastd")
DERIVED = ("contract.py", "contract.txt", "catalog.json")
# What lies about in a tree that is worked in, or that somebody put there by mistake.
LITTER = (
    ".venv/bin/python",
    ".env",
    ".mypy_cache/CACHEDIR.TAG",
    ".hypothesis/examples/1",
    ".pytest_cache/README.md",
    "dist/holdfast-0.0.1.tar.gz",
    "id_ed25519",
    "notes.txt",
    "packaging/container/.env",
    "packaging/container/ssh/id_ed25519",
    "shim/holdfast_shim/__pycache__/old.cpython-311.pyc",
    "tests/fakes/__pycache__/sshd.cpython-311.pyc",
    "tests/.hypothesis/unicode_data/charmap.json.gz",
)


def inside_sdist(sdist: Path) -> dict[str, bytes]:
    """Return the files of an sdist; each lies below the directory of its name."""
    top = sdist.name.removesuffix(".tar.gz") + "/"
    found: dict[str, bytes] = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            assert member.isfile(), member.name
            assert member.name.startswith(top), member.name
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name.removeprefix(top)] = stream.read()
    return found


def inside_wheel(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def uncompiled(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return all but the compiled modules, and the record with their sums."""
    ignored = (".pyc", ".dist-info/RECORD")
    return {name: data for name, data in files.items() if not name.endswith(ignored)}


def metadata(data: bytes) -> EmailMessage:
    """Read a METADATA or PKG-INFO."""
    return BytesParser(policy=default).parsebytes(data)


@pytest.fixture(scope="module")
def packed(shelf: Shelf) -> dict[str, bytes]:
    """Return what the wheel holds."""
    return inside_wheel(shelf.wheel)


def test_the_sdist_is_the_tree(shelf: Shelf) -> None:
    """PK-01, release: all that a checkout has, for building, tests and documents."""
    found = inside_sdist(shelf.sdist)
    assert found.keys() == shelf.names | {"PKG-INFO"}
    for name in shelf.names:
        assert found[name] == (shelf.source / name).read_bytes(), name
    with tarfile.open(shelf.sdist) as archive:
        top = shelf.sdist.name.removesuffix(".tar.gz")
        for name in shelf.names:
            runs = bool((shelf.source / name).stat().st_mode & 0o100)
            assert bool(archive.getmember(f"{top}/{name}").mode & 0o100) == runs, name


def test_what_lies_about_stays_out(shelf: Shelf, tmp_path: Path) -> None:
    """PK-01, release: environments, caches, keys and notes are not packed with it."""
    source = tmp_path / "source"
    for name in shelf.names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(shelf.source / name, source / name)
    for name in LITTER:
        assert name not in shelf.names
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("private\n")
    sdist = build("sdist", source, tmp_path / "sdist")
    assert inside_sdist(sdist).keys() == shelf.names | {"PKG-INFO"}
    wheel = build("wheel", source, tmp_path / "wheel")
    assert inside_wheel(wheel).keys() == inside_wheel(shelf.wheel).keys()


def test_the_sdist_builds_that_very_wheel(
    shelf: Shelf, packed: dict[str, bytes], tmp_path: Path
) -> None:
    """PK-01, release: the same names, and the same contents but for compiled ones."""
    with tarfile.open(shelf.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = inside_wheel(build("wheel", source, tmp_path / "out"))
    assert again.keys() == packed.keys()
    assert uncompiled(again) == uncompiled(packed)


def test_the_wheel_holds_the_three_packages_and_no_more(
    shelf: Shelf, packed: dict[str, bytes], project: dict[str, Any]
) -> None:
    """PK-01, release: each file of theirs, compiled, typed; licence and commands."""
    tag = sys.implementation.cache_tag
    about = f"holdfast-{project['version']}.dist-info/"
    expected: dict[str, bytes] = {}
    for package in PACKAGES:
        above = Path(package).parent
        assert f"{package}/py.typed" in shelf.names
        for name in shelf.names:
            if name.startswith(f"{package}/"):
                inside = Path(name).relative_to(above)
                expected[str(inside)] = (shelf.source / name).read_bytes()
    plain = {name for name in packed if not name.startswith(about)}
    compiled = {
        str(Path(name).parent / "__pycache__" / f"{Path(name).stem}.{tag}.pyc")
        for name in expected
        if name.endswith(".py")
    }
    assert plain == expected.keys() | compiled
    assert {name: packed[name] for name in expected} == expected
    licence = f"{about}licenses/LICENSE"
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt")
    assert packed.keys() - plain == {licence, *(about + name for name in names)}
    assert packed[licence] == (shelf.source / "LICENSE").read_bytes()
    commands = {f"{name} = {place}" for name, place in project["scripts"].items()}
    assert project["scripts"].keys() == set(PROGRAMS)
    told = packed[f"{about}entry_points.txt"].decode().split("\n")
    assert told[0] == "[console_scripts]"
    assert {line for line in told[1:] if line} == commands
    assert b"Tag: py3-none-any\n" in packed[f"{about}WHEEL"]
    record = io.StringIO(packed[f"{about}RECORD"].decode())
    assert {row[0] for row in csv.reader(record)} == packed.keys()


def test_its_metadata_is_that_of_the_project(
    shelf: Shelf, packed: dict[str, bytes], project: dict[str, Any]
) -> None:
    """PK-01, release: the same in both; the README is told to be markdown."""
    name = f"holdfast-{project['version']}.dist-info/METADATA"
    assert inside_sdist(shelf.sdist)["PKG-INFO"] == packed[name]
    told = metadata(packed[name])
    assert told["Name"] == project["name"] == "holdfast"
    assert told["Version"] == project["version"]
    assert told["Requires-Python"] == project["requires-python"]
    assert told["License-Expression"] == project["license"]
    assert told["License-File"] == "LICENSE"
    assert told["Summary"] == project["description"]
    assert sorted(told.get_all("Classifier", [])) == sorted(project["classifiers"])
    needed = [w for w in told.get_all("Requires-Dist", []) if "extra ==" not in w]
    assert len(needed) == len(project["dependencies"])
    extras = project["optional-dependencies"]
    assert sorted(told.get_all("Provides-Extra", [])) == sorted(extras)
    assert told["Description-Content-Type"] == "text/markdown"
    readme = (shelf.source / "README.md").read_text()
    assert packed[name].decode().partition("\n\n")[2].strip() == readme.strip()
    # The oldest Python that is promised is named, and so is the one it is tried by.
    oldest = project["requires-python"].removeprefix(">=")
    for version in (oldest, "{}.{}".format(*sys.version_info)):
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_the_version_is_one(
    shelf: Shelf, packed: dict[str, bytes], project: dict[str, Any]
) -> None:
    """PK-01, release: project, constant, file names and metadata say the same."""
    constant = (shelf.source / "shim/holdfast_shim/version.py").read_text()
    (about,) = {name.split("/")[0] for name in packed if ".dist-info/" in name}
    told = {
        "pyproject.toml": project["version"],
        "version.py": re.findall(r'^VERSION = "(.+)"$', constant, re.MULTILINE)[0],
        "wheel": shelf.wheel.name.split("-")[1],
        "dist-info": about.removesuffix(".dist-info").partition("-")[2],
        "sdist": shelf.sdist.name.removesuffix(".tar.gz").partition("-")[2],
    }
    assert set(told.values()) == {project["version"]}, told
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])


def faults_of_changelog(text: str, version: str, released: set[str]) -> list[str]:
    """Return what is wrong with a changelog, given the versions that have a tag."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    written: dict[str, bool] = {}
    dated: set[str] = set()
    for heading, body in sections.items():
        name, _, rest = heading.partition(" ")
        name = name.strip("[]")
        written[name] = re.search(r"^- \S", body, re.MULTILINE) is not None
        if re.fullmatch(r"- \d{4}-\d\d-\d\d", rest):
            dated.add(name)
    faults = [f"{name} has no dated section" for name in sorted(released - dated)]
    faults += [f"{name} is empty" for name in sorted(dated) if not written[name]]
    if version not in written and not written.get("Unreleased", False):
        faults.append(f"nothing is told of {version}")
    return faults


def test_the_changelog_tells_of_it(shelf: Shelf, project: dict[str, Any]) -> None:
    """PK-01, release: its section or Unreleased; each tag has a section with a date."""
    tags = subprocess.run(
        ["git", "tag", "--list", "v[0-9]*"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    released = {tag.removeprefix("v") for tag in tags}
    text = (shelf.source / "CHANGELOG.md").read_text()
    assert not faults_of_changelog(text, project["version"], released)


@pytest.mark.parametrize(
    ("text", "released", "faults"),
    [
        ("# Changelog\n", set[str](), ["nothing is told of 1.0.0"]),
        ("## Unreleased\n\n### Added\n", set[str](), ["nothing is told of 1.0.0"]),
        ("## Unreleased\n\n- a\n", set[str](), []),
        ("## Unreleased\n\n- a\n", {"1.0.0"}, ["1.0.0 has no dated section"]),
        ("## 1.0.0\n\n- a\n", {"1.0.0"}, ["1.0.0 has no dated section"]),
        ("## [1.0.0] - 2026-12-01\n\n- a\n", {"1.0.0"}, []),
        ("## 1.0.0 - 2026-12-01\n", {"1.0.0"}, ["1.0.0 is empty"]),
    ],
)
def test_a_changelog_that_lags_behind_is_found(
    text: str, released: set[str], faults: list[str]
) -> None:
    """PK-01, release: what the test before this one would say."""
    assert faults_of_changelog(text, "1.0.0", released) == faults


def test_the_wheel_has_the_contract_of_the_proto_files(
    contract: dict[str, bytes], digest: str, packed: dict[str, bytes]
) -> None:
    """PK-01, release: what is generated today is what is packed, to the byte."""
    assert contract == {name: packed.get(name) for name in contract}
    generated = {name for name in packed if re.search(r"_pb2(_grpc)?\.pyi?$", name)}
    assert generated | {f"holdfast/{name}" for name in DERIVED} == contract.keys()
    assert json.loads(contract["holdfast/catalog.json"])["contract"] == digest
