"""What a check tells: how one thing stands, in words and values, and the next step."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(StrEnum):
    """How it stands.

    WARN works now, but will not always, or not as meant; SKIP was not to be looked at.
    """

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: What was looked at.
        told: What was found, in one sentence.
        hint: The next step; empty where none is needed.
        details: The same for programs, and more of it; never a secret.
    """

    check: str
    verdict: Verdict
    told: str
    hint: str = ""
    details: Mapping[str, str] = field(default_factory=dict[str, str])


def ok(check: str, told: str, details: Mapping[str, str] | None = None) -> Finding:
    """Return that all is well."""
    return Finding(check, Verdict.OK, told, "", details or {})


def warn(
    check: str, told: str, hint: str, details: Mapping[str, str] | None = None
) -> Finding:
    """Return what ought to be seen to."""
    return Finding(check, Verdict.WARN, told, hint, details or {})


def fail(
    check: str, told: str, hint: str, details: Mapping[str, str] | None = None
) -> Finding:
    """Return what does not work."""
    return Finding(check, Verdict.FAIL, told, hint, details or {})


def skip(
    check: str, told: str, hint: str = "", details: Mapping[str, str] | None = None
) -> Finding:
    """Return what there was not to look at."""
    return Finding(check, Verdict.SKIP, told, hint, details or {})
