"""The tools, read from the catalogue that was derived from the contract at build time.

Needs neither protobuf nor grpc, so that tools/list is answered without them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import holdfast

if TYPE_CHECKING:
    from typing import Any

    from holdfast_shim.arguments import Options

_PATH = f"{holdfast.__path__[0]}/catalog.json"

# The one tool that every task needs; clients that defer tools load it at once.
_ALWAYS = "ssh_exec"

# Sentences by the tools they need, most important first: some clients show only the
# first 250 characters. A leading "!" stands for "not offered".
_INSTRUCTIONS: tuple[tuple[str, str], ...] = (
    (
        "ssh_exec ssh_job_read",
        """\
Runs commands on SSH hosts; connections and running commands live in a daemon and
outlast this client: run with ssh_exec, and what takes longer goes on as a job to read
with ssh_job_read.""",
    ),
    ("!ssh_exec ssh_job_read", "Looks at SSH hosts and at commands that run on them."),
    ("ssh_hosts", "ssh_hosts lists the hosts by alias."),
    (
        "",
        """\
A target is an alias of the ssh configuration, user@host, user@host:port or an ssh://
URL.""",
    ),
    (
        "ssh_exec",
        """\
Each ssh_exec starts in a fresh shell: pass cwd and env instead of relying on an earlier
cd or export.""",
    ),
    (
        "ssh_job_read",
        """\
Long output is cut in the middle and says so; ssh_job_read pages it by offset,
tail_lines or grep.""",
    ),
    (
        "ssh_job_list",
        """\
Jobs are shared by all clients of this user; after a restart, find yours with
ssh_job_list.""",
    ),
    (
        "ssh_exec",
        """\
A failed call says in `ran` whether anything may have run: with unknown, look before
running it again.""",
    ),
)


class Catalogue:
    """All tools by name, and which of them this process offers."""

    __slots__ = ("contract", "entries", "tools", "toolsets")

    def __init__(self, options: Options, path: str = _PATH) -> None:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
            found = json.load(file)
        self.contract: str = found["contract"]
        self.entries: dict[str, dict[str, Any]] = {
            entry["tool"]["name"]: entry for entry in found["tools"]
        }
        self.toolsets = options.toolsets
        self.tools: list[dict[str, Any]] = [
            _listed(entry, options.results)
            for entry in self.entries.values()
            if entry["toolset"] in options.toolsets
            and (not options.read_only or entry["tool"]["annotations"]["readOnlyHint"])
        ]

    def instructions(self) -> str:
        """Return what a model should know of these tools, most important first."""
        names = {tool["name"] for tool in self.tools}
        return " ".join(
            sentence.replace("\n", " ")
            for needs, sentence in _INSTRUCTIONS
            if all(
                (need[0] == "!") != (need.strip("!") in names) for need in needs.split()
            )
        )


def _listed(entry: dict[str, Any], results: str) -> dict[str, Any]:
    tool: dict[str, Any] = dict(entry["tool"])
    if results != "structured":
        # models read answers without one, and each costs as much as its tool
        tool.pop("outputSchema", None)
    elif "outputSchema" in tool:
        # Clients check structuredContent of failures too, and those have other fields:
        # with `required` they would throw the error away instead of showing it.
        schema = tool["outputSchema"]
        tool["outputSchema"] = {k: v for k, v in schema.items() if k != "required"}
    if tool["name"] == _ALWAYS:
        tool["_meta"] = {**tool.get("_meta", {}), "anthropic/alwaysLoad": True}
    return tool
