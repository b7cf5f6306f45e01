"""What a figure is, and the table it goes into."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line.

    Attributes:
        ours: What we measured of us, with its unit.
        peer: What was measured beside it in the same run.
        ratio: Ours in terms of the bar's unit; smaller is better.
        bar: What `ratio` may be at most.
    """

    what: str
    ours: str
    peer: str
    ratio: float
    bar: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.ratio <= self.bar


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ms(seconds: float) -> str:
    """Return a span in milliseconds."""
    return f"{seconds * 1000:.1f} ms"


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * _PAGE


def machine() -> str:
    """Return what this was measured on."""
    python = platform.python_version()
    return f"{os.cpu_count()} cores, {platform.system()}, Python {python}"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [
        "| what | ours | beside it | figure | bar | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows.extend(
        f"| {f.what} | {f.ours} | {f.peer} | {f.ratio:.2f} {f.unit} |"
        f" ≤ {f.bar:g} {f.unit} | {'yes' if f.met else 'NO'} |"
        for f in figures
    )
    return "\n".join(rows) + "\n"
