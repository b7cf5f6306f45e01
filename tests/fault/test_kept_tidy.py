"""Where nothing is kept any more, nothing of ours is left on the host."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.kept import script

if TYPE_CHECKING:
    from pathlib import Path

# While the first has the lock, somebody settles in, and a second one forgets that
# again; it finds the lock taken.
_MKDIR = """#!/bin/sh
PATH=${PATH#*:}
mkdir "$@" || exit
case $1 in *.tidying) [ -e "$HOME/done" ] || mkdir "$ROOM/stwo" ;; esac
"""
_RMDIR = """#!/bin/sh
PATH=${PATH#*:}
case $1 in
*.tidying)
  if [ ! -e "$HOME/done" ]; then
    echo >"$HOME/done"
    sh "$SCRIPT" wipe stwo || exit
  fi
  ;;
esac
rmdir "$@"
"""


def brought(home: Path) -> Path:
    """Have our script where it belongs on a host, and nothing kept there."""
    room = home / ".cache" / "holdfast" / "kept"
    room.mkdir(parents=True)
    keeper = room / "holder-0123456789abcdef.sh"
    keeper.write_bytes(script.source())
    return keeper


def test_who_is_kept_from_tidying_leaves_it_to_who_does(tmp_path: Path) -> None:
    """SE-08: the scripts stayed on a host that kept nothing any more."""
    keeper = brought(tmp_path)
    room = keeper.parent
    (room / "sone").mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("mkdir", _MKDIR), ("rmdir", _RMDIR)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    ran = subprocess.run(
        ["sh", str(keeper), "wipe", "sone"],
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "ROOM": str(room),
            "SCRIPT": str(keeper),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (tmp_path / "done").exists(), "the second one never came"
    assert ran.stdout.splitlines() == ["state=none", "state=none"]
    assert not room.parent.exists(), sorted(room.rglob("*"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("look sone", 0),
        ("runs sone", 0),
        ("end sone 0 1", 0),
        ("signal sone INT", 0),
        ("ack sone out 1", 0),
        ("strip sone", 0),
        ("list 0", 0),
        ("attach sone nonce 0 1", 66),
        ("follow sone 1 header 0 0", 66),
        ("prime sone 1 none 1 1 : :", 66),
        ("settle sone 1 1", 66),
        ("unread sone 1", 66),
    ],
)
def test_who_asks_for_what_is_not_there_leaves_nothing(
    tmp_path: Path, words: str, code: int
) -> None:
    """SE-08: the script comes with whoever asks, as a daemon that was killed does."""
    keeper = brought(tmp_path)
    ran = subprocess.run(
        ["sh", str(keeper), *words.split()],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == code, ran
    assert not (tmp_path / ".cache" / "holdfast").exists()
