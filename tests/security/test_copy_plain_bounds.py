"""Whatever an SFTP server calls its files, nothing is written outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.copying import Ways
from fakes.sftp_host import FOLDER, LINK, REGULAR, Lies, SftpHost
from fakes.syncing import ROOTS, tree
from fakes.tools import QUICK, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fakes.tools import Tools

    Told = tuple[Tools, Lies]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_plain_bounds"),
]

# OUT stands for a directory beside the destination.
NAMES = [
    b"../pwned",
    b"../../pwned",
    b"..",
    b".",
    b"",
    b"/OUT/pwned",
    b"//OUT/pwned",
    b"a/../../pwned",
    b"d/..",
    b"d//e",
    b"d/e",
    b"./",
    b"../",
    b"nul\0l",
    b"new\n../pwned",
    b"x" * 300,
]
TARGETS = [b"/OUT", b"../..", b"..", b"/OUT/pwned", b"a/../../..", b""]
CASES: dict[str, list[tuple[bytes, int, bytes]]] = {}
for _name in NAMES:
    CASES[f"file {_name!r:.30}"] = [(_name, REGULAR, b"")]
    CASES[f"folder {_name!r:.30}"] = [(_name, FOLDER, b"")]
    CASES[f"link {_name!r:.30}"] = [(_name, LINK, b"/OUT")]
for _target in TARGETS:
    CASES[f"link to {_target!r}"] = [(b"l", LINK, _target)]
    CASES[f"link and file of one name, to {_target!r}"] = [
        (b"l", LINK, _target),
        (b"l/pwned", REGULAR, b""),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    """Yield an agent's tools, and what the host lies of."""
    lies = Lies()
    async with SftpHost(lies) as host:
        config = host.client_files(tmp_path_factory.mktemp("client"))
        with served(config, more=ROOTS, limits=QUICK) as world:
            async with tools(world, "--results", "structured") as ssh:
                yield ssh, lies


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("case", CASES)
async def test_a_lying_server(
    told: Told, tmp_path: Path, case: str, *, large: bool
) -> None:
    """NF-15, FI-15: of bad names nothing is written anywhere else."""
    ssh, lies = told
    out = tmp_path / "out"
    place = str(out).encode().lstrip(b"/")
    lies.names = [
        (name.replace(b"OUT", place), mode, target.replace(b"OUT", place))
        for name, mode, target in CASES[case]
    ]
    lies.below = b"/source/t"
    lies.content = b"x" * (300_000 if large else 5)
    ways = Ways(ssh, tmp_path, "download")
    out.mkdir()
    (out / "canary").write_text("here")
    (ways.source / "t").mkdir()
    (ways.source / "t/fair").write_text("fair")
    before = tree(tmp_path)
    await ssh.call("ssh_copy", **ways.filled("t", recursive=True))
    after = tree(tmp_path)
    # what is made in it changes the destination's own time
    assert before.pop("destination")
    outside = {n: v for n, v in after.items() if n.partition("/")[0] != "destination"}
    assert outside == before
    assert ways.left() in ([], ["t"])
    for name in after:
        path = tmp_path / name
        if path.is_symlink():
            assert path.resolve().is_relative_to(ways.destination / "t")


async def test_a_server_that_tells_the_truth(told: Told, tmp_path: Path) -> None:
    """NF-15: the same server's made-up files come where their names can be names."""
    ssh, lies = told
    lies.names = [(b"made up", REGULAR, b""), (b"l", LINK, b"made up")]
    lies.below, lies.content = b"/source/t", b"12345"
    ways = Ways(ssh, tmp_path, "download")
    (ways.source / "t").mkdir()
    copied = await ways.copy("t", recursive=True)
    assert copied["files"] == 2
    assert (ways.destination / "t/l").read_text() == "12345"
