"""The user's service manager, where little is known of the user."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from holdfast_shim import places
from holdfast_shim.errors import CallError
from holdfast_shim.service.systemd import Systemd

if TYPE_CHECKING:
    from pathlib import Path


def test_a_user_without_an_account_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PK-01: as in a container with a number for a user; it was a traceback."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path / "nothing"), "PATH": "/usr/bin:/bin"}
    with pytest.raises(CallError) as told:
        Systemd(runtime, tmp_path).check()
    assert told.value.ran == "no"


@pytest.mark.parametrize("runtime", ["", "relative", "/run/x"])
@pytest.mark.parametrize("there", [False, True])
def test_without_a_unit_it_means_the_daemon_of_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, *, there: bool
) -> None:
    """PK-04, NF-19: `service restart` started another one in a place of its own."""
    monkeypatch.setattr(places, "RUN_USER", tmp_path)
    if there:
        (tmp_path / str(os.getuid())).mkdir()
    env = {"XDG_RUNTIME_DIR": runtime, "PATH": "/usr/bin:/bin"}
    usual = places.places(env, tmp_path, os.getuid()).socket
    assert Systemd(env, tmp_path).socket == usual
    elsewhere = env | {"HOLDFAST_SOCKET": "/x/y", "HOLDFAST_STATE_DIR": "state"}
    assert Systemd(elsewhere, tmp_path).socket == usual


def test_with_a_unit_it_means_what_the_unit_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PK-04: whether the directory is there yet or not."""
    monkeypatch.setattr(places, "RUN_USER", tmp_path / "none")
    found = Systemd({"PATH": "/usr/bin:/bin"}, tmp_path)
    found.path.parent.mkdir(parents=True)
    found.path.touch()
    served = f"/run/user/{os.getuid()}/holdfast/holdfast.sock"
    assert str(found.socket) == served
