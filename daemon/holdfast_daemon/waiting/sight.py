"""How one of the things that are waited for stands. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sight:
    """How it stands.

    Attributes:
        state: In a word.
        came: What is waited for has come.
        detail: More about it, in words.
        exit_code: Of what ended by itself; absence is never 0.
    """

    state: str
    came: bool
    detail: str = ""
    exit_code: int | None = None


class Watch(Protocol):
    """Looks at one thing until it comes.

    Attributes:
        what: The thing as it was named.
    """

    what: str

    async def look(self) -> None:
        """Find out how it stands; what has come already is seen at once."""
        ...

    async def come(self) -> None:
        """Return when it has come, or can't come any more."""
        ...

    def sight(self) -> Sight:
        """Return how it stands, as far as was seen."""
        ...
