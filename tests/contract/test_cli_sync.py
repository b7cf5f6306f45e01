"""`holdfast sync`, as a person types it, against a real sshd."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes.syncing import age, tree
from fakes.tools import served
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [pytest.mark.xdist_group("cli_sync"), pytest.mark.needs_sshd]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, data in (("a", b"1"), ("sub/b", b"22"), ("c.log", b"333")):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def sync(
    world: World, *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("holdfast"), "sync", *words],
        env=world.environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=40,
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_up_and_down_again(world: World, place: Path) -> None:
    """FI-02, IN-08: HOST:DIR on one side; a path here is as the shell has it."""
    done = sync(world, "source", f"box:{place}/there", cwd=place)
    assert done.returncode == 0, done.stderr
    assert tree(place / "there") == tree(place / "source")
    assert "created sub/b" in done.stdout.splitlines()
    assert "5 compared: 5 created" in done.stdout
    done = sync(world, f"box:{place}/there/", "./back", cwd=place)
    assert done.returncode == 0, done.stderr
    assert tree(place / "back") == tree(place / "source")


def test_its_options(world: World, place: Path) -> None:
    """FI-02: --delete, --dry-run, --exclude, --compress, --checksum."""
    (place / "there").mkdir()
    (place / "there" / "old").write_text("")
    words = [str(place / "source"), f"box:{place}/there", "--delete"]
    words += ["--exclude", "*.log", "--exclude=-n", "-z", "-c", "--json"]
    would = told(sync(world, *words, "--dry-run"))
    assert sorted(p.name for p in (place / "there").iterdir()) == ["old"]
    did = told(sync(world, *words))
    for field in ("created", "updated", "deleted", "files", "skipped"):
        assert did[field] == would[field]
    assert sorted(did["changes"]) == sorted(would["changes"])
    assert (did["deleted"], did["status"]) == (1, "exited")
    assert sorted(p.name for p in (place / "there").iterdir()) == ["a", "sub"]
    path = place / "source" / "a"
    age(path)
    sync(world, *words)
    path.write_bytes(b"2")
    age(path)
    assert told(sync(world, *words))["changes"] == ["updated a (contents)"]


def test_names_that_look_like_something_else(world: World, place: Path) -> None:
    """FI-02: behind a slash a colon is part of a path; behind -- a dash is."""
    odd = place / "-n" / "a:b"
    odd.parent.mkdir()
    (place / "source").rename(odd)
    done = sync(world, "--", "-n/a:b", f"box:{place}/the re:*", cwd=place)
    assert done.returncode == 0, done.stderr
    assert tree(place / "the re:*") == tree(odd)


@pytest.mark.parametrize(
    "words",
    [
        ["/a", "/b"],
        ["box:/a", "box:/b"],
        ["box:/a"],
        ["", "box:/a"],
        ["/a", "box:/b", "/c"],
        ["/a", "box:/b", "--rsh=touch x"],
        ["/a", "box:/b", "-e", "touch x"],
        ["/a", "box:/b", "--rsync-path=touch x"],
        ["/a", "box:/b", "--remove-source-files"],
        ["/a", "box:/b", "--exclude"],
    ],
    ids=str,
)
def test_what_is_no_sync_is_refused(
    world: World, tmp_path: Path, words: list[str]
) -> None:
    """FI-02, SC-10: dangerous options are none of ours, however spelt; exit code 2."""
    done = sync(world, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_fails_has_a_reason(world: World, place: Path) -> None:
    """FI-02, IN-08: exit code 1, in words and as JSON."""
    done = sync(world, f"box:{place}/none", str(place / "x"))
    assert done.returncode == 1
    assert f"{place}/none" in done.stderr
    done = sync(world, f"box:{place}/none", str(place / "x"), "--json")
    assert done.returncode == 1
    error = told(done)["error"]
    assert (error["reason"], error["ran"]) == ("FILE_NOT_FOUND", "no")


def test_the_job_is_listed_by_its_words(world: World, place: Path) -> None:
    """FI-02, FI-12: it is a job like any other, with its changes as output."""
    did = told(sync(world, str(place / "source"), f"box:{place}/there", "--json"))
    job = world.cli("job", did["job_id"]).stdout.decode()
    assert "created sub/b" in job
    rows = world.cli_json("jobs", "box")["jobs"]
    (row,) = [one for one in rows if one["job_id"] == did["job_id"]]
    assert row["command"].startswith("sync ")
    assert str(place / "source") in row["command"]
