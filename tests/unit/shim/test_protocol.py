"""The protocol core: messages in, replies and calls out."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_shim.protocol import HANDSHAKE, Call, Cancel, Protocol
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from holdfast_shim.protocol import Event

META = "io.modelcontextprotocol/"
STATELESS: dict[str, Any] = {
    META + "protocolVersion": "2026-07-28",
    META + "clientCapabilities": {},
}
TOOLS = [{"name": "one"}]


def fresh() -> Protocol:
    return Protocol(TOOLS, "how to use it")


def receive(protocol: Protocol, message: object) -> list[Event]:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return protocol.receive(raw)


def answer(protocol: Protocol, message: object) -> Any:
    """Return the one reply to a message."""
    (event,) = receive(protocol, message)
    assert isinstance(event, bytes)
    assert event.endswith(b"\n")
    assert event.count(b"\n") == 1
    return json.loads(event)


def ask(protocol: Protocol, method: str, ident: Any = 1, **params: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
    return answer(protocol, message)


def call_of(protocol: Protocol, ident: Any, **params: Any) -> Call:
    params = {"name": "one", **params}
    message = {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": params}
    (event,) = receive(protocol, message)
    assert isinstance(event, Call)
    return event


def shake(protocol: Protocol, wanted: str) -> Any:
    info = {"name": "editor", "version": "3"}
    return ask(protocol, "initialize", protocolVersion=wanted, clientInfo=info)


def test_the_version_told_is_the_packages() -> None:
    assert version("holdfast") == VERSION


@pytest.mark.parametrize("wanted", HANDSHAKE)
def test_each_handshake_version_is_spoken(wanted: str) -> None:
    """TR-10: protocol 2024-11-05 to 2025-11-25 by handshake."""
    assert shake(fresh(), wanted)["result"]["protocolVersion"] == wanted


@pytest.mark.parametrize("wanted", ["2026-07-28", "1999-01-01", None, 7])
def test_other_versions_get_the_newest_handshake_as_counter_offer(wanted: Any) -> None:
    """TR-10: a version that has no handshake is answered by an offer."""
    assert shake(fresh(), wanted)["result"]["protocolVersion"] == "2025-11-25"


def test_initialize_tells_server_capabilities_and_instructions() -> None:
    """TR-01: the handshake."""
    result = shake(fresh(), "2025-06-18")["result"]
    assert result["serverInfo"]["name"] == "holdfast"
    assert result["capabilities"] == {"tools": {"listChanged": True}}
    assert result["instructions"] == "how to use it"
    assert "resultType" not in result


def test_discover_tells_versions_and_how_long_that_holds() -> None:
    """TR-10: protocol 2026-07-28 without a handshake."""
    result = ask(fresh(), "server/discover", _meta=STATELESS)["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert result["resultType"] == "complete"
    assert result["ttlMs"] > 0
    assert result["cacheScope"] in ("private", "public")
    assert result["_meta"][META + "serverInfo"]["name"] == "holdfast"


def test_the_tool_list_is_plain_in_one_era_and_wrapped_in_the_other() -> None:
    """TR-10: the era is told by each request."""
    protocol = fresh()
    shake(protocol, "2025-06-18")
    assert ask(protocol, "tools/list")["result"] == {"tools": TOOLS}
    wrapped = ask(protocol, "tools/list", _meta=STATELESS)["result"]
    assert wrapped["tools"] == TOOLS
    assert wrapped["resultType"] == "complete"
    assert wrapped["cacheScope"]


def test_an_unknown_stateless_version_names_the_known_ones() -> None:
    """TR-10: -32022 with what is supported and what was asked for."""
    meta = {**STATELESS, META + "protocolVersion": "2030-01-01"}
    error = ask(fresh(), "tools/list", _meta=meta)["error"]
    assert error["code"] == -32022
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "2030-01-01"}


@pytest.mark.parametrize(
    ("method", "meta"),
    [
        ("server/discover", {}),
        ("tools/list", {META + "protocolVersion": "2026-07-28"}),
        ("tools/list", {META + "protocolVersion": 5}),
        ("tools/call", {META + "protocolVersion": "2026-07-28"}),
    ],
)
def test_a_missing_part_of_the_envelope_is_invalid_params(
    method: str, meta: dict[str, Any]
) -> None:
    """TR-10: -32602 for a missing version or missing capabilities."""
    assert ask(fresh(), method, name="one", _meta=meta)["error"]["code"] == -32602


@pytest.mark.parametrize(
    "method",
    ["resources/list", "prompts/list", "subscriptions/listen", "nonsense", ""],
)
@pytest.mark.parametrize("meta", [{}, STATELESS])
def test_what_is_not_declared_is_not_found(method: str, meta: dict[str, Any]) -> None:
    """TR-01: only tools are offered."""
    assert ask(fresh(), method, _meta=meta)["error"]["code"] == -32601


def test_ping_belongs_to_the_handshake_era_only() -> None:
    """TR-10: 2026-07-28 has neither ping nor initialize."""
    assert ask(fresh(), "ping")["result"] == {}
    for method in ("ping", "initialize"):
        error = ask(fresh(), method, _meta=STATELESS)["error"]
        assert error["code"] == -32601


def test_requests_before_initialize_are_answered() -> None:
    """TR-01: nothing here depends on the handshake, so nothing is refused for it."""
    assert ask(fresh(), "tools/list")["result"]["tools"] == TOOLS


def test_a_cursor_is_refused_because_there_is_one_page() -> None:
    assert ask(fresh(), "tools/list", cursor="x")["error"]["code"] == -32602


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"nonsense",
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping"',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","id":1,"method":"\xc3("}',
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_in_utf_8_is_a_parse_error(line: bytes) -> None:
    """Issue 2, bad input: malformed lines."""
    reply = answer(fresh(), line)
    assert reply["error"]["code"] == -32700
    assert reply["id"] is None


@pytest.mark.parametrize(
    "message",
    [
        1,
        "text",
        None,
        {},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": 5},
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1.5, "method": "ping"},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": {}, "method": "ping"},
    ],
)
def test_what_is_no_request_is_an_invalid_request(message: Any) -> None:
    """Issue 2, bad input: JSON that is no message."""
    assert answer(fresh(), message)["error"]["code"] == -32600


def test_an_overlong_line_is_an_invalid_request_without_id() -> None:
    """Issue 2, bad input: a 64 MB line."""
    (event,) = fresh().receive(None)
    assert isinstance(event, bytes)
    reply = json.loads(event)
    assert (reply["id"], reply["error"]["code"]) == (None, -32600)


@pytest.mark.parametrize("params", [[], "x", 5])
def test_params_that_are_no_object_are_invalid(params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params}
    assert answer(fresh(), message)["error"]["code"] == -32602


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "one"}},
        {"jsonrpc": "2.0", "method": "nonsense", "params": 5},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "id": 7, "result": {}},
        {"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": "x"}},
    ],
)
def test_what_wants_no_answer_gets_none(message: Any) -> None:
    """TR-01: a message without id is never answered, and runs nothing."""
    assert receive(fresh(), message) == []


@pytest.mark.parametrize("line", [b"", b"  ", b"\r"])
def test_blank_lines_are_passed_over(line: bytes) -> None:
    assert fresh().receive(line) == []


@pytest.mark.parametrize("ident", [0, -1, 2**60, "", "a", "1", "\ud800"])
def test_ids_come_back_as_they_were(ident: Any) -> None:
    assert ask(fresh(), "ping", ident)["id"] == ident


def test_an_id_under_way_is_not_run_twice() -> None:
    """NF-17: two calls under one id would leave open whose the answer is."""
    protocol = fresh()
    call = call_of(protocol, 5)
    assert ask(protocol, "ping", 5)["error"]["code"] == -32600
    assert ask(protocol, "ping", "5")["result"] == {}
    protocol.answer(call, {"content": []})
    assert ask(protocol, "ping", 5)["result"] == {}


def test_a_call_carries_name_arguments_token_and_client() -> None:
    """TR-12: the token for progress is part of the call."""
    protocol = fresh()
    shake(protocol, "2025-06-18")
    meta = {"progressToken": "t"}
    call = call_of(protocol, 5, arguments={"a": 1}, _meta=meta)
    assert (call.name, call.arguments, call.token) == ("one", {"a": 1}, "t")
    assert (call.client.name, call.client.version) == ("editor", "3")
    note = json.loads(protocol.progress(call, 2.0, "half"))
    assert note["params"] == {"progressToken": "t", "progress": 2.0, "message": "half"}
    note = json.loads(protocol.progress(call, 2.0, "half", total=4.0))
    assert note["params"]["total"] == 4.0


def test_the_client_of_a_stateless_call_is_the_one_it_names() -> None:
    protocol = fresh()
    shake(protocol, "2025-06-18")
    info = {"name": "oth\ner\ud800", "version": 7}
    call = call_of(protocol, 5, _meta={**STATELESS, META + "clientInfo": info})
    assert (call.client.name, call.client.version) == ("other", "")
    reply = json.loads(protocol.answer(call, {"content": []}))
    assert reply["result"]["resultType"] == "complete"
    assert META + "serverInfo" in reply["result"]["_meta"]


@pytest.mark.parametrize("token", [None, True, 1.5, [], {}])
def test_without_a_usable_token_there_is_no_progress(token: Any) -> None:
    protocol = fresh()
    call = call_of(protocol, 5, _meta={"progressToken": token})
    assert protocol.progress(call, 1.0, "x") == b""


def test_a_call_without_a_name_is_invalid() -> None:
    assert ask(fresh(), "tools/call", arguments={})["error"]["code"] == -32602


def test_cancelling_names_a_call_under_way_or_nothing() -> None:
    """TR-12: a cancelled call gets no reply."""
    protocol = fresh()
    call = call_of(protocol, "a")
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
    (event,) = receive(protocol, {**note, "params": {"requestId": "a"}})
    assert isinstance(event, Cancel)
    assert event.id == "a"
    assert protocol.drop(call) == b""
    others: list[Any] = ["a", "b", 1, None, [], {}]
    for gone in others:
        assert receive(protocol, {**note, "params": {"requestId": gone}}) == []


def test_a_batch_is_answered_in_one_array_when_all_is_there() -> None:
    """TR-10: 2025-03-26 has batches."""
    protocol = fresh()
    shake(protocol, "2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "one"}},
        5,
    ]
    events = [event for event in receive(protocol, batch) if event]
    (call,) = events
    assert isinstance(call, Call)
    replies = json.loads(protocol.answer(call, {"content": []}))
    assert sorted(str(reply["id"]) for reply in replies) == ["1", "2", "None"]


def test_a_batch_whose_calls_were_cancelled_is_answered_without_them() -> None:
    """TR-12: what was cancelled gets no reply, the rest does."""
    protocol = fresh()
    shake(protocol, "2024-11-05")
    one = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "one"}}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    first = next(e for e in receive(protocol, [one, ping]) if isinstance(e, Call))
    assert [reply["id"] for reply in json.loads(protocol.drop(first))] == [2]
    alone = next(e for e in receive(protocol, [one]) if isinstance(e, Call))
    assert protocol.drop(alone) == b""


@pytest.mark.parametrize("size", [0, 1001])
def test_batches_are_neither_empty_nor_endless(size: int) -> None:
    protocol = fresh()
    shake(protocol, "2025-03-26")
    assert answer(protocol, [1] * size)["error"]["code"] == -32600


@pytest.mark.parametrize("wanted", ["2025-06-18", "2025-11-25", ""])
def test_newer_protocols_have_no_batches(wanted: str) -> None:
    protocol = fresh()
    if wanted:
        shake(protocol, wanted)
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]
    assert answer(protocol, batch)["error"]["code"] == -32600
