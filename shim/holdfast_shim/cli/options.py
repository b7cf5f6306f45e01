"""The options that every verb takes, and where they are kept meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    _F = TypeVar("_F", bound=Callable[..., Any])

OK, FAILED, USAGE, UNAVAILABLE = 0, 1, 2, 69
INTERRUPTED, PIPE_CLOSED, TRANSPORT = 130, 141, 255


@dataclass(slots=True)
class Options:
    """What was asked for before the verb, or with it.

    Attributes:
        socket: The daemon's socket; None: where the contract's search order finds it.
        json: One JSON document instead of text.
        autostart: Start the daemon when nothing answers.
    """

    socket: Path | None = None
    json: bool = False
    autostart: bool = True


class Number(click.FloatRange):
    """A number in a range; one that is none is in no range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse NaN: a wait until then has no end."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


def options() -> Options:
    """Return the options of the command that runs now."""
    return click.get_current_context().ensure_object(Options)


def _json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Options).json = True


def json_option(command: _F) -> _F:
    """Let `command` take --json after its name too."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_json,
        help="One JSON document instead of text.",
    )(command)
