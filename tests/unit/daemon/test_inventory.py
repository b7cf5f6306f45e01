from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.links import find_host, write
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.config import Config, Defaults, HostEntry
from holdfast_daemon.errors import InputError, Reason, StateError
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.hosts.inventory import Inventory, default_target
from holdfast_daemon.hosts.tokens import me
from holdfast_daemon.limits import Limits
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.hosts.host import Host

HOME = Path.home()
# ssh goes by this one, whatever HOME says
ACCOUNT_HOME = pwd.getpwuid(os.getuid()).pw_dir
SSH = """
Host web
    HostName web.example
    User deploy
    Port 2222
    StrictHostKeyChecking accept-new
    UserKnownHostsFile ~/web_hosts
    ConnectTimeout 4
Host bastion
    HostName bastion.example
    User jump
Host inner
    ProxyJump bastion
Host chained
    ProxyJump first@a:2201,bastion
Host circle
    ProxyJump other-circle
Host other-circle
    ProxyJump circle
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    file = tmp_path / "config"
    file.write_text(SSH)
    return file


def config(*entries: HostEntry, **fields: object) -> Config:
    hosts = {entry.name: entry for entry in entries}
    return Config(hosts=hosts, **fields)  # type: ignore[arg-type]  # named by tests


async def test_an_alias_of_ssh_config_needs_no_other_configuration(ssh: Path) -> None:
    """AU-06: ~/.ssh/config alone is enough."""
    host = await find_host(ssh, "web")
    assert host.display == "deploy@web.example:2222"
    assert host.name == "web"
    assert host.host_key_checking == "accept-new"
    assert host.connect_timeout == 4
    assert host.user_known_hosts == (f"{ACCOUNT_HOME}/web_hosts",)


async def test_the_call_wins_over_target_entry_and_ssh(ssh: Path) -> None:
    """IN-01, contract 3: per-call arguments win over every configuration."""
    own = config(HostEntry(name="web", host="web", user="entry", port=3))
    host = await find_host(ssh, "web", config=own)
    assert host.display == "entry@web.example:3"
    host = await find_host(ssh, "target@web:4", config=own)
    assert host.display == "target@web.example:4"
    host = await find_host(
        ssh,
        "target@web:4",
        Overrides(user="call", port=5, host_key_checking="no", connect_timeout=1),
        config=own,
    )
    assert host.display == "call@web.example:5"
    assert host.host_key_checking == "no"
    assert host.connect_timeout == 1


async def test_defaults_yield_to_every_configuration(ssh: Path) -> None:
    below = Overrides(default_user="fallback", default_port=99)
    assert (await find_host(ssh, "web", below)).display == "deploy@web.example:2222"
    assert (await find_host(ssh, "new", below)).display == "fallback@new:99"
    toml = config(
        defaults=Defaults(
            user="toml", port=9, connect_timeout_seconds=8, host_key_checking="no"
        )
    )
    host = await find_host(ssh, "new", config=toml)
    assert host.display == "toml@new:9"
    assert (host.connect_timeout, host.host_key_checking) == (8, "no")
    web = await find_host(ssh, "web", config=toml)
    assert (web.connect_timeout, web.host_key_checking) == (4, "accept-new")


async def test_an_entry_carries_all_that_the_inventory_can_say(ssh: Path) -> None:
    """IN-01, AU-10: key, passphrase variable, tags, pin, enabled, description."""
    entry = HostEntry(
        name="db",
        host="dba@db.example:2200",
        ssh_key_path="~/keys/db",
        ssh_key_passphrase_env="DB_PHRASE",
        tags=("prod",),
        enabled=False,
        description="the database",
        proxy_jump="bastion",
        known_hosts_file="/kh",
        host_key_checking="accept-new",
        host_key="SHA256:abc",
        show="purpose",
    )
    host = await find_host(ssh, "db", config=config(entry))
    assert host.display == "dba@db.example:2200"
    assert host.identity_files == (f"{HOME}/keys/db",)
    assert host.explicit_identity
    assert host.passphrase_env == "DB_PHRASE"
    assert host.tags == ("prod",)
    assert not host.enabled
    assert host.description == "the database"
    assert host.proxy_jump is not None
    assert host.proxy_jump.display == "jump@bastion.example"
    assert host.user_known_hosts == ("/kh",)
    assert host.guard_known_hosts == ()
    assert host.pinned_fingerprint == "SHA256:abc"
    assert host.show == "purpose"


async def test_jump_chains_are_resolved_hop_by_hop(ssh: Path) -> None:
    """AU-07: each hop by its own configuration, from the outside in."""
    inner = await find_host(ssh, "inner")
    assert hops(inner) == ["jump@bastion.example"]
    chained = await find_host(ssh, "chained")
    assert hops(chained) == ["jump@bastion.example", "first@a:2201"]
    called = await find_host(ssh, "web", Overrides(jump="x@y:7,[::1]:8"))
    assert [hop.split("@")[-1] for hop in hops(called)] == ["[::1]:8", "y:7"]
    plain = await find_host(ssh, "inner", Overrides(jump="none"))
    assert plain.proxy_jump is None


async def test_a_password_never_goes_to_a_jump_host(ssh: Path) -> None:
    secret = Overrides(password=Secret("p4ssword"), private_key=Secret("k"))
    host = await find_host(ssh, "inner", secret)
    assert host.password is not None
    assert host.proxy_jump is not None
    assert host.proxy_jump.password is None
    assert host.proxy_jump.private_key is not None
    assert "p4ssword" not in repr(host)


async def test_a_circle_of_jump_hosts_is_found(ssh: Path) -> None:
    with pytest.raises(InputError, match="circle"):
        await find_host(ssh, "circle")


@pytest.mark.parametrize("jump", ["-oProxyCommand=id", "a b", "a,,b", "a;id"])
async def test_a_bad_jump_is_refused(ssh: Path, jump: str) -> None:
    """AU-08: no option gets in as a jump host."""
    with pytest.raises(InputError) as caught:
        await find_host(ssh, "web", Overrides(jump=jump))
    assert caught.value.metadata["field"] == "connect.jump"


async def test_a_known_hosts_file_of_the_call_leaves_the_guard_in_place(
    ssh: Path,
) -> None:
    """AU-09: other known_hosts file; A5 row 26: no way round a changed key."""
    usual = await find_host(ssh, "web")
    host = await find_host(ssh, "web", Overrides(known_hosts_file="/tmp/mine"))
    assert host.user_known_hosts == ("/tmp/mine",)
    assert host.global_known_hosts == ()
    assert set(usual.user_known_hosts) <= set(host.guard_known_hosts)


async def test_a_changed_configuration_is_another_identity(ssh: Path) -> None:
    """IN-02: a host that moved gets a new connection, not the old one."""
    before = await find_host(ssh, "web")
    again = await find_host(ssh, "web")
    assert before.identity == again.identity
    write(ssh, SSH.replace("web.example", "moved.example"))
    assert (await find_host(ssh, "web")).identity != before.identity
    password = Overrides(password=Secret("one"))
    first = await find_host(ssh, "web", password)
    assert first.identity == (await find_host(ssh, "web", password)).identity
    other = await find_host(ssh, "web", Overrides(password=Secret("two")))
    assert first.identity != other.identity
    assert first.endpoint == other.endpoint


async def test_known_hosts_of_both_inventories_are_listed_once(ssh: Path) -> None:
    """IN-03: what can be named, without patterns."""
    entry = HostEntry(name="web", host="10.0.0.1", user="u", tags=("t",))
    own = config(entry)
    inventory = Inventory(lambda: own, Limits(), config_file=ssh)
    rows = await inventory.known()
    assert [row.name for row in rows] == [
        "web",
        "bastion",
        "inner",
        "chained",
        "circle",
        "other-circle",
    ]
    assert rows[0].target == "u@10.0.0.1"
    assert rows[1].target == "jump@bastion.example"
    assert rows[2].target == "inner"


def test_a_default_is_taken_only_where_there_is_exactly_one() -> None:
    """IN-11: several hosts, none selected: refused, never guessed."""
    a, b = HostEntry(name="a", host="a"), HostEntry(name="b", host="b")
    chosen = HostEntry(name="c", host="c", default=True)
    assert default_target("mine", config(a)) == "mine"
    assert default_target("", config(a, default_host="b")) == "b"
    assert default_target(None, config(a, chosen)) == "c"
    with pytest.raises(StateError) as caught:
        default_target("", config(a, b))
    assert caught.value.reason is Reason.NO_TARGET
    assert caught.value.metadata["candidates"] == "a, b"
    with pytest.raises(StateError):
        default_target("", config())


def hops(host: Host) -> list[str]:
    found: list[str] = []
    while host.proxy_jump is not None:
        host = host.proxy_jump
        found.append(host.display)
    return found


class Standing(SystemClock):
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


async def test_a_known_host_costs_one_look_at_the_files_and_no_more(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts behind others were made anew, and each of many looked for itself."""
    hops = 0
    in_thread: Callable[..., Awaitable[object]] = asyncio.to_thread

    async def count(work: Callable[..., object], *rest: object) -> object:
        nonlocal hops
        hops += 1
        return await in_thread(work, *rest)

    clock = Standing()
    own = config(HostEntry(name="here", host="web", ssh_key_path="~/key"))
    inventory = Inventory(lambda: own, Limits(), clock, config_file=ssh)
    names = ("web", "inner", "chained", "here")
    callers = [Overrides(), Overrides(default_user="u", options={"Compression": "yes"})]
    wanted = [(name, over) for name in names for over in callers]
    first = [await inventory.resolve(*one) for one in wanted]
    monkeypatch.setattr(asyncio, "to_thread", count)
    assert [await inventory.resolve(*one) for one in wanted] == first
    assert hops == 0
    clock.time += Limits().resolve_check_seconds
    again = await asyncio.gather(*(inventory.resolve(*one) for one in wanted * 5))
    assert again == first * 5
    assert hops == 1


async def test_the_user_database_and_files_are_met_in_threads_only(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow directory service or disk stopped the whole daemon at each resolve."""
    calls: list[tuple[str, bool]] = []

    def watch(owner: object, name: str) -> None:
        real: Callable[..., object] = getattr(owner, name)

        def watched(*rest: object, **named: object) -> object:
            main = threading.current_thread() is threading.main_thread()
            calls.append((name, main))
            return real(*rest, **named)

        monkeypatch.setattr(owner, name, watched)

    me.cache_clear()
    watch(pwd, "getpwuid")
    watch(pwd, "getpwnam")
    watch(socket, "gethostname")
    watch(shutil, "which")
    watch(tempfile, "NamedTemporaryFile")
    write(ssh, "Host web\n  IdentityFile ~root/key-%l\n  ProxyJump bastion\n")
    own = config(HostEntry(name="web", host="web", ssh_key_path="~root/other"))
    over = Overrides(default_user="u", known_hosts_file="~root/kh")
    inventory = Inventory(lambda: own, Limits(), config_file=ssh)
    host = await inventory.resolve("web", over)
    assert host.identity_files[0].endswith("/other")
    assert {name for name, _ in calls} == {
        "getpwuid",
        "getpwnam",
        "gethostname",
        "which",
        "NamedTemporaryFile",
    }
    assert not [name for name, main in calls if main]
    assert [name for name, _ in calls].count("getpwuid") == 1


async def test_the_account_of_a_name_is_known_once_it_was_resolved(ssh: Path) -> None:
    own = config()
    inventory = Inventory(lambda: own, Limits(), config_file=ssh)
    assert inventory.account("web") is None
    await inventory.resolve("web", Overrides(user="other"))
    assert inventory.account("web") is None
    host = await inventory.resolve("web")
    typed = await inventory.resolve("deploy@web.example:2222")
    assert inventory.account("web") == host.account == typed.account


def counting_ssh(directory: Path) -> tuple[Path, Callable[[], int]]:
    """Return an ssh that notes how often it is run, and what reads the notes."""
    binary, runs = directory / "ssh-of-mine", directory / "runs"
    write(binary, f'#!/bin/sh\necho >>{runs}\nexec ssh "$@"\n')
    binary.chmod(0o700)
    return binary, lambda: len(runs.read_text())


async def test_who_is_away_runs_nothing_while_no_file_changes(
    ssh: Path, tmp_path: Path
) -> None:
    """NF-09: for weeks each host that was away had `Match exec` run twice a minute."""
    binary, runs = counting_ssh(tmp_path)
    clock = Standing()
    own = config()
    inventory = Inventory(
        lambda: own,
        Limits(),
        clock,
        config_file=ssh,
        environ={"HOLDFAST_SSH_BIN": str(binary)},
    )
    host = await inventory.resolve("inner")
    before = runs()
    for _ in range(3):
        clock.time += 100.0
        assert await inventory.renew(host) == host
    assert runs() == before
    write(ssh, SSH.replace("Host inner\n", "Host inner\n    IdentityFile ~/new\n"))
    clock.time += 100.0
    assert (await inventory.renew(host)).identity_files == (f"{ACCOUNT_HOME}/new",)
    # upgraded just now: it is there and can't be run
    write(binary, "#!/nowhere/sh\n")
    write(ssh, SSH)
    clock.time += 100.0
    assert await inventory.renew(host) == host


async def test_who_is_asked_for_anew_keeps_the_name_that_rules_know(ssh: Path) -> None:
    """SC-01: the door takes a usual port out of it, and puts another one in."""
    own = config()
    inventory = Inventory(lambda: own, Limits(), config_file=ssh)
    for name, over, shown in (
        ("web:2222", Overrides(), "web"),
        ("web", Overrides(port=99), "web:99"),
    ):
        host = replace(await inventory.resolve(name, over), name=shown)
        assert (await inventory.renew(host)).name == shown
    found = await inventory.resolve("deploy@web.example:2222")
    asked = (await inventory.resolve("web")).asked
    assert (await inventory.renew(replace(found, asked=asked))).name == "web"
