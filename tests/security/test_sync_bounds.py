"""What a sync may touch: never anything beside its two directories."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.hostile_files import HostileHost
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ENGINES, ROOTS, WAYS, Pair, engine, tree
from fakes.tools import QUICK, served, tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.tools import Tools

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sync_bounds"),
    pytest.mark.needs_sshd,
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


@pytest.fixture
def outside(pair: Pair) -> Iterator[Path]:
    """Yield a directory that no sync may touch; the test fails when one did."""
    directory = pair.place / "outside"
    pair.fill({"victim": b"mine", "below/victim": b"mine"}, directory)
    before = tree(directory)
    yield directory
    assert tree(directory) == before


async def test_a_link_in_the_place_of_a_directory(pair: Pair, outside: Path) -> None:
    """FI-15: what is to be written below it is not written where it leads."""
    pair.fill({"d/victim": b"theirs", "d/new": b"theirs", "d/below/victim": b""})
    pair.destination.mkdir()
    (pair.destination / "d").symlink_to(outside)
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)
    assert not (pair.destination / "d").is_symlink()


async def test_a_link_in_the_place_of_a_file(pair: Pair, outside: Path) -> None:
    """FI-15: it is replaced, and what it leads to stays as it is."""
    pair.fill({"f": b"theirs"})
    pair.destination.mkdir()
    (pair.destination / "f").symlink_to(outside / "victim")
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)


async def test_a_link_first_and_a_directory_later(pair: Pair, outside: Path) -> None:
    """FI-15: the host sends a link, and with the next sync files below its name."""
    (pair.source / "d").symlink_to(outside)
    await pair.sync()
    assert (pair.destination / "d").is_symlink()
    (pair.source / "d").unlink()
    pair.fill({"d/victim": b"theirs"})
    await pair.sync(delete=True)
    assert tree(pair.destination) == tree(pair.source)


async def test_a_link_is_copied_and_not_what_it_leads_to(
    pair: Pair, outside: Path
) -> None:
    """FI-15: whatever it leads to, or nothing."""
    (pair.source / "file").symlink_to(outside / "victim")
    (pair.source / "directory").symlink_to(outside)
    (pair.source / "up").symlink_to("../../..")
    (pair.source / "itself").symlink_to("itself")
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)


async def test_deleting_does_not_follow_links(pair: Pair, outside: Path) -> None:
    """FI-15: with delete a link goes, and what it leads to stays."""
    pair.fill({"a": b""})
    pair.destination.mkdir()
    (pair.destination / "d").symlink_to(outside)
    (pair.destination / "f").symlink_to(outside / "victim")
    await pair.sync(delete=True)
    assert tree(pair.destination) == tree(pair.source)


@pytest.mark.parametrize(
    "root", ["/", "//", "/.", "/..", "/tmp/..", "~", "~/", "~/.", "~/a/..", ".", "./"]
)
async def test_delete_does_not_empty_a_root(pair: Pair, root: str) -> None:
    """FI-02: neither a whole machine nor a home directory, in any spelling."""
    pair.fill({"a": b""})
    if pair.way == "download" and root.startswith("."):
        root = "/../.."  # a path here begins in the client's own directory
    error = await pair.refused(destination=root, delete=True, dry_run=True)
    assert error["ran"] == "no"
    wrong = {"INVALID_ARGUMENT"}
    if pair.way == "download":
        # it lies outside of what transfers may use, too
        wrong.add("LOCAL_PATH_DENIED")
    assert error["reason"] in wrong


OF_USERS = ["~{user}", "~{user}/", "~{user}/.", "~{user}/a/.."]


@pytest.mark.parametrize("root", [*OF_USERS, "{home}", "{home}/.", "{way}"])
async def test_delete_does_not_empty_a_home(
    ssh: Tools, tmp_path: Path, root: str
) -> None:
    """FI-02: nor one by its user's name, its own, or that of a link to it."""
    asked = {"target": "box", "command": 'printf %s "$HOME"'}
    home = (await ssh.told("ssh_exec", **asked))["stdout"]
    way = tmp_path / "way"
    way.symlink_to(home)
    pair = Pair(ssh, tmp_path, "upload")
    pair.fill({"a": b""})
    named = root.format(user=getpass.getuser(), home=home, way=way)
    error = await pair.refused(destination=named, delete=True, dry_run=True)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert "delete would empty" in error["message"]
    await pair.sync(destination=f"{home}/below", delete=True, dry_run=True)


async def test_people_do_not_empty_a_home(world: World, tmp_path: Path) -> None:
    """FI-02: who may write what lets people in may not empty a home either."""
    (tmp_path / "source").mkdir()

    def refused() -> str:
        home = world.cli("exec", "box", "--", 'printf %s "$HOME"').stdout.decode()
        words = [str(tmp_path / "source"), f"box:{home}", "--delete", "--dry-run"]
        done = world.cli("sync", *words, check=False)
        assert done.returncode
        return done.stderr.decode()

    assert "delete would empty" in await asyncio.to_thread(refused)


@pytest.mark.parametrize("root", ["{home}", "{home}/.", "{way}"])
async def test_delete_does_not_empty_a_home_by_sftp(tmp_path: Path, root: str) -> None:
    """FI-02: nor where there is no shell to ask whose directory it is."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    home, way = tmp_path / "home", tmp_path / "way"
    home.mkdir()
    way.symlink_to(home)
    options = {
        "ForceCommand": f"internal-sftp -d {home}",
        "Subsystem": "sftp internal-sftp",
    }
    limits = f"{QUICK}probe_seconds = 2\n"
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=limits) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            pair = Pair(ssh, tmp_path, "upload")
            pair.fill({"a": b""})
            named = root.format(home=home, way=way)
            error = await pair.refused(destination=named, delete=True, dry_run=True)
            assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
            assert "delete would empty" in error["message"]
            await pair.sync(destination="~/below", delete=True, dry_run=True)


DANGEROUS = [
    {"rsh": "touch x"},
    {"e": "touch x"},
    {"-e": "touch x"},
    {"rsync_path": "touch x"},
    {"rsync-path": "touch x"},
    {"extra_args": ["-e", "touch x"]},
    {"args": "--rsync-path=x"},
    {"options": {"rsh": "x"}},
    {"remove_source_files": True},
    {"files_from": "/etc/passwd"},
    {"write_batch": "/tmp/x"},
    {"exclude_from": "/etc/passwd"},
    {"exclude": "*.log --rsh=x"},
    {"direction": "upload --rsh=x"},
    {"delete": "--rsh=x"},
]


@pytest.mark.parametrize("more", DANGEROUS, ids=str)
async def test_there_is_no_way_to_other_options(pair: Pair, more: Any) -> None:
    """FI-02: -e, --rsh, --rsync-path and the like are refused, however they come."""
    pair.fill({"a": b"1"})
    error = await pair.refused(**more)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert not pair.destination.exists()


async def test_special_files_are_not_opened(pair: Pair) -> None:
    """FI-02: a FIFO would be waited for without an end."""
    os.mkfifo(pair.source / "fifo")
    pair.fill({"a": b"1"})
    result = await pair.ssh.call("ssh_sync", **pair.filled({}))
    assert (pair.destination / "a").read_bytes() == b"1"
    if "isError" in result:
        # without rsync they are left out, and that is told
        assert "fifo" in result["structuredContent"]["error"]["message"]
    else:
        assert stat.S_ISFIFO((pair.destination / "fifo").stat().st_mode)


async def test_variables_and_aliases_of_rsync_are_not_heard(tmp_path: Path) -> None:
    """FI-02: what a user set for rsync does not change what the tool does."""
    trap = tmp_path / "trap"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".popt").write_text(
        f"rsync alias --archive --rsh='touch {trap}' --remove-source-files\n"
        f"rsync alias -a --rsh='touch {trap}' --remove-source-files\n"
    )
    there = tmp_path / "there"
    there.mkdir()
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    try:
        with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={there}"}) as sshd:
            world = World(root, ssh_config=sshd.config)
            world.configure(f"{ROOTS}[limits]\n{QUICK}")
            world.start(
                HOME=str(home),
                RSYNC_RSH=f"touch {trap}",
                RSYNC_PROXY="127.0.0.1:1",
                RSYNC_CONNECT_PROG=f"touch {trap}",
                RSYNC_PARTIAL_DIR=str(trap),
                RSYNC_PROTECT_ARGS="1",
                RSYNC_OLD_ARGS="0",
            )
            try:
                async with tools(world) as ssh:
                    pair = Pair(ssh, tmp_path, "upload")
                    pair.fill({"a b": b"1"})
                    pair.destination = pair.destination.with_name("the re")
                    await pair.sync()
            finally:
                world.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert tree(pair.destination) == tree(pair.source) != {}
    assert not trap.exists()


LIES = [
    b"../pwned",
    b"../../pwned",
    b"/tmp/hf-pwned-by-sftp",
    b"a/../../pwned",
    b"down/pwned",
    b"..",
    b".",
    b"",
    b"/",
    b"x\0y",
]


@pytest.mark.parametrize("lie", LIES, ids=repr)
async def test_names_that_lead_elsewhere(tmp_path: Path, lie: bytes) -> None:
    """FI-15: a host that serves SFTP only tells names that are none."""
    served_root = tmp_path / "root"
    (served_root / "src" / "down").mkdir(parents=True)
    (served_root / "src" / "good").write_text("good")
    place = tmp_path / "here" / "deep"
    place.mkdir(parents=True)
    async with HostileHost(served_root) as host:
        host.names = [lie]
        config = host.client_files(tmp_path)
        with served(config, limits=f"{QUICK}probe_seconds = 2\n", more=ROOTS) as world:
            async with tools(world, "--results", "structured") as ssh:
                result = await ssh.call(
                    "ssh_sync",
                    target="box",
                    direction="download",
                    source="/src",
                    destination=str(place / "dst"),
                )
    assert (place / "dst" / "good").read_text() == "good"
    found = {str(p.relative_to(tmp_path / "here")) for p in place.parent.rglob("*")}
    assert found == {"deep", "deep/dst", "deep/dst/good", "deep/dst/down"}
    stray = Path(tempfile.gettempdir(), "hf-pwned-by-sftp")
    assert not await asyncio.to_thread(stray.exists)
    if lie not in (b"..", b".", b""):
        assert result["structuredContent"]["error"]["reason"] == "FILE_FAILED"


async def test_directories_without_an_end(tmp_path: Path) -> None:
    """FI-15: a host that tells of one more in each is not followed forever."""
    served_root = tmp_path / "root"
    served_root.mkdir()
    async with HostileHost(served_root) as host:
        host.endless = True
        config = host.client_files(tmp_path)
        limits = f"{QUICK}probe_seconds = 2\nsync_entries = 100\n"
        with served(config, limits=limits, more=ROOTS) as world:
            async with tools(world, "--results", "structured") as ssh:
                error = await ssh.refused(
                    "ssh_sync",
                    target="box",
                    direction="download",
                    source="/",
                    destination=str(tmp_path / "dst"),
                )
    assert error["reason"] == "LIMIT_REACHED"
    assert error["limit"] == "sync_entries"


OUTSIDE = [
    "/etc",
    "/",
    "/tmp/..",
    "/tmp/../etc",
    "/var",
    "~",
    "~root",
    "/proc/self/root/etc",
    "../../../../../../etc",
]


@pytest.mark.parametrize("path", OUTSIDE)
async def test_this_machine_is_used_within_bounds_only(pair: Pair, path: str) -> None:
    """FI-15: to read and to write; the refusal names what may be used."""
    field = "source" if pair.way == "upload" else "destination"
    other = str(pair.place / "x")
    ends = {"source": other, "destination": other} | {field: path}
    error = await pair.refused(**ends)
    assert (error["reason"], error["ran"]) == ("LOCAL_PATH_DENIED", "no")
    assert tempfile.gettempdir() in error["message"]
    assert not (pair.place / "x").exists()


async def test_a_link_out_of_the_bounds(pair: Pair) -> None:
    """FI-15: what counts is where a path leads."""
    (pair.place / "link").symlink_to("/etc")
    field = "source" if pair.way == "upload" else "destination"
    error = await pair.refused(**{field: str(pair.place / "link")})
    assert error["reason"] == "LOCAL_PATH_DENIED"
    error = await pair.refused(**{field: str(pair.place / "link" / "ssh")})
    assert error["reason"] == "LOCAL_PATH_DENIED"


SECRETS = [".ssh/id_ed25519", ".netrc", ".aws/credentials", "deep/.ssh/id_rsa"]
HARMLESS = [".ssh/id_ed25519.pub", ".ssh/config", ".aws/config", "netrc"]


async def test_what_holds_secrets_is_left_out(pair: Pair) -> None:
    """FI-11: by its name, in either direction; and it is said."""
    pair.fill(dict.fromkeys([*SECRETS, *HARMLESS], b"x"))
    told = await pair.sync()
    found = {str(p.relative_to(pair.destination)) for p in files(pair.destination)}
    assert found == set(HARMLESS)
    for name in SECRETS:
        assert name in told["note"]


async def test_what_lets_people_in_is_not_written(pair: Pair) -> None:
    """FI-11: nor deleted, whatever its content."""
    pair.fill({".ssh/authorized_keys": b"theirs", "a": b"1"})
    pair.fill({".ssh/authorized_keys": b"mine", ".netrc": b"mine"}, pair.destination)
    await pair.sync(delete=True)
    assert (pair.destination / ".ssh/authorized_keys").read_bytes() == b"mine"
    assert (pair.destination / ".netrc").read_bytes() == b"mine"
    assert (pair.destination / "a").read_bytes() == b"1"


@pytest.mark.parametrize("way", WAYS)
async def test_an_old_rsync_on_the_host(way: str, tmp_path: Path) -> None:
    """FI-02, FI-11: what it can't tell is said; it gets its words, and one path."""
    with engine("old-there", tmp_path) as world:
        async with tools(world, "--results", "structured") as ssh:
            pair = Pair(ssh, tmp_path, way)
            pair.fill(dict.fromkeys([*SECRETS, *HARMLESS], b"x"))
            pair.destination = tmp_path / "de st'$(x)*"
            await pair.sync()
    found = {str(p.relative_to(pair.destination)) for p in files(pair.destination)}
    assert found == set(HARMLESS)
    words = (tmp_path / "seen").read_text().splitlines()
    count = len(words) - 1 - max(at for at, w in enumerate(words) if w == "--server")
    assert words[-count - 2] == str(count + 1)
    path = pair.destination if way == "upload" else pair.source
    assert words[-2:] == [".", f"{path}/"]


@pytest.mark.parametrize("within", [".ssh", ".aws", "etc/sudoers.d"])
async def test_a_directory_of_secrets(pair: Pair, within: str) -> None:
    """FI-11: also where the directory itself is named, by a link even."""
    names = ["id_rsa", "authorized_keys", "credentials", "known_hosts", "anybody"]
    pair.fill({f"{within}/{name}": b"x" for name in names})
    there = pair.place / "there" / within
    there.mkdir(parents=True)
    (pair.place / "way").symlink_to(pair.source / within)
    result = await pair.ssh.call(
        "ssh_sync",
        **pair.filled({"source": str(pair.place / "way"), "destination": str(there)}),
    )
    found = {path.name for path in files(there)}
    kept = {"id_rsa", "authorized_keys"} if within == ".ssh" else {"credentials"}
    if within == "etc/sudoers.d":
        assert result["structuredContent"]["error"]["reason"] == "SENSITIVE_PATH"
        assert found == set()
    else:
        assert found == set(names) - kept


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]
