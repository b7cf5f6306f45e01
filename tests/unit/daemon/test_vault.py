"""Secrets by name: where they may lie, and what is said when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast_daemon.config import load
from holdfast_daemon.config_file import ConfigError
from holdfast_daemon.errors import NeedsError, Reason
from holdfast_daemon.hosts import vault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CANARY = "canary-hunter2"


async def missing(reference: str, **environ: str) -> NeedsError:
    with pytest.raises(NeedsError) as caught:
        await vault.fetch(reference, environ, 5)
    error = caught.value
    told = f"{error} {error.hint} {error.metadata}"
    assert error.reason is Reason.BAD_CONFIGURATION
    assert reference in error.message
    assert error.hint
    assert CANARY not in told
    return error


class Ring:
    """What the library keyring is to us."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Callable[[str, str], str | None] = lambda _service, _name: None
        errors = cast("Any", ModuleType("keyring.errors"))
        for name in ("NoKeyringError", "KeyringLocked", "InitError"):
            setattr(errors, name, type(name, (RuntimeError,), {}))
        module = cast("Any", ModuleType("keyring"))
        module.get_password = self.ask
        module.errors = self.errors = errors
        monkeypatch.setitem(sys.modules, "keyring", module)
        monkeypatch.setitem(sys.modules, "keyring.errors", errors)

    def ask(self, service: str, name: str) -> str | None:
        return self.answer(service, name)

    def raises(self, error: Exception) -> None:
        def answer(_service: str, _name: str) -> str:
            raise error

        self.answer = answer


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    return Ring(monkeypatch)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "env:",
        "env:1X",
        "env:A B",
        "env:A=B",
        "keyring:",
        "keyring:a\nb",
        "file:",
        "file:relative",
        "file:/a\nb",
        "vault:x",
        "ENV:X",
        CANARY,
    ],
)
async def test_what_is_no_name_is_refused_and_not_repeated(reference: str) -> None:
    """NF-08, SC-10: it may be the secret itself that stands there."""
    with pytest.raises(ValueError, match="env:NAME, keyring:NAME or file:") as caught:
        vault.check(reference)
    assert CANARY not in str(caught.value)
    with pytest.raises(ValueError, match="env:NAME"):
        await vault.fetch(reference, {})


@pytest.mark.parametrize(
    "key", ["password_from", "ssh_key_passphrase_from", "sudo_password_from"]
)
def test_the_configuration_takes_names_and_nothing_else(
    tmp_path: Path, key: str
) -> None:
    """PK-07, NF-08: a bad one is told with file, line and key."""
    path = tmp_path / "config.toml"
    for good in ("env:DB_PASSWORD", "keyring:db 1", "file:/run/x y", "file:~/x"):
        path.write_text(f'[hosts.db]\n{key} = "{good}"\n')
        path.chmod(0o600)
        assert getattr(load(path).hosts["db"], key) == good
    for bad in (f'"{CANARY}"', "1", '"env:"', '"file:x"'):
        path.write_text(f"[hosts.db]\n\n{key} = {bad}\n")
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert (caught.value.line, caught.value.key) == (3, f"hosts.db.{key}")
        assert CANARY not in caught.value.message + caught.value.hint


async def test_a_variable_is_the_daemon_s_own() -> None:
    """AU-01, AU-04: from the environment."""
    secret = await vault.fetch("env:A_B", {"A_B": CANARY})
    assert secret.reveal() == CANARY
    assert "no such variable" in (await missing("env:A_B")).message
    assert "no such variable" in (await missing("env:A_B", A_B="")).message
    assert "one line" in (await missing("env:A_B", A_B=f"{CANARY}\nx")).message


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
async def test_a_file_is_one_line_of_ours(tmp_path: Path, ending: str) -> None:
    """NF-08: as an editor or echo leaves it."""
    path = tmp_path / "secret"
    path.write_text(f" {CANARY} {ending}", newline="")
    path.chmod(0o600)
    assert (await vault.fetch(f"file:{path}", {})).reveal() == f" {CANARY} "


async def test_a_file_that_is_not_safe_or_not_right_is_refused(tmp_path: Path) -> None:
    """NF-08, SC-11: as the configuration itself."""
    path = tmp_path / "secret"
    path.write_text(CANARY)
    path.chmod(0o640)
    error = await missing(f"file:{path}")
    assert "open to others (mode 0640)" in error.message
    assert "chmod 600" in error.hint
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "symbolic link" in (await missing(f"file:{link}")).message
    assert "No such file" in (await missing(f"file:{tmp_path}/none")).message
    assert "regular file" in (await missing(f"file:{tmp_path}")).message
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "regular file" in (await missing(f"file:{tmp_path}/fifo")).message
    for content, why in (
        (b"", "empty"),
        (b"\n", "empty"),
        (b"a\nb\n", "one line"),
        (b"a\0b", "one line"),
        (b"\xff\xfe", "UTF-8"),
        (b"x" * 5000, "longer"),
    ):
        path.write_bytes(content)
        assert why in (await missing(f"file:{path}")).message


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
async def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(CANARY)
    path.chmod(0o600)
    os.chown(path, 65534, -1)
    assert "belongs to user 65534" in (await missing(f"file:{path}")).message


async def test_the_keyring_is_asked_for_our_service(ring: Ring) -> None:
    """NF-08: `keyring set holdfast NAME` puts it there."""
    known = {("holdfast", "db 1"): CANARY}
    ring.answer = lambda service, name: known.get((service, name))
    assert (await vault.fetch("keyring:db 1", {})).reveal() == CANARY
    assert "keyring set holdfast db" in (await missing("keyring:db")).hint


async def test_a_keyring_that_can_not_answer_is_told(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-08: no library, no backend, locked, broken."""
    ring.raises(ring.errors.NoKeyringError("none"))
    error = await missing("keyring:db")
    assert "no keyring" in error.message
    assert "env:NAME or file:" in error.hint
    ring.raises(ring.errors.KeyringLocked("locked"))
    assert "locked" in (await missing("keyring:db")).message
    ring.raises(OSError(CANARY))
    assert "failed (OSError)" in (await missing("keyring:db")).message
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert "holdfast[keyring]" in (await missing("keyring:db")).hint


async def test_a_keyring_that_hangs_holds_nobody_up(ring: Ring) -> None:
    """NF-08: it may wait for a person who is not there; other work goes on."""
    gate = threading.Event()

    def hang(_service: str, _name: str) -> str:
        gate.wait(30)
        return CANARY

    ring.answer = hang
    asks = [vault.fetch("keyring:db", {}, 0.05) for _ in range(12)]
    told = await asyncio.gather(*asks, return_exceptions=True)
    assert {type(error) for error in told} == {NeedsError}
    words = {str(error) for error in told}
    assert any("within 0.05 s" in text for text in words)
    assert any("does not answer" in text for text in words)
    # The threads that files are read in are free.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 30) == 1
    gate.set()
    ring.answer = lambda _service, _name: CANARY
    found = ""
    async with asyncio.timeout(30):
        while not found:
            with contextlib.suppress(NeedsError):
                found = (await vault.fetch("keyring:db", {}, 5)).reveal()
            await asyncio.sleep(0)
    assert found == CANARY


def test_the_real_library_has_what_is_used_of_it() -> None:
    """The rest of this file stands in for it."""
    keyring = pytest.importorskip("keyring", reason="the extra keyring is missing")
    errors = SimpleNamespace(**vars(keyring.errors))
    for error in (errors.NoKeyringError, errors.KeyringLocked, errors.InitError):
        assert issubclass(error, Exception)
    assert callable(keyring.get_password)
