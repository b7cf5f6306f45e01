"""Files and trees copied by ssh_copy, through the real shim against a real sshd."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.copying import Ways
from fakes.filing import HOSTS, host_of_files
from fakes.syncing import ROOTS, age, tree
from fakes.tools import content, failure, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy"),
    pytest.mark.needs_sshd,
]

# The path of a socket must be short.
_SHORT = tempfile.gettempdir()
NAMES = [
    "plain",
    "-rf",
    "--checkpoint=1",
    "@archive",
    "with space",
    "quo'te",
    'dou"ble',
    "new\nline",
    "back\\slash",
    "$(touch gone)",
    "`touch gone`",
    "*?[a]",
    "~",
    "ümläut ☃",
    "host:path",
    " lead and trail ",
    "tab\there",
    "cr\rhere",
    ";rm -rf .",
    "DIR NAME FILE AT",
    ".hidden",
    "..hidden",
    "x" * 250,
]
CONTENTS = [
    b"",
    b"\n",
    b"no end",
    b"\r\nwindows\r\n",
    bytes(range(256)) * 7,
    b"\0" * 70_000,
    b"\xff\xfe",
]


@pytest.fixture(scope="module", params=HOSTS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    limits = "probe_seconds = 5\n" if request.param == "SFTP only" else ""
    with (
        host_of_files(tmp_path_factory.mktemp("sshd"), request.param) as sshd,
        served(sshd, more=ROOTS, limits=limits) as one,
    ):
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


async def test_one_file(ways: Ways) -> None:
    """FI-01: a file arrives as it is, with its checksum, and is a job."""
    data = os.urandom(700_001)
    (ways.source / "a.bin").write_bytes(data)
    told = await ways.copy("a.bin")
    assert (ways.destination / "a.bin").read_bytes() == data
    assert told["status"] == "exited"
    assert told["files"] == 1
    assert told["bytes_transferred"] == len(data)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    job = await ways.ssh.read(told["job_id"])
    assert job["exit_code"] == 0
    assert "1 files copied" in job["stdout"]
    assert ways.left() == ["a.bin"]


async def test_another_name(ways: Ways) -> None:
    """FI-01: a destination that is no directory is the file's new name."""
    (ways.source / "a").write_text("1")
    await ways.copy("a", destination=str(ways.destination / "b"))
    assert ways.left() == ["b"]


async def test_into_a_directory_without_a_slash(ways: Ways) -> None:
    """FI-01: a directory that is there takes the file."""
    (ways.source / "a").write_text("1")
    await ways.copy("a", destination=str(ways.destination))
    assert ways.left() == ["a"]


async def test_a_slash_makes_the_directory(ways: Ways) -> None:
    """FI-01: a destination that ends in / is made, with those above it."""
    (ways.source / "a").write_text("1")
    await ways.copy("a", destination=f"{ways.destination}/new/deep/")
    assert (ways.destination / "new/deep/a").read_text() == "1"


async def test_several_sources(ways: Ways) -> None:
    """FI-01: several files and trees in one call."""
    (ways.source / "a").write_text("1")
    (ways.source / "b").write_text("2")
    (ways.source / "t/u").mkdir(parents=True)
    (ways.source / "t/u/c").write_text("3")
    told = await ways.copy("a", "b", "t", recursive=True)
    assert told["files"] == 3
    assert "sha256" not in told
    assert (ways.destination / "t/u/c").read_text() == "3"
    assert ways.left() == ["a", "b", "t"]


async def test_names_and_contents(ways: Ways) -> None:
    """FI-10: every name and every byte arrives."""
    for at, name in enumerate(NAMES):
        (ways.source / "t" / name).mkdir(parents=True)
        (ways.source / "t" / name / name).write_bytes(CONTENTS[at % len(CONTENTS)])
    folder = ways.source / "t" / os.fsdecode(b"raw \xff\xfe")
    folder.mkdir()
    (folder / os.fsdecode(b"\xe9")).write_text("latin")
    told = await ways.copy("t", recursive=True)
    assert told["files"] == len(NAMES) + 1
    assert_same(ways)


def assert_same(ways: Ways, name: str = "t") -> None:
    """Both trees hold the same names and contents."""
    here, there = tree(ways.source / name), tree(ways.destination / name)
    assert {n: v if isinstance(v, str) else v[2] for n, v in here.items()} == {
        n: v if isinstance(v, str) else v[2] for n, v in there.items()
    }


@pytest.mark.parametrize("name", NAMES, ids=repr)
async def test_one_file_of_any_name(ways: Ways, name: str) -> None:
    """FI-10: also as the only source and as the destination's own name."""
    (ways.source / name).write_bytes(b"x\r\n")
    await ways.copy(name)
    assert (ways.destination / name).read_bytes() == b"x\r\n"
    await ways.copy(name, destination=f"{ways.destination}/to{name}")
    assert (ways.destination / f"to{name}").read_bytes() == b"x\r\n"


async def test_large_and_small_together(ways: Ways) -> None:
    """FI-12: files of all sizes in one tree, several at once."""
    (ways.source / "t").mkdir()
    for size in (0, 1, 511, 512, 513, 262_143, 262_144, 262_145, 3_000_000):
        (ways.source / f"t/{size}").write_bytes(os.urandom(size))
    told = await ways.copy("t", recursive=True)
    assert told["files"] == 9
    assert_same(ways)


async def test_empty_directories(ways: Ways) -> None:
    """FI-01: a directory with nothing in it is copied."""
    (ways.source / "t/a/b").mkdir(parents=True)
    await ways.copy("t", recursive=True)
    assert (ways.destination / "t/a/b").is_dir()


async def test_a_way_over_a_link_is_the_kernel_s(ways: Ways) -> None:
    """FI-01, FI-13: `link/..` was taken out of the text, and another file taken."""
    for place in (ways.source, ways.destination):
        (place / "deep/v1").mkdir(parents=True)
        (place / "now").symlink_to("deep/v1")
    (ways.source / "name").write_text("wrong")
    (ways.source / "deep/name").write_text("right")
    (ways.destination / "name").write_text("mine")
    to = f"{ways.destination}/now/../name"
    await ways.copy("now/../name", destination=to, overwrite=True)
    assert (ways.destination / "deep/name").read_text() == "right"
    assert (ways.destination / "name").read_text() == "mine"


async def test_names_of_one_file_are_files(ways: Ways) -> None:
    """FI-01: each of its names comes with its content; all but one were missing."""
    (ways.source / "t/d").mkdir(parents=True)
    for name in ("small", "empty"):
        first = ways.source / "t" / name
        first.write_text(name if name != "empty" else "")
        for at in range(3):
            os.link(first, ways.source / "t/d" / f"{name}{at}")
    large = ways.source / "t/large"
    large.write_bytes(os.urandom(300_000))
    os.link(large, ways.source / "t/d/large0")
    told = await ways.copy("t", recursive=True, preserve=True)
    assert (told["status"], told["files"]) == ("exited", 10), told
    assert tree(ways.source) == tree(ways.destination)


async def test_times_and_modes_are_kept_where_asked(ways: Ways) -> None:
    """FI-01: preserve keeps times and modes of files and directories."""
    (ways.source / "t/d").mkdir(parents=True)
    small, large = ways.source / "t/d/s", ways.source / "t/d/l"
    small.write_text("1")
    large.write_bytes(bytes(300_000))
    small.chmod(0o640)
    large.chmod(0o755)
    (ways.source / "t/d").chmod(0o750)
    for path in (small, large, ways.source / "t/d", ways.source / "t"):
        age(path)
    told = await ways.copy("t", recursive=True, preserve=True)
    assert "not every mode" not in told.get("note", ""), told
    assert tree(ways.source) == tree(ways.destination), told


async def test_modes_without_preserve(ways: Ways) -> None:
    """FI-01: without preserve a program stays one, and times are of now."""
    (ways.source / "t").mkdir()
    program, secret = ways.source / "t/run", ways.source / "t/own"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    secret.write_text("s")
    secret.chmod(0o600)
    age(program)
    await ways.copy("t", recursive=True)
    copied = (ways.destination / "t/run").stat()
    assert stat.S_IMODE(copied.st_mode) == 0o755
    assert copied.st_mtime > 1_700_000_000
    assert stat.S_IMODE((ways.destination / "t/own").stat().st_mode) == 0o600


async def test_nothing_is_replaced_unasked(ways: Ways) -> None:
    """FI-01: a file that is there stays, and one alone is refused."""
    (ways.source / "a").write_text("new")
    (ways.destination / "a").write_text("old")
    error = await ways.refused("a")
    assert error["reason"] == "FILE_EXISTS"
    assert error["ran"] == "no"
    assert "overwrite" in error["hint"]
    assert (ways.destination / "a").read_text() == "old"
    await ways.copy("a", overwrite=True)
    assert (ways.destination / "a").read_text() == "new"
    assert ways.left() == ["a"]


async def test_a_tree_over_a_tree(ways: Ways) -> None:
    """FI-01: what is there is skipped, or replaced; the rest is added."""
    for name in ("a", "d/b", "d/e/c"):
        path = ways.source / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"new {name}")
    (ways.destination / "t/d").mkdir(parents=True)
    (ways.destination / "t/d/b").write_text("old")
    (ways.destination / "t/d/mine").write_text("mine")
    told = await ways.copy("t", recursive=True)
    assert (told["files"], told["skipped"]) == (2, 1)
    assert (ways.destination / "t/d/b").read_text() == "old"
    assert (ways.destination / "t/d/e/c").read_text() == "new d/e/c"
    told = await ways.copy("t", recursive=True, overwrite=True)
    assert (told["files"], told["skipped"]) == (3, 0)
    assert (ways.destination / "t/d/b").read_text() == "new d/b"
    assert (ways.destination / "t/d/mine").read_text() == "mine"
    assert ways.left() == ["t"]


async def test_a_directory_needs_recursive(ways: Ways) -> None:
    """FI-01: a directory alone is refused, with what to set."""
    (ways.source / "t").mkdir()
    error = await ways.refused("t")
    assert error["reason"] == "INVALID_ARGUMENT"
    assert "recursive" in error["hint"]
    assert ways.left() == []


async def test_no_such_source(ways: Ways) -> None:
    """FI-01: what is not there is said to be, and nothing is made."""
    error = await ways.refused("none")
    assert error["reason"] == "FILE_NOT_FOUND"
    assert "none" in error["message"]
    assert ways.left() == []


async def test_no_directory_to_go_to(ways: Ways) -> None:
    """FI-01: a destination in no directory is refused."""
    (ways.source / "a").write_text("1")
    error = await ways.refused("a", destination=f"{ways.destination}/no/where")
    assert error["reason"] == "FILE_NOT_FOUND"


async def test_links_of_a_tree(ways: Ways) -> None:
    """FI-01: links within the tree stay links; those that lead out are left out."""
    (ways.source / "t/d").mkdir(parents=True)
    (ways.source / "t/d/f").write_text("1")
    links = {
        "in": "d/f",
        "d/up": "../d/f",
        "folder": "d",
        "dangling": "nowhere",
    }
    out = {
        "absolute": "/etc/hostname",
        "over": "../x",
        "d/over": "../../x",
        "winding": "d/../../x",
        "back": "d/../d/f",
    }
    for name, target in (links | out).items():
        (ways.source / "t" / name).symlink_to(target)
    told = await ways.copy("t", recursive=True)
    found = tree(ways.destination / "t")
    assert {name: found.get(name) for name in links} == links
    assert not set(found) & set(out)
    assert told["skipped"] == len(out)
    assert "5 left out" in told["note"]


async def test_a_link_as_source_is_followed(ways: Ways) -> None:
    """FI-01: a link that is named itself stands for what it leads to."""
    (ways.source / "real").write_text("1")
    (ways.source / "link").symlink_to("real")
    await ways.copy("link")
    assert not (ways.destination / "link").is_symlink()
    assert (ways.destination / "link").read_text() == "1"


async def test_what_is_no_file_is_left_out(ways: Ways) -> None:
    """FI-01: a FIFO and a socket are left out and told; nothing hangs."""
    (ways.source / "t").mkdir()
    os.mkfifo(ways.source / "t/fifo")
    with (
        tempfile.TemporaryDirectory(prefix="hf-", dir=_SHORT) as directory,
        socket.socket(socket.AF_UNIX) as one,
    ):
        tmp = Path(directory)
        one.bind(str(tmp / "sock"))
        (tmp / "sock").rename(ways.source / "t/sock")
    (ways.source / "t/f").write_text("1")
    told = await ways.copy("t", recursive=True)
    assert sorted(tree(ways.destination / "t")) == ["f"]
    assert "2 left out" in told["note"]
    error = await ways.refused("t/fifo")
    assert error["ran"] == "no"


async def test_secrets_are_left_alone(ways: Ways) -> None:
    """FI-11: keys are neither read nor brought where they let people in."""
    (ways.source / "t/.ssh").mkdir(parents=True)
    (ways.source / "t/.ssh/id_ed25519").write_text("secret")
    (ways.source / "t/.ssh/id_ed25519.pub").write_text("public")
    (ways.source / "t/.ssh/config").write_text("c")
    error = await ways.refused("t/.ssh/id_ed25519")
    assert error["reason"] == "SENSITIVE_PATH"
    (ways.source / "innocent").symlink_to("t/.ssh/id_ed25519")
    error = await ways.refused("innocent")
    assert error["reason"] == "SENSITIVE_PATH"
    told = await ways.copy("t", recursive=True)
    assert sorted(tree(ways.destination / "t")) == [
        ".ssh",
        ".ssh/config",
        ".ssh/id_ed25519.pub",
    ]
    assert "holds secrets" in told["note"]
    (ways.destination / ".ssh").mkdir()
    (ways.source / "keys").write_text("k")
    error = await ways.refused(
        "keys", destination=str(ways.destination / ".ssh/authorized_keys")
    )
    assert error["reason"] == "SENSITIVE_PATH"


async def test_a_hole_arrives(ways: Ways) -> None:
    """FI-01: a sparse file arrives with the same bytes, and a download stays sparse."""
    path = ways.source / "sparse"
    with path.open("wb") as file:
        file.write(b"begin")
        file.seek(8_000_000)
        file.write(b"end")
    await ways.copy("sparse")
    copied = ways.destination / "sparse"
    assert copied.read_bytes() == path.read_bytes()
    if ways.way == "download":
        assert copied.stat().st_blocks * 512 < 4_000_000


async def test_the_same_request_is_one_copy(ways: Ways) -> None:
    """NF-15: a repeated call with the same request_id does not copy twice."""
    (ways.source / "a").write_text("1")
    first = await ways.copy("a", request_id="r1" + ways.way)
    (ways.destination / "a").unlink()
    again = await ways.copy("a", request_id="r1" + ways.way)
    assert again["job_id"] == first["job_id"]
    assert ways.left() == []


async def test_a_file_that_can_not_be_read_is_told(ssh: Tools, tmp_path: Path) -> None:
    """FI-01: the others are copied, and the call says which was not."""
    ways = Ways(ssh, tmp_path, "upload")
    (ways.source / "t").mkdir()
    (ways.source / "t/a").write_text("1")
    (ways.destination / "t").mkdir()
    (ways.destination / "t/a").mkdir()
    (ways.source / "t/b").write_text("2")
    error = await ways.refused("t", recursive=True, overwrite=True)
    assert error["reason"] == "FILE_FAILED"
    assert error["ran"] == "yes"
    assert "t/a" in error["message"]
    assert (ways.destination / "t/b").read_text() == "2"


OUTSIDE: dict[str, Any] = {
    "absolute": {"sources": ["/etc/hostname"]},
    "above": {"sources": ["{root}/../../../../../../etc/hostname"]},
    "home": {"sources": ["~/x"]},
    "root": {"sources": ["/"], "recursive": True},
    "proc": {"sources": ["/proc/self/environ"]},
}


@pytest.mark.parametrize("name", OUTSIDE)
async def test_only_allowed_roots_are_read(
    ssh: Tools, tmp_path: Path, name: str
) -> None:
    """FI-15: a source outside the allowed directories is refused, with what to do."""
    arguments = {
        key: [one.format(root=tmp_path) for one in value] if key == "sources" else value
        for key, value in OUTSIDE[name].items()
    }
    error = failure(
        await ssh.call(
            "ssh_copy",
            target="box",
            direction="upload",
            destination=f"{tmp_path}/out/",
            **arguments,
        )
    )
    assert error["reason"] == "LOCAL_PATH_DENIED"
    assert error["ran"] == "no"
    assert "local_roots" in error["hint"]
    assert not (tmp_path / "out").exists()


async def test_only_allowed_roots_are_written(ssh: Tools, tmp_path: Path) -> None:
    """FI-15: nor is anything written outside, also not through a link."""
    (tmp_path / "a").write_text("1")
    (tmp_path / "link").symlink_to("/var")
    for destination in ("/var/holdfast-test", str(tmp_path / "link/holdfast-test")):
        error = failure(
            await ssh.call(
                "ssh_copy",
                target="box",
                direction="download",
                sources=[str(tmp_path / "a")],
                destination=destination,
            )
        )
        assert error["reason"] == "LOCAL_PATH_DENIED"
        assert "/var/holdfast-test" in error["path"]


async def test_the_project_is_allowed(ssh: Tools, tmp_path: Path) -> None:
    """FI-15: a client's working directory is allowed; what is relative is in it."""
    told = content(
        await ssh.call(
            "ssh_copy",
            target="box",
            direction="upload",
            sources=["pyproject.toml"],
            destination=f"{tmp_path}/",
        )
    )
    assert told["files"] == 1
    here = Path.cwd() / "pyproject.toml"
    assert (tmp_path / "pyproject.toml").read_bytes() == here.read_bytes()


async def test_the_command_line(world: World, tmp_path: Path) -> None:
    """FI-01: `holdfast copy` both ways, as scp is used, with its exit code."""
    (tmp_path / "a").write_text("1")
    told = world.cli_json("copy", str(tmp_path / "a"), f"box:{tmp_path}/b")
    assert told["files"] == 1
    done = world.cli("copy", f"box:{tmp_path}/b", str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "1"
    assert b"1 copied" in done.stdout
    again = world.cli("copy", f"box:{tmp_path}/b", str(tmp_path / "c"), check=False)
    assert again.returncode == 1
    assert b"exists" in again.stderr


async def test_a_tree_with_many_over_one(ways: Ways) -> None:
    """FI-01: hundreds of files in one directory that is there, some of them new."""
    (ways.source / "t/d").mkdir(parents=True)
    (ways.destination / "t/d").mkdir(parents=True)
    for number in range(450):
        (ways.source / f"t/d/{number}").write_text(f"new {number}")
        if number % 3 == 0:
            (ways.destination / f"t/d/{number}").write_text("old")
    (ways.source / "t/d/.hidden").write_text("h")
    told = await ways.copy("t", recursive=True)
    assert (told["files"], told["skipped"]) == (301, 150)
    assert (ways.destination / "t/d/3").read_text() == "old"
    assert (ways.destination / "t/d/4").read_text() == "new 4"
    assert (ways.destination / "t/d/.hidden").read_text() == "h"
    told = await ways.copy("t", recursive=True, overwrite=True)
    assert told["files"] == 451
    assert_same(ways)
    assert ways.left() == ["t"]
