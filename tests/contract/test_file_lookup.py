"""Directories listed, files found and searched, by an agent against a real sshd.

Everything is done where rg is, where only GNU grep is, and where only busybox is: the
answers are the same.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.filing import Desk, host_of_files, only_busybox
from fakes.tools import served, text, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Result, Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_lookup"),
    pytest.mark.needs_sshd,
]

NEEDED = (
    "sh", "ls", "find", "grep", "head", "tail", "readlink", "stat", "wc", "cat",
)  # fmt: skip


def programs(kind: str, directory: Path) -> str:
    """Return the PATH of a host with those programs; empty: its own."""
    if kind == "busybox":
        if shutil.which("busybox") is None:
            pytest.skip("no busybox here: run packaging/test-packages.sh")
        return str(only_busybox(directory))
    if kind == "rg":
        if shutil.which("rg") is None:
            pytest.skip("no rg here: run packaging/test-packages.sh")
        return ""
    directory.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    return str(directory)


@pytest.fixture(scope="module", params=["rg", "grep", "busybox"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("sshd")
    path = programs(request.param, directory / "bin")
    with host_of_files(directory, path=path) as sshd, served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def plant(place: Path, **files: str) -> None:
    for name, content in files.items():
        path = place / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def names(place: Path, told: Result) -> list[str]:
    found = [one if isinstance(one, str) else one["path"] for one in told["matches"]]
    return [one.removeprefix(f"{place}/") for one in found]


async def test_a_directory_is_listed(desk: Desk) -> None:
    """FI-07: plain and detailed, hidden or not, as deep as asked, by name."""
    place = desk.place
    plant(place, b="12345", a__c__d="", DOThidden__x="", a__DOTy="")
    (place / "link").symlink_to("b")
    os.mkfifo(place / "pipe")
    (place / "b").chmod(0o640)
    os.utime(place / "b", (0, 1_700_000_000))
    told = await desk.told("ssh_dir_list", path=str(place))
    assert told == {
        "path": str(place),
        "entries": [
            {"path": "a", "type": "directory"},
            {"path": "b", "type": "file"},
            {"path": "link", "type": "link"},
            {"path": "pipe", "type": "other"},
        ],
        "truncated": False,
    }
    told = await desk.told("ssh_dir_list", path=str(place), depth=3, hidden=True)
    assert [row["path"] for row in told["entries"]] == [
        ".hidden",
        ".hidden/x",
        "a",
        "a/.y",
        "a/c",
        "a/c/d",
        "b",
        "link",
        "pipe",
    ]
    told = await desk.told("ssh_dir_list", path=str(place), depth=2)
    assert "a/c" in [row["path"] for row in told["entries"]]
    assert "a/.y" not in [row["path"] for row in told["entries"]]
    told = await desk.told("ssh_dir_list", path=str(place), detailed=True)
    row = told["entries"][1]
    stat = (place / "b").stat()
    assert (row["size_bytes"], row["mode"]) == (5, "-rw-r-----")
    assert row["modified"] == "2023-11-14T22:13:20Z"
    assert row["owner"].split(":")[0] == (place / "b").owner()
    assert stat.st_size == row["size_bytes"]
    assert (await desk.told("ssh_dir_list", path=str(place / "a" / "c" / "..")))[
        "path"
    ] == str(place / "a")
    empty = place / "empty"
    empty.mkdir()
    assert (await desk.told("ssh_dir_list", path=str(empty)))["entries"] == []


async def test_a_long_directory_is_cut_and_said_to_be(desk: Desk) -> None:
    """FI-07: bounded."""
    for number in range(1010):
        (desk.place / f"{number:04}").touch()
    told = await desk.told("ssh_dir_list", path=str(desk.place))
    assert (len(told["entries"]), told["truncated"]) == (1000, True)
    assert "more than 1000" in told["note"]


async def test_what_is_no_directory_is_refused(desk: Desk) -> None:
    """FI-07: a file, and what is not there."""
    plant(desk.place, a="x")
    for tool in ("ssh_dir_list", "ssh_find"):
        more = {"glob": "*"} if tool == "ssh_find" else {}
        error = await desk.refused(tool, path=str(desk.place / "a"), **more)
        assert (error["reason"], error["ran"]) == ("FILE_FAILED", "no")
        error = await desk.refused(tool, path=str(desk.place / "none"), **more)
        assert error["reason"] == "FILE_NOT_FOUND"
    error = await desk.refused("ssh_search", pattern="x", path=str(desk.place / "none"))
    assert error["reason"] == "FILE_NOT_FOUND"


async def test_names_are_found_by_globs(desk: Desk) -> None:
    """FI-09: **, braces, sets, the rule for hidden files; .git is not gone into."""
    place = desk.place
    plant(
        place,
        aDOTpy="",
        bDOTjs="",
        sub__cDOTpy="",
        sub__deep__dDOTtxt="",
        DOTgit__eDOTpy="",
        DOTcache__fDOTpy="",
        sub__DOTgDOTpy="",
        one1="",
    )
    for glob, wanted in (
        ("*.py", ["a.py"]),
        ("**/*.py", ["a.py", "sub/c.py"]),
        ("**/*.{py,txt}", ["a.py", "sub/c.py", "sub/deep/d.txt"]),
        ("*.{js,{p,t}y}", ["a.py", "b.js"]),
        ("sub/**", ["sub/c.py", "sub/deep", "sub/deep/d.txt"]),
        ("sub/*", ["sub/c.py", "sub/deep"]),
        ("sub/**/d.txt", ["sub/deep/d.txt"]),
        ("one[0-9]", ["one1"]),
        ("one[!2]", ["one1"]),
        ("?.py", ["a.py"]),
        (".cache/*.py", [".cache/f.py"]),
        ("**/.*.py", ["sub/.g.py"]),
        (".git/*", [".git/e.py"]),
        ("none*", []),
        ("./a.py", ["a.py"]),
    ):
        told = await desk.told("ssh_find", glob=glob, path=str(place))
        assert (names(place, told), told["truncated"]) == (wanted, False), glob
    told = await desk.told("ssh_find", glob=f"{place}/**/*.py")
    assert told["matches"] == [f"{place}/a.py", f"{place}/sub/c.py"]
    told = await desk.told("ssh_find", glob="**/*", path=str(place), limit=2)
    assert (len(told["matches"]), told["truncated"]) == (2, True)
    assert "raise limit" in told["note"]


async def test_what_is_found_behind_a_link_is_there(desk: Desk) -> None:
    """FI-09: `link/..` is another directory to the host than to who reads the path."""
    (desk.place / "releases/42").mkdir(parents=True)
    (desk.place / "releases/app.conf").write_text("found\n")
    (desk.place / "app.conf").write_text("another\n")
    (desk.place / "current").symlink_to("releases/42")
    path = f"{desk.place}/current/.."
    told = await desk.told("ssh_find", glob="*.conf", path=path)
    (one,) = told["matches"]
    read = await desk.told("ssh_file_read", path=one)
    assert read["content"] == "found\n"


async def test_contents_are_searched(desk: Desk) -> None:
    """FI-08: files, lines with context, counts; the same by every program."""
    place = desk.place
    plant(
        place,
        aDOTpy="import os\n\nfoo = 1\nbar = foo\nend\n",
        sub__bDOTpy="FOO\nfoo-2\n",
        sub__cDOTtxt="foo\n",
        DOTgit__d="foo\n",
        DOTenv="foo=bar\n",
        none="nothing\n",
    )
    (place / "bin").write_bytes(b"foo\0\1\2")

    async def search(**arguments: Any) -> Result:
        given = {"pattern": "foo", "path": str(place), **arguments}
        return await desk.told("ssh_search", **given)

    everywhere = [".env", "a.py", "sub/b.py", "sub/c.txt"]
    found = names(place, await search())
    assert [one for one in found if one != "bin"] == everywhere
    assert names(place, await search(glob="*.py")) == ["a.py", "sub/b.py"]
    assert names(place, await search(glob="*.{txt,md}")) == ["sub/c.txt"]
    assert names(place, await search(glob="sub/*.py")) == ["sub/b.py"]
    told = await search(glob="*.py", output="content")
    assert [(row["line"], row["text"]) for row in told["matches"]] == [
        (3, "foo = 1"),
        (4, "bar = foo"),
        (2, "foo-2"),
    ]
    told = await search(glob="*.py", output="content", case_insensitive=True)
    assert [row["line"] for row in told["matches"]] == [3, 4, 1, 2]
    told = await search(glob="a.py", output="content", before=1, after=1, limit=1)
    assert told["matches"] == [
        {"path": f"{place}/a.py", "line": 3, "text": "2-\n3:foo = 1\n4-bar = foo"}
    ]
    assert told["truncated"] is True
    told = await search(glob="*.py", output="count")
    assert [row["count"] for row in told["matches"]] == [2, 1]
    told = await search(path=str(place / "a.py"), output="content", pattern="^bar")
    assert [row["line"] for row in told["matches"]] == [4]
    assert (await search(pattern="not there"))["matches"] == []
    for pattern, lines in (
        (r"\bfoo\b", [3, 4]),
        (r"^fo{2}\s=\s\d$", [3]),
        (r"(?:foo|bar) =", [3, 4]),
        (r"[\w]+ = [\d]", [3]),
        (r"=\ 1", [3]),
        (r"^$", [2]),
        (r"-- no|end", [5]),
    ):
        told = await search(pattern=pattern, glob="a.py", output="content")
        assert [row["line"] for row in told["matches"]] == lines, pattern


async def test_a_named_file_is_searched_whatever_it_holds(desk: Desk) -> None:
    """FI-08: nothing was found in a log with a NUL in it, though it was there."""
    path = desk.place / "log"
    path.write_bytes(b"one\0\0\nneedle\n\0a needle\nnone\n")

    async def search(output: str) -> Any:
        told = await desk.told(
            "ssh_search", pattern="needle", path=str(path), output=output
        )
        return told["matches"]

    assert await search("files") == [{"path": str(path)}]
    assert await search("count") == [{"path": str(path), "count": 2}]
    assert await search("content") == [
        {"path": str(path), "line": 2, "text": "needle"},
        {"path": str(path), "line": 3, "text": "␀a needle"},
    ]


async def test_globs_mean_the_same_everywhere(desk: Desk) -> None:
    """FI-08, FI-09: letters of several bytes, sets, hidden ones, and what rg refuses.

    A place where nothing was found was said to hold none.
    """
    place = desk.place
    plant(place, caf="", DOTgithub__xDOTyml="", DOTgit__yDOTyml="")
    for name in ("café", "é.txt", "7.yml", "{a", "[b"):
        (place / name).write_text("")
    for path in place.rglob("*"):
        if path.is_file():
            path.write_text("needle")
    here = ["7.yml", "[b", "caf", "café", "{a", "é.txt"]
    for glob, wanted in (
        ("caf?", ["café"]),
        ("?.txt", ["é.txt"]),
        ("[é].txt", ["é.txt"]),
        ("[!a].txt", ["é.txt"]),
        ("[[:digit:]].yml", ["7.yml"]),
        ("{a", ["{a"]),
        ("[b", ["[b"]),
        ("*", here),
    ):
        told = await desk.told("ssh_find", glob=glob, path=str(place))
        assert names(place, told) == wanted, glob
        found = await desk.told(
            "ssh_search", pattern="needle", glob=glob, path=str(place)
        )
        hidden = [".github/x.yml"] if glob == "*" else []
        assert names(place, found) == hidden + wanted, glob
    for glob in ("*.yml", "**/*.yml"):
        found = await desk.told(
            "ssh_search", pattern="needle", glob=glob, path=str(place)
        )
        assert names(place, found) == [".github/x.yml", "7.yml"], glob


@pytest.mark.parametrize(
    "pattern", ["-e", "--help", "a'b", 'a"b', "$(id)", "`id`", "\\$HOME", "ü☃", "a b"]
)
async def test_a_pattern_is_nothing_but_a_pattern(desk: Desk, pattern: str) -> None:
    """FI-08: quotes, dashes and letters of all kinds."""
    content = pattern.replace("\\", "").replace("$(id)", "")
    wanted = pattern.replace("$(id)", r"\$\(id\)")
    content = content or "$(id)"
    plant(desk.place, a=f"x\n{content}\n")
    told = await desk.told(
        "ssh_search", pattern=wanted, path=str(desk.place), output="content"
    )
    assert [row["text"] for row in told["matches"]] == [content]


async def test_long_lines_and_latin_1_are_shown(desk: Desk) -> None:
    """FI-08: cut, and in letters."""
    (desk.place / "a").write_bytes(b"x" * 5000 + b"needle\n" + b"needle gr\xf6\xdfe\n")
    told = await desk.told(
        "ssh_search", pattern="needle", path=str(desk.place), output="content"
    )
    assert [len(row["text"]) for row in told["matches"]] == [501, 12]
    assert told["matches"][1]["text"] == "needle größe"


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        ("ssh_search", {"pattern": ""}, "pattern"),
        ("ssh_search", {"pattern": "a\nb"}, "pattern"),
        ("ssh_search", {"pattern": "fo("}, "pattern"),
        ("ssh_search", {"pattern": "x" * 3000}, "pattern"),
        ("ssh_search", {"pattern": "a", "limit": 0}, "limit"),
        ("ssh_search", {"pattern": "a", "before": 101}, "before"),
        ("ssh_search", {"pattern": "a", "output": "all"}, "output"),
        ("ssh_search", {"pattern": "a", "glob": "!*.js"}, "glob"),
        ("ssh_search", {"pattern": "a", "glob": "a/[z-a]"}, "glob"),
        ("ssh_find", {"glob": " "}, "glob"),
        ("ssh_find", {"glob": "[z-a]"}, "glob"),
        ("ssh_find", {"glob": "../*"}, "glob"),
        ("ssh_find", {"glob": "{a,~/b}"}, "glob"),
        ("ssh_find", {"glob": "{a,b}" * 7}, "glob"),
        ("ssh_find", {"glob": "x" * 2000}, "glob"),
        ("ssh_find", {"glob": "*", "limit": 10_001}, "limit"),
        ("ssh_dir_list", {"depth": 0}, "depth"),
        ("ssh_dir_list", {"depth": 21}, "depth"),
        ("ssh_dir_list", {"path": "x" * 5000}, "path"),
    ],
)
async def test_wrong_input_is_named(
    desk: Desk, tool: str, arguments: dict[str, Any], field: str
) -> None:
    """TR-08: each argument, what was wrong with it, and nothing was done."""
    error = await desk.refused(tool, **arguments)
    assert (error["reason"], error["field"], error["ran"]) == (
        "INVALID_ARGUMENT",
        field,
        "no",
    )


async def test_the_text_form_is_one_row_each(world: World, tmp_path: Path) -> None:
    """FI-07, FI-08, FI-09: what a model reads where the client hides the rest."""
    plant(tmp_path, a="foo\nfoo\n", sub__b="")
    async with tools(world, client="claude-code") as ssh:
        where = {"target": "box", "path": str(tmp_path)}
        listed = text(await ssh.call("ssh_dir_list", **where))
        found = text(await ssh.call("ssh_find", glob="**/*", **where))
        rows = text(
            await ssh.call("ssh_search", pattern="foo", output="content", **where)
        )
    assert listed == f"{tmp_path} · 2 entries\na\nsub/"
    assert found.splitlines() == [
        "3 matches",
        f"{tmp_path}/a",
        f"{tmp_path}/sub",
        f"{tmp_path}/sub/b",
    ]
    assert rows.splitlines() == [
        "2 matches",
        f"{tmp_path}/a:1:foo",
        f"{tmp_path}/a:2:foo",
    ]
