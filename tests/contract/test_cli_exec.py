"""`holdfast exec` against a daemon whose host is this machine: real processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.cli_daemon import LocalDaemon
from holdfast_shim.cli.exec import plainly
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PIPE = asyncio.subprocess.PIPE
MIB = 1024 * 1024
HERE = Path.cwd()


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[LocalDaemon]:
    async with LocalDaemon(short_path / "run" / "holdfast.sock") as one:
        yield one


async def read_until(stream: asyncio.StreamReader | None, mark: bytes) -> bytes:
    assert stream is not None
    return await stream.readuntil(mark)


async def test_both_outputs_arrive_apart_with_the_exit_code(
    daemon: LocalDaemon,
) -> None:
    """EX-01, IN-08: stdout and stderr on the matching descriptors, the code ours."""
    told = await daemon.cli("exec", "web1", "--", "echo out; echo err >&2; exit 7")
    assert (told.code, told.out, told.err) == (7, b"out\n", b"err\n")


async def test_words_are_joined_by_spaces_as_ssh_does(daemon: LocalDaemon) -> None:
    """EX-19: quoting is the remote shell's own affair."""
    told = await daemon.cli("exec", "web1", "--", "printf", "'%s|'", "a b", "$((1+1))")
    assert told.out == b"a|b|2|"
    assert daemon.jobs["j1"].request.command == "printf '%s|' a b $((1+1))"


async def test_bytes_that_are_no_text_pass_unchanged_both_ways(
    daemon: LocalDaemon,
) -> None:
    """EX-19: what comes in goes out, byte for byte, megabytes of it."""
    data = os.urandom(3 * MIB) + bytes(range(256))
    told = await daemon.cli("exec", "web1", "--", "cat", stdin=data)
    assert told.code == 0
    assert hashlib.sha256(told.out).digest() == hashlib.sha256(data).digest()


async def test_input_from_a_file_is_forwarded(
    daemon: LocalDaemon, tmp_path: Path
) -> None:
    source = tmp_path / "input"
    source.write_bytes(b"line\n" * 100_000)
    with source.open("rb") as opened:
        process = await daemon.begin("exec", "web1", "wc", "-l", stdin=opened)
        out, _ = await process.communicate()
    assert out.strip() == b"100000"


async def test_without_stdin_the_command_finds_it_ended(daemon: LocalDaemon) -> None:
    """EX-11: -n reads nothing, and a command that reads ends."""
    process = await daemon.begin(
        "exec", "-n", "web1", "--", "cat; echo end", stdin=PIPE
    )
    assert process.stdout is not None
    # Our stdin stays open all the while.
    assert await process.stdout.read() == b"end\n"
    assert await process.wait() == 0


async def test_output_is_live_while_the_command_waits_for_input(
    daemon: LocalDaemon,
) -> None:
    """EX-15: a line is there before the next one is asked for."""
    script = "while read x; do echo got $x; done"
    process = await daemon.begin("exec", "web1", "--", script, stdin=PIPE)
    assert process.stdin is not None
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        assert await read_until(process.stdout, b"\n") == b"got " + word + b"\n"
    process.stdin.close()
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM")]
)
async def test_a_signal_reaches_the_command_whose_answer_counts(
    daemon: LocalDaemon, number: int, name: str
) -> None:
    """EX-21: the command decides what becomes of INT and TERM."""
    script = (
        f"trap 'echo caught; exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    )
    process = await daemon.begin("exec", "-n", "web1", "--", script)
    await read_until(process.stdout, b"ready\n")
    process.send_signal(number)
    assert await read_until(process.stdout, b"\n") == b"caught\n"
    assert await process.wait() == 42


async def test_a_second_interrupt_kills(daemon: LocalDaemon) -> None:
    """EX-05: a command that ignores INT does not hold us."""
    script = "trap 'echo no' INT; echo ready; while :; do sleep 0.05; done"
    process = await daemon.begin("exec", "-n", "web1", "--", script)
    await read_until(process.stdout, b"ready\n")
    process.send_signal(signal.SIGINT)
    await read_until(process.stdout, b"no\n")
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 128 + signal.SIGKILL
    assert daemon.jobs["j1"].signals[:2] == [signal.SIGINT, signal.SIGKILL]


async def test_an_interrupt_goes_round_input_that_nobody_reads(
    daemon: LocalDaemon,
) -> None:
    """EX-12: a full pipe towards the command does not swallow Ctrl-C."""
    process = await daemon.begin(
        "exec", "web1", "--", "echo ready; sleep 1000", stdin=PIPE
    )
    assert process.stdin is not None
    await read_until(process.stdout, b"ready\n")
    full = False
    while not full:
        process.stdin.write(b"x" * MIB)
        try:
            async with asyncio.timeout(1):
                await process.stdin.drain()
        except TimeoutError:
            full = True
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 128 + signal.SIGINT
    assert daemon.jobs["j1"].stopped


async def test_the_exit_code_tells_the_signal_that_ended_it(
    daemon: LocalDaemon,
) -> None:
    """EX-03."""
    told = await daemon.cli("exec", "web1", "--", "kill -9 $$")
    assert told.code == 137


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("refused.example", "hint: ask for another host"),
        ("lost.example", "the connection was lost"),
        ("gap.example", "100 bytes of the output were discarded"),
        ("cut.example", "look with `holdfast jobs` before"),
    ],
)
async def test_what_did_not_run_or_is_not_known_is_255_with_a_reason(
    daemon: LocalDaemon, target: str, told: str
) -> None:
    """EX-20: never exit 0, and what came before is kept."""
    found = await daemon.cli("exec", target, "--", "echo x")
    assert found.code == 255
    assert told in found.err.decode()
    assert found.out == (b"" if target.startswith("refused") else b"x\n")


async def test_an_end_that_meets_a_flood_of_input_is_not_lost(
    daemon: LocalDaemon,
) -> None:
    """EX-20: why nothing ran is told, whatever is piped in meanwhile."""
    for _ in range(10):
        process = await daemon.begin(
            "exec", "late.example", "--", "echo x; exit 5", stdin=PIPE
        )
        _, err = await process.communicate(b"x" * MIB)
        assert (process.returncode, b"no such directory" in err) == (255, True), err


async def test_without_a_daemon_the_code_is_69(short_path: Path) -> None:
    idle = LocalDaemon(short_path / "run" / "holdfast.sock")
    told = await idle.cli("exec", "web1", "--", "true")
    assert told.code == 69
    assert b"not running" in told.err


async def test_json_holds_the_fields_of_ssh_exec_uncut(daemon: LocalDaemon) -> None:
    """EX-02: one document with everything."""
    told = await daemon.cli(
        "exec", "--json", "web1", "--", "seq 100000; echo e >&2; exit 3"
    )
    assert told.code == 3
    assert told.err == b""
    found = told.json
    assert found["stdout"].splitlines()[-1] == "100000"
    assert found["stdout_bytes"] == len(found["stdout"])
    expected = {
        "ok": False,
        "status": "exited",
        "exit_code": 3,
        "stderr": "e\n",
        "truncated": False,
        "timed_out": False,
        "target": "me@here",
        "job_id": "j1",
    }
    assert {key: found[key] for key in expected} == expected


async def test_a_failure_as_json_is_one_typed_document(daemon: LocalDaemon) -> None:
    told = await daemon.cli("--json", "exec", "refused.example", "--", "true")
    assert told.code == 255
    assert told.json["ok"] is False
    assert told.json["error"]["reason"] == "HOST_UNREACHABLE"
    assert told.json["error"]["ran"] == "no"


async def test_ssh_options_become_connect_options(daemon: LocalDaemon) -> None:
    """EX-18, AU-08: they may stand before and after the target."""
    await daemon.cli(
        "exec", "-p22", "-l", "bob", "web1", "-J", "jump", "-oCompression=yes",
        "-o", "User no", "-i", "key", "--env", "A=b c", "--cwd", "/", "--shell", "bash",
        "--timeout", "9", "--", "-v", "x",
    )  # fmt: skip
    request = daemon.jobs["j1"].request
    assert request.command == "-v x"
    assert (request.target, request.cwd, request.shell) == ("web1", "/", "bash")
    assert dict(request.env) == {"A": "b c"}
    assert request.timeout_seconds == 9
    connect = request.connect
    assert (connect.port, connect.user, connect.jump) == (22, "bob", "jump")
    assert connect.identity_file == str(HERE / "key")
    assert dict(connect.options) == {"Compression": "yes", "User": "no"}


async def test_a_reader_that_left_ends_it_quietly(daemon: LocalDaemon) -> None:
    """A broken pipe is no error to talk about, and the command is hung up on."""
    process = await daemon.begin("exec", "-n", "web1", "--", "yes")
    await read_until(process.stdout, b"y\n")
    transport: Any = process._transport  # type: ignore[attr-defined]  # no public way
    transport.get_pipe_transport(1).close()
    assert await process.wait() == 141
    assert process.stderr is not None
    assert await process.stderr.read() == b""


async def test_a_slow_reader_loses_nothing(daemon: LocalDaemon) -> None:
    """EX-12: 16 MiB through a reader that sleeps first."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as slow:
        script = "head -c 16777216 /dev/zero | tr '\\0' x; echo end"
        process = await daemon.begin("exec", "-n", "web1", "--", script, stdout=write)
        os.close(write)
        job = await daemon.job()
        await job.ended()
        data = await asyncio.to_thread(slow.read)
    assert len(data) == 16 * MIB + 4
    assert data.endswith(b"xend\n")
    assert await process.wait() == 0


async def test_interrupts_free_us_from_a_reader_that_never_reads(
    daemon: LocalDaemon,
) -> None:
    read, write = os.pipe()
    process = await daemon.begin("exec", "-n", "web1", "--", "yes", stdout=write)
    os.close(write)
    job = await daemon.job()
    async with asyncio.timeout(40), job.grown:
        await job.grown.wait_for(lambda: job.total > 32 * MIB)
    process.send_signal(signal.SIGINT)
    await job.ended()
    while process.returncode is None:
        process.send_signal(signal.SIGINT)
        try:
            # often enough to meet it as it ends, too
            async with asyncio.timeout(0.005):
                await process.wait()
        except TimeoutError:
            continue
    assert process.returncode == 130
    os.close(read)


async def test_memory_stays_flat_whatever_is_piped_in(daemon: LocalDaemon) -> None:
    """EX-12: `yes | holdfast exec host -- cat >/dev/null`."""
    process = await daemon.begin(
        "exec", "web1", "--", "cat > /dev/null", stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    await daemon.job()
    process.stdin.write(b"y\n" * MIB)
    await process.stdin.drain()
    before = _resident(process.pid)
    for _ in range(64):
        process.stdin.write(b"y\n" * MIB)
        await process.stdin.drain()
    grown = _resident(process.pid) - before
    process.stdin.close()
    assert await process.wait() == 0
    assert grown < 24 * MIB


async def test_usage_errors_are_2_and_name_the_help(daemon: LocalDaemon) -> None:
    for words, told in [
        (["exec", "web1"], "no command"),
        (["exec", "web1", "--", ""], "command is blank"),
        (["exec", "web1", "--env", "x", "--", "true"], "NAME=VALUE"),
        (["exec", "web1", "-o", "x", "--", "true"], "KEY=VALUE"),
        (["exec", "-p", "0", "web1", "--", "true"], "range"),
        (["exec", "--nonsense", "web1", "--", "true"], "--nonsense"),
    ]:
        found = await daemon.cli(*words)
        assert found.code == 2, words
        assert told in found.err.decode()
        assert "holdfast exec --help" in found.err.decode()
    found = await daemon.cli("--json", "exec", "web1")
    assert found.code == 2
    assert found.json["error"]["reason"] == "INVALID_ARGUMENT"


async def test_arguments_that_are_not_utf8_are_refused(daemon: LocalDaemon) -> None:
    found = await daemon.cli("exec", "web1", "--", "echo \udcff")
    assert found.code == 2
    assert b"UTF-8" in found.err


def _resident(pid: int) -> int:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    with open(f"/proc/{pid}/statm", encoding="ascii") as told:  # noqa: PTH123
        return int(told.read().split()[1]) * resource.getpagesize()


def test_a_field_of_the_call_is_told_by_the_name_a_person_knows() -> None:
    error = CallError(
        "INVALID_ARGUMENT",
        "start.cwd must be absolute on start.example",
        metadata={"field": "start.cwd"},
    )
    told = plainly(error)
    assert told.message == "cwd must be absolute on start.example"
    assert told.metadata == {"field": "cwd"}
