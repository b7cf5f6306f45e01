"""Sessions as agents use them: through the shim, on a real sshd, of both kinds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.tools import Result, Tools, served, tools
from fakes.watch import in_front, records, soon
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("session_tools"),
    pytest.mark.usefixtures("terminals"),
]

MANY = 8


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(world: World) -> AsyncIterator[Tools]:
    """Another agent, in another editor."""
    async with tools(world) as one:
        yield one


@pytest.fixture(params=["held", "remote"])
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def session(ssh: Tools, durability: str) -> AsyncIterator[str]:
    opened = await ssh.told("ssh_session_open", target="box", durability=durability)
    assert (opened["running"], opened["durability"]) == (True, durability)
    yield str(opened["session_id"])
    await ssh.told("ssh_session_close", session=opened["session_id"], force=True)


async def run(ssh: Tools, session: str, command: str, **more: Any) -> Result:
    return await ssh.told("ssh_session_run", session=session, command=command, **more)


async def until(ssh: Tools, session: str, pattern: str, **more: Any) -> Result:
    told = await ssh.told(
        "ssh_session_read", session=session, until=pattern, wait_seconds=20, **more
    )
    assert told["matched"] is True, told
    return told


async def test_state_carries_over_from_command_to_command(
    ssh: Tools, session: str
) -> None:
    """SE-01, SE-02: directory, variables, functions, umask; each its own exit code."""
    first = await run(
        ssh, session, "cd /usr/bin; export A='b c'; f() { echo \"f $1\"; }; umask 027"
    )
    assert (first["exit_code"], first["stdout"], first["cwd"]) == (0, "", "/usr/bin")
    told = await run(ssh, session, 'pwd; echo "$A"; f x; umask; (exit 7)')
    assert told["stdout"] == "/usr/bin\nb c\nf x\n0027\n"
    assert (told["status"], told["exit_code"], told["ok"]) == ("exited", 7, False)
    assert told["session_id"] == session
    again = await run(ssh, session, "true")
    assert (again["stdout"], again["exit_code"], again["ok"]) == ("", 0, True)


async def test_a_job_tells_the_session_it_runs_in(ssh: Tools, session: str) -> None:
    """OB-04: also one that has ended; a command without a session names none."""
    told = await run(ssh, session, "true")
    alone = await ssh.run("true")
    listed = await ssh.told("ssh_job_list", target="box")
    rows = {row["job_id"]: row for row in listed["jobs"]}
    assert rows[told["job_id"]]["session_id"] == session
    assert "session_id" not in rows[alone["job_id"]]


async def test_one_that_was_refused_is_shown_as_refused(
    ssh: Tools, world: World, session: str, tmp_path: Path
) -> None:
    """SE-16, NF-05: who looks on, or reads it later, sees that it did not run."""
    await run(ssh, session, "true")
    reader = tmp_path / "reader"
    reader.symlink_to("/bin/cat")
    words = [program("holdfast"), "attach", session, "--watch", "--json"]
    looking = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, env=world.environment
    )
    assert looking.stdout is not None
    try:
        async with asyncio.timeout(40):
            await looking.stdout.readline()
            told = await ssh.told(
                "ssh_session_write", session=session, input=f"{reader}\n"
            )
            await soon(lambda: in_front(reader), "it is in the foreground")
            error = await ssh.refused(
                "ssh_session_run", session=session, command="echo refused"
            )
            assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
            while b'"run_ended"' not in (line := await looking.stdout.readline()):
                assert line
        assert "was not run" in line.decode()
    finally:
        looking.terminate()
        await looking.wait()
    transcript = Path(told["transcript_path"])
    await soon(lambda: "[not run: " in transcript.read_text(), "it is told there")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"shell": "/bin/bash' x"}, "shell"),
        ({"shell": " "}, "shell"),
        ({"env": {"A B": "x"}}, "env"),
        ({"env": {"": "x"}}, "env"),
        ({"env": {"A=B": "x"}}, "env"),
    ],
)
async def test_what_no_shell_can_be_opened_with(
    ssh: Tools, durability: str, wrong: dict[str, Any], field: str
) -> None:
    """SE-05: refused by name, however it is to be kept."""
    error = await ssh.refused(
        "ssh_session_open", target="box", durability=durability, **wrong
    )
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", field)
    assert error["ran"] == "no"


async def test_a_directory_s_name_begins_at_home(ssh: Tools, durability: str) -> None:
    """SE-05: never where holdfast keeps its own files."""
    opened = await ssh.told(
        "ssh_session_open", target="box", cwd=".", durability=durability
    )
    told = await run(ssh, opened["session_id"], "pwd")
    assert "holdfast" not in told["stdout"]
    assert not told["stdout"].endswith("//\n")
    await ssh.told("ssh_session_close", session=opened["session_id"], force=True)
    error = await ssh.refused(
        "ssh_session_open", target="box", cwd="-", durability=durability
    )
    assert error["reason"] == "CWD_FAILED"


async def test_a_command_s_output_has_no_echo_prompt_or_escape(
    ssh: Tools, session: str
) -> None:
    """SE-02: exactly what it printed, tabs, quotes and empty lines too."""
    command = "printf 'a\\tb\\n\\n'; echo \"it's\" '\"q\"' '!x' '$HOME'; printf end"
    told = await run(ssh, session, command)
    assert told["stdout"] == 'a\tb\n\nit\'s "q" !x $HOME\nend'


async def test_a_command_that_meets_its_limit_leaves_the_session_usable(
    ssh: Tools, session: str
) -> None:
    """SE-14: interrupted, told so, and the next one is not poisoned."""
    told = await run(ssh, session, "X=kept; sleep 300", timeout_seconds=2)
    assert (told["status"], told["timed_out"]) == ("timed_out", True)
    told = await run(ssh, session, 'echo "$X"')
    assert (told["stdout"], told["exit_code"]) == ("kept\n", 0)


async def test_the_client_s_own_limit_holds_in_a_session_too(
    world: World, session: str
) -> None:
    """EX-04, SE-14: SSH_DEFAULT_TIMEOUT_SEC was for ssh_exec alone."""
    async with tools(world, env={"SSH_DEFAULT_TIMEOUT_SEC": "2"}) as quick:
        told = await run(quick, session, "sleep 300")
        assert (told["status"], told["timed_out"]) == ("timed_out", True)
        told = await run(quick, session, "sleep 1", timeout_seconds=60)
        assert (told["status"], told["exit_code"]) == ("exited", 0)


async def test_what_fails_behind_the_keys_does_not_unsay_them(
    ssh: Tools, session: str, tmp_path: Path
) -> None:
    """EX-20, SE-03: a pattern that was too slow said that nothing ran."""
    mark = tmp_path / "typed"
    error = await ssh.refused(
        "ssh_session_write",
        session=session,
        input=f"touch {mark}; echo {'a' * 60}c\n",
        until="(a|aa)+$b",
    )
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "yes")
    assert "too slow" in error["message"]
    await run(ssh, session, "true")
    assert mark.exists()


async def test_keys_are_typed_as_they_are(ssh: Tools, session: str) -> None:
    """SE-03: no Enter is added; Ctrl-C and Ctrl-D do what they do."""
    await ssh.told("ssh_session_write", session=session, input="echo ty")
    told = await ssh.told("ssh_session_write", session=session, input="ped-1\n")
    await until(ssh, session, r"(?m)^typed-1$", offset=0)
    assert told["bytes_written"] == len("ped-1\n")
    await ssh.told("ssh_session_write", session=session, input="cat\n", wait_seconds=0)
    await ssh.told("ssh_session_write", session=session, input="to cat\n")
    told = await ssh.told("ssh_session_write", session=session, input="\x04")
    # it says so itself: a shell that just begins it may miss the key
    told = await ssh.told(
        "ssh_session_write",
        session=session,
        input="sh -c 'echo be$((1+1))gun; exec sleep 300'\n",
        until="be2gun",
    )
    assert "be2gun" in told["output"]
    told = await ssh.told(
        "ssh_session_write",
        session=session,
        input="\x03echo in$((1+1))tact\n",
        until="in2tact",
    )
    assert "in2tact" in told["output"]
    assert told["running"] is True


async def test_one_name_is_one_session_for_every_client(
    ssh: Tools, other: Tools, durability: str
) -> None:
    """SE-04, SE-05, SE-06, NF-01: found by name; cwd only counts at creation."""
    name = f"shared-{durability}"
    opened = await ssh.told(
        "ssh_session_open",
        target="box",
        session_name=name,
        durability=durability,
        cwd="/tmp",
        env={"GIVEN": "once"},
    )
    assert (opened["created"], opened["reused"]) == (True, False)
    found = await other.told(
        "ssh_session_open",
        target="box",
        session_name=name,
        cwd="/usr",
        env={"GIVEN": "twice"},
    )
    assert (found["created"], found["reused"]) == (False, True)
    assert found["matched_by"] == "name"
    assert found["session_id"] == opened["session_id"]
    told = await run(other, name, 'pwd; echo "$GIVEN"')
    assert told["stdout"] == "/tmp\nonce\n"
    error = await other.refused(
        "ssh_session_open", target="box", session_name=name, new=True
    )
    assert (error["reason"], error["ran"]) == ("IN_USE", "no")
    listed = await other.told("ssh_session_list", session_name=name)
    assert [row["session_id"] for row in listed["sessions"]] == [opened["session_id"]]
    assert listed["count"] == 1
    assert (await ssh.told("ssh_session_close", session=name))["closed"] is True


async def test_each_client_reads_on_where_it_stopped(
    ssh: Tools, other: Tools, session: str
) -> None:
    """NF-03, SE-09: one reader does not eat what another has not read."""
    mine = await ssh.told(
        "ssh_session_write",
        session=session,
        input="echo for-$((40+2)); exec sleep 1000\n",
        until=r"for-42\n",
    )
    again = await ssh.told("ssh_session_read", session=session)
    assert again["output"] == ""
    theirs = await other.told("ssh_session_read", session=session)
    assert "for-42" in theirs["output"]
    assert "for-42" in mine["output"]
    cut = await other.told(
        "ssh_session_read", session=session, offset=0, max_output_chars=5
    )
    assert len(cut["output"]) <= 5
    assert cut["truncated"] is True
    assert cut["pending_output_chars"] > 0


async def test_a_session_that_is_busy_says_with_whom(
    ssh: Tools, other: Tools, session: str
) -> None:
    """SE-14, NF-04: who, since when, and what to wait for; nothing is typed."""
    job = (await run(ssh, session, "sleep 300", wait_seconds=0))["job_id"]
    error = await other.refused("ssh_session_write", session=session, input="x\n")
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    assert error["client"] == "wire/1"
    assert error["since"] in error["message"]
    assert error["job_id"] == job
    assert (await other.stop(job))["status"] == "cancelled"
    told = await run(other, session, "echo free")
    assert told["stdout"] == "free\n"


async def test_commands_of_several_clients_take_turns(
    ssh: Tools, other: Tools, session: str
) -> None:
    """SE-14: nothing is mixed up; each gets its own output and code."""

    async def many(client: Tools, word: str) -> None:
        calls = [
            (
                "ssh_session_run",
                {"session": session, "command": f"echo {word}{n}; (exit {n % 50})"},
            )
            for n in range(MANY)
        ]
        results = await client.together(*calls)
        for number, result in enumerate(results):
            told = result["structuredContent"]
            assert told.get("stdout") == f"{word}{number}\n", told
            assert told["exit_code"] == number % 50

    await asyncio.gather(many(ssh, "a"), many(other, "b"))


async def test_the_end_of_a_shell_is_told_and_a_new_one_takes_its_name(
    ssh: Tools, durability: str
) -> None:
    """SE-11: exit code and reason; what is typed then is refused."""
    name = f"ending-{durability}"
    more = {"target": "box", "session_name": name, "durability": durability}
    opened = await ssh.told("ssh_session_open", **more)
    await ssh.told("ssh_session_write", session=name, input="exit 5\n", wait_seconds=5)

    async def ended() -> Result:
        while True:
            told = await ssh.told("ssh_session_read", session=name, wait_seconds=1)
            if not told["running"]:
                return told

    async with asyncio.timeout(40):
        told = await ended()
    assert (told["exit_code"], told["exit_reason"]) == (5, "exited")
    error = await ssh.refused("ssh_session_write", session=name, input="x\n")
    assert (error["reason"], error["ran"]) == ("SESSION_ENDED", "no")
    error = await ssh.refused("ssh_session_run", session=name, command="true")
    assert (error["reason"], error["ran"]) == ("SESSION_ENDED", "no")
    assert (await ssh.told("ssh_session_list"))["count"] == 0
    everything = await ssh.told("ssh_session_list", include_exited=True)
    assert opened["session_id"] in {one["session_id"] for one in everything["sessions"]}
    again = await ssh.told("ssh_session_open", **more)
    assert again["created"] is True
    assert again["session_id"] != opened["session_id"]
    await ssh.told("ssh_session_close", session=name)


async def test_closing_tells_what_it_ended(ssh: Tools, durability: str) -> None:
    """SE-08: the last output, whether it ran, the signal; unknown is closed=false."""
    opened = await ssh.told("ssh_session_open", target="box", durability=durability)
    session = opened["session_id"]
    await ssh.told(
        "ssh_session_write",
        session=session,
        input="echo last-$((1+1))\n",
        max_output_chars=0,
        until="last-2",
    )
    closed = await ssh.told("ssh_session_close", session=session)
    assert (closed["closed"], closed["was_running"]) == (True, True)
    assert (closed["running"], closed["exit_reason"]) == (False, "closed")
    assert closed["termination_signal"] == "HUP"
    assert "last-2" in closed["output"]
    again = await ssh.told("ssh_session_close", session=session)
    assert (again["closed"], again["was_running"]) == (True, False)
    unknown = await ssh.told("ssh_session_close", session="snosuchone")
    assert unknown["closed"] is False


async def test_a_shell_that_minds_no_hangup_is_killed_by_force(
    ssh: Tools, durability: str
) -> None:
    """SE-08: and nothing of it stays behind."""
    opened = await ssh.told("ssh_session_open", target="box", durability=durability)
    session = opened["session_id"]
    told = await run(ssh, session, "trap '' HUP TERM; echo $$")
    pid = int(told["stdout"])
    closed = await ssh.told("ssh_session_close", session=session, force=True)
    assert closed["termination_signal"] == "KILL"
    await soon(lambda: not Path(f"/proc/{pid}").exists(), "its shell is gone")


async def test_the_size_of_the_terminal_is_given_and_changed(
    ssh: Tools, durability: str
) -> None:
    """SE-20."""
    name = f"sized-{durability}"
    more = {"target": "box", "session_name": name, "durability": durability}
    await ssh.told("ssh_session_open", cols=101, rows=31, **more)
    await ssh.told("ssh_session_write", session=name, input="stty size\n")
    await until(ssh, name, "31 101", offset=0)
    await ssh.told("ssh_session_open", cols=90, rows=20, **more)
    await ssh.told("ssh_session_write", session=name, input="stty size\n")
    await until(ssh, name, "20 90", offset=0)
    for size, told in (({"cols": 95}, "20 95"), ({"rows": 21}, "21 95")):
        await ssh.told("ssh_session_open", **size, **more)
        await ssh.told("ssh_session_write", session=name, input="stty size\n")
        await until(ssh, name, told, offset=0)
    await ssh.told("ssh_session_close", session=name)


async def test_escapes_are_gone_from_text_and_there_in_raw(
    ssh: Tools, session: str
) -> None:
    """SE-22."""
    await ssh.told(
        "ssh_session_write",
        session=session,
        input="printf '\\033[31mred\\033[0m-%s\\n' end\n",
        until="red-end",
    )
    text = await ssh.told("ssh_session_read", session=session, offset=0)
    assert "red-end" in text["output"]
    assert "\x1b" not in text["output"]
    raw = await ssh.told("ssh_session_read", session=session, offset=0, view="raw")
    assert "\x1b[31mred\x1b[0m-end" in raw["output"]


async def test_waiting_ends_with_the_pattern_or_the_time(
    ssh: Tools, session: str
) -> None:
    """SE-10, SE-19: on the daemon's side, also for what comes later."""
    await ssh.told(
        "ssh_session_write",
        session=session,
        input="for n in 1 2 3; do sleep 0.3; echo tick-$n; done\n",
        wait_seconds=0,
    )
    told = await until(ssh, session, r"tick-3")
    assert "tick-3" in told["output"]
    told = await ssh.told(
        "ssh_session_read", session=session, until="never", wait_seconds=0.2
    )
    assert told["matched"] is False
    error = await ssh.refused(
        "ssh_session_write", session=session, input="echo typed-it\n", until="(["
    )
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    told = await ssh.told("ssh_session_read", session=session, offset=0)
    assert "typed-it" not in told["output"]


def looked_at(path: Path) -> tuple[int, int, int]:
    found, above = path.stat(), path.parent.stat()
    return found.st_mode & 0o777, found.st_size, above.st_mode & 0o777


async def test_a_transcript_lies_beside_it_for_its_owner_only(
    ssh: Tools, durability: str
) -> None:
    """SE-16: 0600 in 0700, its size told, kept after the end."""
    opened = await ssh.told("ssh_session_open", target="box", durability=durability)
    session = opened["session_id"]
    await run(ssh, session, "echo written down")
    closed = await ssh.told("ssh_session_close", session=session)
    path = Path(closed["transcript_path"])
    await soon(lambda: b"written down" in path.read_bytes(), "it is written")
    async with asyncio.timeout(40):
        while True:
            mode, size, above = await asyncio.to_thread(looked_at, path)
            assert (mode, above) == (0o600, 0o700)
            listed = await ssh.told("ssh_session_list", include_exited=True)
            (row,) = [one for one in listed["sessions"] if one["session_id"] == session]
            if row["transcript_size_bytes"] == size:
                break  # its end may just have been written


async def test_a_client_that_is_killed_leaves_its_command_to_the_others(
    world: World, other: Tools, durability: str
) -> None:
    """NF-01, SE-06: the session lives, the outcome is read by somebody else."""
    async with tools(world) as doomed:
        opened = await doomed.told(
            "ssh_session_open", target="box", durability=durability
        )
        session = opened["session_id"]
        told = await run(doomed, session, "sleep 1; echo outlived", wait_seconds=0)
        doomed.wire.process.send_signal(signal.SIGKILL)
        result = await other.ended(told["job_id"])
    assert (result["stdout"], result["exit_code"]) == ("outlived\n", 0)
    assert (await run(other, session, "echo mine"))["stdout"] == "mine\n"
    await other.told("ssh_session_close", session=session)


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("ssh_session_open", {"target": "nosuchhost.invalid"}, "HOST_NOT_FOUND"),
        ("ssh_session_open", {"target": "box", "cwd": "/nonexistent"}, "CWD_FAILED"),
        ("ssh_session_open", {"target": "box", "shell": "nosuch"}, "SHELL_FAILED"),
        ("ssh_session_open", {"target": "box", "cols": 0}, "INVALID_ARGUMENT"),
        ("ssh_session_open", {"target": "box", "rows": 1001}, "INVALID_ARGUMENT"),
        ("ssh_session_open", {"target": "box", "session_name": "a b"}, "INVALID_A"),
        ("ssh_session_open", {"target": "box", "durability": "x"}, "INVALID_ARGUMENT"),
        ("ssh_session_open", {"target": "box", "env": {"A=B": "c"}}, "INVALID_A"),
        ("ssh_session_run", {"session": "nosuch", "command": "true"}, "SESSION_NOT"),
        ("ssh_session_run", {"session": "", "command": "true"}, "INVALID_ARGUMENT"),
        ("ssh_session_run", {"session": "{s}", "command": "  "}, "INVALID_ARGUMENT"),
        ("ssh_session_run", {"session": "{s}"}, "INVALID_ARGUMENT"),
        ("ssh_session_write", {"session": "{s}", "input": ""}, "INVALID_ARGUMENT"),
        ("ssh_session_write", {"session": "nosuch", "input": "x"}, "SESSION_NOT_FOUND"),
        ("ssh_session_read", {"session": "nosuch"}, "SESSION_NOT_FOUND"),
        ("ssh_session_read", {"session": "{s}", "offset": 10**9}, "INVALID_ARGUMENT"),
        ("ssh_session_read", {"session": "{s}", "view": "film"}, "INVALID_ARGUMENT"),
        ("ssh_session_close", {}, "INVALID_ARGUMENT"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_ran(
    ssh: Tools, tool: str, arguments: dict[str, Any], reason: str
) -> None:
    """EX-20 for sessions: a typed error, and no session is left behind."""
    opened = await ssh.told("ssh_session_open", target="box", session_name="fine")
    before = (await ssh.told("ssh_session_list", include_exited=True))["count"]
    filled = {
        key: opened["session_id"] if value == "{s}" else value
        for key, value in arguments.items()
    }
    error = await ssh.refused(tool, **filled)
    assert error["reason"].startswith(reason), error
    assert error["ran"] == "no"
    assert error["message"]
    after = (await ssh.told("ssh_session_list", include_exited=True))["count"]
    assert after == before


async def test_what_is_done_is_audited(ssh: Tools, world: World) -> None:
    """OB-01: the opening, each command, and the end, with the client's name."""
    opened = await ssh.told("ssh_session_open", target="box", durability="held")
    await run(ssh, opened["session_id"], "echo audited-command")
    await ssh.told("ssh_session_close", session=opened["session_id"])
    rows = [row for row in records(world) if "SessionService" in str(row)]
    assert any(row.get("command") == "echo audited-command" for row in rows)
    assert any(opened["session_id"] in str(row) for row in rows)


async def test_a_disconnected_host_s_sessions_are_told_and_wait(sshd: Sshd) -> None:
    """NF-09: what is held ends with its connection, what the host keeps is back."""
    with served(sshd) as alone:
        async with tools(alone) as ssh:
            for kind in ("held", "remote"):
                await ssh.told(
                    "ssh_session_open",
                    target="box",
                    session_name=kind,
                    durability=kind,
                )
            await run(ssh, "remote", "X=kept")
            (host,) = [
                one
                for one in (await ssh.told("ssh_hosts"))["hosts"]
                if one["name"] == "box"
            ]
            assert host["sessions"] == 2
            error = await ssh.refused("ssh_disconnect", target="box")
            assert (error["reason"], error["ran"]) == ("IN_USE", "no")
            told = await ssh.told("ssh_disconnect", target="box", force=True)
            assert (told["closed"], told["sessions_ended"]) == (True, 1)
            gone = await ssh.told("ssh_session_read", session="held")
            assert (gone["running"], gone["exit_reason"]) == (False, "connection_lost")
            assert "exit_code" not in gone
            assert (await run(ssh, "remote", "echo $X"))["stdout"] == "kept\n"
            await ssh.told("ssh_session_close", session="remote", force=True)
