"""What makes room for the next command of a kept shell stays as long as that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.watch import until
from holdfast_daemon.kept import script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash", "zsh"])
def test_tmout_ends_nothing_that_waits_for_the_next_command(
    tmp_path: Path, shell: str
) -> None:
    """SE-02, SE-14: hardened hosts set it for all; a session took no command then."""
    (tmp_path / "holder.sh").write_bytes(script.source())
    place = tmp_path / "holdfast" / "kept" / "sone"
    (place / "r").mkdir(parents=True)
    (place / "seen").write_text("1\n")
    os.mkfifo(place / "r" / "next")
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TMOUT": "1"}
    words = [*shell.split(), str(tmp_path / "holder.sh"), "slots", "sone", "65536", "0"]
    with subprocess.Popen(words, env=env, start_new_session=True) as keeper:
        until((place / "r" / "1" / "set").exists, "a first one is made")
        # longer than TMOUT
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(2.5)
        with (place / "r" / "next").open("r+b", 0) as told:
            told.write(b"2\n")
            until((place / "r" / "2" / "set").exists, "another is made", 10)
        os.killpg(keeper.pid, signal.SIGKILL)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk that takes but so many files."""
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "nr_inodes=60", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> list[Path]:
    """Make files until there is room for no more; return them."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            file = place / f"f{len(made)}"
            file.touch()
            made.append(file)
    return made


def dropped(place: Path) -> bool:
    """Return whether the first one is not wanted any more, or gone."""
    first = place / "r" / "1"
    return not first.exists() or (first / "dropped").exists()


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash"])
def test_a_disk_that_takes_no_more_files_ends_nothing(small: Path, shell: str) -> None:
    """SE-02, SE-14: a session took no command any more, also with room again."""
    (small / "holder.sh").write_bytes(script.source())
    place = small / "holdfast" / "kept" / "sone"
    (place / "r").mkdir(parents=True)
    (place / "seen").write_text("1\n")
    os.mkfifo(place / "r" / "next")
    env = {**os.environ, "XDG_CACHE_HOME": str(small)}
    words = [*shell.split(), str(small / "holder.sh"), "slots", "sone", "65536", "0"]
    with subprocess.Popen(words, env=env, start_new_session=True) as keeper:
        until((place / "r" / "1" / "set").exists, "a first one is made")
        filler = fill(small)
        with (place / "r" / "next").open("r+b", 0) as told:
            told.write(b"drop1\n2\n")
            until(lambda: keeper.poll() is not None or dropped(place), "it was told")
            for file in filler:
                file.unlink()
            told.write(b"3\n")
            until((place / "r" / "3" / "set").exists, "another is made", 10)
            until(lambda: not (place / "r" / "1").exists(), "the first is gone", 10)
        os.killpg(keeper.pid, signal.SIGKILL)
