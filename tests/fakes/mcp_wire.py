"""A raw MCP client: spawns the shim and exchanges lines with it, well-formed or not."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Self

from fakes.forked import begin
from fakes.nursery import SHIM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMIT = 64 * 1024 * 1024
PREFIX = "io.modelcontextprotocol/"
STATELESS = {
    PREFIX + "protocolVersion": "2026-07-28",
    PREFIX + "clientCapabilities": {},
    PREFIX + "clientInfo": {"name": "wire", "version": "1"},
}


class Wire:
    """One spawned shim; every wait is bounded."""

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        seconds: float = 40,
        program: Sequence[str] = (),
    ) -> None:
        self._program = program
        self._args = args
        self._env = {**os.environ, **(env or {})}
        self._seconds = seconds
        self._next = 0
        self.notes: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        if not self._program:
            self.process = await begin(SHIM, *self._args, env=self._env, limit=LIMIT)
            return self
        self.process = await asyncio.create_subprocess_exec(
            *self._program,
            *self._args,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        # Reads the pipes to their end, so that nothing is left open.
        await asyncio.wait_for(self.process.communicate(), self._seconds)

    async def send(self, message: object) -> None:
        """Send one message; bytes go as they are."""
        assert self.process.stdin is not None
        raw = isinstance(message, bytes)
        data = message if raw else json.dumps(message).encode() + b"\n"
        assert isinstance(data, bytes)
        self.process.stdin.write(data)
        await asyncio.wait_for(self.process.stdin.drain(), self._seconds)

    async def receive(self) -> Any:
        """Return the next line from the shim."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), self._seconds)
        assert line.endswith(b"\n"), f"the shim ended: {line!r}"
        return json.loads(line)

    async def start(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request and return its id."""
        self._next += 1
        message = {"jsonrpc": "2.0", "id": self._next, "method": method}
        await self.send(message if params is None else {**message, "params": params})
        return self._next

    async def reply(self, ident: int) -> dict[str, Any]:
        """Return the answer to request `ident`; notifications are kept in `notes`."""
        while True:
            message = await self.receive()
            if message.get("id") == ident:
                assert isinstance(message, dict)
                return message
            self.notes.append(message)

    async def request(
        self, method: str, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a request and return its answer."""
        return await self.reply(await self.start(method, params))

    async def call(
        self, tool: str, arguments: object = None, **params: Any
    ) -> dict[str, Any]:
        """Call a tool and return its result."""
        params = {"name": tool, "arguments": arguments, **params}
        answer = await self.request("tools/call", params)
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    async def initialize(
        self, version: str = "2025-11-25", name: str = "wire"
    ) -> dict[str, Any]:
        """Shake hands as a client of the first era; return the result."""
        answer = await self.request(
            "initialize",
            {
                "protocolVersion": version,
                "capabilities": {},
                "clientInfo": {"name": name, "version": "1"},
            },
        )
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def close_stdin(self) -> None:
        """End the shim's input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self, seconds: float = 40.0) -> int:
        """Return the exit code; it comes at once, where there is a core for it."""
        return await asyncio.wait_for(self.process.wait(), seconds)
