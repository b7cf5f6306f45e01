"""The lightest client there is: pipes and lines, as blocking as `ssh` is."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from fakes.world import program

if TYPE_CHECKING:
    from fakes.world import World

HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
    b'"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}\n'
    b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n'
)


class Shim:
    """One shim, and what is asked of it."""

    def __init__(self, world: World) -> None:
        """Start the shim and shake hands."""
        self._process = subprocess.Popen(
            [program("holdfast-mcp")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=world.environment,
        )
        self._pipe = (self._process.stdin, self._process.stdout)
        self._send(HELLO, 2)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, command: str) -> None:
        """Run `command` on the host and take the answer."""
        self.call("ssh_exec", target="box", command=command)

    def call(self, tool: str, **arguments: Any) -> None:
        """Call a tool that must answer."""
        params = {"name": tool, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params}
        result = self._send(json.dumps(message).encode() + b"\n", 3)["result"]
        assert not result.get("isError"), result

    def _send(self, data: bytes, ident: int) -> dict[str, Any]:
        stdin, stdout = self._pipe
        assert stdin is not None
        assert stdout is not None
        stdin.write(data)
        stdin.flush()
        while True:
            message = json.loads(stdout.readline())
            if message.get("id") == ident:
                return dict(message)

    def close(self) -> None:
        """End it."""
        for pipe in self._pipe:
            assert pipe is not None
            pipe.close()
        self._process.wait(5)
