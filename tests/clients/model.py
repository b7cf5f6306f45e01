"""A model on loopback that does what a test's script says, in three vendors' words.

It answers each turn with the next tool call of the script, then with text. What comes
back from the tools, as the client hands it to the model, is kept: that is what a real
model would have read.
"""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAST_WORDS = "all done"
PATIENCE = 25.0

Json = dict[str, Any]
_SEARCH = "search_"


@dataclass(frozen=True, slots=True)
class Call:
    """What the model wants: one tool of holdfast's with its arguments."""

    tool: str
    arguments: Json = field(default_factory=dict[str, Any])


class Hold:
    """A model that thinks for ever: the client is killed meanwhile."""


class Model:
    """One model.

    Attributes:
        script: What is still to be asked for.
        results: The texts that reached the model, a list per turn.
        tools: Names of the tools that were offered last.
        held: Set once a client waits for `Hold`.
    """

    def __init__(self, *script: Call | Hold) -> None:
        self.script: list[Call | Hold] = list(script)
        self.results: list[str] = []
        self.tools: list[str] = []
        self.held = threading.Event()
        # Clients put together what comes under one name.
        self.numbers = itertools.count(1)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of whoever waits, and end."""
        self._over.set()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()

    def turn(self, tools: Sequence[str], results: Sequence[str]) -> Call | None:
        """Take what a client brings, and return what is wanted next."""
        with self._lock:
            self.tools = list(tools)
            self.results += results
            wanted = self.script.pop(0) if self.script else None
        if isinstance(wanted, Hold):
            self.held.set()
            self._over.wait()
            return None
        return wanted

    def full_name(self, tool: str) -> str:
        """Return the name under which a client offers `tool`."""
        found = [name for name in self.tools if name.endswith(tool)]
        assert found, f"{tool} is not among {self.tools}"
        return found[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: Model) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def model(self) -> Model:
        """Whom the server speaks for."""
        assert isinstance(self.server, _Server)
        return self.server.model

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._send(b"", "application/json")

    def do_GET(self) -> None:
        self._send(b"{}", "application/json")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(data or b"{}")
        if "count_tokens" in self.path:
            told: Json = {"input_tokens": len(data) // 4}
            self._send(json.dumps(told).encode(), "application/json")
        elif self.path.startswith("/v1/messages"):
            self._stream(_anthropic(self.model, body))
        elif self.path.startswith("/v1/responses"):
            self._stream(_openai(self.model, body))
        elif ":streamGenerateContent" in self.path:
            self._stream(("", one) for one in _gemini(self.model, body))
        elif ":generateContent" in self.path:
            told = next(_gemini(None, body))
            self._send(json.dumps(told).encode(), "application/json")
        else:
            self._send(b"{}", "application/json")

    def _stream(self, events: Iterator[tuple[str, Json]]) -> None:
        lines: list[str] = []
        for name, data in events:
            lines += [f"event: {name}"] if name else []
            lines += [f"data: {json.dumps(data)}", ""]
        self._send("\n".join([*lines, ""]).encode(), "text/event-stream")

    def _send(self, data: bytes, kind: str) -> None:
        try:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:
            self.close_connection = True


def _texts(content: object) -> str:
    """Return the text in a vendor's content: a string, or parts with text."""
    if isinstance(content, str):
        return content
    parts = cast("list[Json]", content) if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts)


def _anthropic(model: Model, body: Json) -> Iterator[tuple[str, Json]]:
    tools = [tool["name"] for tool in body.get("tools", [])]
    last = body["messages"][-1]["content"]
    results = [
        _texts(part["content"])
        for part in (last if isinstance(last, list) else [])
        if part.get("type") == "tool_result"
        and not part["tool_use_id"].startswith(_SEARCH)
    ]
    # A request without tools is for a title and the like.
    wanted = model.turn(tools, results) if tools else None
    if wanted:
        name, arguments = f"mcp__holdfast__{wanted.tool}", wanted.arguments
        ident = f"toolu_{next(model.numbers)}"
        if name not in tools:
            # It is told of most tools by name only, and must ask for them first.
            model.script.insert(0, wanted)
            ident = _SEARCH + ident
            name, arguments = "ToolSearch", {"query": f"select:{name}"}
        block = {"type": "tool_use", "id": ident, "name": name, "input": {}}
        told = json.dumps(arguments)
        delta = {"type": "input_json_delta", "partial_json": told}
        reason = "tool_use"
    else:
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": LAST_WORDS}
        reason = "end_turn"
    message: Json = {"type": "message", "role": "assistant", "content": []}
    message |= {"id": f"msg_{next(model.numbers)}"}
    message |= {"model": body.get("model"), "stop_reason": None, "stop_sequence": None}
    message |= {"usage": {"input_tokens": 10, "output_tokens": 1}}
    yield _named({"type": "message_start", "message": message})
    yield _named({"type": "content_block_start", "index": 0, "content_block": block})
    yield _named({"type": "content_block_delta", "index": 0, "delta": delta})
    yield _named({"type": "content_block_stop", "index": 0})
    end: Json = {"type": "message_delta", "usage": {"output_tokens": 5}}
    yield _named(end | {"delta": {"stop_reason": reason, "stop_sequence": None}})
    yield _named({"type": "message_stop"})


def _openai(model: Model, body: Json) -> Iterator[tuple[str, Json]]:
    tools: dict[str, str] = {}
    for tool in body.get("tools", []):
        for one in tool.get("tools", [tool]):
            tools[one.get("name", "")] = tool.get("name", "")
    items = body["input"]
    results: list[str] = []
    for item in reversed(items):
        if item.get("type") != "function_call_output":
            break
        results.insert(0, _texts(item["output"]))
    wanted = model.turn(list(tools), results)
    if wanted:
        name = model.full_name(wanted.tool)
        item = {"type": "function_call", "call_id": f"call_{len(items)}", "name": name}
        item |= {"arguments": json.dumps(wanted.arguments), "id": f"fc_{len(items)}"}
        item |= {"namespace": tools[name]}
    else:
        text = {"type": "output_text", "text": LAST_WORDS, "annotations": []}
        item = {"type": "message", "role": "assistant", "id": "m", "content": [text]}
    yield _named({"type": "response.created", "response": {"id": "r"}})
    yield _named({"type": "response.output_item.done", "output_index": 0, "item": item})
    usage: Json = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    usage |= {"input_tokens_details": None, "output_tokens_details": None}
    yield _named(
        {"type": "response.completed", "response": {"id": "r", "usage": usage}}
    )


def _gemini(model: Model | None, body: Json) -> Iterator[Json]:
    """Answer; without `model` it is the client's own small question."""
    tools = [
        one["name"]
        for tool in body.get("tools", [])
        for one in tool.get("functionDeclarations", [])
    ]
    results = [
        json.dumps(part["functionResponse"]["response"], ensure_ascii=False)
        for part in body["contents"][-1]["parts"]
        if "functionResponse" in part
    ]
    wanted = model.turn(tools, results) if model and tools else None
    part: Json = {"text": LAST_WORDS}
    if model and wanted:
        name = model.full_name(wanted.tool)
        part = {"functionCall": {"name": name, "args": wanted.arguments}}
    content = {"role": "model", "parts": [part]}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    candidate = {"content": content, "finishReason": "STOP", "index": 0}
    yield {"candidates": [candidate], "usageMetadata": usage}


def _named(event: Json) -> tuple[str, Json]:
    return event["type"], event
