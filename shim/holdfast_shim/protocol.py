"""MCP as messages in and replies out, in both eras on one pipe; no input or output.

A request whose `_meta` names a protocol version belongs to the stateless era
(2026-07-28), all others to the era of the `initialize` handshake. Requests before
`initialize` are answered: nothing depends on it but the client's name. Runs in the
first stage, so it must import next to nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Event: TypeAlias = "bytes | Call | Cancel | Answer"

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
STATELESS = ("2026-07-28",)
_BATCHING = HANDSHAKE[:2]
_ELICITING = HANDSHAKE[2:]
_BATCH_LIMIT = 1000
_META = "io.modelcontextprotocol/"
_SERVER = {"name": "holdfast", "title": "holdfast", "version": VERSION}
_CAPABILITIES: dict[str, Any] = {"tools": {"listChanged": True}}
# Without a handshake a change is told only to who listens, and nobody can here.
_STATELESS_CAPABILITIES: dict[str, Any] = {"tools": {}}
# The list depends on how this process was started, and on a daemon of another release.
_CACHE = {"ttlMs": 3_600_000, "cacheScope": "private"}
_NAME_CHARS = 100

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_VERSION = -32022


class ProtocolError(Exception):
    """A request that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Client:
    """Who asks, by its own account."""

    __slots__ = ("elicits", "name", "version")

    def __init__(self, info: object = None, abilities: object = None) -> None:
        known: dict[str, Any] = info if isinstance(info, dict) else {}
        self.name = _label(known.get("name")) or "unknown"
        self.version = _label(known.get("version"))
        self.elicits = _elicits(abilities)


class Call:
    """A tools/call that waits for its result.

    Attributes:
        elicits: Its client can show a person a form.
        responses: Answers to what an earlier result of the same call asked.
        state: What that result gave along with it.
    """

    __slots__ = (
        "arguments",
        "batch",
        "client",
        "elicits",
        "id",
        "name",
        "responses",
        "state",
        "stateless",
        "token",
    )

    def __init__(
        self,
        id: int | str,  # noqa: A002 - the protocol's word
        name: str,
        arguments: object,
        *,
        client: Client,
        stateless: bool,
        token: int | str | None,
        batch: Batch | None,
        elicits: bool = False,
        responses: object = None,
        state: str | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.arguments = arguments
        self.client = client
        self.stateless = stateless
        self.token = token
        self.batch = batch
        self.elicits = elicits
        self.responses: dict[str, Any] = (
            responses if isinstance(responses, dict) else {}
        )
        self.state = state


class Answer:
    """What the client says to a request of ours; a refusal is an empty result."""

    __slots__ = ("id", "result")

    def __init__(self, id: str, result: object) -> None:  # noqa: A002 - the protocol's
        self.id = id
        self.result: dict[str, Any] = result if isinstance(result, dict) else {}


class Cancel:
    """The client no longer waits for a call; it gets no reply."""

    __slots__ = ("id",)

    def __init__(self, id: int | str) -> None:  # noqa: A002 - the protocol's word
        self.id = id


class Batch:
    """Requests that came in one array and are answered in one."""

    __slots__ = ("replies", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.replies: list[dict[str, Any]] = []


class Protocol:
    """One client's pipe."""

    __slots__ = (
        "_asked",
        "_client",
        "_instructions",
        "_open",
        "_requests",
        "_tools",
        "_version",
    )

    def __init__(self, tools: list[dict[str, Any]], instructions: str) -> None:
        self._tools = tools
        self._instructions = instructions
        self._client = Client()
        self._version = ""
        self._open: set[int | str] = set()
        self._requests = 0
        self._asked: set[str] = set()

    def receive(self, line: bytes | None) -> list[Event]:
        """Return what follows from a line: replies, calls to make, calls to cancel.

        None stands for a line that was too long to be kept.
        """
        if line is None:
            return [_failure(None, INVALID_REQUEST, "the message is over 16 MiB")]
        if not line.strip():
            return []
        try:
            message = json.loads(line.decode())
        except (ValueError, RecursionError):
            # Beside bad JSON: bad UTF-8, numbers of thousands of digits, deep nesting.
            return [_failure(None, PARSE_ERROR, "the line is not valid JSON in UTF-8")]
        if isinstance(message, list):
            return self._array(message)
        return self._message(message, None)

    def answer(self, call: Call, result: dict[str, Any]) -> bytes:
        """Return what to send when `call` has its result; empty while a batch waits."""
        self._open.discard(call.id)
        reply = _reply(call.id, result, stateless=call.stateless)
        return _send(reply, call.batch)

    def refuse(self, call: Call, error: ProtocolError) -> bytes:
        """Return what to send when `call` turns out to be no proper request."""
        self._open.discard(call.id)
        return _send(_error(call.id, error.code, error.message, error.data), call.batch)

    def ask(self, method: str, params: dict[str, Any]) -> tuple[str, bytes]:
        """Return a request of ours and its id; its `Answer` comes as an event."""
        self._requests += 1
        ident = f"holdfast-{self._requests}"
        self._asked.add(ident)
        return ident, encode(
            {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
        )

    def drop(self, call: Call) -> bytes:
        """Forget a cancelled call; return its batch if that waited only for it."""
        self._open.discard(call.id)
        return _send(None, call.batch)

    def progress(self, call: Call, far: float, text: str, total: float = 0) -> bytes:
        """Return a progress notification; empty when the client asked for none."""
        if call.token is None:
            return b""
        params = {"progressToken": call.token, "progress": far, "message": text}
        params |= {"total": total} if total > 0 else {}
        return encode(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        )

    def tools_changed(self) -> bytes:
        """Return the word that other tools are offered now; nobody in particular asked.

        The stateless era has no such word: there the list's lifetime says it.
        """
        if not self._version:
            return b""
        return encode({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})

    def _array(self, messages: list[Any]) -> list[Event]:
        if self._version not in _BATCHING:
            spoken = self._version or "before initialize"
            text = f"arrays of messages are not part of this protocol ({spoken})"
            return [_failure(None, INVALID_REQUEST, text)]
        if not 0 < len(messages) <= _BATCH_LIMIT:
            text = f"an array holds 1 to {_BATCH_LIMIT} messages"
            return [_failure(None, INVALID_REQUEST, text)]
        batch = Batch()
        batch.waiting = 1  # not complete before its last message was read
        events: list[Event] = []
        for message in messages:
            events += self._message(message, batch)
        return [*events, _send(None, batch)]

    def _message(self, message: object, batch: Batch | None) -> list[Event]:
        if batch is not None:
            batch.waiting += 1
        found: dict[str, Any] = message if isinstance(message, dict) else {}
        try:
            outcome = self._outcome(found, batch)
        except ProtocolError as error:
            ident = found.get("id")
            known = ident if _is_id(ident) else None
            outcome = _error(known, error.code, error.message, error.data)
        if isinstance(outcome, Call | Answer):
            return [outcome]
        events: list[Event] = [outcome] if isinstance(outcome, Cancel) else []
        sent = _send(outcome if isinstance(outcome, dict) else None, batch)
        return [*events, sent] if sent else events

    def _outcome(
        self, message: dict[str, Any], batch: Batch | None
    ) -> dict[str, Any] | Call | Cancel | Answer | None:
        if message.get("jsonrpc") != "2.0":
            raise ProtocolError(INVALID_REQUEST, "not a JSON-RPC 2.0 message")
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str):
            if message.keys() & {"result", "error"}:
                return self._answered(message)
            raise ProtocolError(INVALID_REQUEST, "the message has no method")
        if "id" not in message:
            return self._notified(method, params)
        ident = message["id"]
        if not _is_id(ident):
            raise ProtocolError(INVALID_REQUEST, "an id is a string or an integer")
        if ident in self._open:
            # Running both would leave it open which of them an answer belongs to.
            raise ProtocolError(
                INVALID_REQUEST, f"id {ident!r} is in use by a call under way"
            )
        return self._request(ident, method, params, batch)

    def _answered(self, message: dict[str, Any]) -> Answer | None:
        ident = message.get("id")
        if not isinstance(ident, str) or ident not in self._asked:
            return None  # an answer to nothing we asked
        self._asked.remove(ident)
        return Answer(ident, message.get("result"))

    def _notified(self, method: str, params: object) -> Cancel | None:
        if method == "notifications/cancelled" and isinstance(params, dict):
            ident = params.get("requestId")
            if _is_id(ident) and ident in self._open:
                return Cancel(ident)
        return None

    def _request(
        self, ident: int | str, method: str, given: object, batch: Batch | None
    ) -> dict[str, Any] | Call:
        if not isinstance(given, dict | None):
            raise ProtocolError(INVALID_PARAMS, "params must be an object")
        params: dict[str, Any] = given or {}
        told = params.get("_meta")
        meta: dict[str, Any] = told if isinstance(told, dict) else {}
        stateless = _META + "protocolVersion" in meta
        if stateless:
            _check_stateless(meta)
        if method == "tools/call":
            return self._call(ident, params, meta, batch, stateless=stateless)
        return _reply(
            ident, self._result(method, params, stateless), stateless=stateless
        )

    def _call(
        self,
        ident: int | str,
        params: dict[str, Any],
        meta: dict[str, Any],
        batch: Batch | None,
        *,
        stateless: bool,
    ) -> Call:
        name, token = params.get("name"), meta.get("progressToken")
        if not isinstance(name, str):
            raise ProtocolError(INVALID_PARAMS, "name must be the name of a tool")
        info = meta.get(_META + "clientInfo")
        state = params.get("requestState")
        if stateless and state is not None and not isinstance(state, str):
            raise ProtocolError(INVALID_PARAMS, "requestState must be a string")
        if stateless:
            elicits = _elicits(meta.get(_META + "clientCapabilities"))
        else:
            elicits = self._client.elicits and self._version in _ELICITING
        self._open.add(ident)
        return Call(
            ident,
            name,
            params.get("arguments"),
            client=self._client if info is None else Client(info),
            stateless=stateless,
            token=token if _is_id(token) else None,
            batch=batch,
            elicits=elicits,
            responses=params.get("inputResponses"),
            state=state if stateless else None,
        )

    def _result(
        self, method: str, params: dict[str, Any], stateless: bool
    ) -> dict[str, Any]:
        if method == "tools/list":
            if params.get("cursor") is not None:
                raise ProtocolError(INVALID_PARAMS, "unknown cursor; there is one page")
            return {"tools": self._tools, **(_CACHE if stateless else {})}
        if method == "server/discover":
            if not stateless:
                missing = f"_meta lacks {_META}protocolVersion"
                raise ProtocolError(INVALID_PARAMS, missing)
            return {
                "supportedVersions": list(STATELESS),
                "capabilities": _STATELESS_CAPABILITIES,
                "instructions": self._instructions,
                **_CACHE,
            }
        if method == "initialize" and not stateless:
            wanted = params.get("protocolVersion")
            self._version = wanted if wanted in HANDSHAKE else HANDSHAKE[-1]
            self._client = Client(params.get("clientInfo"), params.get("capabilities"))
            return {
                "protocolVersion": self._version,
                "capabilities": _CAPABILITIES,
                "serverInfo": _SERVER,
                "instructions": self._instructions,
            }
        if method == "ping" and not stateless:
            return {}
        raise ProtocolError(METHOD_NOT_FOUND, f"unknown method {method[:200]}")


def _check_stateless(meta: dict[str, Any]) -> None:
    version = meta[_META + "protocolVersion"]
    if not isinstance(version, str):
        raise ProtocolError(INVALID_PARAMS, f"{_META}protocolVersion must be a string")
    if version not in STATELESS:
        raise ProtocolError(
            UNSUPPORTED_VERSION,
            f"protocol version {version[:100]} is not spoken here",
            {"supported": list(STATELESS), "requested": version},
        )
    if not isinstance(meta.get(_META + "clientCapabilities"), dict):
        raise ProtocolError(INVALID_PARAMS, f"_meta lacks {_META}clientCapabilities")


def _reply(
    ident: int | str, result: dict[str, Any], *, stateless: bool
) -> dict[str, Any]:
    if stateless:
        meta = {**result.get("_meta", {}), _META + "serverInfo": _SERVER}
        result = {"resultType": "complete", **result, "_meta": meta}
    return {"jsonrpc": "2.0", "id": ident, "result": result}


def _error(
    ident: int | str | None, code: int, message: str, data: Any = None
) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": ident, "error": error}


def _failure(ident: int | str | None, code: int, message: str) -> bytes:
    return encode(_error(ident, code, message))


def _send(reply: dict[str, Any] | None, batch: Batch | None) -> bytes:
    if batch is None:
        return b"" if reply is None else encode(reply)
    batch.waiting -= 1
    if reply is not None:
        batch.replies.append(reply)
    if batch.waiting or not batch.replies:
        return b""
    return encode(batch.replies)


def encode(message: dict[str, Any] | list[dict[str, Any]]) -> bytes:
    """Return a message as one line."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate that the client sent, as part of an id or a name.
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _is_id(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _elicits(abilities: object) -> bool:
    """Return whether a client can show forms: without a word more it is those."""
    known: dict[str, Any] = abilities if isinstance(abilities, dict) else {}
    modes = known.get("elicitation")
    return isinstance(modes, dict) and (not modes or "form" in modes)


def _label(value: object) -> str:
    """Return what a client calls itself, fit for protobuf, logs and terminals."""
    if not isinstance(value, str):
        return ""
    return "".join(c for c in value[:_NAME_CHARS] if c.isprintable())
