"""Directories made alike, through the real shim: by rsync, and where there is none."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.sshd import sshd_binary
from fakes.syncing import ENGINES, Pair, age, engine, tree
from fakes.tools import tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sync_rsync"),
    pytest.mark.needs_sshd,
]

NAMES = [
    "plain",
    "-rf",
    "--delete",
    "with space",
    "quo'te",
    'dou"ble',
    "new\nline",
    "back\\slash",
    "$(touch gone)",
    "*?[a]",
    "~",
    "ümläut ☃",
    "host:path",
    "::module",
    "rsync:",
    " lead and trail ",
    "tab\there",
    "a\\#012b",
    "x" * 200,
]


@pytest.fixture(scope="module", params=ENGINES)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    with engine(request.param, tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20)


async def test_a_directory_is_made_like_another(pair: Pair) -> None:
    """FI-02: what differs is sent and told, and a second time nothing is."""
    pair.fill({"a": b"one", "sub/b": b"two" * 1000, "sub/deep/c": b""})
    (pair.source / "sub/b").chmod(0o751)
    (pair.source / "sub").chmod(0o710)
    age(pair.source / "a")
    told = await pair.sync()
    assert told["status"] == "exited"
    assert tree(pair.destination) == tree(pair.source)
    assert (told["created"], told["updated"], told["deleted"]) == (6, 0, 0)
    assert {"created a", "created sub/deep/c", "created sub/"} < set(told["changes"])
    assert told["bytes_transferred"] >= 3000
    told = await pair.sync()
    assert (told["created"], told["updated"], told["deleted"]) == (0, 0, 0)
    assert told["skipped"] == told["files"] == 6
    assert told.get("changes", []) == []


async def test_what_changed_is_told_and_why(pair: Pair) -> None:
    """FI-02: contents, time and mode."""
    pair.fill({"same": b"x", "new": b"x", "touched": b"x", "mode": b"x"})
    for path in pair.source.iterdir():
        age(path)
    await pair.sync()
    (pair.source / "new").write_bytes(b"longer")
    age(pair.source / "touched", 1_600_000_100)
    (pair.source / "mode").chmod(0o600)
    told = await pair.sync(checksum=True)
    assert tree(pair.destination) == tree(pair.source)
    assert sorted(told["changes"]) == [
        "updated mode (mode)",
        "updated new (contents, time)",
        "updated touched (time)",
    ]
    assert (told["created"], told["updated"]) == (0, 3)
    # of the same size and time: only a comparison of the contents sees it
    (pair.source / "same").write_bytes(b"y")
    age(pair.source / "same")
    assert (await pair.sync())["updated"] == 0
    told = await pair.sync(checksum=True)
    assert told["changes"] == ["updated same (contents)"]
    assert tree(pair.destination) == tree(pair.source)


async def test_deleting_is_done_only_when_asked(pair: Pair) -> None:
    """FI-02: delete; what is left out is not deleted."""
    pair.fill({"a": b"1"})
    pair.fill({"old": b"", "dir/x": b"", "keep.log": b""}, pair.destination)
    told = await pair.sync()
    assert told["deleted"] == 0
    assert (pair.destination / "dir/x").exists()
    told = await pair.sync(delete=True, exclude=["*.log"])
    assert sorted(told["changes"]) == ["deleted dir/", "deleted dir/x", "deleted old"]
    assert told["deleted"] == 3
    assert names(pair.destination) == ["a", "keep.log"]


async def test_a_dry_run_changes_nothing(pair: Pair) -> None:
    """FI-02: dry_run tells the same and does none of it."""
    pair.fill({"a": b"1", "sub/b": b"2"})
    pair.fill({"old": b"3", "a": b"other"}, pair.destination)
    before = tree(pair.destination)
    would = await pair.sync(dry_run=True, delete=True)
    assert tree(pair.destination) == before
    told = await pair.sync(delete=True)
    for field in ("created", "updated", "deleted", "files"):
        assert would[field] == told[field], field
    assert sorted(would["changes"]) == sorted(told["changes"])
    assert tree(pair.destination) == tree(pair.source)


async def test_a_dry_run_makes_no_directory(pair: Pair) -> None:
    """FI-02: dry_run, where there is no destination yet."""
    pair.fill({"a": b"1"})
    told = await pair.sync(dry_run=True)
    assert "created a" in told["changes"]
    assert not pair.destination.exists()


async def test_names_are_data(pair: Pair) -> None:
    """FI-02: whatever files are called, and links lead to."""
    pair.fill({name: name.encode() for name in NAMES})
    pair.fill({f"dir {name}/{name}": b"" for name in NAMES})
    for at, name in enumerate(NAMES):
        (pair.source / f"link{at}").symlink_to(name)
    (pair.source / "dangling").symlink_to("/none/such")
    raw = os.fsdecode(b"\xff\xfe raw")
    pair.fill({raw: b"bytes"})
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)
    assert raw in names(pair.destination)
    told = await pair.sync(delete=True)
    assert told["created"] + told["updated"] + told["deleted"] == 0


@pytest.mark.parametrize("name", NAMES)
async def test_the_directories_names_are_data(pair: Pair, name: str) -> None:
    """FI-02: source and destination are no options, hosts, users or patterns."""
    decoy = pair.place / "decoy"
    decoy.mkdir()
    pair.source = pair.source / name
    pair.destination = pair.place / "there" / name
    pair.destination.parent.mkdir()
    pair.fill({"a": b"1"})
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)
    assert names(pair.destination.parent) == [name]
    assert names(pair.place) == ["decoy", "source", "there"]


async def test_an_end_with_or_without_a_slash_is_the_same(pair: Pair) -> None:
    """FI-02: what is IN the source is made to be in the destination."""
    pair.fill({"a": b"1"})
    await pair.sync(source=f"{pair.source}/", destination=str(pair.destination))
    await pair.sync(source=str(pair.source), destination=f"{pair.destination}/")
    assert names(pair.destination) == ["a"]


PATTERNS = [
    ["*.log"],
    ["/a.log"],
    ["sub/"],
    ["sub"],
    ["/sub/deep/"],
    ["deep/*.log"],
    ["sub/**/x"],
    ["s?b"],
    ["[a-b].log"],
    ["[!a]*.log"],
    ["*.log", "/sub/deep"],
    ["+ a.log"],
    ["- a.log"],
    ["!"],
    ["; a"],
    ["--delete"],
    ["-e touch gone"],
    ["a*\\*"],
]


@pytest.mark.parametrize("patterns", PATTERNS, ids=str)
async def test_patterns_mean_what_they_mean_to_rsync(
    pair: Pair, patterns: list[str]
) -> None:
    """FI-02: exclude; a pattern is never an option, and never includes."""
    pair.fill(
        dict.fromkeys(
            (
                "a.log",
                "b.log",
                "c.txt",
                "sub/a.log",
                "sub/deep/x",
                "sub/deep/b.log",
                "sub/deep/er/x",
                "not/sub",
                "+ a.log",
                "- a.log",
                "!",
                "; a",
                "--delete",
                "-e touch gone",
                "a*b*",
            ),
            b"",
        )
    )
    await pair.sync(exclude=patterns)
    other = pair.place / "other"
    words = [f"--filter=- {pattern}" for pattern in patterns]
    run("rsync", "-a", *words, f"{pair.source}/", str(other))
    assert tree(pair.destination) == tree(other)
    assert not (pair.place / "gone").exists()


async def test_compressed_on_the_way(pair: Pair) -> None:
    """FI-02: compress sends fewer bytes where rsync does it."""
    pair.fill({"zeros": bytes(1_000_000)})
    told = await pair.sync(compress=True)
    assert tree(pair.destination) == tree(pair.source)
    by_rsync = "no rsync" not in told.get("note", "")
    assert (told["bytes_transferred"] < 100_000) is by_rsync


async def test_where_there_is_no_rsync_that_is_told(
    pair: Pair, request: pytest.FixtureRequest
) -> None:
    """FI-02: the same fields, and a note that says how it was done."""
    pair.fill({"a": b"1"})
    told = await pair.sync()
    note = told.get("note", "")
    kind = request.node.callspec.params["world"]
    where = {"rsync": "", "none-there": "127.0.0.1", "none-here": "this machine"}[kind]
    assert ("no rsync" in note) is bool(where)
    assert where in note


async def test_the_job_has_it_all(pair: Pair) -> None:
    """FI-02, FI-12: nothing of a file passes through an answer; the list is bounded."""
    secret = b"the contents of a file"
    pair.fill({f"f{number:03}": secret for number in range(230)})
    told = await pair.sync()
    assert len(told["changes"]) == 200
    assert told["changes_more"] == told["created"] - 200
    job = await pair.ssh.read(told["job_id"], offset=0, max_output_chars=100_000)
    lines = job["stdout"].splitlines()
    assert sum(line.startswith("created ") for line in lines) == told["created"]
    assert "compared" in lines[-1]
    assert secret.decode() not in str(told) + str(job)
