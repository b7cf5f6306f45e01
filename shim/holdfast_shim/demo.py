"""`holdfast demo`: the main job, shown for real in under a minute.

A client of an AI agent is killed in the middle of a long command; the next one finds
the job and reads on. Everything runs in a private directory that is gone afterwards;
with a host of your own, its commands only print.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAYGROUND = "playground"
_ANSWER_SECONDS = 60
_STOP_SECONDS = 10
_LINES = 12
_ALL = "The daemon, the server and their files"
_LONG = (
    f"i=1; while [ $i -le {_LINES} ]; do"
    ' echo "$(date +%T) step $i of a long build"; i=$((i+1)); sleep 0.5; done;'
    " echo done"
)


class DemoError(Exception):
    """The demo could not go on; the text says why."""


class Agent:
    """A scripted MCP client: spawns the real shim and speaks JSON lines with it."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        """Start `holdfast-mcp` as a client would, and shake hands."""
        self._name = name
        self._next = 0
        self._process = subprocess.Popen(
            [_program("holdfast-mcp")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        self._request(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": name, "version": "1"},
            },
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    @property
    def pid(self) -> int:
        """Process id of the shim."""
        return self._process.pid

    def tools(self) -> list[str]:
        """Return the names of the tools it is offered."""
        return [tool["name"] for tool in self._request("tools/list", {})["tools"]]

    def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool and return the text that reaches the model."""
        result = self._request("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(part["text"] for part in result["content"])
        if result.get("isError"):
            raise DemoError(f"{tool}: {text}")
        return text

    def kill(self) -> None:
        """End the shim as a crash would."""
        self._process.kill()
        self._finish()

    def close(self) -> None:
        """End the shim by closing its input."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._finish()

    def _finish(self) -> None:
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, message: dict[str, Any]) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise DemoError("the shim has no input")
        stdin.write(json.dumps(message).encode() + b"\n")
        stdin.flush()

    def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._next += 1
        self._send(
            {"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}
        )
        stdout = self._process.stdout
        if stdout is None:
            raise DemoError("the shim has no output")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            line = stdout.readline()
            if not line:
                raise DemoError(f"the shim of {self._name} ended")
            message = json.loads(line)
            if message.get("id") != self._next:
                continue
            if "error" in message:
                raise DemoError(f"{method}: {message['error']['message']}")
            return dict(message["result"])
        raise DemoError(f"no answer to {method}")


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise DemoError(f"{name} is not installed")
    return found


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _show(text: str) -> None:
    for line in text.rstrip().splitlines():
        _say(f"    {line}")


def _playground(stack: ExitStack, directory: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "holdfast_daemon.connection.playground", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C is ours alone: what runs is ended in order.
        start_new_session=True,
    )
    stack.callback(_end, server)
    if server.stdin is None or server.stdout is None:
        raise DemoError("the throw-away server has no pipes")
    stack.callback(server.stdout.close)
    stack.callback(server.stdin.close)
    line = server.stdout.readline().decode().strip()
    if not line:
        raise DemoError("the throw-away SSH server did not start")
    _say(f"1. A throw-away SSH server is {line}, with keys of its own.")


def _end(server: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the throw-away server, whose input is closed."""
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _stop_daemon(environment: Mapping[str, str]) -> None:
    """Stop the demo's own daemon, found through its own socket."""
    status = subprocess.run(
        [_program("holdfast"), "--no-autostart", "status", "--json"],
        env=dict(environment),
        capture_output=True,
        check=False,
        timeout=_ANSWER_SECONDS,
        start_new_session=True,
    )
    if status.returncode:
        return
    pid = int(json.loads(status.stdout)["pid"])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def _job_id(text: str) -> str:
    for word in text.splitlines()[0].replace("·", " ").split():
        if word.startswith("job_id="):
            return word.removeprefix("job_id=")
    words = text.splitlines()[0].replace("·", " ").split()
    if "job" in words:
        return words[words.index("job") + 1]
    raise DemoError(f"no job in: {text}")


def _story(host: str, environment: Mapping[str, str]) -> None:
    _say("2. An agent's editor starts holdfast-mcp; nothing else runs yet.")
    first = Agent("demo-editor", environment)
    _say(f"   Its tools: {', '.join(first.tools())}")
    _say(f"3. It runs a command on {host}; the shim starts the daemon by itself:")
    _show(first.call("ssh_exec", target=host, command="uname -sr; id -un; pwd"))
    _say("4. It starts something long and waits two seconds for it:")
    text = first.call("ssh_exec", target=host, command=_LONG, wait_seconds=2)
    _show(text)
    job = _job_id(text)
    _say(f"5. The editor crashes: SIGKILL to its shim (process {first.pid}).")
    first.kill()
    _say("6. A new editor starts a new shim, and asks what there is:")
    second = Agent("demo-editor", environment)
    listing = json.loads(second.call("ssh_job_list", running_only=True))
    if not any(row["job_id"] == job for row in listing["jobs"]):
        raise DemoError(f"job {job} is gone")
    _say(f"    job {job} still runs")
    _say("7. It reads the job on until its end:")
    ended = False
    while not ended:
        text = second.call("ssh_job_read", job_id=job, wait_seconds=20)
        _show(text)
        ended = not text.startswith("running")
    second.close()
    _say("   Every line is there, and the exit code: the work never noticed.")


def main(host: str = "") -> int:
    """Show it, on the throw-away server or on `host`; returns an exit code."""
    try:
        show(host)
    except DemoError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    return 0


def show(host: str = "") -> None:
    """Show it, on the throw-away server or on `host`.

    Raises:
        DemoError: It could not go on.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        run = directory / "run"
        run.mkdir(mode=0o700)
        environment = {
            **os.environ,
            "HOLDFAST_SOCKET": str(run / "holdfast.sock"),
            "HOLDFAST_STATE_DIR": str(directory / "state"),
            "HOLDFAST_CONFIG": str(directory / "config.toml"),
        }
        if host:
            _say(f"1. Your own host {host} is used, through your own ssh setup.")
        else:
            _playground(stack, directory)
            environment["HOLDFAST_SSH_CONFIG"] = str(directory / "ssh_config")
        stack.callback(_stop_daemon, environment)
        _story(host or _PLAYGROUND, environment)
    shim = shlex.quote(_program("holdfast-mcp"))
    gone = "The demo's daemon and its files" if host else _ALL
    _say()
    _say(f"{gone} are gone again. To use holdfast:")
    _say(f"    claude mcp add --scope user holdfast -- {shim}")
    _say(f"    codex mcp add holdfast -- {shim}")
    _say(f"    {_typed('holdfast')} mcp-config CLIENT")
    _say("        CLIENT: claude-desktop, cursor, gemini, copilot, vscode or generic")


def _typed(name: str) -> str:
    """Return what a person types for one of our commands."""
    path = _program(name)
    found = shutil.which(name)
    if found and Path(found).resolve() == Path(path).resolve():
        return name
    return shlex.quote(path)
