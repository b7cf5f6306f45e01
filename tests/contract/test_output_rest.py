"""Large output: what an answer leaves out, and how to get it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.tools import QUICK, Tools, served, tools

if TYPE_CHECKING:
    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("output_rest"),
]


def memory(pid: int) -> int:
    """Return the bytes of memory a process holds."""
    held = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return held * os.sysconf("SC_PAGE_SIZE")


async def pages(
    ssh: Tools, job_id: str, field: str = "stdout", **arguments: Any
) -> str:
    """Read a job page by page to its end; returns what one stream held."""
    found = ""
    while True:
        part = await ssh.read(job_id, **arguments)
        found += str(part[field])
        if not part["truncated"]:
            return found
        assert part["next_offset"] > arguments.get("offset", -1)
        arguments["offset"] = part["next_offset"]


CALL = re.compile(
    r"… \[(.*) left out: ssh_job_read job_id=(\w+) stream=(\w+) offset=(\d+)\] …\n"
)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "command",
    ["seq 5000", "seq 5000 | tr '\\n' ' '", "seq 500", "yes é | head -n 9000"],
)
async def test_the_call_in_the_notice_reads_the_rest(
    ssh: Tools, stream: str, command: str
) -> None:
    """NF-12, EX-13, EX-14: head and tail with counts, and nothing is lost between."""
    plain = f"{{ {command}; echo; }}"
    printed = (await ssh.run(plain, max_output_chars=1_000_000))["stdout"]
    redirect = " >&2" if stream == "stderr" else ""
    result = await ssh.run(plain + redirect, max_output_chars=1_000)
    assert result["truncated"] is True
    shown = result[stream]
    notice = CALL.search(shown)
    assert notice is not None
    head, tail = shown[: notice.start()], shown[notice.end() :]
    assert notice[2] == result["job_id"]
    assert notice[3] == stream
    assert printed.endswith(tail)
    # A head cut in mid-line gets a line end so that the notice stands by itself.
    if not printed.startswith(head):
        head = head.removesuffix("\n")
    assert printed.startswith(head)
    lines = re.match(r"(?:([\d,]+) lines?, )?([\d,]+) bytes", notice[1])
    assert lines is not None
    omitted = int(lines[2].replace(",", ""))
    assert omitted == len(printed.encode()) - len((head + tail).encode())
    rest = await pages(ssh, notice[2], stream, stream=stream, offset=int(notice[4]))
    assert head + rest == printed


async def test_pages_follow_each_other_without_a_gap(ssh: Tools) -> None:
    """EX-14: by offset, both streams, and by this client's own position."""
    command = "for i in $(seq 300); do echo out $i; echo err $i >&2; done"
    job = str((await ssh.run(command))["job_id"])
    out = "".join(f"out {n}\n" for n in range(1, 301))
    err = "".join(f"err {n}\n" for n in range(1, 301))
    assert await pages(ssh, job, offset=0, max_output_chars=500) == out
    assert await pages(ssh, job, "stderr", offset=0, max_output_chars=500) == err
    alone = await pages(
        ssh, job, "stderr", stream="stderr", offset=0, max_output_chars=97
    )
    assert alone == err


async def test_pages_never_break_a_character(ssh: Tools) -> None:
    """EX-14: a line longer than a page is cut between characters."""
    job = str((await ssh.run("printf 'é漢%.0s' $(seq 500)"))["job_id"])
    for given in ({}, {"stream": "stdout"}):
        found = await pages(ssh, job, offset=0, max_output_chars=101, **given)
        assert found == "é漢" * 500


async def test_a_tail_that_has_no_room_begins_with_a_line_or_a_character(
    ssh: Tools,
) -> None:
    """EX-14: it began in mid-character, and filled but a part of what there was."""
    job = str((await ssh.run("printf 'é漢%.0s' $(seq 500)"))["job_id"])
    for size in (998, 999, 1000):
        told = await ssh.read(job, tail_lines=1, max_output_chars=size)
        assert told["stdout"] == ("é漢" * 500)[-size:]
        assert told["truncated"] is (size < 1000)
    lines = [f"{'é' * 9}{number}" for number in range(1000, 2000)]
    printed = await ssh.run(f"for n in $(seq 1000 1999); do echo {'é' * 9}$n; done")
    for size, count in ((140, 10), (141, 10), (139, 9), (10, 0)):
        asked = {"tail_lines": 100, "max_output_chars": size}
        told = await ssh.read(str(printed["job_id"]), **asked)
        wanted = "\n".join(lines[-count:]) if count else lines[-1][-(size - 1) :]
        assert (told["stdout"], told["truncated"]) == (f"{wanted}\n", True), size


async def test_tail_and_grep_find_lines(ssh: Tools) -> None:
    """EX-14: the last lines, and those that match, with their numbers."""
    job = str((await ssh.run("seq 1000; echo oops 7 >&2"))["job_id"])
    tail = await ssh.read(job, tail_lines=2)
    assert (tail["stdout"], tail["stderr"]) == ("999\n1000\n", "oops 7\n")
    last = await ssh.read(job, tail_lines=1, stream="stdout")
    assert (last["stdout"], last["stderr"]) == ("1000\n", "")
    found = await ssh.read(job, grep="^9[89]7$|oops")
    assert re.findall(r"\b9\d7\b", found["stdout"]) == ["987", "987", "997", "997"]
    assert "oops 7" in found["stderr"]
    none = await ssh.read(job, grep="nowhere to be found")
    assert (none["stdout"], none["stderr"]) == ("", "")


@pytest.mark.parametrize("pattern", ["(?:x{1000}){1000}", "(?R)", "(?Lu)x"])
async def test_no_pattern_takes_the_daemon_with_it(ssh: Tools, pattern: str) -> None:
    """EX-14, SE-19: a short pattern took a gigabyte, a longer one all there was."""
    job = str((await ssh.run("echo x"))["job_id"])
    opened = await ssh.told("ssh_session_open", target=ssh.target, new=True)
    session = str(opened["session_id"])
    for field, tool, call in (
        ("grep", "ssh_job_read", {"job_id": job, "grep": pattern}),
        ("until", "ssh_session_read", {"session": session, "until": pattern}),
    ):
        error = await ssh.refused(tool, **call)
        assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", field)
    await ssh.told("ssh_session_close", session=session)


async def test_an_offset_beyond_the_end_is_told(ssh: Tools) -> None:
    """EX-14: with the end, so that the next call can be right."""
    job = str((await ssh.run("echo x"))["job_id"])
    error = await ssh.refused("ssh_job_read", job_id=job, offset=99)
    assert error["reason"] == "INVALID_ARGUMENT"
    assert (error["field"], error["end"]) == ("offset", "2")


async def test_what_was_discarded_is_told(sshd: Sshd) -> None:
    """EX-13, EX-14: an old page is gone, and every answer says from where it starts."""
    limits = QUICK + "spool_bytes = 1048576\nsegment_bytes = 65536\n"
    with served(sshd, limits=limits) as world:
        async with tools(world) as ssh:
            result = await ssh.run("seq 1000000", max_output_chars=2_000)
            assert result["stdout"].endswith("\n1000000\n")
            assert "discarded" in result["note"]
            job = result["job_id"]
            early = await ssh.read(job, offset=0, max_output_chars=500)
            assert "discarded" in early["note"]
            assert early["earliest_offset"] > 1_000_000
            assert early["next_offset"] > 1_000_000
            assert early["stdout"]
            notice = CALL.search(result["stdout"])
            assert notice is not None
            # More may have been discarded since then, and never less.
            assert 1_000_000 < int(notice[4]) <= early["earliest_offset"]


async def test_what_was_discarded_of_a_session_is_told(sshd: Sshd) -> None:
    """NF-03, SE-09: the buggy daemon left it out as if it had never been printed."""
    limits = QUICK + "spool_bytes = 1048576\nsegment_bytes = 65536\n"
    with served(sshd, limits=limits) as world:
        async with tools(world) as ssh:
            opened = await ssh.told("ssh_session_open", target="box", shell="/bin/sh")
            session = opened["session_id"]
            more = {"until": "done", "wait_seconds": 40, "max_output_chars": 500}
            keys = "seq 500000; echo do''ne\n"
            told = await ssh.told(
                "ssh_session_write", session=session, input=keys, **more
            )
            assert "discarded" in told["note"]
            # what was in memory still is written meanwhile, and more discarded for it
            on = told
            for _ in range(100):
                read = await ssh.told(
                    "ssh_session_read", session=session, offset=0, max_output_chars=500
                )
                assert f"begins at offset {read['earliest_offset']}" in read["note"]
                on = await ssh.told("ssh_session_read", session=session)
                if "note" not in on:
                    break
            assert "note" not in on, on["note"]
            await ssh.told("ssh_session_close", session=session, force=True)


FLOOD = "head -c 100000000 /dev/zero | tr '\\0' '{}' {}"


async def test_100_mb_on_both_streams_at_once_are_drained(
    shared: World, ssh: Tools
) -> None:
    """EX-12: neither deadlocks nor fills memory, and other calls are answered."""
    await ssh.run("true")
    before = memory(shared.pid)
    command = f"{FLOOD.format('x', '')} & {FLOOD.format('y', '>&2')} & wait; exit 3"
    job = await ssh.start(command)
    most = before
    while (await ssh.read(job, tail_lines=1, max_output_chars=10))[
        "status"
    ] == "running":
        most = max(most, memory(shared.pid))
        assert (await ssh.run("echo here"))["stdout"] == "here\n"
    result = await ssh.ended(job)
    assert result["exit_code"] == 3
    assert result["stdout_bytes"] == result["stderr_bytes"] == 100_000_000
    assert most - before < 64 * 1024 * 1024
