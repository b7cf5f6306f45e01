"""The shim behind HTTP, for a conformance suite that speaks nothing else; tests only.

Rewrites ids, so that requests of several HTTP clients share one shim, and gives each
its own notifications. Status codes are the transport's, not the shim's: the suite
looks at them, and ours are the least that lets it go on.
"""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Message = dict[str, Any]

ANSWER_SECONDS = 20.0
_LOCAL = ("127.0.0.1", "localhost")
_NO_METHOD, _UNSUPPORTED_VERSION = -32601, -32022
_PREFIX = "io.modelcontextprotocol/"


class _Waiting:
    """One request on its way, and what belongs to it."""

    def __init__(self, message: Message, own: int) -> None:
        meta: Message = (message.get("params") or {}).get("_meta") or {}
        self.theirs = message["id"]
        self.token = meta.get("progressToken")
        self.own = own
        self.come: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def wants(self, note: Message) -> bool:
        """Return whether a notification belongs to it."""
        params: Message = note.get("params") or {}
        meta: Message = params.get("_meta") or {}
        token = params.get("progressToken")
        listener = meta.get(_PREFIX + "subscriptionId")
        return (token is not None and token == self.token) or listener == self.own


class Bridge:
    """One shim and its HTTP side."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._shim = subprocess.Popen(
            list(words),
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._threads = [
            threading.Thread(target=self._pump),
            threading.Thread(target=self._server.serve_forever, args=(0.05,)),
        ]

    @property
    def url(self) -> str:
        """Where the suite finds it."""
        return f"http://127.0.0.1:{self._server.server_port}/mcp"

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the shim, then the server."""
        assert self._shim.stdin is not None
        assert self._shim.stdout is not None
        self._shim.stdin.close()
        self._shim.wait(ANSWER_SECONDS)
        self._server.shutdown()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)
        self._shim.stdout.close()
        self._server.server_close()

    def send(self, message: Message) -> None:
        """Pass a message on as it is."""
        assert self._shim.stdin is not None
        with self._lock:
            self._shim.stdin.write(json.dumps(message).encode() + b"\n")
            self._shim.stdin.flush()

    def ask(self, message: Message) -> _Waiting:
        """Pass a request on under an id of ours."""
        waiting = _Waiting(message, next(self._numbers))
        self._waiting[waiting.own] = waiting
        self.send({**message, "id": waiting.own})
        return waiting

    def forget(self, waiting: _Waiting) -> None:
        """Expect nothing more for a request."""
        self._waiting.pop(waiting.own, None)

    def _pump(self) -> None:
        assert self._shim.stdout is not None
        for line in self._shim.stdout:
            message: Message = json.loads(line)
            if "method" in message:
                for one in list(self._waiting.values()):
                    if one.wants(message):
                        one.come.put(message)
            elif waiting := self._waiting.get(message.get("id") or 0):
                waiting.come.put({**message, "id": waiting.theirs})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bridge = bridge


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(405, b"")

    def do_DELETE(self) -> None:
        self._send(405, b"")

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        bridge = self.server.bridge
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        host = self.headers.get("host", "").partition(":")[0]
        origin = self.headers.get("origin", "http://localhost").partition("://")[2]
        if host not in _LOCAL or origin.partition(":")[0] not in _LOCAL:
            self._send(403, b"")
        elif "id" not in message:
            bridge.send(message)
            self._send(202, b"")
        else:
            waiting = bridge.ask(message)
            try:
                self._answer(waiting)
            except queue.Empty:
                self.close_connection = True
            except ConnectionError:
                self.close_connection = True
            finally:
                bridge.forget(waiting)

    def _answer(self, waiting: _Waiting) -> None:
        told = waiting.come.get(timeout=ANSWER_SECONDS)
        if "method" not in told:
            code = (told.get("error") or {}).get("code", 0)
            status = {0: 200, _NO_METHOD: 404}.get(code, 400)
            self._send(status, json.dumps(told).encode())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(f"event: message\ndata: {json.dumps(told)}\n\n".encode())
            self.wfile.flush()
            if "method" not in told:
                break
            told = waiting.come.get(timeout=ANSWER_SECONDS)
        self.close_connection = True

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
