"""Keys that wait for a person: bounded, named in the error, gone once decided."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.clock import SystemClock
from holdfast_daemon.hosts.host import Asked, Host, Overrides
from holdfast_daemon.hosts.known_hosts import written
from holdfast_daemon.hosts.pending import Pending
from holdfast_daemon.hosts.refusal import refusal
from holdfast_daemon.hosts.trust import Trust
from holdfast_daemon.hosts.verdict import Status, Verdict
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [asyncssh.generate_private_key("ssh-ed25519").public_data for _ in range(4)]
HOST = Host(name="web1", hostname="web1", user="u")


def pending(most: int = 100) -> Pending:
    return Pending(SystemClock(), lambda: most)


def met(one: Pending, host: Host, key: bytes, status: Status = Status.UNKNOWN) -> str:
    error = refusal(host, Verdict(status, key))
    one.note(error)
    return error.metadata.get("pending", "")


def test_the_same_key_is_one_request_whoever_asks() -> None:
    """NF-13: with who asked, and how often."""
    waiting = pending()
    first = met(waiting, HOST, KEYS[0])
    assert first
    assert met(waiting, HOST, KEYS[0]) == first
    waiting.asked_by(first, "claude/1")
    waiting.asked_by(first, "codex/1")
    waiting.asked_by(first, "claude/1")
    waiting.asked_by("nothing", "claude/1")
    (request,) = waiting
    assert request.times == 2
    assert list(request.clients) == ["codex/1", "claude/1"]
    assert met(waiting, HOST, KEYS[1]) != first
    assert met(waiting, replace(HOST, port=2222), KEYS[0]) != first


def test_the_list_is_bounded_and_the_oldest_go() -> None:
    """NF-13, SE-21."""
    waiting = pending(2)
    ids = [met(waiting, HOST, key) for key in KEYS]
    assert [request.id for request in waiting] == ids[2:]
    for number in range(50):
        waiting.asked_by(ids[-1], f"client{number}")
    found = waiting.find(ids[-1])
    assert found is not None
    assert len(found.clients) == 10


def test_what_nobody_can_trust_does_not_wait() -> None:
    """NF-13: a revoked key, and one that is not the pinned one."""
    waiting = pending()
    assert met(waiting, HOST, KEYS[0], Status.REVOKED) == ""
    pinned = replace(HOST, pinned_fingerprint="SHA256:x")
    assert met(waiting, pinned, KEYS[0], Status.CHANGED) == ""
    assert list(waiting) == []


def test_no_credential_is_kept() -> None:
    """SC-12: what the call came with is not remembered."""
    waiting = pending()
    over = Overrides(password=Secret("canary"))
    told = replace(HOST, password=over.password, asked=Asked(HOST.name, over))
    met(waiting, told, KEYS[0])
    (request,) = waiting
    assert (request.host.password, request.host.asked) == (None, None)


async def test_a_key_that_was_trusted_elsewhere_is_gone(tmp_path: Path) -> None:
    """NF-13: a person may have used ssh."""
    file = tmp_path / "known_hosts"
    host = replace(HOST, user_known_hosts=(str(file),))
    waiting = pending()
    ident = met(waiting, host, KEYS[0])
    assert [request.id for request in await waiting.waiting()] == [ident]
    file.write_text("# nothing yet\n")
    assert [request.id for request in await waiting.waiting()] == [ident]
    file.write_text(written("web1", KEYS[0]) + "\n")
    assert Trust.load(host).judge(KEYS[0]).status is Status.KNOWN
    assert await waiting.waiting() == []
