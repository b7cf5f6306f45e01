"""SOCKS 5 word by word, and what a forward may be asked for."""

from __future__ import annotations

import pytest

from holdfast_daemon.errors import DeniedError, InputError
from holdfast_daemon.forward import wish
from holdfast_daemon.forward.socks import Greeting, Reply, answer, reply_to
from holdfast_daemon.forward.wish import Asked, Direction

NAME = b"\x05\x01\x00\x03\x04host\x00\x50"
OPENING = b"\x05\x02\x02\x00"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_it_does_not_matter_how_words_are_cut(size: int) -> None:
    greeting = Greeting()
    said = b""
    words = OPENING + NAME
    for at in range(0, len(words), size):
        said += greeting.feed(words[at : at + size])
    assert said == b"\x05\x00"
    assert greeting.target == ("host", 80)
    assert greeting.over
    assert greeting.rest == b""


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x01\x00", ("127.0.0.1", 256)),
        (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x16", ("::1", 22)),
        (NAME, ("host", 80)),
    ],
)
def test_each_kind_of_address_and_what_follows_it(
    request_: bytes, target: tuple[str, int]
) -> None:
    greeting = Greeting()
    assert greeting.feed(OPENING + request_ + b"early") == b"\x05\x00"
    assert greeting.target == target
    assert greeting.rest == b"early"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (OPENING + b"\x05\x02" + NAME[2:], b"\x05\x00" + answer(Reply.COMMAND)),
        (OPENING + b"\x04\x01" + NAME[2:], b"\x05\x00" + answer(Reply.FAILED)),
        (OPENING + b"\x05\x01\x00\x09\x00\x00", b"\x05\x00" + answer(Reply.ADDRESS)),
        (
            OPENING + b"\x05\x01\x00\x03\x02\xff\xff\x00\x50",
            b"\x05\x00" + answer(Reply.ADDRESS),
        ),
        (
            OPENING + b"\x05\x01\x00\x03\x00\x00\x50",
            b"\x05\x00" + answer(Reply.ADDRESS),
        ),
    ],
)
def test_what_is_not_served_is_refused(words: bytes, said: bytes) -> None:
    greeting = Greeting()
    assert greeting.feed(words) == said
    assert greeting.refused
    assert greeting.target is None
    assert greeting.why


@pytest.mark.parametrize(
    ("why", "prohibited", "reply"),
    [
        ("Connection refused", False, Reply.REFUSED),
        ("Network is unreachable", False, Reply.NETWORK_UNREACHABLE),
        ("No route to host", False, Reply.HOST_UNREACHABLE),
        ("Name or service not known", False, Reply.HOST_UNREACHABLE),
        ("open failed", False, Reply.FAILED),
        ("open failed", True, Reply.NOT_ALLOWED),
    ],
)
def test_a_failure_has_its_own_reply(why: str, prohibited: bool, reply: Reply) -> None:
    assert reply_to(why, prohibited=prohibited) is reply


def test_addresses_are_written_one_way() -> None:
    for given in ("", "localhost", "127.0.0.1"):
        asked = Asked(direction=Direction.DYNAMIC, bind_address=given)
        assert str(wish.read(asked, wildcard=False).listen) == "127.0.0.1:0"
    asked = Asked(direction=Direction.DYNAMIC, bind_address="[0:0::1]", local_port=5)
    assert str(wish.read(asked, wildcard=False).listen) == "[::1]:5"


def test_every_address_only_where_that_is_allowed() -> None:
    asked = Asked(direction=Direction.DYNAMIC, bind_address="*")
    with pytest.raises(DeniedError):
        wish.read(asked, wildcard=False)
    assert wish.read(asked, wildcard=True).listen.host == "0.0.0.0"
    asked = Asked(direction=Direction.DYNAMIC, local_socket="/a\nb")
    with pytest.raises(InputError):
        wish.read(asked, wildcard=True)
