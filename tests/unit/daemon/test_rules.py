from __future__ import annotations

import socket

import pytest

from holdfast_daemon.config import Config, HostEntry
from holdfast_daemon.errors import DeniedError, Reason
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.policy.address import canonical
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.entry import names_from
from holdfast_daemon.policy.rules import Action, Operation, check_names, decide


def host(
    name: str = "web1",
    hostname: str = "",
    user: str = "deploy",
    *,
    port: int = 22,
    enabled: bool = True,
    jump: Host | None = None,
) -> Host:
    return Host(
        name=name,
        hostname=hostname or name,
        user=user,
        port=port,
        enabled=enabled,
        proxy_jump=jump,
    )


def operation(
    action: Action = Action.EXECUTE,
    *,
    read_only: bool = False,
    allowed: tuple[str, ...] = (),
    default_port: int | None = None,
) -> Operation:
    caller = Caller("uid:1", "test", read_only=read_only, allowed_hosts=allowed)
    return Operation(
        "ExecService/Run", action, "command_execution", caller, default_port
    )


def refusal(
    operation: Operation, config: Config, host: Host | None, *disabled: Host
) -> DeniedError | None:
    try:
        decide(operation, config, host, disabled)
    except DeniedError as error:
        return error
    return None


def test_without_lists_every_host_is_allowed() -> None:
    assert refusal(operation(), Config(), host()) is None
    assert refusal(operation(), Config(), None) is None


@pytest.mark.parametrize(
    ("entry", "one", "admitted"),
    [
        ("web1", host("web1", "10.0.0.5"), True),
        ("WEB1", host("web1", "10.0.0.5"), True),
        ("web1", host("Web1"), True),
        (" web1 ", host("web1"), True),
        ("10.0.0.5", host("web1", "10.0.0.5"), True),
        ("deploy@10.0.0.5", host("web1", "10.0.0.5"), True),
        ("deploy@web1", host("web1", "10.0.0.5"), True),
        ("root@web1", host("web1", "10.0.0.5"), False),
        ("web1", host("deploy@web1", "10.0.0.5", port=2222), True),
        ("web1", host("ssh://deploy@web1", "10.0.0.5"), True),
        ("web", host("web1"), False),
        ("web1", host("web10"), False),
        ("*", host("anything", "at.all"), True),
        ("web*", host("web1"), True),
        ("web?", host("web1"), True),
        ("web?", host("web10"), False),
        ("web[1-3]", host("web2"), True),
        ("web[1-3]", host("web4"), False),
        ("web[!1-3]", host("web4"), True),
        ("*.prod.example", host("db.prod.example"), True),
        ("*.prod.example", host("db.prod.example.evil"), False),
        ("*@*.prod.example", host("db.prod.example"), True),
        ("root@*", host("web1"), False),
        ("::1", host("[::1]", "::1"), True),
        ("[::1]", host("[::1]", "::1"), True),
        ("fe80:*", host("fe80::7", "fe80::7"), True),
        ("", host("web1"), False),
    ],
)
def test_an_entry_is_a_name_or_a_true_glob(
    entry: str, one: Host, *, admitted: bool
) -> None:
    """SC-04: `*`, exact, true globs; matched with alias, address and user@address."""
    found = refusal(operation(), Config(allowed_hosts=(entry,)), one)
    assert (found is None) == admitted


@pytest.mark.parametrize(
    ("entry", "one", "admitted"),
    [
        ("web1", host("web1:2222", port=2222), False),
        ("web1", host("deploy@web1:2222", "10.0.0.5", port=2222), False),
        ("10.0.0.5", host("web1:2222", "10.0.0.5", port=2222), False),
        ("*", host("web1:2222", port=2222), False),
        ("deploy@web1", host("web1:2222", port=2222), False),
        ("web1:2222", host("web1:2222", port=2222), True),
        ("WEB1:2222", host("web1:2222", port=2222), True),
        ("web1:2222", host("web1", port=2222), True),
        ("web1:2222", host("web1"), False),
        ("web1:22", host("web1"), True),
        ("web1:*", host("web1:2222", port=2222), True),
        ("web1:22??", host("web1:2222", port=2222), True),
        ("web1:22??", host("web1"), False),
        ("web1:222[0-4]", host("web1:2222", port=2222), True),
        ("web*:2222", host("web1:2222", port=2222), True),
        ("deploy@web1:2222", host("web1:2222", port=2222), True),
        ("root@web1:2222", host("web1:2222", port=2222), False),
        ("[::1]:2222", host("[::1]:2222", "::1", port=2222), True),
        ("[::1]:2222", host("[::1]", "::1"), False),
        ("[::1]", host("[::1]:2222", "::1", port=2222), False),
        ("::1", host("[::1]:2222", "::1", port=2222), False),
        ("[fe80::*]:*", host("[fe80::7]:99", "fe80::7", port=99), True),
        ("deploy@[::1]:2222", host("[::1]:2222", "::1", port=2222), True),
        ("deploy@[::1]", host("::1"), True),
        ("[::1]x", host("::1"), False),
        ("*:2222", host("web1:2222", port=2222), True),
        ("*:2222", host("fe80::2222"), False),
        ("[wx]eb1:2222", host("web1:2222", port=2222), True),
        ("db:*", host("db:9", port=9), True),
        (":2222", host("web1:2222", port=2222), False),
    ],
)
def test_an_entry_without_a_port_admits_the_usual_one_only(
    entry: str, one: Host, *, admitted: bool
) -> None:
    """SC-01: the port was ignored, so `box` admitted what else ran on its address."""
    found = refusal(operation(), Config(allowed_hosts=(entry,)), one)
    assert (found is None) == admitted


def test_a_refused_port_is_named() -> None:
    one = host("deploy@web1:2222", port=2222)
    found = refusal(operation(), Config(allowed_hosts=("web1",)), one)
    assert found is not None
    assert found.metadata["host"] == "web1:2222"
    assert "web1:2222 is not an allowed host" in found.message


def test_the_default_port_of_a_client_widens_only_its_own_list() -> None:
    """SC-01: SSH_DEFAULT_PORT led names of the configuration's list to other ports."""
    one = host("web1:2222", port=2222)
    client = operation(allowed=("web1",), default_port=2222)
    assert refusal(client, Config(), one) is None
    assert refusal(client, Config(allowed_hosts=("web1",)), one) is not None
    assert refusal(operation(allowed=("web1",)), Config(), one) is not None
    assert refusal(client, Config(), host("web1:99", port=99)) is not None


@pytest.mark.parametrize(
    "name", ["web1@evil.example", "ssh://web1@evil.example", "web1@evil.example:22"]
)
def test_the_login_name_opens_no_host(name: str) -> None:
    """SC-01: `web*` must not admit a host only because somebody logs in as web1."""
    one = host(name, "evil.example", "web1")
    found = refusal(operation(), Config(allowed_hosts=("web*",)), one)
    assert found is not None


def test_a_refusal_names_what_is_allowed() -> None:
    """SC-01."""
    found = refusal(
        operation(), Config(allowed_hosts=("web*", "db1")), host("mail", "10.0.0.9")
    )
    assert found is not None
    assert found.reason is Reason.HOST_NOT_ALLOWED
    assert found.metadata == {"host": "mail", "allowed": "web*, db1"}
    assert "web*, db1" in found.message
    assert "config.toml" in found.hint


def test_a_client_can_only_narrow() -> None:
    """SC-01: neither list widens the other."""
    config = Config(allowed_hosts=("web*",))
    client = operation(allowed=("web1", "mail"))
    assert refusal(client, config, host("web1")) is None
    by_client = refusal(client, config, host("web2"))
    assert by_client is not None
    assert by_client.metadata["allowed"] == "web1, mail"
    assert "SSH_ALLOWED_HOSTS" in by_client.hint
    by_config = refusal(client, config, host("mail"))
    assert by_config is not None
    assert by_config.metadata["allowed"] == "web*"
    by_both = refusal(client, config, host("db1"))
    assert by_both is not None
    assert by_both.metadata["allowed"] == "web*, web1, mail"


def test_two_clients_of_one_principal_have_lists_of_their_own() -> None:
    config = Config()
    narrow = operation(allowed=("web1",))
    assert refusal(narrow, config, host("db1")) is not None
    assert refusal(operation(), config, host("db1")) is None


@pytest.mark.parametrize("action", list(Action))
def test_a_read_only_client_only_looks(action: Action) -> None:
    """SC-13."""
    found = refusal(operation(action, read_only=True), Config(), host())
    if action in {Action.INSPECT, Action.READ}:
        assert found is None
    else:
        assert found is not None
        assert found.reason is Reason.READ_ONLY
        assert found.metadata == {"action": action.value}


def test_a_disabled_host_is_refused() -> None:
    found = refusal(operation(), Config(), host(enabled=False))
    assert found is not None
    assert found.reason is Reason.HOST_DISABLED
    assert found.metadata == {"host": "web1"}


def test_a_host_that_is_not_allowed_is_not_said_to_be_disabled() -> None:
    config = Config(allowed_hosts=("db*",))
    found = refusal(operation(), config, host(enabled=False))
    assert found is not None
    assert found.reason is Reason.HOST_NOT_ALLOWED


def entries(*given: HostEntry) -> Config:
    return Config(hosts={entry.name: entry for entry in given})


OFF = HostEntry(name="off", host="10.0.0.5", enabled=False)


@pytest.mark.parametrize(
    ("one", "refused"),
    [
        (host("root@10.0.0.5", "10.0.0.5", "root"), True),
        (host("other", "10.0.0.5"), True),
        (host("other", "::ffff:10.0.0.5"), True),
        (host("other", "10.5"), True),
        (host("10.0.0.5:2222", "10.0.0.5", port=2222), False),
        (host("10.0.0.6"), False),
    ],
)
def test_a_disabled_host_is_refused_under_every_name(
    one: Host, *, refused: bool
) -> None:
    """`enabled = false` held for the alias alone: user@address still got in."""
    found = refusal(operation(), entries(OFF), one, host("off", "10.0.0.5"))
    assert (found is not None) == refused
    if found is not None:
        assert found.reason is Reason.HOST_DISABLED
        assert found.metadata == {"host": "off"}
        assert "[hosts.off]" in found.hint


@pytest.mark.parametrize(
    ("disabled", "asked"),
    [
        ("WEB1.example", "web1.example."),
        ("127.0.0.1", "localhost"),
        ("::1", "localhost"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("fe80::0007", "fe80::7"),
        ("127.0.0.1", "0.0.0.0"),
        ("localhost", "0"),
        ("localhost", "::"),
        ("localhost", "::1%lo"),
        ("10.0.0.5", "\uff11\uff10\u30020\uff0e0\uff615\u3002"),
        ("web1.example", "WEB1.\uff45XAMPLE"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("a" * 70 + "\u00fc", "A" * 70 + "\u00fc"),
    ],
)
def test_a_disabled_address_has_many_spellings(disabled: str, asked: str) -> None:
    config = entries(HostEntry(name="off", host=disabled, enabled=False))
    assert refusal(operation(), config, host(asked), host("off", disabled))


@pytest.mark.parametrize(
    "text",
    ["127.1", "2130706434", "0x7f.2", "0177.0.0.2", "10.0.258", "10.1.2.3", "0", "0x0"],
)
def test_an_address_is_read_as_the_system_reads_it(text: str) -> None:
    expected = socket.inet_ntoa(socket.inet_aton(text))
    assert canonical(text) == canonical(expected)
    # to no address in particular leads to this machine
    assert expected in {canonical(text), "127.0.0.1", "0.0.0.0"}


@pytest.mark.parametrize(
    "text", ["256.1", "1.2.3.4.5", "1.2.3.256", "4294967296", "08.1", "1..2", "a.1"]
)
def test_what_is_no_address_stays_a_name(text: str) -> None:
    with pytest.raises(OSError, match="illegal IP"):
        socket.inet_aton(text)
    assert canonical(text) == text


@pytest.mark.parametrize("form", ["root@10.0.0.5", "10.0.0.5"])
def test_a_disabled_login_leaves_the_others(form: str) -> None:
    """An entry that names a user switches off that login, not the server."""
    user = None if "@" in form else "root"
    config = entries(HostEntry(name="off", host=form, user=user, enabled=False))
    off = host("off", "10.0.0.5", "root")
    as_root = host("root@10.0.0.5", "10.0.0.5", "root")
    assert refusal(operation(), config, as_root, off) is not None
    assert refusal(operation(), config, host("10.0.0.5"), off) is None


def test_one_private_address_behind_two_jump_hosts_is_two_servers() -> None:
    off = HostEntry(name="off", host="10.0.0.5", proxy_jump="gw1", enabled=False)
    on = HostEntry(name="on", host="10.0.0.5", proxy_jump="gw2")
    config = entries(off, on)
    asked = host("off", "10.0.0.5", jump=host("gw1"))
    behind_other = host("on", "10.0.0.5", jump=host("gw2"))
    assert refusal(operation(), config, behind_other, asked) is None
    # A call that chooses the jump host itself gets no further for it.
    behind_same = host("on", "10.0.0.5", jump=host("gw1"))
    assert refusal(operation(), config, behind_same, asked) is not None
    by_address = host("10.0.0.5", jump=host("gw2"))
    assert refusal(operation(), config, by_address, asked) is not None


def test_a_host_that_is_enabled_meanwhile_is_not_compared() -> None:
    assert refusal(operation(), entries(), host("x"), host("off", "x")) is None


def test_a_disabled_host_can_be_disconnected() -> None:
    """Nothing reaches it for that, and it is what one wants after disabling it."""
    manage = operation(Action.MANAGE)
    assert refusal(manage, entries(OFF), host("off", enabled=False)) is None


@pytest.mark.parametrize(
    ("name", "shown", "entry", "admitted"),
    [
        ("web1", "deploy@10.0.0.5", "web1", True),
        ("web1", "deploy@10.0.0.5:2222", "10.0.0.5", True),
        ("web1", "deploy@10.0.0.5", "deploy@10*", True),
        ("web1", "deploy@10.0.0.5", "root@*", False),
        ("web1", "10.0.0.5", "10.0.0.*", True),
        ("web1@evil", "web1@evil", "web*", False),
        ("v6", "root@[::1]:2222", "::1", True),
        ("web1", "deploy@10.0.0.5:2222", "web1:2222", True),
        ("web1", "deploy@10.0.0.5:2222", "web1:22", False),
        ("web1:2222", "deploy@10.0.0.5:2222", "web1", False),
        ("web1:2222", "deploy@10.0.0.5:2222", "web1:*", True),
        ("web1", "CORP\\ann@10.0.0.5", "10.0.0.*", True),
        ("web1", "John Smith@10.0.0.5:2222", "10.0.0.5:2222", True),
        ("web1", "svc$@[::1]:2222", "svc$@::1", True),
        ("web1", "ann@corp@10.0.0.5", "10.0.0.5", True),
        ("web1", "ann@corp@10.0.0.5", "corp", False),
        ("odd name", "not a target", "odd name", True),
        ("odd@name x", "not a target", "*", False),
    ],
)
def test_a_host_of_the_past_is_known_by_its_names(
    name: str, shown: str, entry: str, *, admitted: bool
) -> None:
    """A job outlives its host's entry: what was kept decides who may read it."""
    config = Config(allowed_hosts=(entry,))
    names = names_from(name, shown)
    if admitted:
        check_names(Caller("uid:1"), config, names)
    else:
        with pytest.raises(DeniedError):
            check_names(Caller("uid:1"), config, names)


def test_a_caller_shows_as_name_and_version() -> None:
    assert Caller("uid:1", "codex", "1.2").label == "codex/1.2"
    assert Caller("uid:1").label == "unknown"
