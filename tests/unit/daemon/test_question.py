from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.connection.question import (
    MOST_PROMPTS,
    Kind,
    Prompt,
    cleaned,
    interactive,
    new_password,
    passphrase,
    password,
    wants_password,
)


@given(st.text(), st.booleans())
def test_nothing_that_a_terminal_would_act_on_is_left(text: str, lines: bool) -> None:
    """AU-13: a server's text is foreign text."""
    shown = cleaned(text, 100, lines=lines)
    assert len(shown) <= 100
    assert all(c.isprintable() or (lines and c == "\n") for c in shown)
    assert cleaned(shown, 100, lines=lines) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Password: ", "Password:"),
        ("\x1b[1;31mPassword\x1b[0m: ", "Password:"),
        ("\x1b]0;title\x07Code", "Code"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2JCode", "Code"),
        ("a\tb\r\nc", "a b c"),
        ("\x1b", ""),
    ],
)
def test_escapes_go_and_words_stay(said: str, shown: str) -> None:
    assert cleaned(said, 300) == shown


@pytest.mark.parametrize(
    "text",
    ["Password: ", "root's password:", "Passwort:", "Mot de passe :"],
)
def test_a_hidden_prompt_means_the_password(text: str) -> None:
    assert wants_password(Prompt(text))
    assert not wants_password(Prompt(text, echo=True))


@pytest.mark.parametrize(
    "text",
    [
        "Verification code: ",
        "One-time password (OATH) for `me': ",
        "Enter PASSCODE:",
        "Passcode or option (1-3): ",
        "Duo two-factor:",
        "Token response: ",
        "New password: ",
        "Retype new UNIX password: ",
        "YubiKey for `me': ",
        "Enter your PIN:",
    ],
)
def test_a_prompt_for_something_else_does_not_get_the_password(text: str) -> None:
    """AU-13: better a person than the password in the wrong place."""
    assert not wants_password(Prompt(text))


def test_what_is_asked_is_named_in_a_few_words() -> None:
    asked = interactive("h", "", "", [("Verification code: ", False), ("PIN?", False)])
    assert asked is not None
    assert asked.asks == "Verification code, PIN"
    assert interactive("h", "", "", [("   :", False)]) is not None
    assert Prompt(" : ").asks == "an answer"
    assert password("h", "me@h").asks == "password"
    assert passphrase("h", "/k").asks == "Passphrase of the key /k"
    assert new_password("h", "me@h", "").asks == "a new password"
    assert new_password("h", "me@h", "").kind is Kind.NEW_PASSWORD


def test_more_prompts_than_anyone_may_ask_are_no_question() -> None:
    one = ("x", False)
    assert interactive("h", "", "", [one] * MOST_PROMPTS) is not None
    assert interactive("h", "", "", [one] * (MOST_PROMPTS + 1)) is None
    assert interactive("h", "", "", []) is None
