"""The environment of a client's MCP configuration."""

from __future__ import annotations

import pytest

from holdfast_shim.settings import Settings

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"


def test_every_variable_reaches_the_daemon() -> None:
    """Contract section 3: applied to that client only, sent with each call."""
    settings = Settings.read(
        {
            "SSH_DEFAULT_HOST": " web1 ",
            "SSH_DEFAULT_USER": "me",
            "SSH_DEFAULT_PORT": "2222",
            "SSH_DEFAULT_PASSWORD": " pass word ",
            "SSH_PRIVATE_KEY": KEY,
            "SSH_DEFAULT_TIMEOUT_SEC": "90",
            "SSH_CONNECT_TIMEOUT_SEC": "2.5",
            "SSH_ALLOWED_HOSTS": "web*, db1,",
            "SSH_MAX_OUTPUT_CHARS": "1000",
            "SSH_AUTH_SOCK": "/tmp/agent",
            "MCP_TOKEN": "tok_1",
            "CLAUDE_CODE_SESSION_ID": "session",
        }
    )
    assert settings.problem is None
    context = settings.context("editor", "3", read_only=True, max_output_chars=9000)
    assert (context.name, context.version, context.instance) == (
        "editor",
        "3",
        "session",
    )
    assert (context.default_host, context.default_user) == ("web1", "me")
    assert context.default_port == 2222
    assert context.default_password == " pass word "
    assert context.private_key == KEY
    assert context.timeout_seconds == 90
    assert context.connect_timeout_seconds == 2.5
    assert list(context.allowed_hosts) == ["web*", "db1"]
    assert context.max_output_chars == 1000
    assert context.auth_sock == "/tmp/agent"
    assert context.token == "tok_1"
    assert context.read_only
    assert context.pid


def test_nothing_set_means_nothing_sent() -> None:
    """Contract section 3: the daemon's own configuration applies then."""
    context = Settings.read({"SSH_DEFAULT_HOST": "", "SSH_DEFAULT_PORT": " "}).context(
        "editor", "3"
    )
    assert not context.default_host
    assert not context.HasField("default_port")
    assert not context.HasField("timeout_seconds")
    assert not context.HasField("connect_timeout_seconds")
    assert not context.HasField("max_output_chars")


def test_the_clients_budget_applies_where_the_environment_sets_none() -> None:
    """NF-12: SSH_MAX_OUTPUT_CHARS wins over what is known of the client."""
    told = Settings.read({}).context("x", "", max_output_chars=9000)
    assert told.max_output_chars == 9000
    zero = Settings.read({"SSH_MAX_OUTPUT_CHARS": "0"})
    assert zero.context("x", "", max_output_chars=9000).max_output_chars == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSH_DEFAULT_PORT", "ssh"),
        ("SSH_DEFAULT_PORT", "0"),
        ("SSH_DEFAULT_PORT", "65536"),
        ("SSH_DEFAULT_PORT", "9" * 5000),
        ("SSH_DEFAULT_PORT", "²"),
        ("SSH_DEFAULT_TIMEOUT_SEC", "soon"),
        ("SSH_DEFAULT_TIMEOUT_SEC", "-1"),
        ("SSH_DEFAULT_TIMEOUT_SEC", "nan"),
        ("SSH_CONNECT_TIMEOUT_SEC", "0"),
        ("SSH_CONNECT_TIMEOUT_SEC", "inf"),
        ("SSH_MAX_OUTPUT_CHARS", "1e3"),
        ("SSH_MAX_OUTPUT_CHARS", "1000001"),
        ("SSH_ALLOWED_HOSTS", " , "),
        ("SSH_DEFAULT_HOST", "\udc80"),
        ("SSH_PRIVATE_KEY", "x" * 40_000),
    ],
)
def test_a_wrong_value_is_kept_as_a_problem_that_names_the_variable(
    name: str, value: str
) -> None:
    """Issue 2, bad input: told with each call, not by a dead server."""
    problem = Settings.read({name: value}).problem
    assert problem is not None
    assert problem.reason == "INVALID_ARGUMENT"
    assert name in problem.message
    assert problem.ran == "no"


def test_keys_that_json_flattened_are_put_right() -> None:
    """Contract section 3: key content, as configurations carry it."""
    flat = KEY.strip().replace("\n", "\\n")
    assert Settings.read({"SSH_PRIVATE_KEY": flat}).private_key == KEY


def test_secrets_do_not_show_when_printed() -> None:
    """Contract section 4: secrets are redacted wherever they could surface."""
    shown = repr(
        Settings.read(
            {
                "SSH_DEFAULT_PASSWORD": "hunter2",
                "SSH_PRIVATE_KEY": "hunter3",
                "MCP_TOKEN": "hunter4",
            }
        )
    )
    assert "hunter" not in shown


def test_two_processes_without_a_session_differ() -> None:
    """NF-03: reading positions belong to one editor session."""
    assert Settings.read({}).instance != Settings.read({}).instance
