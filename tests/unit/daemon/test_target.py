from __future__ import annotations

import pytest

from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts.target import Target, display, parse


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("web1", Target(None, "web1", None)),
        ("deploy@web1", Target("deploy", "web1", None)),
        ("deploy@web1:2222", Target("deploy", "web1", 2222)),
        ("web1:2222", Target(None, "web1", 2222)),
        ("ssh://deploy@web1:2222", Target("deploy", "web1", 2222)),
        ("SSH://web1/", Target(None, "web1", None)),
        ("ssh://a%40b@web1", Target("a@b", "web1", None)),
        ("ssh://[fe80::1%25eth0]:22", None),
        ("ssh://[::1]:2222", Target(None, "::1", 2222)),
        ("192.0.2.1", Target(None, "192.0.2.1", None)),
        ("root@192.0.2.1:22", Target("root", "192.0.2.1", 22)),
        ("[::1]", Target(None, "::1", None)),
        ("[::1]:2222", Target(None, "::1", 2222)),
        ("root@[2001:db8::7]:65535", Target("root", "2001:db8::7", 65535)),
        ("2001:db8::7", Target(None, "2001:db8::7", None)),
        ("root@::1", Target("root", "::1", None)),
        ("fe80::1%eth0", Target(None, "fe80::1%eth0", None)),
        ("user@corp@web1", Target("user@corp", "web1", None)),
        ("büro.example", Target(None, "büro.example", None)),
    ],
)
def test_every_documented_form_is_understood(text: str, wanted: Target | None) -> None:
    """AU-15: IPv6 literals and user@host are accepted."""
    if wanted is not None:
        assert parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-oProxyCommand=id",
        "user@-oProxyCommand=id",
        "-l@host",
        "web 1",
        "web1\n",
        "web\x001",
        "web\x1b[0m",
        "web\u202e1",
        "@web1",
        "user@",
        "web1:",
        "web1:0",
        "web1:65536",
        "web1:ssh",
        "web1:-1",
        "web1:٢٢",
        "[::1",
        "[web1]",
        "[::1]x",
        "1:2:3",
        "ssh://",
        "ssh://u:secret@web1",
        "ssh://web1/path",
        "web1;id",
        "$(id)",
        "`id`",
        "a|b",
        "a'b",
        'a"b',
        "a/b",
        "a\\b",
        "x" * 2000,
        "web\ud8001",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    """EX-07: bad input is a typed error that names the field, and nothing ran."""
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.metadata["field"] == "target"
    assert caught.value.ran == "no"


def test_the_password_of_a_url_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parse("ssh://u:hunter22@web1")
    assert "hunter22" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("host", "port", "wanted"),
    [
        ("web1", 22, "root@web1"),
        ("web1", 2222, "root@web1:2222"),
        ("::1", 2222, "root@[::1]:2222"),
    ],
)
def test_a_host_is_shown_with_its_port_where_it_is_not_22(
    host: str, port: int, wanted: str
) -> None:
    assert display("root", host, port) == wanted
    assert parse(wanted).host == host
