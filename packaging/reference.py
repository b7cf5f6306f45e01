"""Write the reference: pages about tools and verbs, and man pages.

`reference.py` writes docs/reference; `reference.py man DIRECTORY` writes man pages.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast_shim.cli.app import root
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
_HELP_WIDTH = 88

Json = dict[str, Any]


def tools_page() -> str:
    """Return the page about the tools, from the catalogue that is shipped."""
    text = resources.files("holdfast").joinpath("catalog.json").read_text("utf-8")
    lines = [
        "# Tools",
        "",
        "What an MCP client is offered, as derived from the contract `holdfast.v1`. A",
        "failure is a result with `isError` and `{ok: false, error: {reason, message,",
        "hint, ran}}`; `ran` says whether anything may have run.",
    ]
    for entry in json.loads(text)["tools"]:
        lines += ["", *_tool(entry["tool"])]
    return "\n".join(lines) + "\n"


def _tool(tool: Json) -> Iterator[str]:
    yield f"## {tool['name']}"
    yield ""
    yield str(tool["description"])
    schema = tool["inputSchema"]
    if schema["properties"]:
        yield ""
        yield "| argument | kind | meaning |"
        yield "| --- | --- | --- |"
        for name, one in schema["properties"].items():
            star = " *" if name in schema.get("required", ()) else ""
            told = _cell(str(one.get("description", "")))
            yield f"| `{name}`{star} | {_kind(one)} | {told} |"
    if fields := tool.get("outputSchema", {}).get("properties"):
        yield ""
        yield "Result: " + ", ".join(f"`{name}`" for name in fields) + "."


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(schema['items'])}"
    bounds = [schema.get("minimum"), schema.get("maximum")]
    if None not in bounds:
        kind += f", {bounds[0]} to {bounds[1]}"
    if "default" in schema:
        kind += f", default {json.dumps(schema['default'])}"
    return kind


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def cli_page() -> str:
    """Return the page about the verbs: their own help."""
    lines = [
        "# Command line",
        "",
        "The same words as `holdfast VERB --help`.",
        "",
        "```text",
        *_help(root, None),
        "```",
    ]
    top = click.Context(root, info_name="holdfast")
    for name in root.list_commands(top):
        found = root.get_command(top, name)
        if found is None or found.hidden:
            continue
        lines += ["", f"## holdfast {name}", "", "```text", *_help(found, top, name)]
        lines.append("```")
        if isinstance(found, click.Group):
            inner = click.Context(found, parent=top, info_name=name)
            for below in found.list_commands(inner):
                one = found.get_command(inner, below)
                if one is not None and not one.hidden:
                    lines += ["", f"### holdfast {name} {below}", "", "```text"]
                    lines += [*_help(one, inner, below), "```"]
    return "\n".join(lines) + "\n"


def _help(
    command: click.Command, parent: click.Context | None, name: str = "holdfast"
) -> list[str]:
    context = click.Context(
        command,
        parent=parent,
        info_name=name,
        terminal_width=_HELP_WIDTH,
        max_content_width=_HELP_WIDTH,
    )
    return [line.rstrip() for line in command.get_help(context).splitlines()]


def write_man_pages(directory: Path) -> None:
    """Write a man page for each verb into `directory`."""
    # Only who builds the documentation has it.
    from click_man.core import write_man_pages as write  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    write(
        "holdfast",
        root,
        version=VERSION,
        target_dir=str(directory),
        date=dt.datetime.now(dt.UTC).date().isoformat(),
    )


def main() -> None:
    """Write what was asked for."""
    if sys.argv[1:2] == ["man"]:
        write_man_pages(Path(sys.argv[2]))
        return
    PAGES.mkdir(parents=True, exist_ok=True)
    (PAGES / "tools.md").write_text(tools_page(), encoding="utf-8")
    (PAGES / "cli.md").write_text(cli_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
