"""Agents as the daemon sees them: which it would ask, and what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.survey import AgentSeen
    from holdfast_daemon.doctor.finding import Finding

_CHECK = "agent"
_NAMED = 8
_HINT = (
    "start an agent (`eval $(ssh-agent)`, `ssh-add`) where the client runs: its"
    " SSH_AUTH_SOCK goes with every call; or name one by IdentityAgent in ssh config"
)


def judge(found: Sequence[AgentSeen], *, forbidden: bool = False) -> list[Finding]:
    """Say of each agent how it stands; `forbidden`: IdentityAgent is none."""
    if forbidden:
        return [finding.skip(_CHECK, "IdentityAgent none: no agent is asked")]
    findings = [_one(seen) for seen in found if seen.path or seen.keys]
    if findings:
        return findings
    told = next((seen.trouble for seen in found), "no agent was found")
    return [finding.skip(_CHECK, f"{told}; key files and passwords are left", _HINT)]


def _one(seen: AgentSeen) -> Finding:
    details = {"path": seen.path, "source": seen.source, "keys": str(len(seen.keys))}
    for number, key in enumerate(seen.keys[:_NAMED], 1):
        details[f"key {number}"] = key.told
    name = f"{seen.path} ({seen.source})"
    if not seen.keys:
        hint = f"`SSH_AUTH_SOCK={seen.path} ssh-add -l` tells what it holds"
        if "no keys" in seen.trouble:
            hint = f"`SSH_AUTH_SOCK={seen.path} ssh-add` loads one"
        elif "another user" in seen.trouble or "no socket" in seen.trouble:
            hint = "name an agent of your own: only that one is asked"
        elif "not answer" in seen.trouble or "not asked" in seen.trouble:
            hint = f"it is gone or stuck: {_HINT}"
        return finding.warn(_CHECK, f"{name} {seen.trouble}", hint, details)
    held = "1 key" if len(seen.keys) == 1 else f"{len(seen.keys)} keys"
    named = "; ".join(key.told for key in seen.keys[:_NAMED])
    more = len(seen.keys) - _NAMED
    named += f"; and {more} more" if more > 0 else ""
    return finding.ok(_CHECK, f"{name} answers and holds {held}: {named}", details)
