"""The protocol's own inspector against the shim."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from clients.person import SHIM
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from clients.kit import Done
    from clients.person import Person

ERAS = {"legacy": "2025-11-25", "modern": "2026-07-28"}


def inspect(person: Person, *words: str) -> Done:
    """Run the inspector's command line."""
    # It hands its child a small environment only.
    socket = f"HOLDFAST_SOCKET={person.world.socket}"
    return person.run("mcp-inspector", "--cli", SHIM, "-e", socket, "-q", *words)


def told(done: Done) -> Any:
    """Return the result of a request that must have worked."""
    assert done.code == 0, done
    return json.loads(done.out)["result"]


@pytest.mark.parametrize("era", ERAS)
def test_it_lists_the_tools(person: Person, era: str) -> None:
    """TR-01 TR-10: both eras; each tool with a title, a description and hints."""
    words = ("--protocol-era", era, "--format", "json", "--method")
    first = told(inspect(person, *words, "initialize"))
    assert first["serverInfo"]["name"] == "holdfast"
    assert first["serverInfo"]["version"] == VERSION
    assert first["protocolVersion"] == (
        "2026-07-28" if era == "modern" else "2025-11-25"
    )
    tools = told(inspect(person, *words, "tools/list"))["tools"]
    assert {"ssh_exec", "ssh_session_open", "ssh_wait"} <= {t["name"] for t in tools}
    for tool in tools:
        assert tool["description"]
        assert "readOnlyHint" in tool["annotations"]


def test_its_strict_look_at_the_schemas_finds_nothing(person: Person) -> None:
    """TR-09: exit 6 would be a schema that some client or model can't take."""
    done = inspect(person, "--method", "tools/list", "--strict")
    assert done.code == 0, done


@pytest.mark.parametrize("era", ERAS)
def test_it_calls_a_tool_on_a_real_host(person: Person, era: str) -> None:
    """TR-01."""
    words = ("--protocol-era", era, "--format", "json", "--method", "tools/call")
    arguments = json.dumps({"target": "box", "command": "echo $((6 * 7)); exit 3"})
    result = told(
        inspect(
            person, *words, "--tool-name", "ssh_exec", "--tool-args-json", arguments
        )
    )
    assert result["structuredContent"]["exit_code"] == 3
    assert "42" in result["content"][0]["text"]


def test_what_is_wrong_is_a_tool_error(person: Person) -> None:
    """TR-09: exit 5 is the inspector's word for a tool's own error."""
    words = ("--format", "json", "--method", "tools/call", "--tool-name")
    for tool, arguments in (
        ("ssh_exec", {"target": "nobody.invalid", "command": "true"}),
        ("ssh_exec", {"target": "box"}),
        ("ssh_nothing", {}),
    ):
        done = inspect(person, *words, tool, "--tool-args-json", json.dumps(arguments))
        assert done.code == 5, done
