"""What is kept for an ordinary user of a booted host, once that user has logged out."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.booted import UID, USER, Booted
from fakes.watch import until
from holdfast_daemon.kept import script

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs_systemd]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Yield a directory that both machines have, with the script of hosts."""
    place = Path(tempfile.mkdtemp(prefix="hf-"))
    place.chmod(0o755)
    (place / "holder.sh").write_bytes(script.source())
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def machine(place: Path) -> Iterator[Booted]:
    one = Booted(place)
    try:
        yield one
    finally:
        one.close()


def killing(machine: Booted, word: str) -> None:
    """Have its logind end what users leave, or not."""
    there = "/etc/systemd/logind.conf.d"
    told = f"[Login]\\nKillUserProcesses={word}\\n"
    machine.root("sh", "-c", f"mkdir -p {there}; printf '{told}' >{there}/test.conf")
    machine.root("systemctl", "restart", "systemd-logind")


def sessions(machine: Booted) -> str:
    return machine.root("loginctl", "--no-legend", "list-sessions").stdout


@pytest.mark.parametrize("word", ["no", "yes"])
def test_a_durable_command_outlives_the_login(
    machine: Booted, place: Path, word: str
) -> None:
    """NF-10: also where logind ends what users leave behind (KillUserProcesses)."""
    killing(machine, word)
    machine.root("loginctl", "enable-linger", USER)
    seconds = {"no": "4101", "yes": "4102"}[word]
    command = f"sleep {seconds}"
    # op_job's words: its bounds, nonce and meta, where, by what, and three sizes
    words = f"1000000 60 n meta '' '' 0 {len(command)} 0 0"
    call = f"printf '{command}' | hf_umask=022 sh {place}/holder.sh job j{word} {words}"
    told = machine.login("sh", "-c", call).stdout
    assert "state=running" in told
    if word == "yes":
        # nothing of it is left that logind knows of
        until(lambda: not sessions(machine), "the login is over")
    found = machine.root("pgrep", "-u", str(UID), "-f", f"sleep {seconds}", check=False)
    assert found.stdout
    machine.login("sh", f"{place}/holder.sh", "wipe", f"j{word}")
    left = machine.root("pgrep", "-u", str(UID), "-f", f"sleep {seconds}", check=False)
    assert not left.stdout
