"""What nobody should send: a typed answer, and everything goes on working."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.tools import Tools, failure, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("bad_input"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(shared: World) -> AsyncIterator[Tools]:
    async with tools(shared) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def ssh(one: Tools, shared: World) -> AsyncIterator[Tools]:
    """Yield tools that still work after whatever the test has sent."""
    pid = shared.pid
    yield one
    assert (await one.run("echo on"))["stdout"] == "on\n"
    assert shared.pid == pid
    assert one.wire.process.returncode is None


async def invalid(
    ssh: Tools, field: str, /, tool: str = "ssh_exec", **arguments: Any
) -> dict[str, Any]:
    """Call with something wrong; the field is named, and nothing ran."""
    if tool == "ssh_exec":
        arguments = {"command": "true", **arguments}
    error = await ssh.refused(tool, **arguments)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no"), error
    assert error["field"] == field
    return error


@pytest.mark.parametrize("command", ["", " ", "\n\t \n"])
async def test_a_blank_command_is_refused(ssh: Tools, command: str) -> None:
    """EX-19: blank refused."""
    await invalid(ssh, "command", command=command)


async def test_a_missing_command_is_refused(ssh: Tools) -> None:
    """EX-19: nothing is guessed."""
    error = failure(await ssh.wire.call("ssh_exec", {"target": "box"}))
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", "command")


@pytest.mark.parametrize(
    "target",
    ["-oProxyCommand=id", "a b", "user@", "host:notaport", "host:99999", "ssh://", "@"],
)
async def test_a_target_that_is_none_is_refused(ssh: Tools, target: str) -> None:
    """EX-18: never passed on to ssh."""
    await invalid(ssh, "target", target=target)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("command", {"command": "echo a\0b"}),
        ("cwd", {"cwd": "/tmp\0"}),
        ("stdin", {"stdin": "\0"}),
        ("target", {"target": "box\0"}),
        ("env.A", {"env": {"A": "\0"}}),
    ],
)
async def test_nul_is_refused_by_field(
    ssh: Tools, field: str, arguments: dict[str, Any]
) -> None:
    """EX-19, SC-10: no argument, path or variable can hold one."""
    await invalid(ssh, field, **arguments)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("command", {"command": "echo \ud800"}),
        ("cwd", {"cwd": "\udfff"}),
        ("env.A", {"env": {"A": "\ud83d"}}),
    ],
)
async def test_lone_surrogates_are_refused_by_field(
    ssh: Tools, field: str, arguments: dict[str, Any]
) -> None:
    """EX-19: half a character has no bytes."""
    await invalid(ssh, field, **arguments)


async def test_whole_surrogate_pairs_are_text(ssh: Tools) -> None:
    """EX-19: JSON writes what is beyond the basic plane as a pair."""
    result = await ssh.run("printf %s '\N{PILE OF POO}'")
    assert result["stdout"] == "\N{PILE OF POO}"


@pytest.mark.parametrize("field", ["command", "stdin", "cwd"])
async def test_an_argument_of_5_mb_is_refused_by_name(ssh: Tools, field: str) -> None:
    """EX-19: with its size, and another way to do it."""
    error = await invalid(ssh, field, **{field: "x" * 5_000_000})
    assert error["hint"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", 5),
        ("command", ["ls"]),
        ("command", None),
        ("tty", "perhaps"),
        ("env", ["A=1"]),
        ("env.A", {"A": 1.5}),
        ("connect", "box"),
        ("connect.port", {"port": "many"}),
        ("connect.port", {"port": 0}),
        ("connect.port", {"port": 70_000}),
        ("connect.host_key_checking", {"host_key_checking": "maybe"}),
        ("timeout_seconds", "soon"),
        ("timeout_seconds", -1),
        ("timeout_seconds", 1e300),
        ("timeout_ms", -1),
        ("wait_seconds", True),
        ("wait_seconds", 50.1),
        ("max_output_chars", -1),
        ("max_output_chars", 1.5),
        ("max_output_chars", 10**30),
        ("request_id", "with blanks"),
        ("request_id", "x" * 129),
    ],
)
async def test_a_wrong_type_or_number_is_refused_by_field(
    ssh: Tools, field: str, value: Any
) -> None:
    """EX-20: what is wrong is named; nothing ran."""
    await invalid(ssh, field, **{field.partition(".")[0]: value})


async def test_whole_numbers_in_words_are_taken(ssh: Tools) -> None:
    """Contract 4: integers sent as strings are accepted."""
    connect = {"connect_timeout_seconds": "5"}
    result = await ssh.run(
        "exit 3", max_output_chars="100", timeout_seconds="20", connect=connect
    )
    assert result["exit_code"] == 3


async def test_an_unknown_argument_names_the_known_ones(ssh: Tools) -> None:
    """Contract 4: and a nearby name is not guessed."""
    error = await invalid(ssh, "comand", comand="ls")
    assert "command" in error["message"] + error["hint"]
    assert "request_id" in error["message"] + error["hint"]


async def test_an_argument_that_clients_inject_is_ignored(ssh: Tools) -> None:
    """Contract 4: Gemini's wait_for_previous."""
    assert (await ssh.run("exit 3", wait_for_previous=True))["exit_code"] == 3


async def test_an_unknown_tool_is_a_tool_error(ssh: Tools) -> None:
    """TR-09: with the nearest name."""
    error = failure(await ssh.wire.call("ssh_exce", {"command": "true"}))
    assert (error["reason"], error["ran"]) == ("UNKNOWN_TOOL", "no")
    assert "ssh_exec" in error["hint"]


@pytest.mark.parametrize("arguments", [[], "ls", 5, True])
async def test_arguments_that_are_no_object_are_refused(
    ssh: Tools, arguments: object
) -> None:
    """TR-09: by the protocol or by the tool, and nothing ran."""
    params = {"name": "ssh_exec", "arguments": arguments}
    answer = await ssh.wire.request("tools/call", params)
    if "error" in answer:
        assert answer["error"]["code"] == -32602
    else:
        assert failure(answer["result"])["field"] == "arguments"


@pytest.mark.parametrize(
    "line",
    [
        b"{\n",
        b"nonsense\n",
        b"\xff\xfe\x00\n",
        b'{"jsonrpc": "2.0", "id": 1, "method": \n',
        b"[" * 100_000 + b"\n",
        b"[]\n",
        b"null\n",
        b"17\n",
        b'"text"\n',
        b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}\n',
        b'{"jsonrpc": "2.0", "id": 9, "method": 5}\n',
        b'{"id": 9}\n',
    ],
)
async def test_a_line_that_is_no_request_is_answered_as_such(
    ssh: Tools, line: bytes
) -> None:
    """TR-09: a JSON-RPC error without a crash; the next line is served."""
    await ssh.wire.send(line)
    answer = await ssh.wire.receive()
    assert answer["error"]["code"] in {-32700, -32600}


@pytest.mark.parametrize("line", [b"\n", b"  \r\n", b"\r\n"])
async def test_an_empty_line_is_nothing(ssh: Tools, line: bytes) -> None:
    """TR-09: no answer, no harm."""
    await ssh.wire.send(line)
    assert "result" in await ssh.wire.request("ping")


async def test_a_line_of_64_mb_is_refused_in_flat_memory(ssh: Tools) -> None:
    """EX-19: the line is skipped, and the next one is served."""
    piece = b"x" * (1024 * 1024)
    await ssh.wire.send(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","a":"')
    for _ in range(64):
        await ssh.wire.send(piece)
    await ssh.wire.send(b'"}\n')
    answer = await ssh.wire.receive()
    assert answer["error"]["code"] in {-32700, -32600}
    assert "result" in await ssh.wire.request("ping")


@pytest.mark.parametrize("job_id", ["j00000000", "../../etc/passwd", "é", "x" * 10_000])
@pytest.mark.parametrize("tool", ["ssh_job_read", "ssh_job_stop"])
async def test_an_unknown_job_is_told(ssh: Tools, tool: str, job_id: str) -> None:
    """EX-16: and where to find the known ones."""
    error = await ssh.refused(tool, job_id=job_id)
    assert (error["reason"], error["ran"]) == ("JOB_NOT_FOUND", "no")
    assert "ssh_job_list" in error["hint"]
    assert len(json.dumps(error)) < 4_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_id", ""),
        ("offset", -1),
        ("offset", 1.5),
        ("offset", 10**30),
        ("tail_lines", 0),
        ("tail_lines", -5),
        ("tail_lines", 10**9),
        ("wait_seconds", 1e300),
        ("wait_seconds", -1),
        ("stream", "stdboth"),
        ("max_output_chars", 10**9),
    ],
)
async def test_an_absurd_read_is_refused_by_field(
    ssh: Tools, field: str, value: Any
) -> None:
    """EX-14: with what it may be."""
    job = str((await ssh.run("true"))["job_id"])
    arguments = {"job_id": job, field: value}
    await invalid(ssh, field, "ssh_job_read", **arguments)


async def test_an_offset_far_beyond_the_end_is_refused(ssh: Tools) -> None:
    """EX-14: no wait for what can't come soon."""
    job = str((await ssh.run("true"))["job_id"])
    await invalid(
        ssh, "offset", "ssh_job_read", job_id=job, offset=2**63, wait_seconds=5
    )


async def test_a_signal_that_is_none_is_refused(ssh: Tools) -> None:
    """EX-21: the known ones are named."""
    job = str((await ssh.run("true"))["job_id"])
    error = await invalid(ssh, "signal", "ssh_job_stop", job_id=job, signal="STOP")
    assert "KILL" in error["message"]


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "a{5,1}", "(?P<n>a)(?P=m)"])
async def test_a_broken_pattern_is_refused(ssh: Tools, pattern: str) -> None:
    """EX-14: with what is wrong with it."""
    job = str((await ssh.run("echo aaa"))["job_id"])
    await invalid(ssh, "grep", "ssh_job_read", job_id=job, grep=pattern)


async def test_an_evil_pattern_ends_in_time(sshd: Sshd) -> None:
    """EX-14: exponential patterns are given up, and nobody else waits."""
    with served(sshd, limits="grep_seconds = 0.5\n") as world:
        async with tools(world) as ssh:
            job = str((await ssh.run("printf 'a%.0s' $(seq 5000); echo b"))["job_id"])
            call = ("ssh_job_read", {"job_id": job, "grep": r"(a|a|b?a)+$|^(\w*)+!"})
            evil, quick = await ssh.together(
                call, ("ssh_exec", {"command": "echo quick"})
            )
            assert failure(evil)["field"] == "grep"
            assert quick["structuredContent"]["stdout"] == "quick\n"


async def test_an_option_that_runs_programs_is_refused(ssh: Tools) -> None:
    """AU-08, EX-20: by its name."""
    connect = {"options": {"proxycommand": "touch /tmp/pwned"}}
    error = await ssh.refused("ssh_exec", command="true", connect=connect)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert "proxycommand" in error["message"].lower()
