"""Commands under sudo, through the real shim and command line, by a real sudo.

The account is made for the tests: a root login needs no password.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.account import Account, host_of_accounts
from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools
from fakes.watch import alive, contents, records, soon
from fakes.world import World
from holdfast.v1 import exec_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sudo"),
    pytest.mark.needs_sshd,
]

PASSWORD = "canary-Sud0 'pass$word\\é"
WRONG = "canary-Wr0ng"
MAY = "USER ALL=(ALL) ALL"
FREE = "USER ALL=(ALL) NOPASSWD: ALL"
NAMED: dict[str, str] = {
    "right": "file:{root}/right",
    "wrong": "file:{root}/wrong",
    "env": "env:HF_SUDO",
    "ring": "keyring:its sudo",
    "unset": "env:HF_NOT_SET",
    "open": "file:{root}/open",
    "unknown": "keyring:nobody",
}
BACKEND = f"""
from keyring.backend import KeyringBackend

class Ring(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        known = {{("holdfast", "its sudo"): {PASSWORD!r}}}
        return known.get((service, username))
    def set_password(self, service, username, password):
        raise NotImplementedError
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with host_of_accounts(tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest.fixture(scope="module")
def who(server: Sshd) -> Iterator[Account]:
    with Account(server.key, password=PASSWORD) as one:
        yield one


@pytest.fixture(autouse=True)
def may(who: Account) -> None:
    who.sudoers(MAY)


@pytest.fixture(scope="module")
def sudo_world(server: Sshd, who: Account) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    try:
        server.config.write_text(
            server.client_config().replace(f"User {server.user}", f"User {who.name}")
        )
        for name, text in (("right", PASSWORD), ("wrong", WRONG), ("open", PASSWORD)):
            (root / name).write_text(f"{text}\n")
            (root / name).chmod(0o644 if name == "open" else 0o600)
        (root / "ring").mkdir()
        (root / "ring" / "hf_test_ring.py").write_text(BACKEND)
        hosts = "".join(
            f'[hosts.{name}]\nhost = "box"\n'
            f'sudo_password_from = "{reference.format(root=root)}"\n'
            for name, reference in NAMED.items()
        )
        world = World(root, ssh_config=server.config)
        world.configure(
            'log_level = "debug"\n'
            "[limits]\nstop_grace_seconds = 0.4\nmarker_seconds = 1\n" + hosts
        )
        path = [str(root / "ring"), os.environ.get("PYTHONPATH", "")]
        try:
            world.start(
                HF_SUDO=PASSWORD,
                PYTHON_KEYRING_BACKEND="hf_test_ring.Ring",
                PYTHONPATH=":".join(filter(None, path)),
            )
            yield world
        finally:
            world.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(sudo_world: World) -> AsyncIterator[Tools]:
    async with tools(sudo_world, target="right") as one:
        yield one


@contextlib.asynccontextmanager
async def other_path(
    ssh: Tools, who: Account, path: str, sudo: str = ""
) -> AsyncGenerator[None]:
    """Have the account find `path` first, and in its own directory another sudo."""
    if sudo:
        who.write("own/sudo", f"#!/bin/sh\n{sudo}\n")
    who.write(".bashrc", f"PATH={path}\n")
    try:
        await ssh.told("ssh_disconnect", target="right", force=True)
        yield
    finally:
        (who.home / ".bashrc").unlink()
        await ssh.told("ssh_disconnect", target="right", force=True)


OWN = '"$HOME/own:$PATH"'


async def refusal(ssh: Tools, **arguments: Any) -> dict[str, Any]:
    error = await ssh.refused("ssh_exec", command="touch /tmp/x", **arguments)
    assert error["reason"] == "SUDO_REFUSED", error
    assert error["ran"] == "no"
    assert "canary" not in json.dumps(error)
    return error


@pytest.mark.parametrize("name", ["right", "env", "ring"])
async def test_a_command_runs_as_root_with_a_password_held_by_name(
    ssh: Tools, who: Account, name: str
) -> None:
    """EX-17, NF-08: from a file, a variable and the keyring; never from the call."""
    plain = await ssh.run("id -un", target=name)
    assert plain["stdout"] == f"{who.name}\n"
    told = await ssh.run("id -un; echo err >&2; exit 7", target=name, sudo=True)
    assert (told["stdout"], told["stderr"]) == ("root\n", "err\n")
    assert (told["status"], told["exit_code"]) == ("exited", 7)


@pytest.mark.parametrize("rule", [MAY, FREE], ids=["asked", "free"])
@pytest.mark.parametrize("stdin", [None, "", "one\ntwo", "x" * 100_000])
async def test_input_is_the_command_s_own_whether_sudo_asks_or_not(
    ssh: Tools, who: Account, rule: str, stdin: str | None
) -> None:
    """EX-17: the password goes to sudo or to nobody."""
    who.sudoers(rule)
    given = {} if stdin is None else {"stdin": stdin}
    told = await ssh.run("cat; echo .", sudo=True, max_output_chars=200_000, **given)
    assert told["stdout"] == (stdin or "") + ".\n"
    assert told["stderr"] == ""


async def test_directory_variables_and_shell_hold_under_sudo(ssh: Tools) -> None:
    """EX-17: what sudo's own reset of the environment would lose."""
    told = await ssh.run(
        'pwd; printf "%s|" "$HF_ONE" "$HF_TWO"; echo $0; echo a\necho "b"',
        sudo=True,
        cwd="/root",
        env={"HF_ONE": "it's; $HOME", "HF_TWO": "a\nb"},
        shell="dash",
    )
    assert told["stdout"] == "/root\nit's; $HOME|a\nb|dash\na\nb\n"
    gone = await ssh.refused("ssh_exec", command="true", sudo=True, cwd="/nowhere")
    assert (gone["reason"], gone["ran"]) == ("CWD_FAILED", "no")
    odd = await ssh.refused("ssh_exec", command="true", sudo=True, shell="nosuch")
    assert (odd["reason"], odd["ran"]) == ("SHELL_FAILED", "no")


@pytest.mark.parametrize("rule", [MAY, FREE], ids=["asked", "free"])
async def test_a_terminal_shows_neither_prompt_nor_password(
    ssh: Tools, who: Account, rule: str
) -> None:
    """EX-17, EX-06: sudo gives the command a terminal of its own."""
    who.sudoers("Defaults:USER use_pty", rule)
    told = await ssh.run(
        "test -t 0 && test -t 1 && id -un; read x; echo got $x",
        sudo=True,
        tty=True,
        stdin="a word\n",
    )
    assert told["exit_code"] == 0, told
    lines = told["stdout"].split("\n")
    assert {"root", "got a word"} <= {*lines}
    assert "holdfast:" not in told["stdout"]


@pytest.mark.parametrize(
    ("target", "rules", "cause", "word"),
    [
        ("wrong", [MAY], "password_wrong", "file:"),
        ("wrong", ["Defaults:USER passwd_tries=1", MAY], "password_wrong", "file:"),
        ("box", [MAY], "password_needed", "sudo_password_from"),
        ("right", ["Defaults:USER !lecture"], "not_allowed", "sudoers"),
        ("right", ["USER ALL=(ALL) /bin/true"], "not_allowed", "sudoers"),
        ("right", ["Defaults:USER requiretty", MAY], "tty_needed", "tty"),
        ("unset", [MAY], "password_unset", "env:HF_NOT_SET"),
        ("open", [MAY], "password_unset", "open to others"),
        ("unknown", [MAY], "password_unset", "keyring set holdfast nobody"),
    ],
)
async def test_each_no_of_sudo_is_told_as_what_it_is(
    ssh: Tools, who: Account, *, target: str, rules: list[str], cause: str, word: str
) -> None:
    """EX-17, EX-20: a type, what was wrong, `ran` and the next step."""
    who.sudoers(*rules)
    error = await refusal(ssh, target=target, sudo=True)
    assert error["cause"] == cause, error
    assert word in error["message"] + error["hint"]
    jobs = await ssh.told("ssh_job_list", target=target)
    assert not [job for job in jobs["jobs"] if job["status"] == "running"]


async def test_a_terminal_satisfies_a_sudo_that_asks_for_one(
    ssh: Tools, who: Account
) -> None:
    """EX-17: what the hint says works."""
    who.sudoers("Defaults:USER requiretty", MAY)
    told = await ssh.run("id -un", sudo=True, tty=True)
    assert told["stdout"].split() == ["root"]


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("printf 'Verification code: ' >&2; read x; exec \"$@\"", "more_asked"),
        ('printf "$4" >&2; read x; printf "Your code: " >&2; read y', "more_asked"),
        ("echo 'kaputt {x}' >&2; exit 1", "other"),
        ("exit 3", "other"),
    ],
)
async def test_what_sudo_asks_beside_the_password_is_never_answered(
    ssh: Tools, who: Account, script: str, cause: str
) -> None:
    """EX-17: a second factor can't be had here, so sudo is a script that asks."""
    async with other_path(ssh, who, OWN, script):
        error = await refusal(ssh, sudo=True)
    assert error["cause"] == cause, error


async def test_a_password_is_offered_once(ssh: Tools, who: Account) -> None:
    """EX-17: a second wrong one may lock the account."""
    asks = 'printf "$4" >&2; read -r x || exit 1; printf "%s\\n" "$x" >>~/tries; '
    async with other_path(ssh, who, OWN, asks * 3):
        error = await refusal(ssh, sudo=True)
    assert error["cause"] == "password_wrong"
    assert (who.home / "tries").read_text() == f"{PASSWORD}\n"


async def test_a_sudo_that_was_given_up_on_has_no_exit_code(
    ssh: Tools, who: Account
) -> None:
    """EX-01: we closed the channel, so nobody told a code; it was listed with 1."""
    # It goes on when its input ends, so its server has nothing to tell.
    asks = 'printf "$4" >&2; read -r x; printf "$4" >&2; exec sleep 7'
    async with other_path(ssh, who, OWN, asks):
        told = await ssh.run("true", sudo=True, wait_seconds=0)
        job = told["job_id"]
        ended = await ssh.ended(job)
    assert ended["status"] == "lost"
    assert ended.get("exit_code") is None
    assert "did not take the password" in ended["note"]
    assert "nothing ran" in ended["note"]
    assert "must be looked up" not in ended["note"]


async def test_a_host_without_sudo_says_so(ssh: Tools, who: Account) -> None:
    """EX-17: typed, and nothing ran."""
    async with other_path(ssh, who, '"$HOME"'):
        error = await ssh.refused("ssh_exec", command="true", sudo=True)
    assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
    assert "no sudo" in error["message"]


async def test_no_ticket_is_used_and_none_is_left(ssh: Tools, who: Account) -> None:
    """EX-17: what may run does not depend on what ran before."""
    who.sudoers("Defaults:USER timestamp_type=global, timestamp_timeout=15", MAY)
    assert (await ssh.run("id -u", sudo=True))["stdout"] == "0\n"
    told = await ssh.run("sudo -n true")
    assert told["exit_code"] == 1, told
    assert (await refusal(ssh, target="wrong", sudo=True))["cause"] == "password_wrong"


@pytest.mark.parametrize("pty", [False, True], ids=["plain", "use_pty"])
@pytest.mark.parametrize("end", ["stop", "timeout"])
async def test_what_runs_as_root_is_ended_all_the_same(
    ssh: Tools, who: Account, end: str, pty: bool
) -> None:
    """EX-17, EX-12: the login user can't signal it, so sudo does."""
    who.sudoers(f"Defaults:USER {'' if pty else '!'}use_pty", MAY)
    command = "trap '' INT TERM; sleep 300 & echo $$ $! up; wait; sleep 300"
    more = {"timeout_seconds": 5} if end == "timeout" else {}
    job = await ssh.start(command, sudo=True, tty=pty, **more)
    told = await ssh.until(job, "up")
    pids = [int(word) for word in told["stdout"].split()[:2]]
    if end == "stop":
        stopped = await ssh.stop(job)
        assert stopped["stopped"] is True, stopped
    result = await ssh.ended(job)
    assert result["status"] == ("cancelled" if end == "stop" else "timed_out")
    for pid in pids:
        await soon(lambda pid=pid: not alive(pid), f"{pid} is gone")  # type: ignore[misc]  # a default binds it


@pytest.mark.parametrize("tty", [False, True], ids=["plain", "tty"])
async def test_a_job_that_sudo_still_asks_can_be_stopped(
    ssh: Tools, who: Account, tty: bool
) -> None:
    """EX-17, EX-12: nothing is left waiting for a password."""
    asks = who.home / "asks"
    asks.unlink(missing_ok=True)
    async with other_path(ssh, who, OWN, "echo $$ >~/asks; cat >/dev/null; exit 1"):
        job = await ssh.start("true", sudo=True, tty=tty)
        await soon(lambda: asks.exists() and asks.read_text().strip(), "sudo begins")
        stopped = await ssh.stop(job)
    assert stopped["status"] == "cancelled"
    pid = int(asks.read_text())
    await soon(lambda: not alive(pid), "sudo is gone")


async def test_the_password_is_found_nowhere(
    ssh: Tools, sudo_world: World, who: Account
) -> None:
    """EX-17, SC-12, NF-08: not in arguments, environments, logs, audit or spools."""
    told = await ssh.run(
        # what every process of this machine was started with, while sudo runs
        "cat /proc/[0-9]*/cmdline /proc/self/environ | tr '\\0' '\\n'",
        sudo=True,
        max_output_chars=1_000_000,
    )
    assert "sudo\n-k\n-S\n-p\nholdfast:" in told["stdout"]
    assert "canary" not in json.dumps(told)
    await refusal(ssh, target="wrong", sudo=True)
    sudo_world.cli("exec", "--sudo", "right", "--", "true")
    kept = ("right", "wrong", "open", "hf_test_ring")
    for path, text in contents(sudo_world.root).items():
        assert path.stem.startswith(kept) or b"canary" not in text, path
    begun = [r for r in records(sudo_world) if r.get("metadata", {}).get("sudo")]
    assert begun, "the audit log tells what ran under sudo"


async def test_the_command_line_does_the_same(sudo_world: World, who: Account) -> None:
    """EX-17: live input, both outputs, exit codes, and a refusal with its hint."""
    told = sudo_world.cli(
        "exec",
        "--sudo",
        "right",
        "--",
        "id -un; cat; exit 5",
        stdin=b"in\n",
        check=False,
    )
    assert (told.returncode, told.stdout, told.stderr) == (5, b"root\nin\n", b"")
    told = sudo_world.cli("exec", "--sudo", "box", "--", "id", check=False)
    assert told.returncode == 255
    assert b"sudo_password_from" in told.stderr
    assert told.stdout == b""
    told = sudo_world.cli("exec", "--sudo", "wrong", "--", "id", check=False)
    assert b"did not take the password" in told.stderr


async def test_a_retry_under_sudo_is_the_same_call_and_one_without_is_not(
    ssh: Tools,
) -> None:
    """EX-17, NF-03: who runs it belongs to what was asked."""
    again = {"request_id": "sudo-once", "sudo": True}
    first = await ssh.run("id -un", **again)
    assert (await ssh.run("id -un", **again))["job_id"] == first["job_id"]
    error = await ssh.refused("ssh_exec", command="id -un", request_id="sudo-once")
    assert error["reason"] == "REQUEST_ID_REUSED"


async def test_root_needs_no_sudo_at_all(server: Sshd, tmp_path: Path) -> None:
    """EX-17: a minimal host that one logs in to as root may have none."""
    some = tmp_path / "bin"
    some.mkdir()
    for name in ("id", "cat"):
        (some / name).symlink_to(shutil.which(name) or name)
    options = {"SetEnv": f"PATH={some}"}
    with Sshd(tmp_path / "sshd", options=options) as bare, served(bare) as world:
        told = world.cli("exec", "--sudo", "box", "--", "id -u; cat", stdin=b"in")
        assert told.stdout == b"0\nin"


async def test_a_call_can_not_bring_a_password(sudo_world: World) -> None:
    """NF-08: there is no argument for it, on the command line or in the tool."""
    told = sudo_world.cli("exec", "--sudo-password", "x", "box", check=False)
    assert told.returncode == 2
    fields = exec_pb2.RunRequest.DESCRIPTOR.fields
    assert not [field.name for field in fields if "password" in field.name]
