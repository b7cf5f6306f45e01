from __future__ import annotations

import copy
import json
import logging
import pickle
import shlex
from dataclasses import asdict, dataclass
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_daemon import suspects
from holdfast_daemon.secrets import Redactor, Secret

CANARY = "c4nary-p4ss"
KEY = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDd0mYvTq0sZ0o1x0l1c2VsZXNzLWtleS1mb3ItdGVzdHM
-----END OPENSSH PRIVATE KEY-----
"""


@dataclass(frozen=True)
class Holder:
    password: Secret


def test_a_secret_shows_itself_only_when_asked_by_name() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    shown = (
        f"{secret} {secret!r} {secret!s:>20} {Holder(secret)} {[secret]} "
        f"{asdict(Holder(secret))} {vars(Holder(secret))}" + "%s %r" % (secret, secret)  # noqa: UP031 - the old form must not show it either
    )
    assert CANARY not in shown
    assert "[secret]" in shown


def test_a_secret_is_not_pickled_and_not_json() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Holder(Secret(CANARY)))
    with pytest.raises(TypeError) as caught:
        json.dumps({"password": Secret(CANARY)})
    assert CANARY not in str(caught.value)


def test_a_secret_equals_only_the_same_secret() -> None:
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    assert Secret("\udcff") == Secret("\udcff")
    assert len({Secret(CANARY), Secret(CANARY), Secret("other")}) == 2
    assert copy.deepcopy(Secret(CANARY)) == Secret(CANARY)
    assert not Secret("")


def test_a_known_secret_is_hidden_in_every_usual_spelling() -> None:
    """SC-12: a secret that a program quoted is the same secret."""
    secret = "pä ss'w\"or\\d&\n2"
    redactor = Redactor()
    redactor.add(Secret(secret))
    for text in (
        secret,
        json.dumps({"a": secret}),
        json.dumps({"a": secret}, ensure_ascii=False),
        repr(secret),
        quote(secret, safe=""),
        shlex.quote(secret),
        f"a{secret}b{secret}",
    ):
        cleaned = redactor.clean(text)
        assert "[redacted]" in cleaned
        assert "w\\" not in cleaned
        assert "pä" not in cleaned
        assert "ss" not in cleaned


def test_overlapping_secrets_leave_no_rest() -> None:
    redactor = Redactor()
    redactor.add("abcdef")
    redactor.add("defghi")
    redactor.add("cdef")
    assert redactor.clean("<abcdefghi>") == "<[redacted]>"
    redactor.add("lmnopqrstu")
    redactor.add("mnop")
    assert redactor.clean("<lmnopqrstu>") == "<[redacted]>"


def test_each_line_of_a_key_is_hidden_alone() -> None:
    redactor = Redactor()
    redactor.add(KEY)
    for line in KEY.splitlines()[1:-1]:
        assert line not in redactor.clean(f"debug: read {line} from file")
    assert (
        redactor.clean("-----BEGIN CERTIFICATE-----") == "-----BEGIN CERTIFICATE-----"
    )


def test_short_secrets_are_not_known_and_removed_ones_are_forgotten() -> None:
    redactor = Redactor()
    redactor.add("abc")
    assert redactor.clean("abc") == "abc"
    redactor.add(CANARY)
    redactor.add(Secret(CANARY))
    redactor.remove(CANARY)
    assert redactor.clean(CANARY) == "[redacted]", "still used by somebody else"
    redactor.remove(CANARY)
    redactor.remove(CANARY)
    assert redactor.clean(CANARY) == CANARY
    assert CANARY not in repr(redactor)


@pytest.mark.parametrize(
    "text",
    [
        f"key {KEY} end",
        json.dumps({"key": KEY}),
        KEY[:100],
        f"token tok_{CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"password={CANARY}",
        f'password = "{CANARY} and more"',
        f"'password': '{CANARY}'",
        f'{{"passphrase": "{CANARY}"}}',
        f"SSH_DEFAULT_PASSWORD={CANARY} ssh",
        f"MCP_TOKEN: {CANARY}",
        f"api_key={CANARY}",
        f"mysql --password {CANARY}",
        f"sshpass -p {CANARY} ssh web1",
        f"export AWS_SECRET_ACCESS_KEY={CANARY}",
        f"SECRET_KEY={CANARY} ./manage.py",
        f"MYSQL_PWD={CANARY} mysql",
        f'curl -d "{{\\"password\\": \\"{CANARY}\\"}}" http://localhost',
        f"curl -s -u user:{CANARY} http://localhost/",
        f"curl --user 'user:{CANARY}' http://localhost/",
        f"Authorization: Basic {CANARY}",
        f"curl -H 'authorization: token {CANARY}' http://localhost/",
        f"https://user:{CANARY}@example.com/",
    ],
)
def test_what_looks_like_a_secret_is_hidden_unasked(text: str) -> None:
    """SC-12: shapes, for secrets nobody told the daemon about."""
    cleaned = Redactor().clean(text)
    assert CANARY not in cleaned
    assert "b3BlbnNzaC1rZXk" not in cleaned
    assert "[redacted]" in cleaned
    assert Redactor().clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "auth methods: publickey, password",
        "ssh_key_passphrase_env=WEB1_PASSPHRASE",
        "https://example.com:8443/path?a=b",
        "user@host:22",
        "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----",
        "password=[secret]",
        "PWD=/home/user OLDPWD=/tmp",
        "basic authorization is off; curl -u asks for a password",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().clean(text) == text


@settings(deadline=None)
@given(
    secrets=st.lists(st.text(alphabet="abcß'\"\\\n ", min_size=4, max_size=12)),
    text=st.text(alphabet="abcß'\"\\\n :=", max_size=80),
    at=st.integers(0, 80),
)
def test_no_known_secret_survives(secrets: list[str], text: str, at: int) -> None:
    """SC-12, as a property over secrets that overlap, nest and repeat."""
    redactor = Redactor()
    for secret in secrets:
        redactor.add(secret)
        text = text[:at] + secret + text[at:]
    cleaned = redactor.clean(text)
    rest = cleaned.replace("[redacted]", "\0")
    for secret in secrets:
        assert secret not in rest


def _tried_everywhere(text: str) -> str:
    """What `suspects.hide` does, without its short cut."""
    for shape in suspects.SHAPES:
        text = shape.pattern.sub(rf"\1{suspects.REDACTED}", text)
    return text


_PARTS = (
    "password", "passWD", "passphrase", "SECRET", "token", "api_key", "APIKEY",
    "private-key", "tok_", "abcd", "bearer", "Bearer ", "--", "-", " ", "\n", "=", ":",
    '"', "'", "sshpass", " -p", "://", "@", "[redacted]", "\u0130", "\u212a", "ß", "😀",
    "-----BEGIN ", "PRIVATE KEY", "_pwd", "_access_key", "curl", " -u ", "a:", "\\",
    "authorization", "basic ", "-----", "-----END ",
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(parts=st.lists(st.sampled_from(_PARTS), max_size=30))
def test_looking_only_where_a_word_stands_finds_the_same(parts: list[str]) -> None:
    """SC-12, as a property: the quick way hides what the plain one hides."""
    text = "".join(parts)
    assert suspects.hide(text) == _tried_everywhere(text)


@pytest.mark.timeout(30)  # quadratic time would take hours
@pytest.mark.parametrize(
    "unit",
    [
        "password",
        "password=",
        "curl -u a",
        "authorization: basic ",
        'password="',
        "-----BEGIN PRIVATE KEY-----",
        "://a:",
        "--token ",
        "bearer ",
        "tok_a",
        "-----begin ",
    ],
)
def test_hostile_text_is_cleaned_in_linear_time(unit: str) -> None:
    Redactor().clean(unit * 300_000)


def test_log_formatting_of_a_secret_shows_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("login with %s", Secret(CANARY))
    assert CANARY not in caplog.text
