from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncssh
import pytest

from fakes.asyncssh_server import Odd
from fakes.links import find_host, make_pool, read, run, write
from fakes.sshd import Agent, Sshd, fingerprint, keygen
from holdfast_daemon.config import Config, HostEntry
from holdfast_daemon.errors import DaemonError, NeedsError, Reason
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_daemon.hosts.host import Host

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def agent(short_path: Path) -> Iterator[Agent]:
    with Agent(short_path / "agent") as one:
        yield one


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    return keygen(tmp_path / "strange")


@pytest.fixture
def locked(tmp_path: Path, sshd: Sshd) -> Path:
    key = keygen(tmp_path / "locked", passphrase="open sesame")
    sshd.authorize(key.with_suffix(".pub"))
    return key


def call(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def log_in(host: Host) -> str:
    """Log in, run something, and return how the login was made."""
    async with make_pool() as pool, await pool.lease(host) as lease:
        end, out, _ = await run(lease, "echo in")
        assert (end.exit_code, out) == (0, b"in\n")
        return lease.link.auth_method


async def refused(host: Host) -> DaemonError:
    async with make_pool() as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
    assert caught.value.ran == "no"
    return caught.value


async def test_a_key_of_the_configuration_lets_in(sshd: Sshd) -> None:
    """AU-02: key file; AU-06: from ssh config."""
    method = await log_in(await find_host(sshd.config))
    assert method == f"publickey {fingerprint(sshd.key)} ({sshd.key})"


async def test_a_key_file_of_the_call_is_the_only_one_tried(
    sshd: Sshd, strange: Path, agent: Agent
) -> None:
    """AU-05: a named key turns the others off, the agent's too."""
    agent.add(sshd.key)
    good = Overrides(identity_file=str(sshd.key))
    assert str(sshd.key) in await log_in(await find_host(sshd.config, overrides=good))
    other = Overrides(identity_file=str(strange), auth_sock=str(agent.socket))
    error = await refused(await find_host(sshd.config, overrides=other))
    assert isinstance(error, NeedsError)
    assert error.reason is Reason.AUTH_FAILED
    assert error.metadata["methods"] == "publickey"
    assert error.metadata["tried"] == f"publickey {fingerprint(strange)} ({strange})"


async def test_key_content_lets_in_and_is_shown_nowhere(
    sshd: Sshd, strange: Path
) -> None:
    """AU-03: key content from the environment."""
    content = Overrides(private_key=Secret(sshd.key.read_text()))
    method = await log_in(await find_host(sshd.config, overrides=content))
    assert method == f"publickey {fingerprint(sshd.key)} (the key given as text)"
    text = read(strange)
    other = await find_host(sshd.config, overrides=Overrides(private_key=Secret(text)))
    error = await refused(other)
    assert error.reason is Reason.AUTH_FAILED
    assert text.splitlines()[1] not in str(error.__dict__)


async def test_text_that_is_no_key_is_said_so_without_repeating_it(sshd: Sshd) -> None:
    bad = Overrides(private_key=Secret("-----BEGIN NONSENSE-----\nhunter2222\n"))
    error = await refused(await find_host(sshd.config, overrides=bad))
    assert error.reason is Reason.KEY_UNREADABLE
    assert "hunter2222" not in str(error.__dict__)


async def test_an_agent_of_the_caller_lets_in(sshd: Sshd, agent: Agent) -> None:
    """AU-02: agent, by the caller's own SSH_AUTH_SOCK."""
    agent.add(sshd.key)
    host = await find_host(
        sshd.config, overrides=Overrides(auth_sock=str(agent.socket))
    )
    host = replace(host, identity_files=(), identities_only=False)
    method = await log_in(host)
    assert method == f"publickey {fingerprint(sshd.key)} (from the agent)"


async def test_the_daemon_s_own_agent_is_looked_up_at_every_login(
    sshd: Sshd, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-02: the socket may be a new one each time."""
    bare = replace(await find_host(sshd.config), identity_files=())
    bare = replace(bare, identities_only=False)
    assert (await refused(bare)).reason is Reason.AUTH_FAILED
    agent.add(sshd.key)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
    assert "from the agent" in await log_in(bare)


async def test_agent_keys_named_by_the_configuration_go_first(
    sshd: Sshd, agent: Agent, strange: Path
) -> None:
    """AU-05: OpenSSH's order; with IdentitiesOnly the agent offers nothing else."""
    agent.add(strange)
    agent.add(sshd.key)
    host = await find_host(
        sshd.config, overrides=Overrides(auth_sock=str(agent.socket))
    )
    public = f"{sshd.key}.pub"
    named = replace(host, identity_files=(public,), identities_only=True)
    method = await log_in(named)
    assert method.endswith(f"({public}, from the agent)")
    both = replace(host, identity_files=(str(strange),), identities_only=True)
    error = await refused(both)
    assert fingerprint(sshd.key) not in error.metadata["tried"]
    assert error.metadata["tried"].count(fingerprint(strange)) == 1


async def test_no_agent_is_asked_where_the_configuration_forbids_it(
    sshd: Sshd, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: IdentityAgent none."""
    agent.add(sshd.key)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
    host = await find_host(sshd.config)
    host = replace(host, identity_files=(), identities_only=False)
    host = replace(host, identity_agent="none")
    error = await refused(host)
    assert "nothing, for want of a credential" in error.message


async def test_an_agent_that_is_none_is_mentioned_and_left_alone(
    sshd: Sshd, tmp_path: Path
) -> None:
    """AU-02: told plainly when there is no agent behind the socket."""
    no_socket = tmp_path / "file"
    no_socket.write_text("")
    for path, why in ((no_socket, "it is no socket"), (tmp_path / "gone", "No such")):
        host = await find_host(sshd.config, overrides=Overrides(auth_sock=str(path)))
        assert str(sshd.key) in await log_in(host)
        error = await refused(replace(host, identity_files=()))
        assert why in error.hint


@pytest.mark.parametrize(("form", "kind"), [("RFC4716", "ed25519"), ("PKCS8", "ecdsa")])
async def test_an_encrypted_key_needs_its_passphrase_by_a_variable(
    sshd: Sshd, tmp_path: Path, form: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-04: passphrase from a named environment variable."""
    if form == "RFC4716":
        pytest.importorskip("bcrypt")
    locked = keygen(tmp_path / "key", kind=kind, passphrase="open sesame", form=form)
    sshd.authorize(locked.with_suffix(".pub"))
    entry = HostEntry(
        name="box",
        host="box",
        ssh_key_path=str(locked),
        ssh_key_passphrase_env="HF_TEST_PHRASE",
    )
    host = await find_host(sshd.config, config=Config(hosts={"box": entry}))
    error = await refused(host)
    assert error.reason is Reason.PASSPHRASE_NEEDED
    assert error.metadata["path"] == str(locked)
    monkeypatch.setenv("HF_TEST_PHRASE", "wrong one")
    error = await refused(host)
    assert error.reason is Reason.PASSPHRASE_NEEDED
    assert "wrong one" not in str(error.__dict__)
    monkeypatch.setenv("HF_TEST_PHRASE", "open sesame")
    assert fingerprint(locked) in await log_in(host)


async def test_the_agent_stands_in_for_an_encrypted_file(
    sshd: Sshd, agent: Agent, locked: Path
) -> None:
    """AU-02: a named key may be in the agent already, decrypted."""
    plain = locked.with_name("plain")
    write(plain, read(locked))
    plain.chmod(0o600)
    command: list[str | Path]
    command = ["ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", plain]
    await asyncio.to_thread(call, command)
    agent.add(plain)
    over = Overrides(identity_file=str(locked), auth_sock=str(agent.socket))
    assert str(locked) in await log_in(await find_host(sshd.config, overrides=over))


async def test_an_encrypted_key_nobody_asked_for_is_skipped_and_mentioned(
    sshd: Sshd, locked: Path, strange: Path
) -> None:
    """AU-04: it is shown by its public half; what is said depends on the server."""
    host = await find_host(sshd.config)
    both = (str(locked), str(sshd.key))
    assert str(sshd.key) in await log_in(replace(host, identity_files=both))
    error = await refused(replace(host, identity_files=(str(locked), str(strange))))
    assert error.reason is Reason.PASSPHRASE_NEEDED
    assert f"{locked} is encrypted" in error.message
    assert "holdfast login box" in error.hint
    other = keygen(strange.with_name("other"), passphrase="any")
    error = await refused(replace(host, identity_files=(str(other), str(strange))))
    assert error.reason is Reason.AUTH_FAILED
    assert f"{other} is encrypted" in error.hint


async def test_a_named_key_that_can_t_be_read_is_said_so(
    sshd: Sshd, tmp_path: Path
) -> None:
    """Bad input: an unreadable key."""
    open_key = keygen(tmp_path / "open")
    open_key.chmod(0o644)
    text = tmp_path / "text"
    text.write_text("no key at all")
    for path, why in (
        (tmp_path / "gone", "No such file"),
        (tmp_path, "directory"),
        (open_key, "open to others"),
        (text, "no private key"),
    ):
        over = Overrides(identity_file=str(path))
        error = await refused(await find_host(sshd.config, overrides=over))
        assert error.reason is Reason.KEY_UNREADABLE
        assert why in error.message
        assert error.metadata["path"] == str(path)


async def test_a_certificate_lets_in(sshd: Sshd, tmp_path: Path) -> None:
    """AU-14: certificates."""
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", sshd.user]
    await asyncio.to_thread(call, [*command, f"{key}.pub"])
    with Sshd(
        tmp_path / "certain", options={"TrustedUserCAKeys": f"{authority}.pub"}
    ) as certain:
        certain.authorized_keys.write_text("")
        over = Overrides(identity_file=str(key))
        await log_in(await find_host(certain.config, overrides=over))
        assert certain.log.count("ED25519-CERT") > 0


async def test_a_password_turns_keys_and_agent_off(tmp_path: Path) -> None:
    """AU-01, AU-05: password per call; nothing else is offered."""
    async with Odd(password="right one") as odd:
        host = odd.host(tmp_path / "kh", password=Secret("right one"))
        host = replace(host, identity_files=(str(keygen(tmp_path / "key")),))
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert lease.link.auth_method == "password"
        assert odd.attempts == ["right one"]


async def test_a_wrong_password_is_offered_once_and_never_again(
    tmp_path: Path,
) -> None:
    """AU-01: a failed authentication is never retried by itself (A5 row 11)."""
    prompts = [("Password: ", False)]
    async with Odd(password="right one", prompts=prompts, answers=["x"]) as odd:
        error = await refused(odd.host(tmp_path / "kh", password=Secret("wrong one")))
        assert error.reason is Reason.AUTH_FAILED
        assert odd.attempts == ["wrong one"]
        assert error.metadata["tried"] == "password"
        assert "password" in error.metadata["methods"]
        assert "wrong one" not in str(error.__dict__)


async def test_one_question_is_answered_with_the_password(tmp_path: Path) -> None:
    """AU-13: keyboard-interactive where it asks just for the password."""
    prompts = [("Enter your secret word: ", False)]
    async with Odd(prompts=prompts, answers=["right one"]) as odd:
        host = odd.host(tmp_path / "kh", password=Secret("right one"))
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert lease.link.auth_method == "keyboard-interactive"


async def test_more_than_one_question_is_left_to_a_person(tmp_path: Path) -> None:
    """AU-13: 2FA is not guessed at."""
    prompts = [("Password: ", False), ("Code: ", False)]
    async with Odd(prompts=prompts, answers=["right one", "123456"]) as odd:
        error = await refused(odd.host(tmp_path / "kh", password=Secret("right one")))
        assert error.reason is Reason.LOGIN_NEEDED
        assert error.message == "odd asks for: Code"
        assert "ask a person to run `holdfast login odd`" in error.hint
        assert odd.attempts == []


async def test_a_code_is_not_taken_for_the_password(tmp_path: Path) -> None:
    """AU-13: the password at hand goes nowhere but where it is asked for."""
    async with Odd(prompts=[("Verification code: ", False)], answers=["1"]) as odd:
        error = await refused(odd.host(tmp_path / "kh", password=Secret("right one")))
        assert error.message == "odd asks for: Verification code"
        assert odd.attempts == []


async def test_too_many_keys_are_explained(sshd: Sshd, tmp_path: Path) -> None:
    keys = tuple(str(keygen(tmp_path / f"k{number}")) for number in range(8))
    host = replace(await find_host(sshd.config), identity_files=keys)
    error = await refused(host)
    assert error.reason is Reason.AUTH_FAILED
    assert "IdentitiesOnly" in error.hint


async def test_the_library_reads_no_configuration_of_its_own(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: only what ssh resolved counts."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n    User nobody-at-all\n")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / ".ssh" / "id_ed25519"))
    monkeypatch.setenv("HOME", str(tmp_path))
    before = sshd.log.position
    await log_in(await find_host(sshd.config))
    assert sshd.log.count("nobody-at-all", after=before) == 0
    assert sshd.log.count("Accepted publickey", after=before) == 1
