"""The MCP clients we know: which file tells them of a server, and in which shape."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "holdfast"
# Codex strips the environment: without these no ssh-agent would be found, and a daemon
# that it starts would not read the configuration of the one that others start.
_CODEX_PASSES = [
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "HOLDFAST_SOCKET",
    "HOLDFAST_CONFIG",
    "HOLDFAST_STATE_DIR",
]

Entry = dict[str, Any]


def _nothing() -> Entry:
    return {}


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Attributes:
        key: The table or object that holds the servers.
        user: The file of a person's own settings, where there is one.
        project: The same below a project's directory.
        form: How these files are read: comments are an error in plain JSON.
        kind: What an entry begins with, before command and arguments.
        more: What a new entry gets besides; an entry that is there keeps its own.
    """

    key: str
    user: Callable[[], Path] | None = None
    project: str = ""
    form: Literal["json", "commented", "toml"] = "json"
    kind: str = ""
    more: Callable[[], Entry] = _nothing

    def entry(self, program: str, args: list[str]) -> Entry:
        """Return what the client must be told, whatever else its entry holds."""
        kind = {"type": self.kind} if self.kind else {}
        return {**kind, "command": program, "args": args}

    def whole(self, program: str, args: list[str]) -> Entry:
        """Return a new entry."""
        return {**self.entry(program, args), **self.more()}


def _from(variable: str, otherwise: str, *below: str) -> Callable[[], Path]:
    """Return a finder of files below a directory that `variable` may name."""

    def find() -> Path:
        named = os.environ.get(variable)
        return Path(named or Path.home() / otherwise).joinpath(*below)

    return find


def _application(*below: str) -> Callable[[], Path]:
    """Return a finder of files where the platform keeps applications' settings."""
    if sys.platform == "darwin":
        return lambda: (Path.home() / "Library/Application Support").joinpath(*below)
    return _from("XDG_CONFIG_HOME", ".config", *below)


def _gemini_more() -> Entry:
    # Gemini passes on only what is named here, and fills in the variable itself.
    named = os.environ.get("SSH_AUTH_SOCK")
    return {"env": {"SSH_AUTH_SOCK": "$SSH_AUTH_SOCK"}} if named else {}


CLIENTS: dict[str, Client] = {
    "claude": Client(
        "mcpServers",
        _from("CLAUDE_CONFIG_DIR", "", ".claude.json"),
        ".mcp.json",
        kind="stdio",
    ),
    "claude-desktop": Client(
        "mcpServers", _application("Claude", "claude_desktop_config.json")
    ),
    "codex": Client(
        "mcp_servers",
        _from("CODEX_HOME", ".codex", "config.toml"),
        ".codex/config.toml",
        "toml",
        more=lambda: {"env_vars": list(_CODEX_PASSES)},
    ),
    "cursor": Client(
        "mcpServers", _from("", ".cursor", "mcp.json"), ".cursor/mcp.json"
    ),
    "gemini": Client(
        "mcpServers",
        _from("GEMINI_CLI_HOME", "", ".gemini", "settings.json"),
        ".gemini/settings.json",
        "commented",
        more=_gemini_more,
    ),
    "copilot": Client(
        "mcpServers",
        _from("COPILOT_HOME", ".copilot", "mcp-config.json"),
        # It reads .mcp.json too, but calls a kind "local" that Claude Code refuses.
        ".github/mcp.json",
        kind="local",
        more=lambda: {"tools": ["*"]},
    ),
    "vscode": Client(
        "servers",
        _application("Code", "User", "mcp.json"),
        ".vscode/mcp.json",
        "commented",
        kind="stdio",
    ),
    "generic": Client("mcpServers"),
}
