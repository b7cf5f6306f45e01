"""The real Codex as editors run it: `codex app-server`, which calls tools by itself.

No model takes part: a tool is called by a request of its own, without any login.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import pytest

from clients.kit import kill

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clients.person import Person

SERVER = "holdfast"
# It is asked of things that are not for everybody yet.
HELLO = {
    "clientInfo": {"name": "editor", "title": "Editor", "version": "1"},
    "capabilities": {"experimentalApi": True},
}


class AppServer:
    """One that runs: requests and answers are JSON, a line each."""

    def __init__(self, process: subprocess.Popen[str], cwd: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout
        self._numbers = itertools.count(1)
        self.ask("initialize", HELLO)
        self._send({"method": "initialized"})
        self._thread = self.ask("thread/start", {"cwd": cwd})["thread"]["id"]

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request; what it tells meanwhile is passed over."""
        number = self.start(method, params)
        for line in self._out:
            message = json.loads(line)
            if message.get("id") == number and "method" not in message:
                result: dict[str, Any] = message["result"]
                return result
        code = self.process.wait()
        pytest.fail(f"codex app-server ended with {code} before it answered {method}")

    def start(self, method: str, params: dict[str, Any]) -> int:
        """Send a request, and return its number."""
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": params})
        return number

    def call(self, tool: str, **arguments: object) -> str:
        """Return what a tool says, as its model would read it."""
        result = self.ask("mcpServer/tool/call", self._words(tool, arguments))
        assert not result.get("isError"), result
        text: str = result["content"][0]["text"]
        return text

    def refused(self, tool: str, **arguments: object) -> str:
        """Return what a tool says that must fail."""
        result = self.ask("mcpServer/tool/call", self._words(tool, arguments))
        assert result["isError"], result
        text: str = result["content"][0]["text"]
        return text

    def begin(self, tool: str, **arguments: object) -> None:
        """Call a tool, and wait for nothing."""
        self.start("mcpServer/tool/call", self._words(tool, arguments))

    def _words(self, tool: str, arguments: dict[str, object]) -> dict[str, object]:
        named = {"threadId": self._thread, "server": SERVER}
        return {**named, "tool": tool, "arguments": arguments}

    def _send(self, message: dict[str, Any]) -> None:
        self._in.write(json.dumps(message) + "\n")
        self._in.flush()


@contextmanager
def app_server(person: Person) -> Generator[AppServer]:
    """Start one that knows holdfast by what `mcp-config --write` wrote."""
    words = ("codex", "app-server")
    with person.running(*words, stdin=subprocess.PIPE) as process:
        yield AppServer(process, str(person.project))


@pytest.fixture(autouse=True)
def _told(person: Person) -> None:
    person.tell("codex")


def test_it_starts_the_shim_and_lists_its_tools(person: Person) -> None:
    """TR-08."""
    with app_server(person) as codex:
        (server,) = codex.ask("mcpServerStatus/list", {})["data"]
    assert server["serverInfo"]["name"] == "holdfast"
    assert {"ssh_exec", "ssh_session_open", "ssh_wait"} <= server["tools"].keys()


def test_it_calls_a_tool_on_a_real_host(person: Person) -> None:
    """TR-08 TR-01: the host's words and its exit code, as the editor gets them."""
    with app_server(person) as codex:
        told = codex.call("ssh_exec", target="box", command="echo $((6 * 7)); exit 3")
    first, words = told.split("\n")
    assert first.startswith("exit 3 · box")
    assert words == "42"
    assert "codex-mcp-client" in person.world.cli("audit", "--json").stdout.decode()


def test_a_wrong_call_is_an_error_that_says_what_to_do(person: Person) -> None:
    """TR-09."""
    with app_server(person) as codex:
        told = codex.refused("ssh_exec", target="box", comand="true")
    assert "comand" in told
    assert "command" in told


def test_killed_in_mid_call_and_started_again_it_finds_all(
    person: Person, tmp_path: Path
) -> None:
    """TR-08: an editor restart: the shell is as it was left, the command goes on."""
    begun, rest = tmp_path / "begun", tmp_path / "rest"
    os.mkfifo(begun)
    os.mkfifo(rest)
    with app_server(person) as codex:
        codex.call("ssh_session_open", target="box", session_name="work")
        codex.call("ssh_session_run", session="work", command="kept=$((40 + 2))")
        command = f"echo yes >{begun}; cat {rest}"
        codex.begin("ssh_exec", target="box", command=command)
        assert begun.read_text() == "yes\n"
        kill(codex.process)
    with app_server(person) as codex:
        opened = codex.call("ssh_session_open", target="box", session_name="work")
        asked = codex.call("ssh_session_run", session="work", command="echo $kept")
        (job,) = json.loads(codex.call("ssh_job_list", running_only=True))["jobs"]
        rest.write_text("late\n")
        codex.call("ssh_wait", any_of=[{"job_id": job["job_id"]}])
        read = codex.call("ssh_job_read", job_id=job["job_id"])
    assert "was open already" in opened
    assert asked.endswith("\n42")
    assert read.startswith("exit 0 · box")
    assert read.endswith("\nlate")
