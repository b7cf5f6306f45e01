"""Nothing a copy does leads out of where it goes: lying hosts, links in the way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes import hostile_host
from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files
from fakes.hostile_host import FOLDER, LINK, REGULAR
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ROOTS, tree
from fakes.tools import served, tools
from holdfast_daemon.transfer.means.errand import CopyRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.hostile_host import Row
    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_bounds"),
    pytest.mark.needs_sshd,
]

# OUT stands for a directory beside the destination.
NAMES = [
    "../pwned",
    "../../pwned",
    "..",
    ".",
    "",
    "/OUT/pwned",
    "//OUT/pwned",
    "a/../../pwned",
    "a/../../../OUT/pwned",
    "./../pwned",
    "./../../destination/../pwned",
    "d/..",
    "d//e",
    "d/./e",
    "./",
    "../",
    "new\n../pwned",
    "x" * 300,
]
LARGE = 300_000


def listed(name: str, size: int) -> tuple[list[Row], list[Row]]:
    """The listing itself has the name, and the stream has it too."""
    row = (name, REGULAR, size, "")
    good = ("./good", REGULAR, 1, "")
    return [(".", FOLDER, 0, ""), good, row], [good, row]


def streamed(name: str, mode: int, target: str = "") -> tuple[list[Row], list[Row]]:
    """The listing is fair, and the stream brings something else besides."""
    good = [("./good", REGULAR, 1, ""), ("./two", REGULAR, 1, "")]
    return [(".", FOLDER, 0, ""), *good], [(name, mode, 5, target), *good]


CASES: dict[str, tuple[list[Row], list[Row]]] = {}
for _name in NAMES:
    CASES[f"listed small {_name!r:.30}"] = listed(_name, 5)
    CASES[f"listed large {_name!r:.30}"] = listed(_name, LARGE)
    CASES[f"streamed file {_name!r:.30}"] = streamed(_name, REGULAR)
    CASES[f"streamed folder {_name!r:.30}"] = streamed(_name, FOLDER)
for _target in ("/OUT", "../..", "..", "/OUT/pwned", "a/../../.."):
    CASES[f"link, then through it {_target}"] = (
        [
            (".", FOLDER, 0, ""),
            ("./l", LINK, 1, _target),
            ("./l/pwned", REGULAR, 5, ""),
            ("./l/large", REGULAR, LARGE, ""),
        ],
        [("./l", LINK, 0, _target), ("./l/pwned", REGULAR, 5, "")],
    )
    CASES[f"streamed link {_target}"] = (
        [(".", FOLDER, 0, ""), ("./l/pwned", REGULAR, 5, ""), ("./m", REGULAR, 1, "")],
        [("./l", LINK, 0, _target), ("./l/pwned", REGULAR, 5, "")],
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module")
def lies(directory: Path) -> Path:
    return hostile_host.programs(directory / "bin")


@pytest.fixture(scope="module")
def world(directory: Path, lies: Path) -> Iterator[World]:
    (directory / "home").mkdir()
    path = f"{lies}:{os.environ['PATH']}"
    (directory / "fair").mkdir()
    with (
        Sshd(
            directory, options={"SetEnv": f"HOME={directory / 'home'} PATH={path}"}
        ) as sshd,
        served(sshd, more=ROOTS) as one,
    ):
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def filled(rows: list[Row], out: Path) -> list[Row]:
    place = str(out).lstrip("/")
    return [
        (name.replace("OUT", place), mode, size, target.replace("OUT", place))
        for name, mode, size, target in rows
    ]


@pytest.mark.parametrize("case", CASES)
async def test_a_lying_host(ssh: Tools, lies: Path, tmp_path: Path, case: str) -> None:
    """NF-15, FI-15: whatever a host calls its files, nothing outside is written."""
    ways = Ways(ssh, tmp_path, "download")
    out = tmp_path / "out"
    out.mkdir()
    (out / "canary").write_text("here")
    (ways.source / "t").mkdir()
    rows, members = CASES[case]
    hostile_host.tell(lies, filled(rows, out), filled(members, out))
    before = tree(tmp_path)
    await ssh.call("ssh_copy", **ways.filled("t", recursive=True))
    after = tree(tmp_path)
    # what is made in it changes the destination's own time
    assert before.pop("destination")
    assert {n: v for n, v in after.items() if not n.startswith("destination")} == before
    assert ways.left() in ([], ["t"])
    for name in after:
        path = tmp_path / name
        if path.is_symlink():
            assert path.resolve().is_relative_to(ways.destination / "t")


async def test_a_host_that_tells_the_truth(
    ssh: Tools, lies: Path, tmp_path: Path
) -> None:
    """NF-15: the same programs bring files where what they tell is true."""
    ways = Ways(ssh, tmp_path, "download")
    (ways.source / "t").mkdir()
    rows: list[Row] = [("./good", REGULAR, 5, ""), ("./d/two", REGULAR, 5, "")]
    hostile_host.tell(lies, [(".", FOLDER, 0, ""), *rows], rows)
    told = await ways.copy("t", recursive=True)
    assert told["files"] == 2
    assert (ways.destination / "t/d/two").read_text() == "xxxxx"


@pytest.fixture(scope="module", params=["shell", "SFTP only"])
def fair_world(request: pytest.FixtureRequest, directory: Path) -> Iterator[World]:
    place = directory / "fair" / request.param.partition(" ")[0]
    place.mkdir(parents=True)
    with host_of_files(place, request.param) as sshd, served(sshd, more=ROOTS) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fair(fair_world: World) -> AsyncIterator[Tools]:
    async with tools(fair_world, "--results", "structured") as one:
        yield one


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, fair: Tools, tmp_path: Path) -> Ways:
    found = Ways(fair, tmp_path, request.param)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/canary").write_text("here")
    (found.source / "t/d").mkdir(parents=True)
    for name in ("f", "canary", "d/canary", "d/f"):
        (found.source / "t" / name).write_text("new")
    (found.source / "t/d/large").write_bytes(bytes(LARGE))
    return found


# Where a link to the outside lies, and whether it leads to a file there.
IN_THE_WAY = [
    ("t", "../out"),
    ("t/d", "../../out"),
    ("t/canary", "../../out/canary"),
    ("t/f", "../../out/new"),
    ("t/d/canary", "../../../out/canary"),
    ("t/d/large", "../../../out/large"),
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("name", "target"), IN_THE_WAY)
async def test_links_in_the_way(
    ways: Ways, name: str, target: str, *, overwrite: bool
) -> None:
    """FI-15: a link at the destination is replaced at most, and never followed."""
    out = ways.destination.parent / "out"
    link = ways.destination / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    await ways.ssh.call(
        "ssh_copy", **ways.filled("t", recursive=True, overwrite=overwrite)
    )
    assert tree(out) == tree(out) | {}
    assert [one.name for one in out.iterdir()] == ["canary"]
    assert (out / "canary").read_text() == "here"
    if not overwrite:
        assert link.is_symlink()


@pytest.mark.parametrize("kind", ["link", "file", "open to others"])
async def test_something_under_the_name_of_the_parts(
    ways: Ways, fair_world: World, kind: str
) -> None:
    """NF-15: parts are not put into what others may write, or lead elsewhere."""
    out = ways.destination.parent / "out"
    told = await ways.ssh.call("ssh_copy", **ways.filled("t", recursive=True))
    assert "isError" not in told
    names = ways.left()
    assert names == ["t"]
    signature = (fair_world.state / "copies.id").read_text().strip()
    part = ways.destination / part_of(ways, signature)
    if kind == "link":
        part.symlink_to(out)
    elif kind == "file":
        part.write_text("mine")
    else:
        part.mkdir()
        part.chmod(0o777)
    error = await ways.refused("t", recursive=True, overwrite=True)
    assert error["reason"] == "FILE_FAILED"
    assert [one.name for one in out.iterdir()] == ["canary"]
    if kind == "file":
        assert part.read_text() == "mine"


def part_of(ways: Ways, signature: str) -> str:
    """Return the name under which the daemon keeps what is not whole yet."""
    source, destination = str(ways.source / "t"), str(ways.destination)
    upload = ways.way == "upload"
    request = CopyRequest(
        upload=upload,
        here=(source,) if upload else (destination,),
        there=(f"{destination}/",) if upload else (source,),
        recursive=True,
        overwrite=True,
        into=True,
    )
    return request.key("box", signature).decode()
