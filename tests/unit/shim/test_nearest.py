"""Suggestions: the name that was meant, or none."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

import holdfast.v1
from holdfast.v1 import options_pb2
from holdfast_shim.nearest import alike, meant
from holdfast_shim.planned import PLANNED

RUN = ("target", "command", "cwd", "env", "stdin", "timeout_seconds", "wait_seconds")


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("cmd", "command"),
        ("comand", "command"),
        ("timeout", "timeout_seconds"),
        ("tgt", "target"),
        ("directory", ""),
        ("host", ""),
        ("x", ""),
        ("", ""),
    ],
)
def test_a_wrong_name_suggests_what_was_meant_or_nothing(word: str, found: str) -> None:
    """TR-09."""
    assert meant(word, RUN) == found


def test_words_with_some_letters_in_common_are_not_alike() -> None:
    assert alike("ssh_session_open", ("ssh_disconnect", "ssh_job_stop")) == []
    assert alike("ssh_job_reed", ("ssh_exec", "ssh_job_read"))[0] == "ssh_job_read"


def test_the_planned_tools_are_those_of_the_contract() -> None:
    """Contract section 4."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(holdfast.v1.__path__, "holdfast.v1."):
        if not module.name.endswith("_pb2"):
            continue
        services = import_module(module.name).DESCRIPTOR.services_by_name.values()
        for method in (m for service in services for m in service.methods):
            tool = method.GetOptions().Extensions[options_pb2.tool]
            if tool.planned:
                found.add(tool.name)
    assert set(PLANNED) == found
