from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_daemon import schema
from holdfast_daemon.config import (
    Config,
    ConfigError,
    Defaults,
    HostEntry,
    load,
)
from holdfast_daemon.errors import Reason
from holdfast_daemon.limits import Limits, describe

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"

WHOLE = """\
default_host = "web1"
allowed_hosts = ["web*", "deploy@db1"]
log_level = "debug"

[defaults]
user = "deploy"
port = 2222
timeout_seconds = 60
connect_timeout_seconds = 2.5
max_output_chars = 10_000
host_key_checking = "accept-new"

[limits]
jobs_running = 7
keepalive_seconds = 2

[hosts.web1]
host = "10.0.0.5"
port = 22
user = "root"
ssh_key_path = "~/.ssh/web1"
ssh_key_passphrase_env = "WEB1_PASSPHRASE"
tags = ["web", "prod"]
enabled = false
description = "The shop's front"
proxy_jump = "jump@bastion:2222"
known_hosts_file = "/etc/hosts_known"
host_key_checking = "yes"
host_key = "SHA256:0123456789012345678901234567890123456789012"
show = "purpose"
default = true

[hosts."db1.example.com"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def write(file: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file.write_text(text)
        file.chmod(0o600)
        return file

    return write


def mistake(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    error = caught.value
    assert error.reason is Reason.BAD_CONFIGURATION
    assert str(path) in error.message
    assert error.metadata["file"] == str(path)
    return error


# what is right


def test_no_file_is_all_defaults(file: Path) -> None:
    """Contract section 2: with none, ~/.ssh/config alone is enough."""
    assert load(None) == load(file) == Config()
    assert Config().limits == Limits()


def test_every_key_arrives(write: Callable[[str], Path]) -> None:
    """IN-01: named hosts with all their keys."""
    path = write(WHOLE)
    assert load(path) == Config(
        path=path,
        default_host="web1",
        allowed_hosts=("web*", "deploy@db1"),
        log_level="debug",
        defaults=Defaults(
            user="deploy",
            port=2222,
            timeout_seconds=60.0,
            connect_timeout_seconds=2.5,
            max_output_chars=10_000,
            host_key_checking="accept-new",
        ),
        limits=dataclasses.replace(Limits(), jobs_running=7, keepalive_seconds=2.0),
        hosts={
            "web1": HostEntry(
                name="web1",
                host="10.0.0.5",
                port=22,
                user="root",
                ssh_key_path="~/.ssh/web1",
                ssh_key_passphrase_env="WEB1_PASSPHRASE",
                tags=("web", "prod"),
                enabled=False,
                description="The shop's front",
                proxy_jump="jump@bastion:2222",
                known_hosts_file="/etc/hosts_known",
                host_key_checking="yes",
                host_key="SHA256:0123456789012345678901234567890123456789012",
                show="purpose",
                default=True,
            ),
            "db1.example.com": HostEntry(
                name="db1.example.com", host="db1.example.com"
            ),
        },
    )


def test_limits_keep_their_types(write: Callable[[str], Path]) -> None:
    limits = load(write(WHOLE)).limits
    assert type(limits.jobs_running) is int
    assert type(limits.keepalive_seconds) is float
    for item in dataclasses.fields(Limits):
        assert type(getattr(limits, item.name)) is type(getattr(Limits(), item.name))


def test_the_keys_of_the_schema_are_the_fields_of_the_dataclasses() -> None:
    def names(cls: Any) -> set[str]:
        return {item.name for item in dataclasses.fields(cls)}

    assert names(HostEntry) == {"name", *schema.HOST}
    assert names(Defaults) == set(schema.DEFAULTS)
    assert names(Limits) == set(schema.LIMITS)
    assert names(Config) == {"path", *schema.ROOT, *schema.TABLES}


def test_a_host_marked_as_default_is_the_default_host(
    write: Callable[[str], Path],
) -> None:
    assert load(write("[hosts.a]\ndefault = true\n[hosts.b]\n")).default_host == "a"
    error = mistake(write("[hosts.a]\ndefault = true\n[hosts.b]\ndefault = true\n"))
    assert (error.line, error.key) == (4, "hosts.b.default")
    error = mistake(write('default_host = "b"\n[hosts.a]\ndefault = true\n'))
    assert (error.line, error.key) == (3, "hosts.a.default")


def test_a_byte_order_mark_and_windows_line_ends_are_read(file: Path) -> None:
    file.write_bytes(
        b'\xef\xbb\xbflog_level = "error"\r\n[limits]\r\nwait_secs = 1\r\n'
    )
    file.chmod(0o600)
    assert mistake(file).line == 3


# what is wrong: file, line, key, nearest known key

WRONG = [
    ("\nlog_levle = 'info'", 2, "log_levle", "log_level"),
    ("[default]\nuser = 'x'", 1, "default", "defaults"),
    ("[limits]\n\nwait_second = 1", 3, "limits.wait_second", "wait_seconds"),
    ("[hosts.web1]\nhostname = 'x'", 2, "hosts.web1.hostname", "host?"),
    (
        "[hosts.web1]\nidentity-file = '/x'",
        2,
        "hosts.web1.identity-file",
        "ssh_key_path",
    ),
    ("[host.web1]\nport = 1", 1, "host", "hosts"),
    ("[hosts.'a b']\nport = 1", 1, 'hosts."a b"', "keys of the entry"),
    ("[hosts.'root@web1']", 1, 'hosts."root@web1"', "keys of the entry"),
    ("[hosts.'-oProxyCommand']", 1, "hosts.-oProxyCommand", "keys of the entry"),
    ("[hosts.web1]\nqqq = 1", 2, "hosts.web1.qqq", "ssh_key_path"),
    ("[limits]\nqqq = 1", 2, "limits.qqq", "docs/configuration.md"),
    ("log_level = 'inof'", 1, "log_level", '"info"'),
    ("[hosts.web1]\nport = '22'", 2, "hosts.web1.port", ""),
    ("[hosts.web1]\nport = 22.0", 2, "hosts.web1.port", ""),
    ("[hosts.web1]\nport = true", 2, "hosts.web1.port", ""),
    ("[hosts.web1]\nport = 0", 2, "hosts.web1.port", ""),
    ("[hosts.web1]\nport = 65536", 2, "hosts.web1.port", ""),
    ("[hosts.web1]\nhost = '-x'", 2, "hosts.web1.host", ""),
    ("[hosts.web1]\nhost = 'a b'", 2, "hosts.web1.host", ""),
    ("[hosts.web1]\nhost = 'a;b'", 2, "hosts.web1.host", ""),
    ("[hosts.web1]\nhost = ''", 2, "hosts.web1.host", ""),
    ("[hosts.web1]\nuser = '-l'", 2, "hosts.web1.user", ""),
    ("[hosts.web1]\nuser = 'a`b'", 2, "hosts.web1.user", ""),
    ("[hosts.web1]\nuser = 'a b'", 2, "hosts.web1.user", ""),
    ("[hosts.web1]\nssh_key_path = 'id'", 2, "hosts.web1.ssh_key_path", "directory"),
    (
        "[hosts.web1]\nssh_key_passphrase_env = 'A B'",
        2,
        "hosts.web1.ssh_key_passphrase_env",
        "",
    ),
    ("[hosts.web1]\nhost_key = 'SHA256:x'", 2, "hosts.web1.host_key", ""),
    ("[hosts.web1]\nproxy_jump = '-x'", 2, "hosts.web1.proxy_jump", ""),
    ("[hosts.web1]\nenabled = 1", 2, "hosts.web1.enabled", ""),
    ("[hosts.web1]\nenabled = 'yes'", 2, "hosts.web1.enabled", ""),
    ("[hosts.web1]\ntags = 'web'", 2, "hosts.web1.tags", ""),
    ("[hosts.web1]\ntags = [\n1]", 2, "hosts.web1.tags", ""),
    ("[hosts.web1]\nshow = 'All'", 2, "hosts.web1.show", '"all"'),
    ("[hosts.web1]\ndescription = 'a\\u0007'".replace("'", '"'), 2, "description", ""),
    ("[hosts.web1]\nhost_key_checking = 'ask'", 2, "hosts.web1.host_key_checking", ""),
    ("[hosts.web1]\nport = 2020-01-01", 2, "hosts.web1.port", ""),
    ("hosts = 1", 1, "hosts", ""),
    ("[hosts]\nweb1 = 'x'", 2, "hosts.web1", "[hosts.web1]"),
    ("[[hosts]]\nname = 'x'", 1, "hosts", ""),
    ("allowed_hosts = []", 1, "allowed_hosts", "allow every host"),
    ("allowed_hosts = ['']", 1, "allowed_hosts", ""),
    ("default_host = '-x'", 1, "default_host", ""),
    ("[limits]\njobs_running = 0", 2, "limits.jobs_running", ""),
    ("[limits]\njobs_running = 1.5", 2, "limits.jobs_running", ""),
    ("[limits]\nwait_seconds = nan", 2, "limits.wait_seconds", ""),
    ("[limits]\nwait_seconds = inf", 2, "limits.wait_seconds", ""),
    ("[limits]\nwait_max_seconds = 10", 2, "limits.wait_max_seconds", "both"),
    ("[defaults]\ntimeout_seconds = -1", 2, "defaults.timeout_seconds", ""),
    ("[hosts]\nweb1 = {port = 1, prot = 2}", 2, "hosts.web1.prot", "port"),
    ("hosts.web1.prot = 2", 1, "hosts.web1.prot", "port"),
]


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"), WRONG, ids=[item[0][:40] for item in WRONG]
)
def test_a_mistake_is_told_with_file_line_key_and_the_nearest(
    write: Callable[[str], Path], text: str, line: int, key: str, hint: str
) -> None:
    """PK-07: errors name the key; unknown keys are errors."""
    path = write(text)
    error = mistake(path)
    assert error.line == line
    assert error.key.endswith(key)
    assert error.message.startswith(f"{path}:{line}: {error.key} ")
    assert error.metadata == {"file": str(path), "line": str(line), "key": error.key}
    assert hint in error.hint


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a = 1\nb = ", 2, "invalid value"),
        (b"a = 1\na = 2\n", 2, "overwrite"),
        (b"[a\n", 1, "expected"),
        (b'a = 1\nb = "\xff"\n', 2, "UTF-8"),
        (b"a = " + b"[" * 100_000, 0, "nested too deeply"),
        (b"a = " + b"9" * 10_000, 0, "integer string conversion"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(
    file: Path, content: bytes, line: int, words: str
) -> None:
    """PK-07: so is a file that is no configuration at all."""
    file.write_bytes(content)
    file.chmod(0o600)
    error = mistake(file)
    assert error.line == line
    assert words in error.message


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "sudo_password",
        "passphrase",
        "ssh_key_passphrase",
        "private_key",
        "token",
        "mcp_token",
        "api_key",
        "secret",
    ],
)
@pytest.mark.parametrize("table", ["", "[defaults]\n", "[hosts.web1]\n"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(
    write: Callable[[str], Path], table: str, key: str
) -> None:
    """PK-07, SC-12: no secret belongs in the file, nor into the error."""
    error = mistake(write(f'{table}{key} = "hunter2-canary"\n'))
    assert "secret" in error.message
    assert "ssh-agent" in error.hint
    assert "hunter2" not in f"{error.message}{error.hint}{error.metadata}{error!r}"


def test_key_text_as_a_path_is_refused_and_not_repeated(
    write: Callable[[str], Path],
) -> None:
    error = mistake(
        write('[hosts.a]\nssh_key_path = """-----BEGIN PRIVATE KEY-----\ncanary"""')
    )
    assert "private key" in error.message
    assert "canary" not in f"{error.message}{error.hint}"


# the file itself


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o664])
def test_a_file_that_others_can_write_is_refused(
    write: Callable[[str], Path], mode: int
) -> None:
    """PK-07: files too open are refused."""
    path = write("")
    path.chmod(mode)
    error = mistake(path)
    assert "written by others" in error.message
    assert "chmod go-w" in error.hint


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_a_file_that_only_we_can_write_is_read(
    write: Callable[[str], Path], mode: int
) -> None:
    path = write("log_level = 'error'")
    path.chmod(mode)
    assert load(path).log_level == "error"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_file_of_another_user_is_refused(write: Callable[[str], Path]) -> None:
    """PK-07: whoever owns it could allow himself anything."""
    path = write("")
    os.chown(path, 65534, -1)
    assert "belongs to user 65534" in mistake(path).message


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("")
    assert "not a regular file" in mistake(tmp_path / "fifo").message
    assert "not a regular file" in mistake(tmp_path / "dir").message
    assert "can't be read" in mistake(tmp_path / "file" / "below").message


# the reference


def test_every_key_is_documented_with_its_default() -> None:
    text = DOCS.read_text()
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    for keys in (schema.ROOT, schema.DEFAULTS, schema.HOST):
        assert set(keys) <= rows
    wanted: list[str] = []
    for item in describe(Limits()):
        low, high = (schema.figure(x) for x in item.bounds[1:3])
        wanted.append(
            f"| `{item.name}` | {schema.figure(item.value)} | {item.bounds.unit} "
            f"| {low} to {high} | {item.bounds.reason} |"
        )
    table = [line for line in text.splitlines() if line in wanted]
    missing = "\n".join(line for line in wanted if line not in table)
    assert table == wanted, f"docs/configuration.md, [limits], should have:\n{missing}"
    assert rows <= {*schema.ROOT, *schema.DEFAULTS, *schema.HOST, *schema.LIMITS}


def test_the_example_in_the_reference_is_valid(write: Callable[[str], Path]) -> None:
    example = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert example
    config = load(write(example[1]))
    assert config.hosts
    assert config.allowed_hosts
