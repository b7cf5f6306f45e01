from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from fakes.links import change_limits, make_limits, read, write
from fakes.watch import alive, soon
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.errors import InputError, Reason, StateError
from holdfast_daemon.hosts import fidelity, options
from holdfast_daemon.hosts.files import ConfigFiles
from holdfast_daemon.hosts.resolve import Question, Resolver
from holdfast_daemon.hosts.tokens import home
from holdfast_daemon.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.hosts.settings import Settings

CONFIG = """
Include {included}

Host web
    HostName %h1.example
    User deploy
    Port 2222
    IdentityFile ~/.ssh/id_%r_%n
    IdentityFile ${{HF_DIR}}/key
    CertificateFile %d/cert.pub
    IdentitiesOnly yes
    IdentityAgent $HF_AGENT
    UserKnownHostsFile {dir}/kh1 {dir}/kh2
    GlobalKnownHostsFile none
    StrictHostKeyChecking accept-new
    HostKeyAlias web-key
    HashKnownHosts yes
    ConnectTimeout 7
    ServerAliveInterval 9
    ServerAliveCountMax 2
    AddressFamily inet6
    BindAddress 127.0.0.1
    Compression yes
    PreferredAuthentications publickey
Host piped
    ProxyCommand nc -x 'a b' %h %p %r %%
Host jumped
    ProxyJump me@j1:2200,j2
Host none
    ProxyJump none
    ProxyCommand none
    IdentityAgent none
    IdentityFile none
    UserKnownHostsFile none
    StrictHostKeyChecking off
Host ciphered
    Ciphers aes256-ctr
    KexAlgorithms -diffie-hellman-group14-sha256
Match host matched* exec "test %h = matched1"
    User by-match
Host *.wild !no.wild
    User by-wildcard
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DIR", str(tmp_path))
    monkeypatch.setenv("HF_AGENT", str(tmp_path / "agent"))
    included = tmp_path / "included.conf"
    included.write_text("Host from-include\n    Port 77\n")
    file = tmp_path / "config"
    file.write_text(CONFIG.format(dir=tmp_path, included=included))
    return file


class Counting(Resolver):
    """Counts the questions that reach ssh."""

    runs = 0
    running: asyncio.Task[object] | None = None

    async def _run(
        self, binary: str, question: Question, config: Path | None
    ) -> dict[str, list[str]]:
        self.runs += 1
        self.running = asyncio.current_task()
        return await super()._run(binary, question, config)


class Standing(SystemClock):
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


def resolver(config: Path, **environ: str) -> Counting:
    return Counting(Limits(), SystemClock(), config_file=config, environ=environ)


async def ask(config: Path, name: str, *over: tuple[str, str]) -> Settings:
    return await resolver(config).settings(Question(name, over))


async def test_what_openssh_resolves_is_taken_over(config: Path) -> None:
    """AU-06: aliases, Include, tokens, IdentityAgent as OpenSSH reads them."""
    web = await ask(config, "web")
    directory = str(config.parent)
    assert (web.hostname, web.port, web.user) == ("web1.example", 2222, "deploy")
    assert web.identity_files == (
        f"{home()}/.ssh/id_deploy_web",
        f"{directory}/key",
    )
    assert web.certificate_files == (f"{home()}/cert.pub",)
    assert web.flag("identitiesonly")
    assert web.identity_agent == f"{directory}/agent"
    assert web.files("userknownhostsfile") == (f"{directory}/kh1", f"{directory}/kh2")
    assert web.files("globalknownhostsfile") == ()
    assert web.host_key_checking == "accept-new"
    assert web.one("hostkeyalias") == "web-key"
    assert web.connect_timeout == 7
    assert web.keepalive == (9, 2)
    assert web.address_family == "inet6"
    assert web.one("bindaddress") == "127.0.0.1"
    assert web.flag("compression")
    assert web.methods == ("publickey",)


async def test_silence_is_told_from_a_setting(config: Path) -> None:
    plain = await ask(config, "somewhere")
    assert plain.hostname == "somewhere"
    assert plain.port == 22
    assert plain.host_key_checking is None
    assert plain.connect_timeout is None
    assert plain.keepalive == (None, None)
    assert plain.methods == ()
    assert plain.algorithms.ciphers == ()
    assert plain.algorithms.key_exchange == ()
    assert plain.jump == plain.proxy_command == ""
    assert f"{home()}/.ssh/id_ed25519" in plain.identity_files


async def test_none_switches_off(config: Path) -> None:
    none = await ask(config, "none")
    assert none.jump == none.proxy_command == ""
    assert none.identity_agent == "none"
    assert none.identity_files == ()
    assert none.files("userknownhostsfile") == ()
    assert none.host_key_checking == "no"


async def test_include_match_and_wildcards_apply(config: Path) -> None:
    """AU-06: Include, Match exec, wildcards with negation."""
    assert (await ask(config, "from-include")).port == 77
    assert (await ask(config, "matched1")).user == "by-match"
    assert (await ask(config, "matched2")).user != "by-match"
    assert (await ask(config, "a.wild")).user == "by-wildcard"
    assert (await ask(config, "no.wild")).user != "by-wildcard"


async def test_proxies_keep_their_words_and_get_their_tokens(config: Path) -> None:
    """AU-07: ProxyJump and ProxyCommand from the configuration."""
    piped = await ask(config, "piped", ("User", "me"))
    assert piped.proxy_command == "nc -x 'a b' piped 22 me %"
    assert (await ask(config, "jumped")).jump == "me@j1:2200,j2"


async def test_only_changed_algorithm_lists_count(config: Path) -> None:
    ciphered = await ask(config, "ciphered")
    assert ciphered.algorithms.ciphers == ("aes256-ctr",)
    assert "diffie-hellman-group14-sha256" not in ciphered.algorithms.key_exchange
    assert ciphered.algorithms.key_exchange
    assert ciphered.algorithms.macs == ()


async def test_what_a_call_says_is_above_and_a_default_below_the_files(
    config: Path,
) -> None:
    below = (("User", "fallback"), ("Port", "99"))
    asking = resolver(config)
    over = await asking.settings(Question("web", (("User", "caller"),), below))
    assert (over.user, over.port) == ("caller", 2222)
    under = await asking.settings(Question("somewhere", (), below))
    assert (under.user, under.port) == ("fallback", 99)
    kept = await asking.settings(Question("web", (), below))
    assert (kept.user, kept.port) == ("deploy", 2222)


async def test_many_who_ask_at_once_share_one_answer(config: Path) -> None:
    asking = resolver(config)
    question = Question("web")
    answers = await asyncio.gather(*(asking.settings(question) for _ in range(20)))
    assert all(answer is answers[0] for answer in answers)
    assert asking.runs == 2  # the question, and ssh's own defaults
    await asking.settings(question)
    assert asking.runs == 2


async def test_an_edit_of_an_included_file_is_seen_at_the_next_look(
    config: Path,
) -> None:
    """IN-02, AU-06: live edits are picked up; a busy host is not looked up twice."""
    clock = Standing()
    asking = Counting(Limits(), clock, config_file=config, environ={})
    assert (await asking.settings(Question("from-include"))).port == 77
    (config.parent / "included.conf").write_text("Host from-include\n    Port 7788\n")
    assert (await asking.settings(Question("from-include"))).port == 77
    clock.time += Limits().resolve_check_seconds
    assert (await asking.settings(Question("from-include"))).port == 7788


async def test_a_changed_limit_counts_for_answers_that_are_kept_already(
    config: Path,
) -> None:
    """An answer carried the end of its time with it."""
    limits = make_limits(resolve_cache_seconds=30)
    clock = Standing()
    asking = Counting(limits, clock, config_file=config, environ={})
    first = await asking.settings(Question("web"))
    clock.time += 10
    assert await asking.settings(Question("web")) is first
    change_limits(limits, resolve_cache_seconds=5)
    assert await asking.settings(Question("web")) is not first
    change_limits(limits, resolve_cache_seconds=60)
    clock.time += 40
    assert asking.runs == 3  # the question twice, and ssh's own defaults
    await asking.settings(Question("web"))
    assert asking.runs == 3


async def test_files_of_our_own_are_removed(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = config.parent / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    below = (("User", "fallback"),)
    found = await resolver(config).settings(Question("somewhere", (), below))
    assert found.user == "fallback"
    write(config, "NoSuchOption yes\n")
    with pytest.raises(StateError):
        await resolver(config).settings(Question("somewhere", (), below))
    assert not list(place.iterdir())


async def test_aliases_are_the_concrete_names_of_every_file(config: Path) -> None:
    found = {alias.name: alias for alias in await resolver(config).aliases()}
    assert {"web", "piped", "jumped", "from-include"} <= set(found)
    assert found["web"].user == "deploy"
    assert found["web"].port == "2222"
    assert "*.wild" not in found
    assert "!no.wild" not in found


async def test_a_mistake_in_the_file_is_told_in_ssh_s_words(config: Path) -> None:
    write(config, "Host web\n    NoSuchOption yes\n")
    with pytest.raises(StateError) as caught:
        await ask(config, "web")
    assert caught.value.reason is Reason.BAD_CONFIGURATION
    assert "nosuchoption" in caught.value.message.lower()


async def test_a_bad_value_of_a_call_is_the_call_s_fault(config: Path) -> None:
    with pytest.raises(InputError) as caught:
        await ask(config, "web", ("AddressFamily", "inet7"))
    assert caught.value.metadata["field"] == "connect.options"


async def test_what_ssh_runs_ends_with_it(config: Path, tmp_path: Path) -> None:
    """AU-06: a `Match exec` that hung was waited for without end, limit or not."""
    told = tmp_path / "pid"
    write(config, f'Match exec "sleep 600 & echo $! >{told}; wait"\n  User late\n')
    asking = resolver(config)
    call = asyncio.create_task(asking.settings(Question("web")))
    await soon(lambda: told.exists() and told.read_text().strip(), "it runs")
    assert asking.running is not None
    asking.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 20)
    pid = int(told.read_text())
    await soon(lambda: not alive(pid), "it is ended", 10)


async def test_what_ssh_leaves_behind_is_not_waited_for(
    config: Path, tmp_path: Path
) -> None:
    """AU-06: ssh goes on at once beside what a `Match exec` started."""
    told = tmp_path / "pid"
    write(config, f'Match exec "sleep 600 & echo $! >{told}"\n  User beside\n')
    settings = await asyncio.wait_for(ask(config, "web"), 60)
    assert settings.user == "beside"
    pid = int(told.read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


async def test_the_binary_can_be_chosen(config: Path, tmp_path: Path) -> None:
    """AU-12: choose binaries by environment."""
    binary = tmp_path / "my-ssh"
    binary.write_text('#!/bin/sh\nprintf "hostname chosen\\nport 1\\n"\n')
    binary.chmod(0o755)
    asking = resolver(config, HOLDFAST_SSH_BIN=str(binary))
    assert (await asking.settings(Question("x"))).hostname == "chosen"
    missing = resolver(config, HOLDFAST_SSH_BIN="/no/such/ssh")
    with pytest.raises(StateError, match="HOLDFAST_SSH_BIN"):
        await missing.settings(Question("x"))


async def test_without_an_ssh_a_reader_of_our_own_resolves(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: the same answers where there is no ssh."""
    monkeypatch.setenv("PATH", str(config.parent))
    lines = read(config).splitlines(keepends=True)
    write(config, "".join(line for line in lines if "exec" not in line))
    asking = resolver(config)
    web = await asking.settings(Question("web", (), (("User", "fallback"),)))
    assert (web.hostname, web.port, web.user) == ("web1.example", 2222, "deploy")
    assert web.identity_files[1] == f"{config.parent}/key"
    assert web.files("userknownhostsfile")[0] == f"{config.parent}/kh1"
    assert web.host_key_checking == "accept-new"
    assert web.address_family == "inet6"
    over = await asking.settings(Question("web", (("User", "caller"), ("Port", "5"))))
    assert (over.user, over.port) == ("caller", 5)
    assert asking.runs == 0
    plain = await asking.settings(Question("plain"))
    assert plain.files("userknownhostsfile")[0] == f"{home()}/.ssh/known_hosts"


async def test_the_file_can_be_named_by_the_environment(config: Path) -> None:
    asking = Resolver(
        Limits(), SystemClock(), environ={"HOLDFAST_SSH_CONFIG": str(config)}
    )
    assert (await asking.settings(Question("web"))).user == "deploy"


SPELLINGS = [
    "ProxyCommand",
    "proxycommand",
    "PROXYCOMMAND",
    " ProxyCommand",
    "ProxyCommand ",
    "ProxyCommand=",
    "ProxyCommand=id",
    "ProxyCommand id",
    "\tProxyCommand",
    "-oProxyCommand",
    "-oProxyCommand=id",
    "-o ProxyCommand",
    "-o ProxyCommand=id",
    '"ProxyCommand"',
    "--oProxyCommand",
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_dangerous_option_is_refused_in_any_spelling(name: str) -> None:
    """AU-08: the refused list in any spelling."""
    with pytest.raises(InputError) as caught:
        options.check({name: "id"})
    assert caught.value.metadata["field"] == "connect.options"


@pytest.mark.parametrize("name", sorted(options.REFUSED))
def test_every_refused_option_says_why(name: str) -> None:
    """AU-08: named, with the reason."""
    with pytest.raises(InputError, match=f"the option {name.upper()} is refused"):
        options.check({name.upper(): "yes"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NoSuchThing", "1"),
        ("User\nProxyCommand", "x"),
        ("User", "a\nProxyCommand id"),
        ("User", "a\0b"),
        ("User", ""),
        ("", "x"),
        ("User", "x" * 5000),
        ("StrictHostKeyChecking", "no"),
        ("UserKnownHostsFile", "/dev/null"),
        ("HostName", "elsewhere"),
        ("HostKeyAlias", "fresh"),
    ],
)
def test_what_is_not_known_or_not_clean_is_refused(name: str, value: str) -> None:
    with pytest.raises(InputError):
        options.check({name: value})


def test_what_is_harmless_passes_under_its_own_name() -> None:
    assert options.check({"serveraliveinterval": "3", "CIPHERS": "aes256-ctr"}) == {
        "ServerAliveInterval": "3",
        "Ciphers": "aes256-ctr",
    }


async def test_the_caller_s_words_are_never_run(config: Path) -> None:
    """SC-10: argument lists, never a shell."""
    mark = config.parent / "mark"
    with pytest.raises(InputError):
        options.check({"User": f"x\n ProxyCommand touch {mark}"})
    found = await ask(config, "plain", ("BindAddress", f"$(touch>{mark})"))
    assert found.one("bindaddress").startswith("$(")
    assert not mark.exists()


async def test_a_value_with_blanks_stays_one_value(config: Path) -> None:
    found = await ask(config, "piped", ("IdentityFile", "/keys/my key"))
    assert found.identity_files[0] == "/keys/my key"


def test_a_file_that_may_be_read_again_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its mode changed, which no stamp tells."""
    config = tmp_path / "config"
    config.write_text("Host one\n")
    files = ConfigFiles(config)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        patch.setattr(type(config), "read_text", refuse)
        assert files.aliases() == []
        assert files.troubles() == [f"{config} can't be read: Permission denied"]
    assert [alias.name for alias in files.aliases()] == ["one"]
    assert files.troubles() == []


async def test_another_ssh_in_its_place_is_asked_for_its_defaults_anew(
    config: Path, tmp_path: Path
) -> None:
    """AU-06: upgraded, it tells of options no file sets: all hosts were refused."""
    binary = tmp_path / "ssh-of-mine"
    write(binary, '#!/bin/sh\nexec ssh "$@"\n')
    binary.chmod(0o700)
    clock = Standing()
    asking = Counting(
        Limits(),
        clock,
        config_file=config,
        environ={"HOLDFAST_SSH_BIN": str(binary)},
    )
    before = await asking.settings(Question("web"))
    assert "newoption" not in before.plain
    new = tmp_path / "new"
    write(new, '#!/bin/sh\nssh "$@" && echo newoption yes\n')
    new.chmod(0o700)
    new.replace(binary)
    clock.time += Limits().resolve_cache_seconds
    found = await asking.settings(Question("web"))
    assert found.raw["newoption"] == found.plain["newoption"]
    assert fidelity.check(found) == fidelity.check(before)
