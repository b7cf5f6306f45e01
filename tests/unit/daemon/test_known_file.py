"""Writers of known_hosts that reach one file by different names."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from typing import TYPE_CHECKING

import asyncssh
import pytest

from holdfast_daemon.errors import DaemonError
from holdfast_daemon.hosts import known_change, known_file
from holdfast_daemon.hosts.known_hosts import KnownHosts, written

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [asyncssh.generate_private_key("ssh-ed25519").public_data for _ in range(2)]


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """Return a link, as those have it who keep their settings elsewhere, and a file."""
    for name in ("ssh", "settings"):
        (tmp_path / name).mkdir()
    link, real = tmp_path / "ssh" / "known_hosts", tmp_path / "settings" / "known"
    link.symlink_to(real)
    return link, real


def test_a_writer_by_a_link_waits_for_one_by_the_file(
    linked: tuple[Path, Path],
) -> None:
    """NF-13: who adds a line waits for who replaces the file, wherever it is."""
    link, real = linked
    line = written("web1", KEYS[0])
    real.write_text("")
    held = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX)
    thread = threading.Thread(target=known_file.append, args=(str(link), [line]))
    thread.start()
    thread.join(0.1)
    waited = thread.is_alive() and not real.read_text()
    os.close(held)
    thread.join(10)
    assert waited
    assert real.read_text() == f"{line}\n"


def test_links_stay_links_whoever_writes(linked: tuple[Path, Path]) -> None:
    """NF-13: added to, replaced, and made where they lead to nothing yet."""
    link, real = linked
    known_file.append(str(link), [written("web1", KEYS[0])])
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    lines = KnownHosts.read([str(link)]).keys
    made = known_change.trusting(lines, ["web1"], KEYS[1], [str(link)])
    known_file.apply(made, hash_names=False)
    assert link.is_symlink()
    assert real.read_text() == written("web1", KEYS[1]) + "\n"
    assert [path.name for path in link.parent.iterdir()] == ["known_hosts"]
    assert sorted(path.name for path in real.parent.iterdir()) == ["known", "known.old"]


def test_many_who_add_and_replace_by_a_link_lose_nothing(
    linked: tuple[Path, Path],
) -> None:
    """NF-13: each line is there once, whoever came in between."""
    link, real = linked
    old, new = KEYS
    real.write_text("".join(written(f"web{n}", old) + "\n" for n in range(6)))

    def replace(number: int) -> None:
        for _ in range(100):
            lines = KnownHosts.read([str(link)]).keys
            made = known_change.trusting(lines, [f"web{number}"], new, [str(link)])
            try:
                known_file.apply(made, hash_names=False)
            except DaemonError:
                continue  # another one was faster: look again
            return

    def add(number: int) -> None:
        for step in range(20):
            line = written(f"new{number}-{step}", old)
            known_file.append(str(link), [line])

    threads = [threading.Thread(target=replace, args=(n,)) for n in range(6)]
    threads += [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    wanted = {written(f"web{n}", new) for n in range(6)}
    wanted |= {written(f"new{n}-{step}", old) for n in range(4) for step in range(20)}
    assert sorted(real.read_text().splitlines()) == sorted(wanted)
