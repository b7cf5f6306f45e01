"""Passwords and passphrases the daemon finds by name: variable, file, keyring."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.asking_server import Asking, Round, Step
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd, fingerprint, keygen
from fakes.watch import contents
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

PASSWORD = "canary-n4med-secret"
# A keyring in a file, as `keyring` itself finds its backends: by the environment.
BACKEND = """
import json, os
from keyring.backend import KeyringBackend
class Plain(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        with open(os.environ["PLAIN_KEYRING"]) as file:
            return json.load(file).get(f"{service}/{username}")
    def set_password(self, service, username, password):
        raise NotImplementedError
"""
NAMED = ["env:BOX_SECRET", "file:{root}/secret", "keyring:box"]


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hf-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def keep(root: Path, reference: str, secret: str) -> dict[str, str]:
    """Put a secret where `reference` says; return the daemon's environment for it."""
    place = reference.partition(":")[0]
    if place == "env":
        return {"BOX_SECRET": secret}
    if place == "file":
        (root / "secret").write_text(secret + "\n")
        (root / "secret").chmod(0o600)
        return {}
    (root / "ring.json").write_text(f'{{"holdfast/box": "{secret}"}}')
    (root / "plain_ring.py").write_text(BACKEND)
    return {
        "PLAIN_KEYRING": str(root / "ring.json"),
        "PYTHON_KEYRING_BACKEND": "plain_ring.Plain",
        "PYTHONPATH": str(root),
    }


@contextlib.asynccontextmanager
async def daemon(
    root: Path, config: Path, settings: str, **environment: str
) -> AsyncGenerator[World]:
    world = World(root, ssh_config=config)
    world.configure('log_level = "debug"\n' + settings)
    await asyncio.to_thread(world.start, **environment)
    try:
        yield world
    finally:
        await asyncio.to_thread(world.stop)


async def call(
    world: World, tool: str = "ssh_connect", target: str = "web1", **arguments: Any
) -> Any:
    async with Wire(env=world.environment) as shim:
        result = await shim.call(tool, {"target": target, **arguments})
    told = result["structuredContent"]
    return told["error"] if result.get("isError") else told


@pytest.mark.parametrize("reference", NAMED)
async def test_a_password_is_found_by_its_name(
    root: Path, tmp_path: Path, reference: str
) -> None:
    """AU-01: from the daemon's environment, a private file, the keyring."""
    reference = reference.format(root=root)
    environment = keep(root, reference, PASSWORD)
    settings = f'[hosts.web1]\npassword_from = "{reference}"\n'
    async with Asking(Step(password=PASSWORD)) as asking:
        config = asking.config(tmp_path)
        async with daemon(root, config, settings, **environment) as world:
            told = await call(world)
            assert told["auth_method"] == "password"
            told = await call(world, "ssh_exec", command="echo on")
            assert told["stdout"] == "on\n"
            kept = await asyncio.to_thread(holding, root)
    assert asking.seen.attempts == [PASSWORD]
    assert kept <= {"secret", "ring.json"}


def holding(root: Path) -> set[str]:
    """Return which files hold the secret."""
    found = contents(root)
    return {path.name for path, text in found.items() if PASSWORD.encode() in text}


async def test_a_name_that_leads_nowhere_is_told_and_a_person_is_named(
    root: Path, tmp_path: Path
) -> None:
    """AU-01, bad input: which name, why, and the next step."""
    settings = '[hosts.web1]\npassword_from = "env:BOX_SECRET"\n'
    async with (
        Asking(Step(password=PASSWORD)) as asking,
        daemon(root, asking.config(tmp_path), settings) as world,
    ):
        error = await call(world)
    assert error["reason"] == "LOGIN_NEEDED"
    assert error["message"] == "web1 asks for: password"
    assert "env:BOX_SECRET can't be had" in error["hint"]
    assert "holdfast login web1" in error["hint"]
    assert asking.seen.attempts == []


async def test_a_wrong_one_is_given_once_and_is_a_refusal(
    root: Path, tmp_path: Path
) -> None:
    """AU-01: a failed authentication is never retried by itself."""
    settings = '[hosts.web1]\npassword_from = "env:BOX_SECRET"\n'
    async with Asking(Step(password="right one")) as asking:
        config = asking.config(tmp_path)
        async with daemon(root, config, settings, BOX_SECRET=PASSWORD) as world:
            error = await call(world)
    assert error["reason"] == "AUTH_FAILED"
    assert error["tried"] == "password"
    assert PASSWORD not in str(error)
    assert asking.seen.attempts == [PASSWORD]


@pytest.mark.parametrize("named", [False, True])
async def test_a_password_of_the_configuration_and_keys_have_an_order(
    root: Path, tmp_path: Path, named: bool
) -> None:
    """AU-05: it turns keys off where it does; a key beside it goes first."""
    import asyncssh  # noqa: PLC0415

    keygen(tmp_path / "id")
    key = asyncssh.read_public_key(tmp_path / "id.pub")
    extra = f"  IdentityFile {tmp_path / 'id'}\n"
    settings = '[hosts.web1]\npassword_from = "env:BOX_SECRET"\n'
    if named:
        settings += f'ssh_key_path = "{tmp_path / "id"}"\n'
    step = Step(password=PASSWORD, keys=[] if named else [key])
    async with Asking(step) as asking:
        config = asking.config(tmp_path, extra=extra)
        async with daemon(root, config, settings, BOX_SECRET=PASSWORD) as world:
            assert (await call(world))["auth_method"] == "password"
    # This server takes no key at all in the second case, so none is offered.
    assert asking.seen.offered == []
    # First a key, then the password: whatever was named, both are at hand.
    async with Asking(Step(keys=[key]), Step(password=PASSWORD)) as asking:
        config = asking.config(tmp_path, extra=extra)
        second = root / "second"
        second.mkdir()
        async with daemon(second, config, settings, BOX_SECRET=PASSWORD) as world:
            told = await call(world)
    assert told["auth_method"].startswith(f"publickey {fingerprint(tmp_path / 'id')}")
    assert told["auth_method"].endswith(", then password")


async def test_a_password_at_hand_answers_its_round_and_a_person_the_rest(
    root: Path, tmp_path: Path
) -> None:
    """AU-13, NF-07: a key and a password at hand; only the code is asked for."""
    rounds = (
        Round([("Password: ", False)], [PASSWORD]),
        Round([("Verification code: ", False)], ["736451"]),
    )
    settings = '[hosts.web1]\npassword_from = "env:BOX_SECRET"\n'
    async with Asking(Step(rounds=rounds)) as asking:
        config = asking.config(tmp_path)
        async with daemon(root, config, settings, BOX_SECRET=PASSWORD) as world:
            error = await call(world)
            assert error["message"] == "web1 asks for: Verification code"
            # It is known by now, so the password is not given in vain again.
            error = await call(world)
            assert error["message"] == "web1 asks for: Verification code"
    assert asking.seen.attempts == [PASSWORD]


@pytest.mark.needs_sshd
@pytest.mark.parametrize("reference", NAMED)
async def test_a_passphrase_is_found_by_its_name(
    sshd: Sshd, root: Path, tmp_path: Path, reference: str
) -> None:
    """AU-04: of a key file, and of a key that a client gives as text."""
    reference = reference.format(root=root)
    environment = keep(root, reference, PASSWORD)
    locked = await asyncio.to_thread(keygen, tmp_path / "locked", passphrase=PASSWORD)
    sshd.authorize(locked.with_suffix(".pub"))
    settings = (
        f'[hosts.box]\nssh_key_path = "{locked}"\n'
        f'ssh_key_passphrase_from = "{reference}"\n'
    )
    async with daemon(root, sshd.config, settings, **environment) as world:
        told = await call(world, target="box")
        assert told["auth_method"] == f"publickey {fingerprint(locked)} ({locked})"
        assert PASSWORD not in world.log.read_text()
        world.environment["SSH_PRIVATE_KEY"] = locked.read_text()
        told = await call(world, target="box")
        assert told["reused"] is False
        assert "the key given as text" in told["auth_method"]


@pytest.mark.needs_sshd
async def test_a_passphrase_that_is_not_there_or_does_not_fit_is_told(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """AU-04, bad input."""
    locked = await asyncio.to_thread(keygen, tmp_path / "locked", passphrase=PASSWORD)
    settings = (
        f'[hosts.box]\nssh_key_path = "{locked}"\n'
        'ssh_key_passphrase_from = "env:BOX_SECRET"\n'
    )
    async with daemon(root, sshd.config, settings) as world:
        error = await call(world, target="box")
        assert error["reason"] == "PASSPHRASE_NEEDED"
        assert "env:BOX_SECRET can't be had" in error["hint"]
        assert "holdfast login box" in error["hint"]
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start, BOX_SECRET="wrong")
        error = await call(world, target="box")
        assert error["reason"] == "PASSPHRASE_NEEDED"
        assert "does not fit" in error["message"]
