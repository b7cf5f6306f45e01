"""The form of a result for each kind of client, and its size."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from fakes.tools import Tools, text, tools

if TYPE_CHECKING:
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_forms"),
]


COMMAND = "echo out; echo err >&2; exit 3"
HEADER = r"exit 3 · {target} · [\d.,]+ m?s · 2 lines · job j\w+"


@pytest.mark.parametrize(
    ("client", "results", "structured"),
    [
        ("claude-code", "auto", False),
        ("codex-mcp-client", "auto", False),
        ("cursor", "auto", True),
        ("claude-code", "structured", True),
        ("cursor", "text", False),
        ("cursor", "structured", True),
    ],
)
async def test_the_form_suits_the_client(
    shared: World, client: str, results: str, structured: bool
) -> None:
    """EX-02: clients that hide text beside structuredContent get the text alone."""
    async with tools(shared, "--results", results, client=client) as ssh:
        result = await ssh.call("ssh_exec", command=COMMAND)
        header, *rest = text(result).split("\n")
        assert re.fullmatch(HEADER.format(target="box"), header)
        assert rest == ["out", "--- stderr ---", "err"]
        assert ("structuredContent" in result) is structured
        listed = await ssh.wire.request("tools/list")
        (entry,) = [t for t in listed["result"]["tools"] if t["name"] == "ssh_exec"]
        assert ("outputSchema" in entry) is (results == "structured")


@pytest.mark.parametrize("client", ["claude-code", "cursor"])
async def test_lists_and_failures_are_structured_for_everybody(
    shared: World, client: str
) -> None:
    """EX-02: listings, and the type of a failure, are never text alone."""
    async with tools(shared, client=client) as ssh:
        listed = await ssh.told("ssh_job_list")
        assert isinstance(listed["jobs"], list)
        error = await ssh.refused("ssh_exec", command=" ")
        assert error["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("client", "limit"),
    [("github-copilot", 10_000), ("gemini-cli", 40_000), ("claude-code", 50_000)],
)
async def test_an_answer_fits_what_the_client_shows_whole(
    shared: World, client: str, limit: int
) -> None:
    """NF-12, EX-13: head and tail, counts, and the call that reads the rest."""
    async with tools(shared, "--results", "text", client=client) as ssh:
        shown = text(await ssh.call("ssh_exec", command="seq 100000"))
        assert len(shown.encode()) <= limit
        assert len(shown) > limit * 0.6
        lines = shown.splitlines()
        assert lines[1] == "1"
        assert lines[-1] == "100000"
        assert re.search(r"100,000 lines, [\d,]+ shown", lines[0])
        assert re.search(
            r"^… \[[\d,]+ lines, [\d,]+ bytes left out: ssh_job_read job_id=j\w+"
            r" stream=stdout offset=\d+\] …$",
            shown,
            re.MULTILINE,
        )


async def test_both_streams_share_one_budget(shared: World) -> None:
    """NF-12: a flood on either stream leaves room for the other."""
    async with tools(shared, client="copilot", target="box") as ssh:
        result = await ssh.run("seq 50000; seq 50000 >&2")
        assert len(result["stdout"]) + len(result["stderr"]) <= 10_000
        assert result["stdout"].startswith("1\n")
        assert result["stderr"].endswith("50000\n")
        assert len(result["stderr"]) >= 2_000


async def test_a_client_or_a_call_may_set_the_size(shared: World) -> None:
    """EX-13: SSH_MAX_OUTPUT_CHARS is honoured, and the call's own argument wins."""
    async with tools(shared, env={"SSH_MAX_OUTPUT_CHARS": "500"}) as ssh:
        small = await ssh.run("seq 10000")
        assert len(small["stdout"]) < 700
        assert small["truncated"] is True
        larger = await ssh.run("seq 10000", max_output_chars=5_000)
        assert 4_000 < len(larger["stdout"]) < 5_200
        none = await ssh.run("seq 10000", max_output_chars=0)
        assert (none["stdout"], none["truncated"]) == ("", True)
        assert none["stdout_bytes"] == 48_894


async def test_escapes_and_progress_bars_are_cleaned(ssh: Tools) -> None:
    """NF-12: colours go, a bar shows its last state, the bytes are counted as sent."""
    bar = "for i in 1 2 3; do printf '\\r%s0%%' $i; done; echo; "
    colour = "printf '\\033[31mred\\033[0m \\033]0;title\\007ok\\n'"
    result = await ssh.run(bar + colour)
    assert result["stdout"] == "30%\nred ok\n"
    assert result["stdout_bytes"] > len(result["stdout"])


async def test_binary_output_is_told_and_not_shown(ssh: Tools) -> None:
    """NF-12: no model reads a compiled program."""
    result = await ssh.run("head -c 5000 /dev/urandom")
    assert re.fullmatch(r"\[binary data, 5,?000 bytes\]\n?", result["stdout"])


async def test_odd_bytes_in_text_stay_valid_json(ssh: Tools) -> None:
    """NF-12: bytes that are no UTF-8 do no harm to the answer."""
    result = await ssh.run("printf 'a\\377b\\303\\n'")
    assert result["stdout"] == "a\ufffdb\ufffd\n"
    assert json.dumps(result)
