"""The verbs of `holdfast` that ask the daemon, against a daemon of the tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket as sockets
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import holdfast_shim
from fakes.cli_daemon import OUT, LocalDaemon
from fakes.world import program
from holdfast.v1 import admin_pb2, exec_pb2
from holdfast_shim.cli import app
from holdfast_shim.cli.audit import line as audit_line
from holdfast_shim.cli.mcp_clients import CLIENTS
from holdfast_shim.cli.status import client_rows as status_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[LocalDaemon]:
    async with LocalDaemon(short_path / "run" / "holdfast.sock") as one:
        yield one


async def begin(daemon: LocalDaemon, command: str, *, wait: bool = True) -> str:
    """Start a job that no command line watches."""
    job = await daemon.start(exec_pb2.RunRequest(target="web1", command=command))
    if wait:
        await job.ended()
    return job.job_id


async def test_status_tells_how_it_stands(daemon: LocalDaemon) -> None:
    """IN-07."""
    told = await daemon.cli("status")
    assert told.code == 0
    for part in (
        "holdfast 9.9",
        "2 h 5 m",
        "31.0 MiB",
        "me@web1:22",
        "claude-code/2.1",
    ):
        assert part in told.text
    assert "answer_chars" not in told.text
    assert "answer_chars" in (await daemon.cli("status", "--limits")).text
    assert (await daemon.cli("status", "--json")).json["uptime_seconds"] == 7505
    assert (await daemon.cli("--json", "status")).json["version"] == "9.9"


async def test_jobs_are_listed_newest_first(daemon: LocalDaemon) -> None:
    """EX-16, IN-08."""
    assert b"no jobs\n" in (await daemon.cli("jobs")).err
    assert b"no jobs on zzz\n" in (await daemon.cli("jobs", "zzz")).err
    await begin(daemon, "exit 3")
    await begin(daemon, "sleep 1000", wait=False)
    told = await daemon.cli("jobs")
    lines = told.out.decode().splitlines()
    assert lines[0].split() == [
        "JOB", "TARGET", "STATE", "STARTED", "TIME", "CLIENT", "SESSION", "COMMAND",
    ]  # fmt: skip
    assert lines[1].startswith("j2") and "running" in lines[1]  # noqa: PT018
    assert "exit 3" in lines[2] and " ago " in lines[2]  # noqa: PT018
    running = await daemon.cli("jobs", "--running", "--json")
    assert [job["job_id"] for job in running.json["jobs"]] == ["j2"]
    assert running.json["jobs"][0]["status"] == "running"


async def test_a_job_is_shown_byte_for_byte_on_both_outputs(
    daemon: LocalDaemon,
) -> None:
    """EX-14: also while it runs, and then it says so."""
    job = await begin(daemon, "printf 'a\\377b'; printf err >&2; exit 4")
    told = await daemon.cli("job", job)
    assert (told.code, told.out, told.err) == (0, b"a\xffb", b"err")
    out = await daemon.cli("job", job, "--stream", "stdout")
    assert (out.out, out.err) == (b"a\xffb", b"")
    running = await daemon.start(
        exec_pb2.RunRequest(command="echo begun; sleep 1000", target="web1")
    )
    async with running.grown:
        await running.grown.wait_for(lambda: bool(running.chunks))
    told = await daemon.cli("job", running.job_id)
    assert told.out == b"begun\n"
    assert b"still runs" in told.err


async def test_of_output_that_was_discarded_meanwhile_nothing_later_is_shown(
    daemon: LocalDaemon,
) -> None:
    """EX-14: what was there when it was asked for has gone, the next is not of it."""
    job = await begin(daemon, "printf 0123456789; sleep 1000", wait=False)
    one = daemon.jobs[job]
    async with one.grown:
        await one.grown.wait_for(lambda: bool(one.chunks))
    one.chunks[0].next_offset = 25
    told = await daemon.cli("job", job)
    assert (told.code, told.out) == (0, b"")


async def test_a_job_is_followed_to_its_own_exit_code(daemon: LocalDaemon) -> None:
    """EX-16: output while it runs, then the code of the job."""
    script = "echo one; read x; echo two; exit 6"
    job = await begin(daemon, script, wait=False)
    process = await daemon.begin("job", job, "--follow")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"one\n"
    pipe = daemon.jobs[job].process.stdin
    assert pipe is not None
    pipe.write(b"\n")
    assert await process.stdout.read() == b"two\n"
    assert await process.wait() == 6


async def test_following_as_json_is_lines(daemon: LocalDaemon) -> None:
    job = await begin(daemon, "printf '\\303'; printf '\\244'; kill -9 $$")
    chunks = daemon.jobs[job].chunks
    whole = b"".join(c.data for c in chunks)
    chunks.clear()
    for index in range(len(whole)):  # a character cut in two
        chunks.append(
            exec_pb2.OutputChunk(
                stream=OUT, data=whole[index : index + 1], next_offset=index + 1
            )
        )
    told = await daemon.cli("job", job, "--follow", "--json")
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert "".join(line.get("text", "") for line in lines) == "ä"
    assert lines[-1]["signal"] == "KILL"
    assert lines[-1]["ok"] is False
    assert "exit_code" not in lines[-1]
    assert told.code == 137


async def test_tail_and_grep_show_lines(daemon: LocalDaemon) -> None:
    """EX-14."""
    job = await begin(daemon, "seq 20")
    assert (await daemon.cli("job", job, "--tail", "2")).out == b"19\n20\n"
    assert (await daemon.cli("job", job, "--grep", "7")).out == b"7\n17\n"
    none = await daemon.cli("job", job, "--grep", "zzz")
    assert (none.out, none.err) == (b"", b"holdfast: no line matches 'zzz'\n")
    found = await daemon.cli("job", job, "--json", "--tail", "1")
    assert found.json["stdout"] == "20\n"
    assert found.json["exit_code"] == 0
    assert (await daemon.cli("job", job, "--json")).json["stdout"].startswith("1\n2\n")
    followed = await daemon.cli("job", job, "--follow", "--tail", "1")
    assert followed.out == b"20\n"
    bad = await daemon.cli("job", job, "--grep", "(")
    assert (bad.code, bad.out) == (1, b"")
    assert b"no regular expression" in bad.err


@pytest.mark.parametrize(
    "words", [["--stop", "KILL", "j1"], ["j1", "--stop", "kill"], ["--stop", "j1"]]
)
async def test_a_job_is_stopped(daemon: LocalDaemon, words: list[str]) -> None:
    """EX-21: with a signal or without."""
    await begin(daemon, "sleep 1000", wait=False)
    told = await daemon.cli("job", *words)
    assert told.code == 0
    assert b"job j1 has ended: signal" in told.out
    expected = signal.SIGKILL if len(words) == 3 else signal.SIGTERM
    assert daemon.jobs["j1"].signals == [expected]


async def test_wrong_ids_and_words_are_told_without_a_traceback(
    daemon: LocalDaemon,
) -> None:
    told = await daemon.cli("job", "nope")
    assert told.code == 1
    assert "holdfast: there is no job 'nope'\n  hint: " in told.err.decode()
    told = await daemon.cli("job", "nope", "--json")
    assert told.json["error"]["reason"] == "JOB_NOT_FOUND"
    for line in (
        "job",
        "job j1 --stop USR1",
        "job j1 -f --grep x",
        "audit --verify --follow",
        "audit -n 3 --verify",
        "--socket= status",
        "nonsense",
        "mcp-config x",
    ):
        assert (await daemon.cli(*line.split())).code == 2, line


async def test_hosts_are_listed_and_filtered(daemon: LocalDaemon) -> None:
    """IN-03, IN-08: names from elsewhere can't write escapes."""
    told = await daemon.cli("hosts", "list")
    assert "web1  me@web1:22  yes" in told.text
    assert b"\x1b" not in told.out
    tagged = await daemon.cli("hosts", "list", "--tag", "prod", "--json")
    assert [host["name"] for host in tagged.json["hosts"]] == ["db1"]
    assert b"no hosts" in (await daemon.cli("hosts", "list", "zzz")).err


async def test_a_host_is_tested(daemon: LocalDaemon) -> None:
    """IN-05: what was measured, or why not and what next."""
    told = await daemon.cli("hosts", "test", "-p", "2222", "web1")
    assert told.code == 0
    for part in ("3.2 ms", "OpenSSH_9.2", "SHA256:abc", "publickey"):
        assert part in told.text
    assert daemon.connects[0].connect.port == 2222
    told = await daemon.cli("hosts", "test", "refused.example")
    assert told.code == 1
    assert "refused.example refused\n  hint: " in told.err.decode()


async def test_audit_records_are_lines_and_verified(daemon: LocalDaemon) -> None:
    told = await daemon.cli("audit", "-n", "2")
    assert len(told.out.splitlines()) == 2
    assert b"command_execution" in told.out
    assert b"\x1b" not in told.out
    raw = await daemon.cli("audit", "--json")
    assert raw.out.decode().splitlines() == daemon.records
    assert (await daemon.cli("audit", "--verify")).code == 0
    daemon.intact = False
    told = await daemon.cli("audit", "--verify")
    assert told.code == 1
    assert b"record 2" in told.out
    assert (await daemon.cli("audit", "--verify", "--json")).json["intact"] is False


async def test_reload_fails_when_the_configuration_was_not_taken(
    daemon: LocalDaemon,
) -> None:
    """IN-02."""
    told = await daemon.cli("reload")
    assert (told.code, told.out) == (0, b"no configuration file; nothing changed\n")
    daemon.config_error = "config.toml line 3: unknown key"
    told = await daemon.cli("reload")
    assert told.code == 1
    assert b"line 3" in told.err
    assert (await daemon.cli("reload", "--json")).json["reloaded"] is False


@pytest.mark.parametrize("client", list(CLIENTS))
async def test_what_to_paste_names_the_shim_by_its_absolute_path(
    daemon: LocalDaemon, client: str
) -> None:
    """TR-08: it parses as what the client reads, and nothing else is on stdout."""
    text = (await daemon.cli("mcp-config", client)).out.decode()
    if client == "claude":
        program = text.partition(" -- ")[2].split()[0]
        assert text.startswith("claude mcp add --scope user holdfast -- /")
        args = text.split()[-2:]
    else:
        found = tomllib.loads(text) if client == "codex" else json.loads(text)
        servers = next(iter(found.values()))
        program, args = servers["holdfast"]["command"], servers["holdfast"]["args"]
    assert Path(program).is_absolute()
    assert os.access(program, os.X_OK)
    assert args == ["--socket", str(daemon.socket)]
    told = await daemon.cli("mcp-config", client, "--json")
    assert told.json["text"] == text.rstrip("\n")


async def test_a_reader_that_left_is_no_error(daemon: LocalDaemon) -> None:
    """`holdfast jobs | head` says nothing."""
    for _ in range(3):
        await begin(daemon, "true")
    read, write = os.pipe()
    os.close(read)
    for words in (["jobs"], ["status", "--json"], ["audit"], ["job", "j1", "--json"]):
        process = await daemon.begin(*words, stdout=write)
        _, err = await process.communicate()
        assert (process.returncode, err) == (141, b"")
    os.close(write)


async def test_a_full_disk_is_told(daemon: LocalDaemon) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    for words in (["status"], ["exec", "-n", "web1", "--", "echo x"]):
        process = await daemon.begin(*words, stdout=full)
        _, err = await process.communicate()
        assert process.returncode == (1 if len(words) == 1 else 255)
        assert b"No space left on device" in err
        assert b"Traceback" not in err
    os.close(full)


async def test_an_interrupt_of_a_follower_leaves_the_job_alone(
    daemon: LocalDaemon,
) -> None:
    job = await begin(daemon, "echo x; sleep 1000", wait=False)
    process = await daemon.begin("job", job, "--follow")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err == f"holdfast: job {job} goes on\n".encode()
    assert daemon.jobs[job].end is None


async def test_a_missing_daemon_is_69_with_a_way_on(short_path: Path) -> None:
    idle = LocalDaemon(short_path / "run" / "holdfast.sock")
    for words in (["status"], ["jobs"], ["hosts", "list"], ["audit"], ["reload"]):
        told = await idle.cli(*words)
        assert told.code == 69
        assert "hint: " in told.err.decode()
    told = await idle.cli("status", "--json")
    assert told.json["error"]["reason"] == "DAEMON_UNAVAILABLE"


async def test_hosts_and_jobs_complete_from_a_daemon_that_runs(
    daemon: LocalDaemon,
) -> None:
    await begin(daemon, "true")

    async def offered(*words: str) -> list[str]:
        line = ["holdfast", "--socket", str(daemon.socket), *words]
        env = {
            **os.environ,
            "_HOLDFAST_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
        }
        process = await daemon.begin(env=env)
        out, _ = await process.communicate()
        return [item.partition(",")[2] for item in out.decode().split()]

    assert await offered("exec", "we") == ["web1"]
    assert await offered("job", "j") == ["j1"]
    assert await offered("exec", "-t", "d") == ["db1"]
    assert "hosts" in await offered("ho")
    assert "--follow" in await offered("job", "--fo")


@pytest.mark.parametrize("when", ["completing", "loading"])
def test_an_interrupt_is_no_traceback(short_path: Path, when: str) -> None:
    """IN-08: also before anything was asked, and where a Tab waits for a daemon."""
    run, here = short_path / "run", short_path / "here"
    run.mkdir(mode=0o700)
    line = [program("holdfast"), "--socket", str(run / "x.sock"), "exec", "b"]
    environment = {**os.environ, "COMP_WORDS": " ".join(line), "COMP_CWORD": "4"}
    if when == "completing":
        environment["_HOLDFAST_COMPLETE"] = "bash_complete"
    else:
        os.mkfifo(here)
        script = f"import time; open({str(here)!r}, 'w').close(); time.sleep(99)"
        (short_path / "click.py").write_text(script)
        environment["PYTHONPATH"] = str(short_path)
    old = os.umask(0o177)
    with sockets.socket(sockets.AF_UNIX) as server:
        server.bind(str(run / "x.sock"))
        os.umask(old)
        server.listen()
        process = subprocess.Popen(
            line, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if when == "completing":
            # to see who is there, then to ask
            with server.accept()[0], server.accept()[0]:
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=20)
        else:
            here.read_bytes()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, (b"", b""))


def test_asking_for_help_loads_neither_grpc_nor_rich() -> None:
    """`holdfast --help` is quick because it imports next to nothing."""
    code = (
        "import sys; sys.argv = ['holdfast', '--help'];"
        "from holdfast_shim.cli import main; code = main();"
        "heavy = {'grpc', 'rich', 'google.protobuf', 'asyncio'} & set(sys.modules);"
        "sys.exit(code or heavy or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"mcp-config" in done.stdout


async def test_a_missing_subcommand_is_told_as_json_too(daemon: LocalDaemon) -> None:
    """IN-08: --json everywhere."""
    told = await daemon.cli("--json", "hosts")
    assert (told.code, told.err) == (2, b"")
    assert told.json["error"]["message"] == "missing command"
    assert told.json["error"]["hint"] == "see `holdfast hosts --help`"


async def test_only_an_option_that_was_meant_is_suggested(daemon: LocalDaemon) -> None:
    for option, told in (("--bogus", ""), ("--time", "--timeout"), ("--usr", "--user")):
        found = (await daemon.cli("exec", option, "web1", "--", "x")).err.decode()
        assert f"'{option}'" in found
        assert ("Did you mean" in found) == bool(told)
        assert told in found


async def test_choices_are_told_once(daemon: LocalDaemon) -> None:
    for verb, name in (("mcp-config", "CLIENT"), ("completion", "SHELL")):
        for words in ([verb], [verb, "--help"], [verb, "x"]):
            told = (await daemon.cli(*words)).text
            assert name in told
            assert max(told.count("claude-desktop"), told.count("zsh")) == 1


async def test_status_tells_why_a_configuration_was_not_taken_where_it_names_it(
    daemon: LocalDaemon,
) -> None:
    """IN-02."""
    daemon.config_error = "config.toml line 3: unknown key"
    told = await daemon.cli("status")
    lines = told.out.decode().splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("configuration"))
    assert lines[index + 1].endswith("not taken: config.toml line 3: unknown key")
    assert told.err == b""


def test_clients_that_were_one_call_are_one_row() -> None:
    """IN-07."""
    answer = admin_pb2.StatusResponse()
    for number in range(37):
        answer.clients.add(name="cli/0.1", pid=number + 1, calls=3, idle_seconds=9)
    answer.clients.add(name="cli-of-mine/1", pid=5, calls=2, idle_seconds=4)
    assert status_rows(answer) == [
        ["cli-of-mine/1", "5", "2", "4 s"],
        ["cli", "", "111", "9 s"],
    ]


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"command": "uptime", "metadata": {"method": "ExecService/Run"}}, "uptime"),
        ({"metadata": {"method": "AdminService/Reload"}}, "AdminService/Reload"),
        (
            {
                "metadata": {
                    "method": "ExecService/StopJob",
                    "job_id": "j1",
                    "stopped_command": "sleep 9",
                }
            },
            "ExecService/StopJob j1 sleep 9",
        ),
        ({}, ""),
    ],
)
def test_an_audit_line_says_what_was_done(told: dict[str, Any], shown: str) -> None:
    assert audit_line(json.dumps({"event_type": "x", **told})) == f"x  {shown}".rstrip()


def test_hints_name_only_commands_that_exist() -> None:
    """Nothing is advised that this release can't do."""
    source = Path(holdfast_shim.__file__).parent
    known = set(app.root.list_commands(click.Context(app.root)))
    for path in source.rglob("*.py"):
        named = re.findall(r"`holdfast ([a-z][a-z-]*)", path.read_text())
        assert set(named) <= known, path


def test_a_place_where_no_daemon_can_start_is_left_as_it_was(
    short_path: Path,
) -> None:
    """Contract section 2: refused, and nothing is left behind."""
    shared = short_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (short_path / "file").touch()
    for socket in (shared / "hf.sock", short_path / "file" / "run" / "hf.sock"):
        told = _started(socket, short_path)
        assert told.returncode == 69
        assert b"HOLDFAST_SOCKET" in told.stderr
    # One that the daemon itself refuses: everybody may replace what lies above.
    shared.chmod(0o777)
    told = _started(shared / "a" / "b" / "hf.sock", short_path)
    assert told.returncode == 69
    assert list(shared.iterdir()) == []
    assert sorted(p.name for p in short_path.iterdir()) == ["file", "shared", "state"]


def _started(socket: Path, home: Path) -> subprocess.CompletedProcess[bytes]:
    """Let the command line start a daemon on `socket`."""
    env = {
        **os.environ,
        "HOME": str(home),
        "HOLDFAST_SOCKET": str(socket),
        "HOLDFAST_STATE_DIR": str(home / "state"),
        "HOLDFAST_CONFIG": str(home / "none.toml"),
    }
    return subprocess.run(
        [program("holdfast"), "status"],
        env=env,
        capture_output=True,
        check=False,
        timeout=40,
    )
