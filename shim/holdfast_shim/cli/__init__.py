"""`holdfast`: the person's command line, with the same verbs as the tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    from holdfast_shim.cli import app  # noqa: PLC0415 - the package alone stays light

    return app.main(argv)
