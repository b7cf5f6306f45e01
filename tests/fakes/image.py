"""The container's image without an engine: its instructions, and containers of it.

A container here is this machine's own root file system with the image's tree, user and
directories in it, confined as compose says: by namespaces, an overlay, and setpriv.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "packaging" / "container"


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    words: str


def stages() -> list[list[Step]]:
    """Return the instructions of each stage; the last one is the image."""
    text = re.sub(r"\\\n", " ", (PLACE / "Dockerfile").read_text())
    found: list[list[Step]] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, words = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Step(name, words))
    return found


def words_of(stage: list[Step], name: str) -> list[str]:
    """Return what every instruction of that name says."""
    return [step.words for step in stage if step.name == name]


def listed(text: str) -> list[str]:
    """Return the words of an instruction in its JSON form."""
    found = json.loads(text)
    assert isinstance(found, list)
    return [str(word) for word in found]


def environment(built: Path) -> dict[str, str]:
    """Return what ENV says, for the tree that was built elsewhere."""
    (told,) = words_of(stages()[-1], "ENV")
    found = dict(word.split("=", 1) for word in shlex.split(told))
    found["PATH"] = f"{built}/bin:/usr/local/bin:/usr/bin:/bin"
    return found | {"HOME": "/home/holdfast"}


# In a mount namespace of its own: the image, until standard input ends.
_MADE = """
layers=$1
mount -t tmpfs -o mode=755 tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
mount -t overlay overlay \\
  -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$layers/root"
chmod 755 "$layers/root/root" # the Python of these tests may be below it
chroot "$layers/root" /bin/sh -ec "$2"
echo up
exec cat
"""
# One container: MOUNTS, then the command as compose confines it.
_RUN = """
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --rbind /dev "$root/dev"
MOUNTS
mount -o remount,bind,ro "$root"
shift
exec chroot "$root" "$@"
"""


class Image:
    """The image, made of this machine by the last stage's own lines."""

    def __init__(self, directory: Path, built: Path) -> None:
        """Make it; apt's packages are those of this machine."""
        self._built = built
        self._root = directory / "layers" / "root"
        self._root.parent.mkdir()
        lines = [
            line for line in words_of(stages()[-1], "RUN") if "apt-get" not in line
        ]
        made = ("sh", "-ec", _MADE, "-", str(self._root.parent), "\n".join(lines))
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", *made],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            _, said = self._holder.communicate(timeout=10)
            pytest.skip(f"no image can be made here: {said.strip()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._holder:
            self._holder.communicate(timeout=20)

    def command(
        self, service: Mapping[str, Any], volumes: Mapping[str, Path], *words: str
    ) -> list[str]:
        """Return what runs a command in a container of a service."""
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        mounts: list[str] = []
        for temporary in service["tmpfs"]:
            where, _, how = temporary.partition(":")
            mounts.append(f'mount -t tmpfs -o {how} tmpfs "$root{where}"')
        for volume in service["volumes"]:
            found = re.fullmatch(r"(.+):(/[^:]+)(:ro)?", volume)
            assert found is not None
            name = "ssh" if found[1].startswith("$") else found[1]
            inside = shlex.quote(found[2])
            mounts.append(f'mkdir -p "$root"{inside}')
            mounts.append(f'mount --bind {volumes[name]} "$root"{inside}')
            if found[3]:
                mounts.append(f'mount -o remount,bind,ro "$root"{inside}')
        # what was built lies below the temporary directory, which is another one there
        mounts.append(f'mkdir -p "$root{self._built}"')
        mounts.append(f'mount --bind {self._built} "$root{self._built}"')
        user, _, group = service["user"].partition(":")
        confined = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        confined += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        given = [f"{name}={value}" for name, value in environment(self._built).items()]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc"]
        apart += [
            "--uts",
            *(["--net"] if service.get("network_mode") == "none" else []),
        ]
        return [
            *("nsenter", f"--target={self._holder.pid}", "--mount", "--", *apart),
            *("sh", "-ec", _RUN.replace("MOUNTS", "\n".join(mounts)), "-"),
            *(str(self._root), *confined, "env", "-i", *given, *words),
        ]


def services() -> dict[str, Any]:
    """Return what compose starts."""
    found = yaml.safe_load((PLACE / "compose.yaml").read_text())["services"]
    assert isinstance(found, dict)
    return found


def volume(directory: Path) -> Path:
    """Return a new volume, which takes its owner and mode from the image."""
    directory.mkdir(mode=0o700)
    os.chown(directory, 10001, 10001)
    return directory
