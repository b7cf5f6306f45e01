"""`holdfast mcp-config`: how a client finds the tools; told, or put in place."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast_shim.cli import client_file, output
from holdfast_shim.cli.client_entry import with_entry
from holdfast_shim.cli.mcp_clients import CLIENTS, NAME
from holdfast_shim.cli.options import OK, json_option, options
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from holdfast_shim.cli.mcp_clients import Client

PROGRAM = "holdfast-mcp"


def snippet(client: Client, program: str, args: list[str]) -> str:
    """Return what to paste into the client's file."""
    entry = client.whole(program, args)
    if client.form == "toml":
        # TOML's basic strings are JSON's, but for DEL, which no path should hold.
        lines = [f"[{client.key}.{NAME}]"]
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in entry.items()
        ]
        return "\n".join(lines)
    return json.dumps({client.key: {NAME: entry}}, indent=2, ensure_ascii=False)


def _claude_command(scope: str, program: str, args: list[str]) -> str:
    words = ["claude", "mcp", "add", "--scope", scope, NAME, "--", program, *args]
    return shlex.join(words)


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


def _file(client: Client, scope: str) -> Path | None:
    if scope == "project":
        return Path(client.project).absolute() if client.project else None
    return client.user().absolute() if client.user else None


def _shown(file: Path) -> str:
    home = Path.home()
    return f"~/{file.relative_to(home)}" if file.is_relative_to(home) else str(file)


def _place(client: Client, scope: str) -> str:
    file = _file(client, scope)
    if file is None:
        return "merge into the client's MCP configuration"
    return f"{'add to' if client.form == 'toml' else 'merge into'} {_shown(file)}"


@click.command(
    "mcp-config",
    help="Print what to paste or run so that CLIENT gets the tools, or do it.\n\n"
    f"CLIENT is one of {', '.join(CLIENTS)}.",
)
@click.argument("client", metavar="CLIENT", type=click.Choice(list(CLIENTS)))
@click.option(
    "--write",
    is_flag=True,
    help="Put it into the client's file; what the file was is kept beside it.",
)
@click.option(
    "--scope",
    type=click.Choice(["user", "project"]),
    default="user",
    show_default=True,
    help="For all you do, or for the project in this directory.",
)
@json_option
def mcp_config(*, client: str, write: bool, scope: str) -> int:
    """Print how a client is told of holdfast-mcp, or tell it."""
    chosen = options()
    program = program_path()
    args: list[str] = []
    if chosen.socket is not None:
        args = ["--socket", str(chosen.socket.absolute())]
    one = CLIENTS[client]
    if scope == "project" and not one.project:
        raise _no_file(client, scope)
    if write:
        return _write(client, scope, program, args)
    text, place = snippet(one, program, args), _place(one, scope)
    if client == "claude":
        text, place = _claude_command(scope, program, args), "run this once"
    if chosen.json:
        told = {"client": client, "place": place, "text": text}
        output.emit(told | {"command": program, "args": args})
        return OK
    if output.interactive():
        output.note(f"for {client}, {place}:")
    print(text)
    return OK


def _write(client: str, scope: str, program: str, args: list[str]) -> int:
    one = CLIENTS[client]
    file = _file(one, scope)
    if file is None:
        raise _no_file(client, scope)
    done = client_file.rewrite(
        file,
        lambda text: with_entry(one, text, program, args),
        shared=scope == "project",
    )
    if options().json:
        told: dict[str, Any] = {"client": client, "file": str(done.file)}
        told |= {"changed": done.changed, "command": program, "args": args}
        output.emit(told | ({"backup": str(done.backup)} if done.backup else {}))
        return OK
    if not done.changed:
        output.say(f"{done.file} holds it already; nothing changed")
        return OK
    output.say(f"{done.file} tells {client} of holdfast now; start {client} anew")
    if done.backup:
        output.say(f"what it was: {done.backup}")
    return OK


def _no_file(client: str, scope: str) -> CallError:
    whose = "a project" if scope == "project" else "a user"
    return CallError(
        "UNSUPPORTED",
        f"{client} has no file of {whose} that holdfast knows",
        hint=f"`holdfast mcp-config {client}` prints what to paste",
    )
