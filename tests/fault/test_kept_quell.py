"""All of a kept shell is ended by force, in whatever order its processes are found."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from holdfast_daemon.kept import script

if TYPE_CHECKING:
    from pathlib import Path

# Where one may say what number the next process gets.
_APART = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")
# Process 99 is a shell that goes on with its next command; 100 and up, which a list
# sorted as text begins with, are its commands.
_TRIES = """
set -u
room=$HOME/.cache/holdfast/kept
for try in 1 2 3 4 5 6 7 8 9 10; do
  mkdir -p "$room/sone"
  echo 98 >/proc/sys/kernel/ns_last_pid
  setsid sh -c 'while :; do sleep 1000; done' 2>/dev/null &
  shell=$!
  rounds=0
  until [ -n "$(ps -eo pid,args | grep ' sleep 1000$')" ]; do
    rounds=$((rounds + 1))
    [ "$rounds" -lt 200 ] || { echo "no command" && exit 1; }
    sleep 0.05
  done
  stat=$(cat "/proc/$shell/stat")
  set -- ${stat##*) }
  shift 19
  cat /proc/sys/kernel/random/boot_id >"$room/sone/boot"
  echo "$shell $1" >"$room/sone/leader"
  sh "$SCRIPT" wipe sone >/dev/null
  wait "$shell" 2>/dev/null
  if ps -eo pid,args | grep ' sleep 1000$'; then echo "left in try $try" && exit 1; fi
done
echo "all gone"
"""


def test_what_a_shell_began_while_it_was_ended_is_ended_too(tmp_path: Path) -> None:
    """SE-08: its command was killed first, and the shell had begun the next one."""
    keeper = tmp_path / "keeper.sh"
    keeper.write_bytes(script.source())
    ran = subprocess.run(
        [*_APART, "sh", "-c", _TRIES],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SCRIPT": str(keeper),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.splitlines()[-1:] == ["all gone"], (ran.stdout, ran.stderr)
