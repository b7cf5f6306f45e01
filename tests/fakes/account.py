"""A throw-away account of this machine, with what sudo lets it do.

Needs root. Everything it makes is named after it and removed at the end; what a killed
run left behind goes with the next one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from fakes.sshd import Sshd, sshd_binary

if TYPE_CHECKING:
    from collections.abc import Generator

PREFIX = "hf-sudo-"
_SUDOERS = Path("/etc/sudoers.d")
# What fish and sudo leave of each user that ran them.
_LEFT = ("/tmp/fish.{}", "/run/sudo/ts/{}")
_OWNER = re.compile(r"holdfast test of process (\d+)")


def why_not() -> str:
    """Return why no account can be made here; empty: it can."""
    if os.geteuid() != 0:
        return "needs root, to make an account that asks sudo for a password"
    missing = [name for name in ("sudo", "useradd", "chpasswd") if not _which(name)]
    return f"no {missing[0]} here: run packaging/test-packages.sh" if missing else ""


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*words: str, stdin: str = "") -> None:
    told = subprocess.run(
        [_which(words[0]) or words[0], *words[1:]],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert told.returncode == 0, f"{words[0]}: {told.stderr}"


def host_of_accounts(directory: Path) -> Sshd:
    """Return a host that lets in whom an account's own file says, not started yet.

    Skips where there is no sshd, or no account can be made.
    """
    if reason := why_not():
        pytest.skip(reason)
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    options = {"AuthorizedKeysFile": ".ssh/authorized_keys"}
    return Sshd(directory, options=options)


@contextlib.contextmanager
def login(directory: Path, shell: str) -> Generator[tuple[Sshd, Account]]:
    """Run one whose `box` is an account with that login shell; skip without it."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: run packaging/test-packages.sh")
    with (
        host_of_accounts(directory / "sshd") as host,
        Account(host.key, password="canary-x", shell=program) as who,
    ):
        mine, theirs = f"User {host.user}", f"User {who.name}"
        host.config.write_text(host.client_config().replace(mine, theirs))
        yield host, who


class Account:
    """One account; a key logs it in, a password is what sudo asks for."""

    def __init__(self, key: Path, *, password: str, shell: str = "/bin/bash") -> None:
        """Let the public half of `key` in."""
        self.name = PREFIX + secrets.token_hex(4)
        self.password = password
        self._key = key
        self._shell = shell

    def __enter__(self) -> Self:
        """Make it."""
        _sweep()
        try:
            owner = f"holdfast test of process {os.getpid()}"
            _run("useradd", "-m", "-s", self._shell, "-c", owner, self.name)
            _run("chpasswd", stdin=f"{self.name}:{self.password}\n")
            self._let_in()
        except BaseException:
            _remove(self.name)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it and all that runs as it."""
        _remove(self.name)

    @property
    def home(self) -> Path:
        """Its directory."""
        return Path(pwd.getpwnam(self.name).pw_dir)

    def _let_in(self) -> None:
        ssh = self.home / ".ssh"
        ssh.mkdir(mode=0o700)
        keys = ssh / "authorized_keys"
        keys.write_text(self._key.with_name(self._key.name + ".pub").read_text())
        user = pwd.getpwnam(self.name)
        for path in (ssh, keys):
            os.chown(path, user.pw_uid, user.pw_gid)

    def write(self, name: str, text: str) -> None:
        """Put a file into its home; it may be run."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        path.chmod(0o755)

    def sudoers(self, *lines: str) -> None:
        """Say what sudo lets it do; USER stands for its name."""
        text = "".join(f"{line.replace('USER', self.name)}\n" for line in lines)
        draft = _SUDOERS / f".{self.name}"
        draft.write_text(text)
        draft.chmod(0o440)
        _run("visudo", "-c", "-q", "-f", str(draft))
        draft.rename(_SUDOERS / self.name)


def _remove(name: str) -> None:
    for path in (_SUDOERS / name, _SUDOERS / f".{name}"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam(name)
        subprocess.run(
            ["pkill", "-KILL", "-u", str(user.pw_uid)], check=False, timeout=30
        )
        _run("userdel", "-f", name)
        shutil.rmtree(user.pw_dir, ignore_errors=True)
        _run("rm", "-rf", *(left.format(name) for left in _LEFT))


def _sweep() -> None:
    """Remove what test runs left that are gone."""
    for user in pwd.getpwall():
        owner = _OWNER.fullmatch(user.pw_gecos)
        if owner is None or not user.pw_name.startswith(PREFIX):
            continue
        if not Path(f"/proc/{owner[1]}").exists():
            _remove(user.pw_name)
