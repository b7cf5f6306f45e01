"""Real Claude Code, Codex and Gemini CLI, told of holdfast by `mcp-config --write`.

The model is ours and on loopback: what it is asked and what reaches it is looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from clients.model import LAST_WORDS, PATIENCE, Call, Hold, Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients.person import Person

# What the host prints is nowhere in what the model asked for.
COMMAND = Call("ssh_exec", {"target": "box", "command": "echo the-$((6 * 7)); exit 3"})
OPEN = Call("ssh_session_open", {"target": "box", "session_name": "work"})
SET = Call("ssh_session_run", {"session": "work", "command": "kept=$((40 + 2))"})
ASK = Call("ssh_session_run", {"session": "work", "command": 'echo "kept: $kept"'})


def _claude(person: Person, model: Model) -> list[str]:
    person.more = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "none"}
    words = ["claude", "-p", "go", "--allowedTools", "mcp__holdfast"]
    return [*words, "--output-format", "stream-json", "--verbose"]


def _codex(person: Person, model: Model) -> list[str]:
    person.more = {"NO_KEY": "none"}
    provider = f'name="fake",base_url="{model.url}/v1",wire_api="responses"'
    words = ["codex", "exec", "--skip-git-repo-check", "--json"]
    words += ["-c", "model_provider=fake", "-c", 'approval_policy="never"']
    # One it does not know is offered tools as such, not as functions of a program.
    words += ["-c", "model=scripted"]
    words += ["-c", 'mcp_servers.holdfast.default_tools_approval_mode="approve"']
    words += ["-c", f'model_providers.fake={{{provider},env_key="NO_KEY"}}']
    return [*words, "go"]


def _gemini(person: Person, model: Model) -> list[str]:
    person.more = {
        "GOOGLE_GEMINI_BASE_URL": model.url,
        "GEMINI_API_KEY": "none",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
    }
    file = person.home / ".gemini" / "settings.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["security"] = {"auth": {"selectedType": "gemini-api-key"}}
    settings["privacy"] = {"usageStatisticsEnabled": False}
    file.write_text(json.dumps(settings), encoding="utf-8")
    # A model that is named needs no other one to choose it.
    words = ["gemini", "-p", "go", "-m", "gemini-2.5-flash"]
    return [*words, "--approval-mode", "yolo"]


@dataclass(frozen=True, slots=True)
class Client:
    """How one client is run against our model.

    Attributes:
        name: As `holdfast mcp-config` knows it.
        known_as: How it names itself to the shim.
    """

    name: str
    begin: Callable[[Person, Model], list[str]]
    known_as: str


CLIENTS = [
    Client("claude", _claude, "claude-code"),
    Client("codex", _codex, "codex-mcp-client"),
    Client("gemini", _gemini, "gemini-cli-mcp-client"),
]


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest, person: Person) -> Client:
    found: Client = request.param
    person.tell(found.name)
    return found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("claude", "Connected"),
        ("codex", "enabled"),
        ("gemini", "Connected"),
    ],
)
def test_it_lists_what_we_wrote(person: Person, name: str, told: str) -> None:
    """TR-08: `mcp list`; Claude Code and Gemini start the shim for it."""
    person.tell(name)
    person.more = {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    done = person.run(name, "mcp", "list")
    assert done.code == 0, done
    (line,) = (one for one in done.text.splitlines() if "holdfast-mcp" in one)
    assert "holdfast" in line
    assert str(person.world.socket) in line
    assert told in line


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("claude", "Pending approval"),
        ("codex", "enabled"),
        ("gemini", "Connected"),
    ],
)
def test_it_lists_what_a_project_says(person: Person, name: str, told: str) -> None:
    """TR-08: the project's file; Claude Code asks its person before it starts it."""
    person.tell(name, "--scope", "project")
    person.more = {"GEMINI_CLI_TRUST_WORKSPACE": "true"}
    if name == "codex":
        file = person.home / ".codex" / "config.toml"
        file.parent.mkdir()
        trust = f'[projects."{person.project}"]\ntrust_level = "trusted"\n'
        file.write_text(trust, encoding="utf-8")
    done = person.run(name, "mcp", "list")
    assert done.code == 0, done
    (line,) = (one for one in done.text.splitlines() if "holdfast-mcp" in one)
    assert told in line


def test_a_whole_turn(person: Person, client: Client) -> None:
    """TR-08 TR-01: the host's words and the exit code reach the model."""
    with Model(COMMAND) as model:
        done = person.run(*client.begin(person, model))
    assert done.code == 0, done
    assert LAST_WORDS in done.out
    (text,) = model.results
    assert "the-42" in text
    assert "3" in text
    assert any(name.endswith("ssh_exec") for name in model.tools)
    record = person.world.cli("audit", "--json").stdout.decode()
    assert client.known_as in record


def test_a_wrong_call_tells_the_model_what_to_do(
    person: Person, client: Client
) -> None:
    """TR-09."""
    with Model(Call("ssh_exec", {"target": "box", "comand": "true"})) as model:
        done = person.run(*client.begin(person, model))
    assert done.code == 0, done
    (text,) = model.results
    assert "command" in text


def test_a_client_killed_in_mid_turn_finds_its_shell_by_name(
    person: Person, client: Client
) -> None:
    """TR-08: an editor restart: killed, started again, the shell is as it was left."""
    with Model(OPEN, SET, Hold()) as model:
        with person.running(*client.begin(person, model)):
            assert model.held.wait(PATIENCE)
        assert len(model.results) == 2
    with Model(Call("ssh_session_list"), OPEN, ASK) as model:
        done = person.run(*client.begin(person, model))
    assert done.code == 0, done
    listed, opened, asked = model.results
    assert "work" in listed
    assert "work" in opened
    assert "kept: 42" in asked
