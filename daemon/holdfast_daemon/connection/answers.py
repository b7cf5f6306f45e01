"""What is answered when a server asks: from what is at hand, by a person, or not.

What a person typed is hidden from every text while the login lasts, and not kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.connection import question as questions
from holdfast_daemon.connection.question import GaveUp, Kind, Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.question import Asker
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.secrets import Redactor, Secret

# OpenSSH's NumberOfPasswordPrompts.
TRIES = 3
# PAM's modules say what they have to say in a handful: beyond this nobody means well.
MOST_ROUNDS = 30


@dataclass(slots=True)
class Aid:
    """Whom a login can turn to.

    Attributes:
        asker: Who asks a person; None: nobody is there.
        redactor: What hides secrets.
        known: What the host asked lately that nobody could answer.
    """

    redactor: Redactor
    asker: Asker | None = None
    known: str = ""
    typed: list[Secret] = field(default_factory=list["Secret"])

    def forget(self) -> None:
        """Let go of what was typed."""
        while self.typed:
            self.redactor.remove(self.typed.pop())


class Answers:
    """Answers one login's questions, and remembers what could not be.

    Attributes:
        needs: What was asked that only a person can answer.
        begun: When a person was first asked; None: never.
        gave_up: The person does not answer.
        typed: The last answer was a person's.
    """

    def __init__(self, host: Host, password: Secret | None, aid: Aid) -> None:
        self._host = host
        self._password = password
        self._aid = aid
        self._spent = False
        self._tries = 0
        self._rounds = 0
        self._asked = 0
        self._fresh = True
        self.needs: list[str] = []
        self.begun: float | None = None
        self.gave_up = ""
        self.typed = False

    @property
    def attended(self) -> bool:
        """A person can be asked."""
        return self._aid.asker is not None

    @property
    def at_hand(self) -> bool:
        """There is a password that was not given yet."""
        return self._password is not None and not self._spent

    @property
    def tries(self) -> int:
        """How often a person may try."""
        return TRIES

    def accepted(self) -> None:
        """Begin anew: the server took what it was given, and wants more."""
        self._spent = False
        self._tries = self._rounds = 0
        self.needs.clear()

    def tell(self, text: str, *, lines: bool = False) -> None:
        """Show a person what the server or a key says."""
        text = questions.cleaned(text, questions.TEXT_CHARS, lines=lines)
        if self._aid.asker is not None and text:
            self._aid.asker.tell(text)

    async def password(self) -> str | None:
        """Return the password: once the one at hand, then a person's."""
        self.typed = False
        if self.at_hand and self._password is not None:
            self._spent = True
            return self._password.reveal()
        if not self.attended:
            if self._password is None:
                self.needs.append("password")
            return None
        if self._tries + self._rounds >= self.tries:
            return None
        asked = questions.password(self._host.name, self._account, self._tries)
        self._tries += 1
        answers = await self._ask(asked)
        return answers[0].reveal() if answers else None

    def begins_interactive(self, *, plainly: bool, refused: bool) -> bool:
        """Whether to let the server ask.

        Args:
            plainly: It takes a password by its own method too, which then comes first:
                such servers mean the same one by both, and would count it twice.
            refused: It turned down what the caller named, so a person is no help.
        """
        if self.gave_up or (plainly and (self.at_hand or not self.attended)):
            return False
        if self.attended:
            if self._tries + self._rounds >= self.tries:
                return False
            self._rounds += 1
            self._fresh = True
            return True
        if self._aid.known:
            # Asking alone may ring a person's telephone.
            self.needs.append(self._aid.known)
            return False
        self._rounds += 1
        return self._rounds == 1 and (
            self.at_hand or (self._password is None and not refused)
        )

    async def interactive(
        self, name: str, instructions: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Return an answer to each prompt; None: there is none to one of them."""
        self._asked += 1
        if self._asked > MOST_ROUNDS:
            self.needs.append(f"more than {MOST_ROUNDS} rounds of questions")
            return None
        if not prompts:
            self.tell("\n".join(filter(None, (name, instructions))), lines=True)
            return []
        asked = questions.interactive(self._host.name, name, instructions, prompts)
        if asked is None:
            self.needs.append(f"{len(prompts)} answers at once")
            return None
        self.typed = False
        own = self._own(asked)
        rest = tuple(p for i, p in enumerate(asked.prompts) if i != own)
        answers: Sequence[Secret] | None = ()
        if rest:
            part = Question(
                asked.host,
                Kind.INTERACTIVE,
                rest,
                name=asked.name,
                instructions=asked.instructions,
                tries=self._rounds - 1 if self._fresh else 0,
            )
            self._fresh = False
            if not self.attended:
                if self._password is None or any(
                    not questions.wants_password(prompt) for prompt in rest
                ):
                    self.needs.append(part.asks)
                return None
            answers = await self._ask(part)
        if answers is None:
            return None
        texts = [answer.reveal() for answer in answers]
        if own is not None and self._password is not None:
            self._spent = True
            texts.insert(own, self._password.reveal())
        return texts

    async def new_password(self, said: str) -> tuple[str, str] | None:
        """Return the old password and a new one, as a server asks for that expired."""
        if not self.attended:
            self.needs.append("a new password")
            return None
        for tries in range(self.tries):
            asked = questions.new_password(self._host.name, self._account, said, tries)
            answers = await self._ask(asked)
            if answers is None:
                return None
            old, new, again = answers
            if new and new == again:
                return old.reveal(), new.reveal()
            self.tell("the two new passwords differ, or are empty")
        return None

    def close(self) -> None:
        """Let go of the password."""
        self._password = None
        self._aid.forget()

    async def passphrase(self, path: str, tries: int) -> str | None:
        """Return the passphrase of a key; None: this key is not to be used."""
        asked = questions.passphrase(self._host.name, path, tries)
        answers = await self._ask(asked)
        return answers[0].reveal() or None if answers else None

    @property
    def _account(self) -> str:
        host = self._host
        return host.name if host.show == "purpose" else f"{host.user}@{host.hostname}"

    def _own(self, asked: Question) -> int | None:
        """Return which prompt the password at hand answers."""
        if not self.at_hand:
            return None
        hidden = [
            index
            for index, prompt in enumerate(asked.prompts)
            if questions.wants_password(prompt)
        ]
        return hidden[0] if len(hidden) == 1 else None

    async def _ask(self, asked: Question) -> Sequence[Secret] | None:
        asker = self._aid.asker
        if asker is None or self.gave_up:
            return None
        if self.begun is None:
            self.begun = asyncio.get_running_loop().time()
        try:
            answers = await asker.ask(asked)
        except GaveUp:
            # A server may repeat what was typed before; others are told this.
            self.gave_up = self._aid.redactor.clean(asked.asks)
            return None
        self.typed = True
        for answer in answers:
            self._aid.redactor.add(answer)
            self._aid.typed.append(answer)
        return answers
