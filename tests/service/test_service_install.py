"""`holdfast service` under a real `systemd --user`: installing, renewing, removing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.machine import DROP_IN, UNIT, Machine
from fakes.mcp_wire import PREFIX, STATELESS
from fakes.sshd import Sshd
from fakes.watch import until
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.needs_systemd, pytest.mark.xdist_group("systemd")]

EDITOR = STATELESS | {f"{PREFIX}clientInfo": {"name": "editor", "version": "3"}}
SESSIONS = int(os.environ.get("HOLDFAST_SERVICE_SESSIONS", "5"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a host whose account's home is a directory of the test."""
    directory = tmp_path_factory.mktemp("host")
    with Sshd(
        directory, options={"SetEnv": f"HOME={directory}", "MaxSessions": "200"}
    ) as server:
        yield server


@pytest.fixture(scope="module")
def machine(host: Sshd) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="hf-") as home:
        one = Machine(Path(home))
        try:
            yield one
        finally:
            one.close()


@pytest.fixture
def user(machine: Machine, host: Sshd) -> Iterator[Machine]:
    """Yield the machine with nothing installed, and nothing running."""
    machine.drop_in.write_text(DROP_IN.format(ssh_config=host.config))
    yield machine
    machine.systemctl("disable", "--now", UNIT, check=False)
    machine.drop_in.unlink(missing_ok=True)
    (machine.home / ".config" / "systemd" / "user" / UNIT).unlink(missing_ok=True)
    machine.systemctl("daemon-reload")
    machine.systemctl("reset-failed", UNIT, check=False)
    for pid in daemons(machine):
        machine.run("kill", "-TERM", pid, check=False)
    until(lambda: not daemons(machine), "what ran by itself ended")


def cli(machine: Machine, *words: str) -> str:
    return machine.run(program("holdfast"), *words).stdout


def answer(machine: Machine, *words: str, code: int = 0, **env: str) -> Any:
    """Run `holdfast service … --json`."""
    done = machine.service(*words, "--json", check=False, **env)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_install_is_whole_and_done_once(user: Machine) -> None:
    """PK-04: written, enabled, started, ready; again it changes nothing at all."""
    first = user.service("install").stdout
    assert f"{UNIT} is written" in first
    assert "SSH_AUTH_SOCK is not set" in first
    assert "lingering is off" in first
    assert user.show("ActiveState") == "active"
    assert user.systemctl("is-enabled", UNIT) == "enabled\n"
    pid = user.show("MainPID")
    again = user.service("install").stdout
    assert "is as it should be" in again
    assert "runs on" in again
    assert user.show("MainPID") == pid
    stands = answer(user, "status")
    assert (stands["active"], stands["enabled"], stands["outdated"]) == (
        "active",
        True,
        False,
    )
    assert str(stands["daemon"]["pid"]) == pid
    assert stands["socket"] == f"/run/user/{os.getuid()}/holdfast/holdfast.sock"
    assert "goes on" not in user.service("status").stdout


def test_the_unit_is_checked_and_rated(user: Machine) -> None:
    """PK-04: `verify` has nothing to say; `security` rates it, which is printed."""
    user.service("install")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    runtime = f"/run/user/{os.getuid()}"
    strict = ("--man=no", "--recursive-errors=yes")
    told = user.run(
        "systemd-analyze",
        "--user",
        "verify",
        *strict,
        str(path),
        XDG_RUNTIME_DIR=runtime,
    )
    assert told.stderr == ""
    rated = user.run(
        "systemd-analyze",
        "--user",
        "--no-pager",
        "security",
        UNIT,
        XDG_RUNTIME_DIR=runtime,
    )
    level = rated.stdout.strip().splitlines()[-1]
    assert "Overall exposure level" in level
    sys.stdout.write(level + "\n")


def test_each_point_of_the_rating_has_its_reason(user: Machine) -> None:
    """PK-04: what `security` still counts stands in the documentation, and no more."""
    user.service("install")
    rate = ("systemd-analyze", "--user", "--json=short", "security", UNIT)
    told = user.run(*rate, XDG_RUNTIME_DIR=f"/run/user/{os.getuid()}")
    counted = {
        re.split("=|/", row["name"])[0]
        for row in json.loads(told.stdout)
        if not row["set"] and float(row["exposure"] or 0)
    }
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    table = text.partition("### What the rating counts")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)=`", " ".join(rows))) == counted


def test_ssh_works_inside_the_sandbox(user: Machine, host: Sshd) -> None:
    """PK-04: ProxyCommand and rsync, started by the daemon, do under the unit."""
    config = host.config.read_text()
    assert "Host box" in config
    bent = user.home / "bent"
    proxy = f"ProxyCommand sh -c 'exec nc 127.0.0.1 {host.port}'"
    if shutil.which("nc") is None:
        proxy = f"ProxyCommand ssh -F {host.config} -W 127.0.0.1:{host.port} box"
    bent.write_text(config.replace("Host box", f"Host box\n  {proxy}", 1))
    user.drop_in.write_text(DROP_IN.format(ssh_config=bent))
    user.service("install")
    assert cli(user, "exec", "box", "--", "echo on") == "on\n"
    source, there = user.home / "from", host.directory / "there"
    source.mkdir()
    (source / "file").write_text("kept\n")
    (source / "file").chmod(0o4755)
    told = json.loads(cli(user, "sync", str(source), f"box:{there}", "--json"))
    assert (there / "file").read_text() == "kept\n", told
    assert (there / "file").stat().st_mode & 0o7777 == 0o4755


def test_the_agent_is_told_to_the_manager(user: Machine) -> None:
    """PK-04: SSH_AUTH_SOCK reaches the service; one that will not last does not."""
    agent = user.home / "agent"
    started = user.run("ssh-agent", "-a", str(agent))
    pid = started.stdout.partition("SSH_AGENT_PID=")[2].partition(";")[0]
    try:
        told = user.service("install", SSH_AUTH_SOCK=str(agent)).stdout
        assert f"is imported into the user manager until its end ({agent})" in told
        assert answer(user, "status")["agent"] == str(agent)
        environ = user.run("cat", f"/proc/{user.show('MainPID')}/environ").stdout
        assert f"SSH_AUTH_SOCK={agent}" in environ.split("\0")
        user.systemctl("unset-environment", "SSH_AUTH_SOCK")
        gone = user.service("install", SSH_AUTH_SOCK=str(user.home / "nothing")).stdout
        assert "not imported" in gone
    finally:
        user.run("kill", pid)


def test_a_daemon_of_a_client_is_handed_over(user: Machine, host: Sshd) -> None:
    """PK-04, NF-20: what a shim started ends in order; kept things go on."""
    words = (program("holdfast"), "exec", "box", "--", "true")
    user.run(*words, HOLDFAST_SSH_CONFIG=str(host.config))
    before = user.cli("status")
    assert user.show("MainPID") == "0"
    job = start_job(user, "sleep 60")
    refused = answer(user, "install", "--wait", "0", code=1)["error"]
    assert refused["reason"] == "IN_USE"
    assert job in refused["message"]
    assert user.cli("status")["pid"] == before["pid"], "it was left alone"
    cli(user, "job", job, "--stop")
    told = user.service("install").stdout
    assert f"took over from 0.1.0 (process {before['pid']})" in told
    after = user.cli("status")
    assert str(after["pid"]) == user.show("MainPID")
    assert len(daemons(user)) == 1


def test_a_daemon_of_a_client_that_hangs_is_handed_over(
    user: Machine, host: Sshd
) -> None:
    """PK-04: with --now; a service that was there, stopped, was refused its start."""
    user.service("install")
    user.systemctl("stop", UNIT)
    words = (program("holdfast"), "status")
    user.run(*words, HOLDFAST_SSH_CONFIG=str(host.config))
    (stuck,) = daemons(user)
    user.run("kill", "-STOP", stuck)
    try:
        told = user.service("install", "--now").stdout
        assert f"process {stuck}, which did not answer, was ended" in told
        assert daemons(user) == [user.show("MainPID")]
    finally:
        user.run("kill", "-CONT", stuck, check=False)


def start_job(user: Machine, command: str, *, durable: bool = False) -> str:
    """Begin a command by a shim that does not wait, as agents do."""
    arguments = {"target": "box", "command": command, "wait_seconds": 0}
    if durable:
        arguments["durable"] = True
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "ssh_exec", "arguments": arguments},
    }
    done = subprocess.run(
        [*user.enter, program("holdfast-mcp")],
        env=user.environment,
        input=json.dumps(call) + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[0])["result"]
    assert "isError" not in result, result
    rows = user.cli("jobs")["jobs"]
    return str(next(row["job_id"] for row in rows if row["command"] == command))


def daemons(user: Machine) -> list[str]:
    found = user.run("pgrep", "-f", "holdfastd|holdfast_daemon", check=False)
    return found.stdout.split()


def test_restart_keeps_what_hosts_keep(user: Machine) -> None:
    """NF-20, PK-05: sessions, durable commands and forwards are back, and named."""
    # the usual ones are for 50 sessions on one host
    more = f"sessions_per_host = {SESSIONS + 50}\nconnections_per_host = 40\n"
    config = configure(user, f"[limits]\n{more}")
    try:
        user.service("install")
        restart_with_sessions(user)
    finally:
        config.unlink()


def configure(user: Machine, text: str) -> Path:
    """Write the user's configuration; return where it is."""
    config = user.home / ".config" / "holdfast" / "config.toml"
    config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.touch(mode=0o600)
    config.write_text(text)
    return config


def restart_with_sessions(user: Machine) -> None:
    """Restart it twice, by systemctl and by us, with things that hosts keep."""
    for number in range(SESSIONS):
        open_session(user, f"s{number}", f"mark=m{number}")
    job = start_job(user, "sleep 3; echo done", durable=True)
    opened = cli(
        user,
        "forward",
        "box",
        "-L",
        "0:127.0.0.1:1",
        "--durable",
        "--name",
        "f",
        "--json",
    )
    listen = json.loads(opened)["listen"]
    begun = time.monotonic()
    user.systemctl("restart", UNIT)
    assert time.monotonic() - begun < 30
    kept = {one["session_name"] for one in user.cli("sessions")["sessions"]}
    assert kept == {f"s{number}" for number in range(SESSIONS)}
    forwards = user.cli("forwards")["forwards"]
    assert [(one["name"], one["listen"]) for one in forwards] == [("f", listen)]
    told = user.service("restart").stdout
    assert "took over from" in told
    assert "sessions kept: " in told
    assert "gone" not in told
    assert "durable forwards kept: f" in told
    last = f"s{SESSIONS - 1}"
    assert f"m{SESSIONS - 1}" in run_in(user, last, "echo $mark")
    shown = cli(user, "job", job, "--follow")
    assert shown.endswith("done\n")
    for number in range(SESSIONS):
        cli(user, "sessions", "--close", f"s{number}")
    cli(user, "forwards", "--close", "f")


def open_session(user: Machine, name: str, command: str) -> None:
    call(user, "ssh_session_open", {"target": "box", "session_name": name})
    run_in(user, name, command)


def run_in(user: Machine, name: str, command: str) -> str:
    told = call(user, "ssh_session_run", {"session": name, "command": command})
    return str(told["content"][0]["text"])


def call(user: Machine, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool by a shim of its own."""
    line = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": EDITOR},
    }
    with subprocess.Popen(
        [*user.enter, program("holdfast-mcp")],
        env=user.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shim:
        assert shim.stdin is not None
        assert shim.stdout is not None
        shim.stdin.write(json.dumps(line) + "\n")
        shim.stdin.flush()
        found = json.loads(shim.stdout.readline())["result"]
        shim.stdin.close()
    assert "isError" not in found, found
    return found


def test_a_start_that_fails_over_and_over_is_given_up(user: Machine) -> None:
    """PK-04: the start limit; `status` and `install` afterwards get it going again."""
    user.service("install")
    user.drop_in.write_text(
        "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=50ms\n"
        "ExecStart=\nExecStart=/bin/sh -c 'exit 3'\n"
    )
    user.systemctl("daemon-reload")
    user.systemctl("restart", UNIT, check=False)
    until(lambda: user.show("ActiveState") == "failed", "it was given up")
    stands = answer(user, "status", code=1)
    assert (stands["active"], stands["daemon"]) == ("failed", None)
    user.drop_in.unlink()
    user.systemctl("daemon-reload")
    assert "holdfast 0.1.0 runs" in user.service("install").stdout
    assert user.show("ActiveState") == "active"


def test_upgrade_renews_unit_and_daemon(user: Machine) -> None:
    """NF-20: a unit of another version is written anew, and the daemon started anew."""
    user.service("install")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    current = path.read_text()
    path.write_text(current.replace("holdfast 0.1.0", "holdfast 0.0.9"))
    assert answer(user, "status")["outdated"]
    before = user.show("MainPID")
    told = user.service("upgrade").stdout
    assert "is written anew" in told
    assert f"took over from 0.1.0 (process {before})" in told
    assert path.read_text() == current
    assert not answer(user, "status")["outdated"]


def test_upgrade_keeps_the_environment_of_the_installation(user: Machine) -> None:
    """NF-20: from another shell, as by `ssh HOST holdfast …`, nothing moves.

    Its daemon kept its state elsewhere from then on: what was kept was not found again.
    """
    place = str(user.home / """odd 'st"a"te' $HOME %h \\n""")
    tools = f"{user.home}/tools:{user.environment['PATH']}"
    user.service("install", XDG_STATE_HOME=place, PATH=tools)
    path = user.home / ".config" / "systemd" / "user" / UNIT
    current = path.read_text()
    state = cli(user, "status", "--json")
    assert json.loads(state)["state_dir"] == f"{place}/holdfast"
    assert not answer(user, "status")["outdated"]
    path.write_text(current.replace("holdfast 0.1.0", "holdfast 0.0.9"))
    assert "is written anew" in user.service("upgrade").stdout
    assert path.read_text() == current
    assert "is written" in user.service("install").stdout
    assert f"{user.home}/tools" not in path.read_text()


def test_a_unit_that_is_a_link_stays_one(user: Machine) -> None:
    """PK-04: as of those who keep such files elsewhere: that file is renewed."""
    user.service("install")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    elsewhere = user.home / "dotfiles-unit"
    current = path.read_text()
    elsewhere.write_text(current.replace("holdfast 0.1.0", "holdfast 0.0.9"))
    path.unlink()
    path.symlink_to(elsewhere)
    user.systemctl("daemon-reload")
    user.service("upgrade")
    assert path.readlink() == elsewhere
    assert elsewhere.read_text() == current
    user.service("uninstall")
    assert not path.is_symlink()
    assert elsewhere.read_text() == current


def test_a_masked_service_is_not_installed(user: Machine) -> None:
    """PK-04: it was unmasked without a word."""
    user.service("install")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    user.service("uninstall")
    user.systemctl("mask", UNIT)
    try:
        done = user.service("install", check=False)
        assert done.returncode != 0
        assert "is masked" in done.stderr
        assert "systemctl --user unmask" in done.stderr
        assert path.readlink() == Path(os.devnull)
    finally:
        user.systemctl("unmask", UNIT)


def test_a_program_may_lie_anywhere(user: Machine) -> None:
    """PK-04: systemd starts it whatever its path holds, and expands nothing in it."""
    odd = user.home / """it's "a" $HOME ${PATH} $$ %h \\n"""
    odd.symlink_to(sys.prefix)
    code = "import sys; from holdfast_shim.cli import main; sys.exit(main())"
    words = (str(odd / "bin" / "python"), "-c", code, "service", "install")
    user.run(*words, XDG_RUNTIME_DIR=f"/run/user/{os.getuid()}")
    ran = user.run("cat", f"/proc/{user.show('MainPID')}/cmdline").stdout.split("\0")
    assert ran[1] == str(odd / "bin" / "holdfastd")
    assert user.show("Result") == "success"


def test_what_no_unit_can_hold_is_left_out_of_path(user: Machine) -> None:
    """PK-04: a line break or a byte of no UTF-8 costs one directory, not the path."""
    user.service("install", PATH="/usr/bin:/bin:/a\nb:/\udcff:/end")
    assert "PATH=/usr/bin:/bin:/end" in user.show("Environment").split()


def test_a_unit_that_is_no_text_is_told(user: Machine) -> None:
    """PK-03: an editor of another character set; it was an error of no type."""
    user.service("install")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    text = path.read_bytes()
    path.write_bytes(text + b"# caf\xe9\n")
    told = user.service("upgrade", check=False)
    assert told.returncode == 69
    assert f"{path} is no UTF-8 text" in told.stderr
    path.write_bytes(text)


def test_a_configuration_that_the_manager_does_not_know_of(user: Machine) -> None:
    """PK-04: a shell's own XDG_CONFIG_HOME; systemd looks for units elsewhere."""
    own = str(user.home / "own")
    path = user.home / ".config" / "systemd" / "user" / UNIT
    told = user.service("install", XDG_CONFIG_HOME=own).stdout
    assert f"{path} is written" in told
    assert f"Environment=XDG_CONFIG_HOME={own}\n" in path.read_text()
    assert answer(user, "status", XDG_CONFIG_HOME=own)["file"] == str(path)
    user.systemctl("stop", UNIT)
    runtime = f"/run/user/{os.getuid()}"
    words = (program("holdfast"), "--json", "status")
    told = user.run(*words, XDG_CONFIG_HOME=own, XDG_RUNTIME_DIR=runtime).stdout
    assert str(json.loads(told)["pid"]) == user.show("MainPID")
    told = user.service("uninstall", XDG_CONFIG_HOME=own).stdout
    assert f"{path} is removed" in told
    assert not os.path.lexists(own)


def test_uninstall_leaves_nothing(user: Machine) -> None:
    """PK-04: no unit, link, process, socket; only what is the user's own."""
    user.drop_in.unlink()
    user.drop_in.parent.rmdir()
    user.service("install")
    told = user.service("uninstall").stdout
    assert f"{UNIT} is removed" in told
    assert daemons(user) == []
    config = user.home / ".config"
    assert [p for p in config.rglob("*") if "systemd" in p.parts] == []
    left = user.run("ls", f"/run/user/{os.getuid()}").stdout.split()
    assert "holdfast" not in left
    assert user.systemctl("list-unit-files", UNIT, "--no-legend", check=False) == ""
    assert "no service was installed" in user.service("uninstall").stdout


def test_the_journal_has_fields(user: Machine, host: Sshd) -> None:
    """OB-02, PK-04: records are found by host, client and job."""
    pytest.importorskip("systemd.journal", reason="systemd-python is not installed")
    config = configure(user, 'log_level = "debug"\n')
    try:
        user.service("install")
        cli(user, "exec", "box", "--", "true")
        job = user.cli("jobs")["jobs"][0]["job_id"]

        def found(*words: str) -> list[dict[str, Any]]:
            said = user.service("logs", "-n", "200", *words, "--json", check=False)
            return [json.loads(line) for line in said.stdout.splitlines()]

        records = until(lambda: found("--job", job), "it is in the journal")
        assert {one["HOLDFAST_HOST"] for one in records} == {"box"}
        assert all(one["HOLDFAST_CLIENT"].startswith("cli") for one in records)
        assert found("--job", job, "--host", "box")
        assert found("--host", "nowhere") == []
        plain = user.service("logs").stdout
        assert "serving on" in plain
    finally:
        config.unlink()


def test_the_journal_tells_of_sessions(user: Machine) -> None:
    """OB-02: records carry host, session and client, also at the usual level."""
    pytest.importorskip("systemd.journal", reason="systemd-python is not installed")
    user.service("install")
    opened = call(user, "ssh_session_open", {"target": "box", "session_name": "build"})
    ident = opened["structuredContent"]["session_id"]
    call(user, "ssh_session_open", {"target": "box", "session_name": "x"})
    assert "here" in run_in(user, "build", "echo here")
    call(user, "ssh_session_close", {"session": ident})
    call(user, "ssh_session_close", {"session": "x"})

    def found(*matches: str) -> list[dict[str, Any]]:
        said = user.run("journalctl", "--output", "json", "--no-pager", *matches)
        return [json.loads(line) for line in said.stdout.splitlines()]

    def ended() -> list[dict[str, Any]]:
        records = found(f"HOLDFAST_SESSION={ident}", "HOLDFAST_HOST=box")
        return records if records and "ended" in records[-1]["MESSAGE"] else []

    records = until(ended, "all of it is in the journal")
    assert [one["MESSAGE"].partition(" client=")[0] for one in records] == [
        "session opened",
        "session ended: closed",
    ]
    for one in records:
        assert one["HOLDFAST_HOST"] == "box"
        assert one["HOLDFAST_SESSION"] == ident
        assert one["HOLDFAST_SESSION_NAME"] == "build"
        assert one["HOLDFAST_CLIENT"] == "editor/3"
        assert one["_SYSTEMD_USER_UNIT"] == UNIT
    for words in (("--session", ident), ("--session", "build", "--client", "editor/3")):
        said = user.service("logs", *words, "--json").stdout.splitlines()
        assert [json.loads(line)["MESSAGE"] for line in said] == [
            one["MESSAGE"] for one in records
        ]
    nobody = user.service("logs", "--session", "build", "--client", "nobody", "--json")
    assert "session" not in nobody.stdout


@pytest.mark.parametrize("name", ["HOLDFAST_SOCKET", "HOLDFAST_STATE_DIR"])
def test_places_of_its_own_are_refused(user: Machine, name: str) -> None:
    """PK-07: the variable is named, and nothing was changed."""
    error = answer(user, "install", code=1, **{name: "/tmp/elsewhere/x"})["error"]
    assert name in error["message"]
    assert f"env -u {name}" in error["hint"]
    assert not (user.home / ".config" / "systemd" / "user" / UNIT).exists()


def test_lingering_is_switched_on_when_asked(user: Machine) -> None:
    """PK-04: by loginctl; where that fails the next step is told."""
    done = user.service("install", "--linger", check=False)
    assert done.returncode == 1
    assert "lingering can't be switched on" in done.stderr
    assert "sudo loginctl enable-linger" in done.stderr
    assert user.show("ActiveState") == "active"
    tools = user.home / "bin"
    tools.mkdir()
    fake = tools / "loginctl"
    fake.write_text(f'#!/bin/sh\necho "$@" >>{user.home}/asked\n')
    fake.chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    told = user.service("install", "--linger", PATH=path).stdout
    assert "it starts at boot" in told
    assert (user.home / "asked").read_text() == "enable-linger root\n"
    assert "outdated" not in user.service("status", PATH=path).stdout


def test_without_a_user_manager_the_next_step_is_told(tmp_path: Path) -> None:
    """PK-04: in containers and under su; nothing is written."""
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    env["XDG_RUNTIME_DIR"] = str(tmp_path / "none")
    done = subprocess.run(
        [program("holdfast"), "service", "install", "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1
    assert error["reason"] == "UNSUPPORTED"
    assert "no systemd user manager answers" in error["message"]
    assert "clients start the daemon when they need it" in error["hint"]
    assert list(tmp_path.iterdir()) == []
