"""A call that must not run twice, and how it is known again. Sans-I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.exec.request import ExecRequest
    from holdfast_daemon.hosts.host import Host

# What a shim makes up for its own retry; it never asks another daemon again.
FLEETING = "shim-"


@dataclass(frozen=True, slots=True)
class Claim:
    """A call that must not run twice.

    Attributes:
        owner: Who asked: the principal, and the program it asked through.
        request_id: The caller's own name for the call.
        fingerprint: What was asked, so that another call is not taken for it.
    """

    owner: str
    request_id: str
    fingerprint: str

    @property
    def lasting(self) -> bool:
        """It must hold over a restart of the daemon too."""
        return not self.request_id.startswith(FLEETING)


def claim(owner: str, request_id: str, request: ExecRequest, host: Host) -> Claim:
    """Return the claim of one call."""
    told = hashlib.sha256()
    for part in (
        request.command,
        request.cwd,
        repr(sorted(request.env.items())),
        request.shell,
        repr(request.terminal is not None),
        repr(request.timeout),
        repr(host.endpoint),
        *(["sudo"] if request.sudo else []),
        *(["durable"] if request.durable else []),
    ):
        told.update(hashlib.sha256(part.encode()).digest())
    told.update(request.stdin or b"")
    return Claim(owner, request_id, told.hexdigest())
