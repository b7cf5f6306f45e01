"""Pairs of directories that an agent's ssh_sync makes alike, in each way there is."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.filing import only_busybox
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, content, failure
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from fakes.tools import Result, Tools

# With rsync on both sides, and where one of them has none.
ENGINES = ("rsync", "none-there", "none-here")
WAYS = ("upload", "download")
# Where pytest keeps tests' directories; a home below /tmp is none of them.
_KEPT = Path(tempfile.gettempdir()) / f"pytest-of-{getpass.getuser()}"
ROOTS = f'local_roots = ["{_KEPT}"]\n'


def without_rsync(directory: Path) -> Path:
    """Make a directory of programs with all that a daemon needs but rsync."""
    directory.mkdir()
    for name in ("ssh", "sh", "ps"):
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    return directory


@contextlib.contextmanager
def engine(kind: str, directory: Path, limits: str = "") -> Generator[World]:
    """Run a daemon and a host (alias `box`) of which one has no rsync, or neither."""
    with engine_and_network(kind, directory, limits) as (world, _):
        yield world


@contextlib.contextmanager
def engine_and_network(
    kind: str, directory: Path, limits: str = ""
) -> Generator[tuple[World, Proxy]]:
    """Do the same, and yield the network between both, too."""
    home = directory / "remote-home"
    home.mkdir()
    environment = f"HOME={home}"
    if kind == "old-there":
        (directory / "bin").mkdir()
        real = shutil.which("rsync")
        script = directory / "bin" / "rsync"
        script.write_text(OLD.format(seen=directory / "seen", real=real))
        script.chmod(0o755)
        environment += f" PATH={script.parent}:{os.environ['PATH']}"
    if kind == "none-there":
        environment += f" PATH={only_busybox(directory / 'bin')}"
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    with (
        Sshd(directory, options={"SetEnv": environment}) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        config = proxy.config(sshd, directory / "through-the-proxy")
        world = World(root, ssh_config=config)
        world.configure(f"{ROOTS}[limits]\n{QUICK}{limits}")
        here: dict[str, str] = {}
        if kind == "none-here":
            here["PATH"] = str(without_rsync(directory / "here"))
        try:
            world.start(**here)
            yield world, proxy
        finally:
            proxy.heal()
            world.close()
            shutil.rmtree(root, ignore_errors=True)


# Notes the words it is called with, and takes none that came with rsync 3.1.
OLD = """#!/bin/sh
printf '%s\\n' "$#" "$@" >>{seen}
for word do
    case $word in
        --debug=*) echo "rsync: unknown option $word" >&2; exit 1 ;;
    esac
done
exec {real} "$@"
"""


class Pair:
    """Two directories, one of which is the host's."""

    def __init__(self, ssh: Tools, place: Path, way: str) -> None:
        self.ssh = ssh
        self.way = way
        self.place = place
        self.source = place / "source"
        self.destination = place / "destination"
        self.source.mkdir()

    def fill(self, files: Mapping[str, bytes], where: Path | None = None) -> None:
        """Write files below the source, or below another directory."""
        for name, data in files.items():
            path = (where or self.source) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def filled(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call, some of them replaced."""
        return {
            "target": "box",
            "direction": self.way,
            "source": str(self.source),
            "destination": str(self.destination),
            **arguments,
        }

    async def sync(self, **arguments: Any) -> Result:
        """Sync; it must be done."""
        return content(await self.ssh.call("ssh_sync", **self.filled(arguments)))

    async def refused(self, **arguments: Any) -> Result:
        """Sync; it must fail; return why."""
        return failure(await self.ssh.call("ssh_sync", **self.filled(arguments)))


def tree(directory: Path) -> dict[str, Any]:
    """Return all that a directory holds: names, modes, times, contents, links."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name, about = str(path.relative_to(directory)), path.lstat()
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            what = path.read_bytes() if stat.S_ISREG(about.st_mode) else None
            found[name] = (about.st_mode, int(about.st_mtime), what)
    return found


def age(path: Path, seconds: int = 1_600_000_000) -> None:
    """Give a file a time long ago."""
    os.utime(path, (seconds, seconds))
