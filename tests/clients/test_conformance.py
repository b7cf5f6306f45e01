"""The protocol's conformance suite against the shim, by way of a bridge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clients.bridge import Bridge
from clients.person import SHIM

if TYPE_CHECKING:
    from clients.person import Person

HERE = Path(__file__).parent


def expected(revision: str) -> Path:
    """Return the file of scenarios that fail for a reason."""
    return HERE / f"expected-failures-{revision}.yml"


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_all_that_a_revision_requires(person: Person, revision: str) -> None:
    """TR-10 TR-12: a scenario that fails, or passes and is in the file, fails this."""
    words = ["--requirements", revision, "--timeout", "8000"]
    words += ["--expected-failures", str(expected(revision))]
    with Bridge([SHIM], person.environment) as bridge:
        done = person.run("conformance", "server", "--url", bridge.url, *words)
    assert done.code == 0, done.text[-6000:]


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_each_expected_failure_has_its_reason(revision: str) -> None:
    lines = expected(revision).read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line.lstrip().startswith("- ")]
    assert listed
    for line in listed:
        assert re.search(r"\S  # \w+", line), f"no reason: {line}"
