"""What a login may have to ask a person, as values. Sans-I/O.

What a server writes is foreign text: it is cleaned of everything a terminal would act
on and cut to a bound before it comes in here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.secrets import Secret

PROMPT_CHARS = 300
TEXT_CHARS = 2000
# OpenSSH's own servers ask one or two at a time.
MOST_PROMPTS = 16

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]{0,8}[0-~]?"
    r"|\x9b[0-?]{0,64}[ -/]{0,8}[@-~]?"
)
# What a hidden prompt asks for when it is not the account's password.
_OTHER = re.compile(
    r"(?i)\b(?:code|codes|otp|totp|pin|token|passcode|one[- ]?time|verification"
    r"|factor|2fa|mfa|duo|yubikey|option|response|challenge|captcha|new|retype)\b"
)


class Kind(StrEnum):
    """What is asked for."""

    PASSWORD = "password"  # noqa: S105 - a name
    NEW_PASSWORD = "new password"  # noqa: S105 - a name
    PASSPHRASE = "passphrase"  # noqa: S105 - a name
    INTERACTIVE = "keyboard-interactive"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to type; with `echo` it may be seen."""

    text: str
    echo: bool = False

    @property
    def asks(self) -> str:
        """What is asked for, in a few words."""
        return " ".join(self.text.split()).rstrip(" :?") or "an answer"


@dataclass(frozen=True, slots=True)
class Question:
    """What a login asks at once, to be answered prompt by prompt.

    Attributes:
        host: Which host it is for, as a person calls it.
        kind: What is asked for.
        prompts: What to type; never empty.
        name: The server's heading.
        instructions: What the server, or we, say beside it.
        tries: How often the same was answered wrongly before.
    """

    host: str
    kind: Kind
    prompts: tuple[Prompt, ...]
    name: str = ""
    instructions: str = ""
    tries: int = 0

    @property
    def asks(self) -> str:
        """What is asked for, in a few words."""
        if self.kind is Kind.PASSWORD:
            return "password"
        if self.kind is Kind.NEW_PASSWORD:
            return "a new password"
        return ", ".join(prompt.asks for prompt in self.prompts)


class GaveUp(Exception):  # noqa: N818 - a decision of the person, not an error
    """The person does not answer, or went away."""


class Asker(Protocol):
    """Somebody who asks a person."""

    async def ask(self, question: Question) -> Sequence[Secret]:
        """Return an answer to each prompt.

        Raises:
            GaveUp: There will be none.
        """
        ...

    def tell(self, text: str) -> None:
        """Say something that needs no answer."""
        ...


def cleaned(text: str, most: int, *, lines: bool = False) -> str:
    """Return a server's text without escapes, controls and marks of direction.

    At most `most` characters, so that nothing a server says fills a screen.
    """
    # Beyond this nothing can be shown any more; the work stays bounded too.
    text = _SEQUENCE.sub("", text[: most * 20])
    text = text.replace("\r\n", "\n").replace("\t", " ")
    keep = "\n" if lines else ""
    text = "".join(c if c.isprintable() or c in keep else " " for c in text)
    if lines:
        text = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")
    else:
        text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def interactive(
    host: str, name: str, instructions: str, prompts: Sequence[tuple[str, bool]]
) -> Question | None:
    """Return what a round of keyboard-interactive asks; None: more than anyone may."""
    if not 0 < len(prompts) <= MOST_PROMPTS:
        return None
    return Question(
        host,
        Kind.INTERACTIVE,
        tuple(Prompt(cleaned(text, PROMPT_CHARS), echo) for text, echo in prompts),
        name=cleaned(name, PROMPT_CHARS),
        instructions=cleaned(instructions, TEXT_CHARS, lines=True),
    )


def wants_password(prompt: Prompt) -> bool:
    """Whether a prompt means the account's password, as far as its words tell."""
    return not prompt.echo and _OTHER.search(prompt.text) is None


def password(host: str, account: str, tries: int = 0) -> Question:
    """Return the question for the account's password."""
    prompt = Prompt(f"{account}'s password: ")
    return Question(host, Kind.PASSWORD, (prompt,), tries=tries)


def passphrase(host: str, path: str, tries: int = 0) -> Question:
    """Return the question for the passphrase of a private key."""
    prompt = Prompt(f"Passphrase of the key {path}: ")
    return Question(host, Kind.PASSPHRASE, (prompt,), tries=tries)


def new_password(host: str, account: str, said: str, tries: int = 0) -> Question:
    """Return the question for a password in place of one that has expired."""
    prompts = (
        Prompt(f"{account}'s old password: "),
        Prompt("New password: "),
        Prompt("The new password again: "),
    )
    text = cleaned(said, TEXT_CHARS, lines=True)
    return Question(host, Kind.NEW_PASSWORD, prompts, instructions=text, tries=tries)
