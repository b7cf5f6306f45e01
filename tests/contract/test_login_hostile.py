"""Logins among hostile or odd servers, files and agents; the order of keys is ssh's."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from fakes.asking_server import Asking, Round, Step
from fakes.links import find_host, make_pool
from fakes.sshd import Agent, Sshd, keygen
from holdfast_daemon.connection import survey
from holdfast_daemon.doctor import named as named_secrets
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.host import Host, Overrides
from holdfast_daemon.hosts.tokens import Tokens
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asyncssh import SSHServerConnection

    from holdfast_daemon.connection.question import Question

CODE = "736451"
_TESTED = re.compile(r"publickey test pkalg (\S+) pkblob \S+ (SHA256:\S+)")


class Person:
    """Types the same for ever."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked = 0

    async def ask(self, question: Question) -> Sequence[Secret]:
        self.asked += 1
        return [Secret(CODE) for _ in question.prompts]

    def tell(self, text: str) -> None:
        self.told.append(text)


async def failed(host: Host, person: Person | None = None) -> DaemonError:
    async with make_pool() as pool, asyncio.timeout(40):
        work = pool.lease(host) if person is None else pool.login(host, person)
        with pytest.raises(DaemonError) as caught:
            await work
    return caught.value


# The order in which keys are offered


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    options = {"LogLevel": "DEBUG2", "MaxAuthTries": "30", "MaxStartups": "100"}
    with Sshd(tmp_path_factory.mktemp("strict"), options=options) as sshd:
        sshd.authorized_keys.write_text("")
        yield sshd


def _certify(authority: Path, key: Path) -> Path:
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", "me"]
    subprocess.run([*command, f"{key}.pub"], check=True, capture_output=True)
    return key.with_name(f"{key.name}-cert.pub")


def _offered(sshd: Sshd, after: int) -> list[tuple[str, str]]:
    lines = sshd.log.text.splitlines()[after:]
    return [found.groups() for line in lines if (found := _TESTED.search(line))]  # type: ignore[misc] # two groups


@pytest.mark.needs_sshd
@pytest.mark.parametrize("only", ["no", "yes"])
@pytest.mark.parametrize(
    ("held", "beside", "named"),
    [
        ("cb", "", ""),
        ("c", "a", ""),
        ("c", "ab", ""),
        ("cb", "b", ""),
        ("bca", "a", ""),
        ("c", "", "b"),
        ("cb", "a", "b"),
        ("", "a", "a"),
        ("cd", "", "c"),
    ],
)
async def test_keys_and_certificates_are_offered_in_ssh_s_order(  # noqa: PLR0917
    strict: Sshd,
    tmp_path: Path,
    short_path: Path,
    held: str,
    beside: str,
    named: str,
    only: str,
) -> None:
    """AU-05, AU-14: what sshd sees of us and of ssh is the same.

    Keys a and b are files, c and d none; `held` are in the agent, `beside` have their
    certificate beside them, `named` have it in CertificateFile.
    """

    def prepare() -> tuple[Path, dict[str, str]]:
        authority = keygen(tmp_path / "ca")
        keys = {name: keygen(tmp_path / name) for name in "abcd"}
        for name in held:
            agent.add(keys[name])
        lines = [f"IdentityFile {keys[name]}" for name in "ab"]
        for name in dict.fromkeys(named + beside):
            made = _certify(authority, keys[name])
            if name in named:
                other = tmp_path / f"{name}.certificate"
                other.write_bytes(made.read_bytes())
                lines.append(f"CertificateFile {other}")
            if name not in beside:
                made.unlink()
        config = tmp_path / "config"
        extra = "".join(f"  {line}\n" for line in [*lines, f"IdentitiesOnly {only}"])
        text = strict.client_config().replace("  IdentitiesOnly yes\n", extra)
        kept = [line for line in text.splitlines(True) if str(strict.key) not in line]
        config.write_text("".join(kept) + "  BatchMode yes\n")
        return config, {**os.environ, "SSH_AUTH_SOCK": str(agent.socket)}

    with Agent(short_path / "agent") as agent:
        config, environ = await asyncio.to_thread(prepare)
        command = ["ssh", "-F", str(config), "box", "true"]
        after, ends = strict.log.position, strict.log.count("[preauth]")
        done = await asyncio.to_thread(
            subprocess.run, command, env=environ, check=False, capture_output=True
        )
        assert done.returncode == 255, done.stderr
        strict.log.wait_for("Connection closed by authenticating", after=after)
        wanted = _offered(strict, after)
        assert len(wanted) >= 2
        assert strict.log.count("[preauth]") > ends
        after = strict.log.position
        host = replace(await find_host(config), auth_sock=str(agent.socket))
        error = await failed(host)
        assert error.reason is Reason.AUTH_FAILED
        strict.log.wait_for("onnection closed by authenticating", after=after)
        assert _offered(strict, after) == wanted


# Files that are none


@pytest.mark.parametrize("device", ["/dev/zero", "pipe", "huge"])
async def test_a_key_file_that_never_ends_is_refused_at_once(
    tmp_path: Path, device: str
) -> None:
    """AU-02, bad input: a call must neither hold up nor fill the daemon."""
    path = device
    if device == "pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
    elif device == "huge":
        path = str(tmp_path / "huge")
        with open(path, "wb") as file:  # noqa: ASYNC230, PTH123  a hole, made at once
            file.truncate(2**40)
    async with Asking(Step(password="pw")) as asking:
        config = asking.config(tmp_path)
        over = Overrides(identity_file=path)
        error = await failed(await find_host(config, "web1", over))
        assert error.reason is Reason.KEY_UNREADABLE
        assert path in error.message
        over = Overrides(options={"CertificateFile": path})
        error = await failed(await find_host(config, "web1", over))
        assert "certificate" in error.hint
    async with asyncio.timeout(30):
        seen = await asyncio.to_thread(survey.key_file, path)
    assert seen.trouble


# Servers without an end


async def _against(
    server: type[asyncssh.SSHServer], directory: Path, person: Person | None
) -> DaemonError:
    asking = Asking()
    made = await asyncssh.create_server(
        server, "127.0.0.1", 0, server_host_keys=[asking.host_key]
    )
    try:
        asking.port = made.get_port()
        return await failed(await find_host(asking.config(directory), "web1"), person)
    finally:
        made.close()
        await made.wait_closed()


class _Endless(asyncssh.SSHServer):
    """Asks on and on, or takes everything and wants more."""

    rounds = 0

    def connection_made(self, conn: SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:  # noqa: ARG002
        type(self).rounds += 1
        return "", "", "", []

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:  # noqa: ARG002
        type(self).rounds += 1
        return "", "", "", []


@pytest.mark.parametrize("attended", [False, True])
async def test_a_server_that_asks_without_end_is_left(
    tmp_path: Path, *, attended: bool
) -> None:
    """AU-13: long before the time for a login is over."""
    _Endless.rounds = 0
    error = await _against(_Endless, tmp_path, Person() if attended else None)
    assert error.reason is Reason.LOGIN_NEEDED
    assert "rounds" in error.message
    assert _Endless.rounds < 500


async def test_a_server_that_always_takes_and_wants_more_is_left(
    tmp_path: Path,
) -> None:
    """AU-13: a password at hand is not given for ever."""
    steps = [Step(password="right one") for _ in range(1000)]
    async with Asking(*steps) as asking:
        host = await find_host(asking.config(tmp_path), "web1")
        error = await failed(replace(host, password=Secret("right one")))
        assert error.ran == "no"
        assert len(asking.seen.attempts) < 50


async def test_what_a_server_says_of_methods_and_at_parting_is_cleaned(
    tmp_path: Path,
) -> None:
    """AU-13, SC-12: neither escapes nor floods, nor what a person typed."""

    class Parting(asyncssh.SSHServer):
        def connection_made(self, conn: SSHServerConnection) -> None:
            self._connection = conn

        def begin_auth(self, username: str) -> bool:  # noqa: ARG002
            return True

        def kbdint_auth_supported(self) -> bool:
            return True

        def get_kbdint_challenge(
            self,
            username: str,  # noqa: ARG002
            lang: str,  # noqa: ARG002
            submethods: str,  # noqa: ARG002
        ) -> Any:
            return "", "", "", [("Code: ", False)]

        def validate_kbdint_response(
            self,
            username: str,  # noqa: ARG002
            responses: Sequence[str],
        ) -> bool:
            said = (
                f"Too many authentication failures, {responses[0]}\x1b[2J" + 900 * "x"
            )
            raise asyncssh.DisconnectError(2, said)

    error = await _against(Parting, tmp_path, Person())
    assert error.reason is Reason.AUTH_FAILED
    text = f"{error.message} {error.hint} {error.metadata}"
    assert "Too many authentication failures" in text
    assert CODE not in text
    assert error.message.isprintable()
    assert len(error.message) < 700
    assert CODE not in str(error)


# Hosts that are shown by their purpose only


async def test_a_hidden_host_s_place_is_told_by_no_proxy_and_no_socket(
    tmp_path: Path,
) -> None:
    """HO-03, SC-12: what programs say names the place."""
    async with Asking(Step(password="pw")) as asking:
        command = "  ProxyCommand echo no way to %h port %p >&2\n"
        host = await find_host(asking.config(tmp_path, extra=command), "web1")
        assert asking.port
        told = await failed(host)
        assert "no way to 127.0.0.1" in told.message
        hidden = await failed(replace(host, show="purpose"))
    text = f"{hidden.message} {hidden.hint} {hidden.metadata}"
    assert "127.0.0.1" not in text
    assert str(asking.port) not in text


async def test_a_hidden_host_s_place_in_a_path_or_prompt_is_told_to_nobody(
    tmp_path: Path,
) -> None:
    """HO-03, SC-12: `IdentityFile …/%h`, and PAM's `Password for me@place`."""
    keygen(tmp_path / "127.0.0.1")
    rounds = (Round([("Code for me@127.0.0.1: ", False)], [CODE]),)
    async with Asking(Step(rounds=rounds)) as asking:
        extra = f"  IdentityFile {tmp_path}/%h\n"
        host = await find_host(asking.config(tmp_path, extra=extra), "web1")
        assert "127.0.0.1" in (await failed(host)).metadata["asks"]
        hidden = await failed(replace(host, show="purpose"))
        text = f"{hidden.message} {hidden.hint} {hidden.metadata}"
        assert "127.0.0.1" not in text
        assert "Code for me@web1" in text


# Odd values


async def test_an_agent_s_comment_may_be_no_text(short_path: Path) -> None:
    """NF-19: the doctor shows it all the same."""
    with Agent(short_path / "agent") as agent:
        async with asyncssh.SSHAgentClient(str(agent.socket)) as client:
            key = asyncssh.generate_private_key("ssh-ed25519", b"caf\xe9")
            await client.add_keys([key])
        nobody = Host(name="", hostname="", user="", auth_sock=str(agent.socket))
        (seen,) = await survey.agents(nobody, {}, 5.0)
    assert "caf" in seen.keys[0].comment


def test_a_certificate_may_end_in_any_year() -> None:
    """NF-19: its times are any numbers of 64 bits."""
    seen = survey.CertificateSeen("x", since=2.0**62, until=2.0**63)
    assert "1970" in seen.fault(0.0)
    assert "1970" in seen.span


def test_what_a_name_holds_is_filled_in_once_for_a_known_hosts_command() -> None:
    """AU-06: an address with a zone, `fe80::1%eth0`, is no token of later."""
    tokens = Tokens("fe80::1%eth0", "fe80::1%fast", "22", "me", "", "")
    later = frozenset("fHIKt")
    assert tokens.fill("%h", files=True, later=later) == "fe80::1%%eth0"
    assert tokens.fill("%n %H 5%%", files=True, later=later) == "fe80::1%%fast %H 5%%"
    assert tokens.fill("%h", files=True) == "fe80::1%eth0"


async def test_the_doctor_looks_at_secrets_and_tells_none(tmp_path: Path) -> None:
    """NF-19, AU-01: a file that is open to others, a variable that is not there."""
    file = tmp_path / "password"
    file.write_text(f"{CODE}\n")
    file.chmod(0o644)
    host = Host(name="web1", hostname="web1", user="me")
    host = replace(host, password_from=f"file:{file}", sudo_password_from="env:NONE")
    loose, missing = await named_secrets.secrets(host, {})
    assert (loose.verdict, missing.verdict) == ("fail", "fail")
    assert "open to others (mode 0644)" in loose.told
    assert "chmod 600" in loose.hint
    assert "env:NONE" in missing.told
    file.chmod(0o600)
    host = replace(host, sudo_password_from="", passphrase_from="keyring:x")
    good, unasked = await named_secrets.secrets(host, {})
    assert (good.verdict, unasked.verdict) == ("ok", "skip")
    assert CODE not in f"{loose}{missing}{good}{unasked}"
