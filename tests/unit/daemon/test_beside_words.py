"""What held shells are told: nothing that is written anywhere but in its own place."""

from __future__ import annotations

import re

import pytest

from holdfast_daemon.kept import beside, wrapper

FAMILIES: tuple[wrapper.Family, ...] = ("bash", "zsh", "sh", "fish")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [True, False])
def test_all_it_writes_is_in_its_own_directory(
    family: wrapper.Family, *, first: bool
) -> None:
    """SE-02: no environment is saved, and no redirection leads elsewhere."""
    command, trailer = beside.words(family, first=first)
    told = command + trailer
    assert "_hf_at" not in told
    assert "env." not in told
    targets = re.findall(r">\|?\s*([^\s&>|;)]+)", told)
    assert targets
    assert all(t.startswith("@/") or t == "/dev/null" for t in targets), targets
    assert "/.." not in told
    # the rest is as kept shells have it
    words = wrapper.words(family)
    assert words is not None
    for line in trailer.splitlines():
        assert line in words.trailer.splitlines()
    assert "done" in trailer
    assert "next" in trailer


def test_a_shell_that_is_not_known_is_told_nothing() -> None:
    """So that its host says which one it is, and nothing is typed."""
    assert beside.words("", first=True) == ("", "")
