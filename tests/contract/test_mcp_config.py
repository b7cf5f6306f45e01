"""`holdfast mcp-config --write`: a client's own file, with holdfast in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes import forked, strays
from fakes.cli_daemon import Told
from fakes.mcp_wire import Wire
from fakes.nursery import CLI
from fakes.tools import failure
from fakes.world import program
from holdfast_shim.cli import client_file
from holdfast_shim.cli.mcp_clients import CLIENTS
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

MAC = "Library/Application Support"
USER = {
    "claude": ".claude.json",
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "codex": ".codex/config.toml",
    "cursor": ".cursor/mcp.json",
    "gemini": ".gemini/settings.json",
    "copilot": ".copilot/mcp-config.json",
    "vscode": ".config/Code/User/mcp.json",
}
if sys.platform == "darwin":
    USER["claude-desktop"] = f"{MAC}/Claude/claude_desktop_config.json"
    USER["vscode"] = f"{MAC}/Code/User/mcp.json"
PROJECT = {
    "claude": ".mcp.json",
    "codex": ".codex/config.toml",
    "cursor": ".cursor/mcp.json",
    "gemini": ".gemini/settings.json",
    "copilot": ".github/mcp.json",
    "vscode": ".vscode/mcp.json",
}
JSON = [name for name in USER if name != "codex"]
SHIM = program("holdfast-mcp")


class Person:
    """Somebody's home directory and a project in it."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.project = self.home / "project"
        self.project.mkdir(parents=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "C"))}
        self.environment = kept | {"HOME": str(self.home), "SSH_AUTH_SOCK": "/agent"}
        self.environment.pop("GEMINI_CLI_HOME", None)

    def ask(self, *words: str, **environment: str) -> Told:
        """Run `holdfast mcp-config`."""
        done = forked.run(
            CLI,
            "--no-autostart",
            "mcp-config",
            *words,
            env=self.environment | environment,
            directory=self.project,
        )
        assert b"Traceback" not in done.stderr
        return Told(done.returncode, done.stdout, done.stderr)

    def write(self, *words: str, **environment: str) -> Any:
        """Let it write, and return what it tells programs."""
        told = self.ask(*words, "--write", "--json", **environment)
        assert told.code == 0, told
        return told.json

    def files(self) -> set[str]:
        """Return every file below the home directory."""
        found = (path for path in self.home.rglob("*") if path.is_file())
        return {str(path.relative_to(self.home)) for path in found}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def parsed(file: Path) -> Any:
    """Return what a file says to a client that knows no comments."""
    text = file.read_text(encoding="utf-8")
    return tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)


def entry(client: str, file: Path) -> Any:
    """Return our entry as a client finds it."""
    return parsed(file)[CLIENTS[client].key]["holdfast"]


@pytest.mark.parametrize("client", USER)
def test_a_file_is_made_for_its_owner_alone(person: Person, client: str) -> None:
    """TR-08: what is written is what is printed, where the client looks for it."""
    told = person.write(client)
    file = person.home / USER[client]
    assert told == {
        "client": client,
        "file": str(file),
        "changed": True,
        "command": SHIM,
        "args": [],
    }
    assert person.files() == {USER[client]}
    assert file.stat().st_mode & 0o777 == 0o600
    found = entry(client, file)
    assert (found["command"], found["args"]) == (SHIM, [])
    text = person.ask(client).out.decode()
    if client == "claude":
        assert text == f"claude mcp add --scope user holdfast -- {SHIM}\n"
        assert found["type"] == "stdio"
    else:
        printed = tomllib.loads(text) if client == "codex" else json.loads(text)
        assert printed == parsed(file)


@pytest.mark.parametrize("client", PROJECT)
def test_a_project_has_its_own(person: Person, client: str) -> None:
    told = person.write(client, "--scope", "project")
    file = person.project / PROJECT[client]
    assert told["file"] == str(file)
    assert person.files() == {f"project/{PROJECT[client]}"}
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    place = person.ask(client, "--scope", "project", "--json").json["place"]
    assert client == "claude" or place.endswith(f"~/project/{PROJECT[client]}")


@pytest.mark.parametrize("client", USER)
def test_twice_is_once(person: Person, client: str) -> None:
    person.write(client)
    file = person.home / USER[client]
    before = file.stat()
    again = person.ask(client, "--write")
    assert (again.code, again.err) == (0, b"")
    assert b"nothing changed" in again.out
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert person.files() == {USER[client]}


@pytest.mark.parametrize("client", JSON)
def test_everything_else_stays_to_the_byte(person: Person, client: str) -> None:
    key = CLIENTS[client].key
    file = person.home / USER[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    one = f'{{\n    "zoo": 1.50,\n    "{key}": {{\n        "x": {{"url": "u"}}'
    two = '\n    },\n    "\\u00e9": [1,2]}'
    file.write_text(one + two, encoding="utf-8")
    file.chmod(0o640)
    told = person.write(client)
    text = file.read_text(encoding="utf-8")
    assert text.startswith(one + ',\n        "holdfast": {')
    assert text.endswith(two)
    assert entry(client, file)["command"] == SHIM
    assert file.stat().st_mode & 0o777 == 0o640
    backup = Path(told["backup"])
    assert re.fullmatch(re.escape(file.name) + r"\.\d{8}T\d{6}Z\.bak", backup.name)
    assert backup.read_text(encoding="utf-8") == one + two
    assert backup.stat().st_mode & 0o777 == 0o640
    assert len(person.files()) == 2


TOML = """\
# how I like it
model = "x"   # the good one

[mcp_servers.other]
command = "other" # mine

[profiles."a b"]
model = 'y'
"""


def test_toml_keeps_its_comments(person: Person) -> None:
    file = person.home / USER["codex"]
    file.parent.mkdir()
    file.write_text(TOML, encoding="utf-8")
    person.write("codex")
    text = file.read_text(encoding="utf-8")
    assert [line for line in TOML.splitlines() if line not in text.splitlines()] == []
    wanted = tomllib.loads(TOML)
    wanted["mcp_servers"]["holdfast"] = {
        "command": SHIM,
        "args": [],
        "env_vars": [
            "SSH_AUTH_SOCK",
            *(f"XDG_{name}" for name in ("RUNTIME_DIR", "CONFIG_HOME", "STATE_HOME")),
            *(f"HOLDFAST_{name}" for name in ("SOCKET", "CONFIG", "STATE_DIR")),
        ],
    }
    assert tomllib.loads(text) == wanted


@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("before", "entry", "after"),
    [
        ('a = 1\n\n[mcp_servers.b]\ncommand = "x"\n\n# On c.\n[c]\nd = 1\n', "", ""),
        (
            "# Ours.\n[mcp_servers.holdfast] # here\n",
            'command = "old" # mine\n',
            "enabled = true\n\n# On c.\n[c]\nd = 1\n",
        ),
        (
            "# Ours.\n[mcp_servers.holdfast]\n",
            'url = "http://x"\n',
            "\n# On c.\n[c]\nd = 1\n",
        ),
    ],
)
def test_toml_comments_stay_with_what_they_tell_of(
    person: Person, before: str, entry: str, after: str, line: str
) -> None:
    """TR-08: what is new parts no comment from the table below it; no line changes."""
    file = person.home / USER["codex"]
    file.parent.mkdir()
    file.write_bytes((before + entry + after).replace("\n", line).encode())
    person.write("codex")
    data = file.read_bytes().decode()
    assert data.startswith(before.replace("\n", line))
    assert data.endswith(after.replace("\n", line))
    assert data.count("\n") == data.count(line)
    assert ("# mine" in data) == ("# mine" in entry)


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers = { other = { command = "x" } }\n',
        'mcp_servers.other.command = "x"\n',
        '[mcp_servers]\nother = { command = "x" }\n[a]\nb = 1\n',
        '[mcp_servers.a]\ncommand="x"\n[b]\nc=1\n[mcp_servers.d]\ncommand="y"\n',
        "a = 1",
        '[mcp_servers.holdfast]\nurl = "http://x"\n[b]\nc = 1\n',
        '[mcp_servers.holdfast]\r\ncommand = "old"\r\n\r\n[b]\r\nc = 1\r\n',
        '[mcp_servers.holdfast]\ncommand = "a"\n[mcp_servers.holdfast.env]\nA = "b"\n',
    ],
)
def test_toml_of_any_layout(person: Person, text: str) -> None:
    """It says what it said, and holdfast; or it is left as it was."""
    file = person.home / USER["codex"]
    file.parent.mkdir()
    file.write_bytes(text.encode())
    person.write("codex")
    wanted, found = tomllib.loads(text), parsed(file)
    ours = found["mcp_servers"].pop("holdfast")
    theirs = wanted.setdefault("mcp_servers", {}).pop("holdfast", {})
    assert found == wanted
    assert (ours["command"], ours["args"]) == (SHIM, [])
    assert ours.get("env") == theirs.get("env")
    assert "url" not in ours


@pytest.mark.parametrize("client", ["vscode", "gemini"])
def test_comments_of_clients_that_read_them_stay(person: Person, client: str) -> None:
    key = CLIENTS[client].key
    file = person.home / USER[client]
    file.parent.mkdir(parents=True)
    text = f'// top\n{{\n  "{key}": {{ // servers\n    /* {{ */\n  }},\n}}\n'
    file.write_text(text, encoding="utf-8")
    person.write(client)
    after = file.read_text(encoding="utf-8")
    for line in ("// top", "/* { */", f'"{key}": {{ // servers'):
        assert line in after
    bare = re.sub(r"//.*|/\*.*?\*/", "", after).replace("},\n}", "}\n}")
    assert json.loads(bare)[key]["holdfast"]["command"] == SHIM


@pytest.mark.parametrize("client", USER)
def test_an_entry_that_is_there_keeps_what_its_owner_added(
    person: Person, client: str
) -> None:
    key = CLIENTS[client].key
    file = person.home / USER[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    own = {"timeout": 5, "env": {"A": "b"}, "tools": ["ssh_exec"], "env_vars": ["X"]}
    if client == "codex":
        lines = ['command = "/old" # why', "args = []", "timeout = 5", 'tools = ["t"]']
        lines += ['env_vars = ["X"]', 'env = { A = "b" }']
        text = "\n".join([f"[{key}.holdfast]", *lines, ""])
    else:
        text = json.dumps({key: {"holdfast": {**own, "command": "/old", "args": [1]}}})
    file.write_text(text, encoding="utf-8")
    person.write(client)
    found = entry(client, file)
    assert (found["command"], found["args"]) == (SHIM, [])
    assert (found["timeout"], found["env"]) == (5, {"A": "b"})
    assert found["env_vars"] == ["X"]
    assert len(found["tools"]) == 1
    assert found["tools"] != ["*"]
    if client == "codex":
        assert "# why" in file.read_text(encoding="utf-8")


BEHIND: tuple[list[str], ...] = (
    [],
    ["uvx", "--from", "holdfast"],
    ["uv", "--directory", "/src/holdfast-mcp", "run"],
    ["uvx", "--from", "/src/holdfast-mcp", "--quiet"],
)


@pytest.mark.parametrize("before", BEHIND)
@pytest.mark.parametrize("client", USER)
def test_a_client_that_was_narrowed_stays_so(
    person: Person, client: str, before: list[str]
) -> None:
    """SC-02: our own arguments stay when the program is another; all were dropped."""
    key = CLIENTS[client].key
    file = person.home / USER[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    args = ["--read-only", "--socket", "/run/old.sock", "--toolsets", "exec"]
    words = [*before, "/old/bin/holdfast-mcp", *args]
    command, rest = words[0], words[1:]
    own = {"command": command, "args": rest}
    if client == "codex":
        text = f"[{key}.holdfast]\ncommand = '{command}'\nargs = {rest}\n"
    else:
        text = json.dumps({key: {"holdfast": own}})
    file.write_text(text, encoding="utf-8")
    person.write(client)
    found = entry(client, file)
    assert (found["command"], found["args"]) == (SHIM, args)
    person.write(client, HOLDFAST_SOCKET="/run/new.sock")
    assert entry(client, file)["args"] == args, "a variable names no socket to keep"
    words = ["--socket", "/run/new.sock", "--no-autostart", "mcp-config", client]
    subprocess.run(
        [program("holdfast"), *words, "--write"],
        env=person.environment,
        check=True,
        timeout=30,
        capture_output=True,
    )
    wanted = ["--read-only", "--toolsets", "exec", "--socket", "/run/new.sock"]
    assert entry(client, file)["args"] == wanted


OWN: tuple[dict[str, Any], ...] = (
    {},
    {"env": None},
    {"env": {"A": "b", "SSH_ALLOWED_HOSTS": "*"}},
)


@pytest.mark.parametrize("own", OWN)
def test_what_env_narrowed_stays_narrow(person: Person, own: dict[str, Any]) -> None:
    """SC-01: what `env` set for our program goes on in the client's own way."""
    file = person.home / USER["cursor"]
    file.parent.mkdir(parents=True)
    words = ["-i", "SSH_ALLOWED_HOSTS=web*", "/old/holdfast-mcp", "--read-only"]
    there = {"command": "/usr/bin/env", "args": words, **own}
    text = json.dumps({"mcpServers": {"holdfast": there}})
    file.write_text(text, encoding="utf-8")
    person.write("cursor")
    found = entry("cursor", file)
    assert (found["command"], found["args"]) == (SHIM, ["--read-only"])
    assert found["env"] == {**(own.get("env") or {}), "SSH_ALLOWED_HOSTS": "web*"}


def test_a_socket_that_was_named_is_named_to_the_client(person: Person) -> None:
    person.ask("cursor", "--write")
    words = ["--socket", "/run/x.sock", "--no-autostart", "mcp-config", "cursor"]
    subprocess.run(
        [program("holdfast"), *words, "--write"],
        env=person.environment,
        check=True,
        timeout=30,
        capture_output=True,
    )
    file = person.home / USER["cursor"]
    assert entry("cursor", file)["args"] == ["--socket", "/run/x.sock"]


def test_gemini_is_told_of_an_agent_only_where_there_is_one(person: Person) -> None:
    """An unset variable would reach the shim as its own name."""
    person.write("gemini", SSH_AUTH_SOCK="")
    file = person.home / USER["gemini"]
    assert "env" not in entry("gemini", file)
    file.unlink()
    person.write("gemini")
    assert entry("gemini", file)["env"] == {"SSH_AUTH_SOCK": "$SSH_AUTH_SOCK"}


async def test_codex_starts_the_daemon_that_its_person_would(
    person: Person, short_path: Path
) -> None:
    """Contract section 2: it passes on what its entry names, and else only the usual.

    On BUGGY code the daemon it started found no configuration, so knew no rules.
    """
    places = {
        "XDG_RUNTIME_DIR": str(short_path),
        "XDG_CONFIG_HOME": str(person.home / "settings"),
        "XDG_STATE_HOME": str(person.home / "state"),
    }
    config = person.home / "settings/holdfast/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('allowed_hosts = ["web"]\n', encoding="utf-8")
    config.chmod(0o600)
    person.write("codex", **places)
    told = entry("codex", person.home / USER["codex"])
    passed = ("HOME", "PATH", *told["env_vars"])
    everything = {**person.environment, **places}
    given = [f"{key}={everything[key]}" for key in passed if key in everything]
    words = ["env", "-i", *given, told["command"], *told["args"]]
    try:
        async with Wire(program=words) as shim:
            result = await shim.call("ssh_exec", {"target": "db", "command": "true"})
        error = failure(result)
        assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")
    finally:
        await asyncio.to_thread(stop, everything)


def stop(environment: dict[str, str]) -> None:
    """Stop the daemon of this environment."""
    done = forked.run(CLI, "--no-autostart", "status", "--json", env=environment)
    assert done.returncode == 0, done
    status = json.loads(done.stdout)
    os.kill(status["pid"], signal.SIGTERM)
    strays.ended(status["pid"], Path(status["socket"]).parent, 20)


@pytest.mark.parametrize(
    ("client", "variable", "file"),
    [
        ("claude", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("gemini", "GEMINI_CLI_HOME", ".gemini/settings.json"),
        ("copilot", "COPILOT_HOME", "mcp-config.json"),
    ],
)
def test_a_client_that_was_moved_is_found(
    person: Person, client: str, variable: str, file: str
) -> None:
    there = person.home / "elsewhere"
    told = person.write(client, **{variable: str(there)})
    assert told["file"] == str(there / file)


BAD: list[tuple[str, bytes, str]] = [
    ("claude", b'{"a": 1', "line 1 column 8"),
    ("claude", b'{\n  // mine\n  "a": 1\n}', "line 2 column 3"),
    ("cursor", b'{"mcpServers": []}', "mcpServers is not an object"),
    ("cursor", b"[]", "it is not an object"),
    ("vscode", b'{"servers": "x"}', "servers is not an object"),
    ("vscode", b'{"a": /* no end', "line 1 column"),
    ("gemini", b"\xff\xfe{}", "can't decode byte 0xff"),
    ("codex", b"a = = 1", "line 1, column 5"),
    ("codex", b"mcp_servers = 3", "mcp_servers is not a table"),
    ("codex", b"[[mcp_servers]]\na = 1", "mcp_servers is not a table"),
]


@pytest.mark.parametrize(("client", "data", "why"), BAD)
def test_what_cannot_be_understood_is_left_alone(
    person: Person, client: str, data: bytes, why: str
) -> None:
    file = person.home / USER[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    told = person.ask(client, "--write", "--json")
    assert told.code == 1
    error = told.json["error"]
    assert (error["reason"], error["ran"]) == ("BAD_CONFIGURATION", "no")
    assert error["file"] == str(file)
    assert why in error["message"]
    assert "--write" in error["hint"]
    assert file.read_bytes() == data
    assert person.files() == {USER[client]}


def _directory(file: Path) -> None:
    file.mkdir()


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _circle(file: Path) -> None:
    file.symlink_to(file)


def _below_a_file(file: Path) -> None:
    file.parent.rmdir()
    file.parent.write_text("x", encoding="utf-8")


@pytest.mark.parametrize("make", [_directory, _pipe, _circle, _below_a_file])
def test_what_is_no_file_is_refused(
    person: Person, make: Callable[[Path], None]
) -> None:
    file = person.home / USER["cursor"]
    file.parent.mkdir()
    make(file)
    before = person.files()
    told = person.ask("cursor", "--write")
    assert told.code == 1
    assert f"{file} was left as it is: " in told.err.decode()
    assert person.files() == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("generic", "--write"), "generic has no file of a user"),
        (("claude-desktop", "--scope", "project"), "has no file of a project"),
        (("generic", "--scope", "project", "--write"), "has no file of a project"),
    ],
)
def test_a_client_without_such_a_file_is_told_so(
    person: Person, words: tuple[str, ...], why: str
) -> None:
    told = person.ask(*words)
    assert (told.code, told.out) == (1, b"")
    assert why in told.err.decode()
    assert person.files() == set()
    assert person.ask("cursor", "--scope", "moon").code == 2


def test_a_link_to_where_somebody_keeps_such_files_stays(person: Person) -> None:
    kept = person.home / "dotfiles" / "mcp.json"
    kept.parent.mkdir()
    kept.write_text("{}\n", encoding="utf-8")
    link = person.home / USER["cursor"]
    link.parent.mkdir()
    link.symlink_to("../dotfiles/mcp.json")
    told = person.write("cursor")
    assert told["file"] == str(kept)
    assert link.is_symlink()
    assert entry("cursor", link)["command"] == SHIM
    assert Path(told["backup"]).parent == kept.parent


def test_a_mark_at_the_start_and_windows_lines_stay(person: Person) -> None:
    file = person.home / USER["vscode"]
    file.parent.mkdir(parents=True)
    file.write_bytes(b'\xef\xbb\xbf{\r\n  "inputs": []\r\n}\r\n')
    person.write("vscode")
    data = file.read_bytes()
    assert data.startswith(b'\xef\xbb\xbf{\r\n  "inputs": [],\r\n  "servers": {\r\n')
    assert data.count(b"\n") == data.count(b"\r\n")


def test_a_client_that_writes_meanwhile_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}", encoding="utf-8")

    def edit(text: str) -> str:
        file.write_text('{"theirs": 1}', encoding="utf-8")
        return text + " "

    with pytest.raises(CallError, match="changed by another program just now"):
        client_file.rewrite(file, edit, shared=False)
    assert file.read_text(encoding="utf-8") == '{"theirs": 1}'
    assert list(tmp_path.iterdir()) == [file]


def test_backups_of_one_second_are_two(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("0", encoding="utf-8")
    done = [
        client_file.rewrite(file, lambda text: str(int(text) + 1), shared=False)
        for _ in range(3)
    ]
    backups = [one.backup for one in done if one.backup]
    assert [b.read_text(encoding="utf-8") for b in backups] == ["0", "1", "2"]
    assert len(set(backups)) == 3


def test_a_full_disk_leaves_the_file_alone(person: Person) -> None:
    file = person.home / USER["cursor"]
    file.parent.mkdir()
    file.write_text("{}", encoding="utf-8")
    shell = shutil.which("sh")
    assert shell is not None
    # No file may grow: what a full disk does, without one.
    done = subprocess.run(
        [shell, "-c", 'ulimit -f 0; exec "$@"', "sh", program("holdfast"),
         "mcp-config", "cursor", "--write"],
        env=person.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=person.project,
        capture_output=True,
        timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"was left as it is: File too large" in done.stderr
    assert b"Traceback" not in done.stderr
    assert file.read_text(encoding="utf-8") == "{}"
    assert person.files() == {USER["cursor"]}
