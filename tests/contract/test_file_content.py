"""Files read, written and edited, through the real shim against a real sshd.

Everything is done on a host with all programs, and on one that has busybox only.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.filing import HOSTS, Desk, host_of_files
from fakes.tools import served, text, tools
from fakes.watch import records, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_content"),
    pytest.mark.needs_sshd,
]

NAMES = [
    "plain",
    "-rf",
    "--help",
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
    "tab\there",
    ";rm -rf .",
    "PATH MODE GUARD PART",
    "x" * 255,
]
TEXTS = [
    "",
    "\n",
    "one",
    "one\ntwo",
    "one\r\ntwo\r\n",
    "\ufeffwith a mark\n",
    "mixed\r\nends\nhere\r",
    "trailing  \n\n\n",
    "ünï☃\U0001f600\n",
    "\x1b[31mred\x1b[0m\n",
    "%s %d \\0 \\n $HOME `id` $(id)\n",
    ".\nend-of\n.\n",
    "long " * 30_000,
]


@pytest.fixture(scope="module", params=HOSTS[:2])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    if request.param == "busybox only" and shutil.which("busybox") is None:
        pytest.skip("no busybox here: run packaging/test-packages.sh")
    directory = tmp_path_factory.mktemp("sshd")
    with host_of_files(directory, request.param) as sshd, served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=20)


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_file_is_read_whole_with_its_measures(desk: Desk) -> None:
    """FI-03: contents, size, lines, and a hash to write it back by."""
    path = desk.place / "a"
    path.write_bytes(b"one\r\ntwo\nthree")
    told = await desk.read(path)
    assert told == {
        "path": str(path),
        "content": "one\r\ntwo\nthree",
        "size_bytes": 14,
        "total_lines": 3,
        "start_line": 1,
        "end_line": 3,
        "truncated": False,
        "sha256": digest(b"one\r\ntwo\nthree"),
        "encoding": "utf-8",
    }


@pytest.mark.parametrize("size", [1000, 400_000])
async def test_lines_are_paged_until_all_is_read(desk: Desk, size: int) -> None:
    """FI-03: a small file, and one of which only parts are fetched."""
    path = desk.place / "a"
    lines = [f"{n:07}ü\r\n" for n in range(size // 10)]
    path.write_bytes("".join(lines).encode())
    told = await desk.read(path, start_line=3, end_line=5)
    assert told["content"] == "".join(lines[2:5])
    assert (told["start_line"], told["end_line"]) == (3, 5)
    assert told["total_lines"] == len(lines)
    assert told["truncated"] is False
    assert told["sha256"] == digest(path.read_bytes())
    found, start = "", 1
    while start <= len(lines):
        told = await desk.read(path, start_line=start, max_bytes=60_000)
        found += told["content"]
        assert told["truncated"] is (told["end_line"] < len(lines))
        start = told["end_line"] + 1
    assert found == "".join(lines)
    error = await desk.refused("ssh_file_read", path=str(path), start_line=start)
    assert error["field"] == "start_line"
    assert str(len(lines)) in error["message"]


async def test_a_long_file_is_cut_unless_forced(desk: Desk) -> None:
    """FI-03: 20 KB, at the end of a line, and how to read on is said."""
    path = desk.place / "a"
    path.write_text("0123456789abcde\n" * 5000)
    told = await desk.read(path)
    assert told["truncated"] is True
    assert len(told["content"]) == 20_480
    assert f"start_line={told['end_line'] + 1}" in told["note"]
    told = await desk.read(path, force=True)
    assert (told["truncated"], len(told["content"])) == (False, 80_000)
    path.write_text("ü" * 30_000)
    told = await desk.read(path, max_bytes=11)
    assert told["content"] == "ü" * 5
    assert "line 1 is cut" in told["note"]


async def test_what_is_no_text_is_refused_with_its_type(desk: Desk) -> None:
    """FI-03: a size and a type, or base64 for who asks for it."""
    path = desk.place / "a"
    for data, kind in (
        (b"\x7fELF\x02\x01\x00", "ELF program"),
        (b"\0\1\2", "binary"),
        ("text".encode("utf-16"), "UTF-16 text"),
    ):
        path.write_bytes(data)
        error = await desk.refused("ssh_file_read", path=str(path))
        assert error["reason"] == "NOT_TEXT"
        assert (error["type"], error["size_bytes"]) == (kind, str(len(data)))
        told = await desk.read(path, force=True)
        assert told["encoding"] == "base64"
        assert base64.b64decode(told["content"]) == data
    edits = [{"old": "a", "new": "b"}]
    error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
    assert error["reason"] == "NOT_TEXT"


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:20])
async def test_any_name_is_a_name(desk: Desk, name: str) -> None:
    """FI-10: written, read, edited, listed, found and searched under it."""
    path = desk.place / name
    told = await desk.write(path, "needle one\n")
    assert (told["created"], told["path"]) == (True, str(path))
    assert path.read_bytes() == b"needle one\n"
    assert (await desk.read(path))["content"] == "needle one\n"
    await desk.edit(path, ("one", "two"))
    assert path.read_bytes() == b"needle two\n"
    listed = await desk.told("ssh_dir_list", path=str(desk.place))
    assert [row["path"] for row in listed["entries"]] == [name]
    found = await desk.told("ssh_find", glob="*", path=str(desk.place))
    assert found["matches"] == [str(path)]
    if "\n" not in name:  # busybox's grep can't tell such names apart
        searched = await desk.told("ssh_search", pattern="needle", path=str(path))
        assert searched["matches"] == [{"path": str(path)}]
    assert [one.name for one in desk.place.iterdir()] == [name]


@pytest.mark.parametrize("content", TEXTS, ids=lambda one: ascii(one)[:20])
async def test_any_text_is_kept_to_the_byte(desk: Desk, content: str) -> None:
    """FI-04, FI-10: written, read back, appended to and replaced."""
    path = desk.place / "a"
    data = content.encode()
    told = await desk.write(path, content)
    assert path.read_bytes() == data
    assert told["bytes_written"] == len(data)
    assert told["sha256"] == digest(data)
    assert (await desk.read(path, force=True))["content"] == content
    told = await desk.write(path, content, mode="append")
    assert path.read_bytes() == data * 2
    assert (told["created"], told["bytes_written"]) == (False, len(data))
    assert told["sha256"] == digest(data * 2)
    told = await desk.write(
        path, content, mode="overwrite", expected_sha256=told["sha256"]
    )
    assert path.read_bytes() == data


async def test_any_bytes_are_read_and_edited_exactly(desk: Desk) -> None:
    """FI-10: random bytes, of which an edit changes one place only."""
    chance = random.Random(5)
    path = desk.place / "a"
    alphabets = [bytes(range(256)), bytes(range(32, 256)) + b"\r\n\t", b"ab\r\n\xe4"]
    seen: set[str] = set()
    for number in range(40):
        letters = alphabets[number % 3]
        before, after = (bytes(chance.choices(letters, k=90)) for _ in range(2))
        path.write_bytes(before + b"<<here>>" + after)
        told = await desk.read(path, force=True)
        seen.add(told["encoding"])
        if told["encoding"] == "base64":
            assert base64.b64decode(told["content"]) == path.read_bytes()
            continue
        assert told["content"].encode(told["encoding"]) == path.read_bytes()
        await desk.edit(path, ("<<here>>", "<<there>>"))
        assert path.read_bytes() == before + b"<<there>>" + after
    assert seen >= {"base64", "latin-1"}


async def test_create_replaces_nothing_and_makes_parents_when_told(desk: Desk) -> None:
    """FI-05: only where it is absent, and its directory there or asked for."""
    path = desk.place / "x" / "y" / "a"
    error = await desk.refused("ssh_file_write", path=str(path), content="1")
    assert (error["reason"], error["ran"]) == ("FILE_NOT_FOUND", "no")
    assert "make_parents" in error["hint"]
    assert not (desk.place / "x").exists()
    told = await desk.write(path, "1", make_parents=True, permissions="600")
    assert told["created"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    error = await desk.refused("ssh_file_write", path=str(path), content="2")
    assert (error["reason"], error["path"]) == ("FILE_EXISTS", str(path))
    assert path.read_text() == "1"
    fresh = desk.place / "fresh"
    await desk.write(fresh, "", mode="overwrite")
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o644


async def test_edits_are_all_or_nothing(desk: Desk) -> None:
    """FI-06: each exactly once; a miss shows the nearest lines and how often."""
    path = desk.place / "a.py"
    before = "def one():\n\treturn 1\n\n\ndef two():\n\treturn 2\n\n\nx = 1\nx = 1\n"
    path.write_text(before)
    told = await desk.edit(path, ("return 1", "return 10"), ("return 10", "pass"))
    after = before.replace("return 1", "pass")
    assert (told["edits_applied"], told["sha256"]) == (2, digest(after.encode()))
    assert told["bytes_written"] == len(after)
    assert path.read_text() == after

    async def miss(*pairs: tuple[str, str]) -> dict[str, Any]:
        edits = [{"old": old, "new": new} for old, new in pairs]
        error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
        assert (error["reason"], error["ran"]) == ("EDIT_REFUSED", "no")
        assert path.read_text() == after
        return error

    error = await miss(("pass", "other"), ("x = 1", "x = 2"))
    assert (error["edit"], error["found"], error["line"]) == ("1", "2", "9")
    assert "lines 9, 10" in error["message"]
    error = await miss(("def two():\n    return 2\n", "gone"))
    assert (error["found"], error["line"]) == ("0", "5")
    assert "only white space differs" in error["message"]
    assert "6: '\\treturn 2'" in error["message"]
    error = await miss(("dfe two():", "gone"))
    assert error["line"] == "5"
    error = await miss(("zzzz", "gone"))
    assert "found 0 times" in error["message"]
    path.write_bytes(after.replace("\n", "\r\n").encode())
    edits = [{"old": "def two():\n\treturn", "new": "x"}]
    error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
    assert "CRLF" in error["message"]


async def test_latin_1_is_shown_and_kept(desk: Desk) -> None:
    """FI-10: as such, edited in its own encoding; what it can't hold is refused."""
    path = desk.place / "a"
    path.write_bytes("größe=1\nzwölf\n".encode("latin-1"))
    told = await desk.read(path)
    assert (told["content"], told["encoding"]) == ("größe=1\nzwölf\n", "latin-1")
    await desk.edit(path, ("größe=1", "größe=ä"))
    assert path.read_bytes() == "größe=ä\nzwölf\n".encode("latin-1")
    edits = [{"old": "zwölf", "new": "☃"}]
    error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
    assert error["reason"] == "EDIT_REFUSED"
    assert "Latin-1" in error["message"]


async def test_a_lost_update_is_refused(desk: Desk) -> None:
    """FI-06: expected_sha256 and a file that is another one now."""
    path = desk.place / "a"
    path.write_text("one")
    seen = (await desk.read(path))["sha256"]
    path.write_text("two")
    arguments = {"path": str(path), "content": "three", "expected_sha256": seen}
    error = await desk.refused("ssh_file_write", mode="overwrite", **arguments)
    assert (error["reason"], error["sha256"]) == ("FILE_CHANGED", digest(b"two"))
    error = await desk.refused("ssh_file_write", mode="append", **arguments)
    assert error["reason"] == "FILE_CHANGED"
    assert path.read_text() == "two"
    path.unlink()
    error = await desk.refused("ssh_file_write", mode="overwrite", **arguments)
    assert (error["reason"], error["ran"]) == ("FILE_CHANGED", "no")
    assert names(desk.place) == []


async def test_two_agents_edit_one_file_at_once(desk: Desk, world: World) -> None:
    """FI-06: neither loses what the other wrote; of two equal writes one wins."""
    path = desk.place / "a"
    count = 8
    path.write_text("".join(f"line {n};\n" for n in range(count)))
    async with tools(world, "--results", "structured") as second:
        other = Desk(second, desk.place)

        async def work(one: Desk, numbers: range) -> None:
            for n in numbers:
                await one.edit(path, (f"line {n};", f"done {n};"))

        await asyncio.gather(
            work(desk, range(0, count, 2)), work(other, range(1, count, 2))
        )
        assert path.read_text() == "".join(f"done {n};\n" for n in range(count))
        seen = (await desk.read(path))["sha256"]
        results = await asyncio.gather(
            *(
                one.call(
                    "ssh_file_write",
                    path=str(path),
                    content=f"by {name}",
                    mode="overwrite",
                    expected_sha256=seen,
                )
                for name, one in (("first", desk), ("second", other))
            )
        )
    assert sorted("isError" in one for one in results) == [False, True]
    (lost,) = [one for one in results if "isError" in one]
    assert lost["structuredContent"]["error"]["reason"] == "FILE_CHANGED"
    assert path.read_text().startswith("by ")
    assert names(desk.place) == ["a"]


async def test_the_replacement_keeps_what_the_file_was(desk: Desk) -> None:
    """FI-13: mode and owner kept, links followed, swapped in one step."""
    path, link = desk.place / "a", desk.place / "link"
    path.write_text("one")
    path.chmod(0o2751)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
        path.chmod(0o2751)
    link.symlink_to("a")
    before = path.stat()
    with path.open() as old:  # so that its inode is not taken again
        await desk.write(path, "new", mode="overwrite")
        assert old.read() == "one"
        assert path.stat().st_ino != before.st_ino
    for change in ("two", "three"):
        told = await desk.write(link, change, mode="overwrite")
        assert told["path"] == str(path)
        assert "note" not in told
    await desk.edit(link, ("three", "four"))
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert (link.is_symlink(), path.read_text()) == (True, "four")
    await desk.write(path, "five", mode="overwrite", permissions="604")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    second = desk.place / "second"
    os.link(path, second)
    told = await desk.write(path, "six", mode="overwrite")
    assert "in place" in told["note"]
    assert second.read_text() == "six"
    assert names(desk.place) == ["a", "link", "second"]


async def test_only_regular_files_are_read_and_written(desk: Desk) -> None:
    """FI-03: nothing hangs on a FIFO or reads a device."""
    fifo = desk.place / "fifo"
    os.mkfifo(fifo)
    round_ = desk.place / "round"
    round_.symlink_to("round")
    nowhere = desk.place / "nowhere"
    nowhere.symlink_to("none/there")
    for path, reason in (
        (str(fifo), "NOT_TEXT"),
        ("/dev/zero", "NOT_TEXT"),
        ("/dev/null", "NOT_TEXT"),
        (str(desk.place), "NOT_TEXT"),
        (str(desk.place / "none"), "FILE_NOT_FOUND"),
        (str(desk.place / "none" / "deep"), "FILE_NOT_FOUND"),
        (str(nowhere), "FILE_NOT_FOUND"),
        (str(round_), "FILE_FAILED"),
        (str(fifo / "x"), "FILE_NOT_FOUND"),
    ):
        error = await desk.refused("ssh_file_read", path=path)
        assert (error["reason"], error["ran"]) == (reason, "no"), path
        edits = [{"old": "a", "new": "b"}]
        error = await desk.refused("ssh_file_edit", path=path, edits=edits)
        assert error["reason"] == reason, path
        if path != str(desk.place / "none"):
            error = await desk.refused(
                "ssh_file_write", path=path, content="x", mode="overwrite"
            )
            assert error["reason"] == reason, path
    await desk.write(desk.place / "none", "made", mode="append")


async def test_paths_with_secrets_are_guarded_after_links(
    desk: Desk, world: World
) -> None:
    """FI-11: read only with force, written not at all, under whatever name."""
    ssh = desk.place / ".ssh"
    ssh.mkdir()
    key, link = ssh / "id_test", desk.place / "innocent"
    head = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n"
    key.write_text(f"{head}canary-key\n")
    (ssh / "id_test.pub").write_text("ssh-ed25519 AAAA\n")
    (ssh / "authorized_keys").write_text("ssh-ed25519 AAAA\n")
    link.symlink_to(".ssh/id_test")
    renamed = desk.place / "renamed.pem"
    renamed.write_text(f"{head}canary-key\n")
    for path in (key, link, renamed):
        error = await desk.refused("ssh_file_read", path=str(path))
        assert (error["reason"], error["ran"]) == ("SENSITIVE_PATH", "no")
        assert "canary" not in str(error)
        assert "canary-key" in (await desk.read(path, force=True))["content"]
        edits = [{"old": "canary", "new": "x"}]
        error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
        assert error["reason"] == "SENSITIVE_PATH"
    for path in (key, link, ssh / "authorized_keys", ssh / "id_new"):
        error = await desk.refused(
            "ssh_file_write", path=str(path), content="x", mode="overwrite"
        )
        assert error["reason"] == "SENSITIVE_PATH", path
    assert (await desk.read(ssh / "id_test.pub"))["content"].startswith("ssh-")
    assert (await desk.read(ssh / "authorized_keys"))["total_lines"] == 1
    told = await desk.told(
        "ssh_search", pattern="canary", path=str(ssh), output="content"
    )
    assert told["matches"] == []
    assert "hold secrets" in told["note"]
    error = await desk.refused("ssh_search", pattern="canary", path=str(link))
    assert error["reason"] == "SENSITIVE_PATH"
    assert key.read_text() == f"{head}canary-key\n"

    def recorded() -> bool:
        rows = [row for row in records(world) if row["event_type"] == "file_operation"]
        return bool(rows[-1]["metadata"]["path"] == str(link))

    await soon(recorded, "it is recorded as it was named")


async def test_a_full_disk_leaves_the_file_as_it_was(desk: Desk) -> None:
    """FI-13: typed, the old content is there, and nothing is left beside it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    small = desk.place / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)])
    try:
        path = small / "a"
        path.write_text("as it was")
        for mode in ("overwrite", "append"):
            error = await desk.refused(
                "ssh_file_write", path=str(path), content="x" * 200_000, mode=mode
            )
            assert (error["reason"], error["cause"]) == ("FILE_FAILED", "space")
            assert error["ran"] == "no"
        edits = [{"old": "was", "new": "x" * 200_000}]
        error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
        assert (error["reason"], error["cause"]) == ("FILE_FAILED", "space")
        assert path.read_text() == "as it was"
        assert names(small) == ["a"]
        mount = ["mount", "-o", "remount,ro", str(small)]
        run(mount)
        error = await desk.refused("ssh_file_write", path=str(small / "b"), content="x")
        assert (error["reason"], error["cause"]) == ("FILE_FAILED", "read_only")
    finally:
        run(["umount", "-l", str(small)])


async def test_a_file_that_grows_while_it_is_read(desk: Desk) -> None:
    """FI-03: what is told is one state of it, or said to be none."""
    path = desk.place / "log"
    path.write_text("0\n")
    stop = asyncio.Event()

    async def grow() -> None:
        with path.open("a") as file:
            while not stop.is_set():
                file.write("line\n" * 4000)
                file.flush()
                await asyncio.sleep(0.005)

    growing = asyncio.create_task(grow())
    try:
        for _ in range(12):
            told = await desk.read(path, end_line=1)
            assert told["content"] == "0\n"
            assert told["sha256"] or "changed" in told["note"] or "grew" in told["note"]
    finally:
        stop.set()
        await growing


async def test_the_same_request_id_writes_once(desk: Desk) -> None:
    """NF-17: a repeated call is answered, and nothing is added again."""
    path = desk.place / "a"
    again = {"mode": "append", "request_id": f"once-{desk.place.name}"}
    first = await desk.write(path, "x", **again)
    assert await desk.write(path, "x", **again) == first
    assert path.read_text() == "x"
    error = await desk.refused("ssh_file_write", path=str(path), content="y", **again)
    assert error["reason"] == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        ("ssh_file_read", {"path": ""}, "path"),
        ("ssh_file_read", {}, "path"),
        ("ssh_file_read", {"path": "x" * 5000}, "path"),
        ("ssh_file_read", {"path": "~no/such/user's"}, ""),
        ("ssh_file_read", {"path": "a\0b"}, "path"),
        ("ssh_file_read", {"path": "a", "start_line": 0}, "start_line"),
        ("ssh_file_read", {"path": "a", "start_line": 5, "end_line": 4}, "end_line"),
        ("ssh_file_read", {"path": "a", "max_bytes": 0}, "max_bytes"),
        ("ssh_file_read", {"path": "a", "max_bytes": 1_000_001}, "max_bytes"),
        ("ssh_file_write", {"path": "a"}, "content"),
        ("ssh_file_write", {"path": "a/", "content": ""}, "path"),
        ("ssh_file_write", {"path": "a", "content": "", "mode": "x"}, "mode"),
        (
            "ssh_file_write",
            {"path": "a", "content": "", "permissions": "999"},
            "permissions",
        ),
        (
            "ssh_file_write",
            {"path": "a", "content": "", "expected_sha256": "abc"},
            "expected_sha256",
        ),
        (
            "ssh_file_write",
            {"path": "a", "content": "", "expected_sha256": "a" * 64},
            "expected_sha256",
        ),
        ("ssh_file_edit", {"path": "a", "edits": []}, "edits"),
        ("ssh_file_edit", {"path": "a", "edits": [{"old": "a"}]}, "edits[0].new"),
        (
            "ssh_file_edit",
            {"path": "a", "edits": [{"old": "", "new": "b"}]},
            "edits[0].old",
        ),
        (
            "ssh_file_edit",
            {"path": "a", "edits": [{"old": "b", "new": "b"}]},
            "edits[0].new",
        ),
    ],
)
async def test_wrong_input_is_named(
    desk: Desk, tool: str, arguments: dict[str, Any], field: str
) -> None:
    """TR-08: each argument, what was wrong with it, and nothing was done."""
    error = await desk.refused(tool, **arguments)
    assert error["ran"] == "no"
    if field:
        assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", field), error
    else:
        assert error["reason"] == "FILE_NOT_FOUND"


async def test_the_text_form_is_a_line_and_the_content(world: World) -> None:
    """FI-03: what clients that hide structured content give the model."""
    async with tools(world, client="claude-code") as ssh:
        path = "~/in-home"
        with contextlib.suppress(AssertionError):
            await ssh.told("ssh_file_write", target="box", path=path, content="a\r\nb")
        result = await ssh.call("ssh_file_read", target="box", path=path)
    assert "structuredContent" not in result
    head, _, body = text(result).partition("\n")
    assert body == "a\r\nb"
    assert "/remote-home/in-home · 4 bytes · lines 1-2 of 2 · sha256 " in head
