"""`holdfast mcp-config`: what to paste or run so that a client finds the tools."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from holdfast_shim.cli import output
from holdfast_shim.cli.options import OK, json_option, options
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "holdfast-mcp"


class Snippet(NamedTuple):
    """What a client wants to be told.

    Attributes:
        place: Where the text goes, for people.
        text: What to paste or run.
    """

    place: str
    text: str


def _command(program: str, args: list[str]) -> dict[str, Any]:
    return {"command": program, "args": args}


def _json(key: str, entry: dict[str, Any]) -> str:
    return json.dumps({key: {"holdfast": entry}}, indent=2, ensure_ascii=False)


def _claude(program: str, args: list[str]) -> Snippet:
    words = [
        "claude",
        "mcp",
        "add",
        "--scope",
        "user",
        "holdfast",
        "--",
        program,
        *args,
    ]
    return Snippet("run this once", shlex.join(words))


def _claude_desktop(program: str, args: list[str]) -> Snippet:
    folder = "~/.config/Claude"
    if sys.platform == "darwin":
        folder = "~/Library/Application Support/Claude"
    text = _json("mcpServers", _command(program, args))
    return Snippet(f"merge into {folder}/claude_desktop_config.json", text)


def _codex(program: str, args: list[str]) -> Snippet:
    # Codex strips the environment: without these no ssh-agent would be found.
    # TOML's basic strings are JSON's, but for DEL, which no path should hold.
    lines = [
        "[mcp_servers.holdfast]",
        f"command = {json.dumps(program, ensure_ascii=False)}",
        f"args = {json.dumps(args, ensure_ascii=False)}",
        'env_vars = ["SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"]',
    ]
    return Snippet("add to ~/.codex/config.toml", "\n".join(lines))


def _cursor(program: str, args: list[str]) -> Snippet:
    text = _json("mcpServers", _command(program, args))
    return Snippet("merge into ~/.cursor/mcp.json", text)


def _gemini(program: str, args: list[str]) -> Snippet:
    entry = _command(program, args)
    if os.environ.get("SSH_AUTH_SOCK"):
        # Gemini passes on only what is named here, and fills in the variable itself.
        entry["env"] = {"SSH_AUTH_SOCK": "$SSH_AUTH_SOCK"}
    return Snippet("merge into ~/.gemini/settings.json", _json("mcpServers", entry))


def _copilot(program: str, args: list[str]) -> Snippet:
    entry = {"type": "local", **_command(program, args), "tools": ["*"]}
    return Snippet("merge into ~/.copilot/mcp-config.json", _json("mcpServers", entry))


def _vscode(program: str, args: list[str]) -> Snippet:
    entry = {"type": "stdio", **_command(program, args)}
    text = _json("servers", entry)
    return Snippet("merge into .vscode/mcp.json, or the user's mcp.json", text)


def _generic(program: str, args: list[str]) -> Snippet:
    text = _json("mcpServers", _command(program, args))
    return Snippet("merge into the client's MCP configuration", text)


CLIENTS: dict[str, Callable[[str, list[str]], Snippet]] = {
    "claude": _claude,
    "claude-desktop": _claude_desktop,
    "codex": _codex,
    "cursor": _cursor,
    "gemini": _gemini,
    "copilot": _copilot,
    "vscode": _vscode,
    "generic": _generic,
}


def program_path() -> str:
    """Return where holdfast-mcp lies, by the name under which a person finds us.

    A link such as ~/.local/bin/holdfast outlives the environment behind it, so links
    stay.
    """
    ours = shutil.which(sys.argv[0])
    places = [Path(ours).parent] if ours else []
    places.append(Path(sys.executable).parent)
    for place in places:
        found = place.absolute() / PROGRAM
        if os.access(found, os.X_OK):
            return str(found)
    if anywhere := shutil.which(PROGRAM):
        return str(Path(anywhere).absolute())
    raise CallError(
        "UNSUPPORTED",
        f"{PROGRAM} was not found beside {sys.argv[0]} or on PATH",
        hint="install holdfast again, then ask once more",
    )


@click.command(
    "mcp-config",
    help="Print what to paste or run so that CLIENT gets the tools.\n\n"
    f"CLIENT is one of {', '.join(CLIENTS)}.",
)
@click.argument("client", metavar="CLIENT", type=click.Choice(list(CLIENTS)))
@json_option
def mcp_config(client: str) -> int:
    """Print how a client is told of holdfast-mcp."""
    chosen = options()
    program = program_path()
    args: list[str] = []
    if chosen.socket is not None:
        args = ["--socket", str(chosen.socket.absolute())]
    snippet = CLIENTS[client](program, args)
    if chosen.json:
        told = {"client": client, "place": snippet.place, "text": snippet.text}
        output.emit(told | _command(program, args))
        return OK
    if output.interactive():
        output.note(f"for {client}, {snippet.place}:")
    print(snippet.text)
    return OK
