"""`holdfast doctor` as a person runs it, and what it found, by names of checks."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakes.sshd import Sshd
    from fakes.world import World

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Examined:
    """What one run found."""

    code: int
    findings: list[Found]

    def __getitem__(self, check: str) -> Found:
        """Return the one finding of a check."""
        (found,) = self.all(check)
        return found

    def all(self, check: str) -> list[Found]:
        """Return the findings of a check."""
        found = [one for one in self.findings if one["check"] == check]
        assert found, f"{check} is not among {self.checks}"
        return found

    @property
    def checks(self) -> list[str]:
        """The names of all checks."""
        return [one["check"] for one in self.findings]

    def of(self, *verdicts: str) -> list[str]:
        """Return the checks that came out so."""
        return [one["check"] for one in self.findings if one["verdict"] in verdicts]


def examine(
    world: World, *arguments: str, env: Mapping[str, str] | None = None
) -> Examined:
    """Run `holdfast doctor … --json`; whatever is wrong has words and a next step."""
    before = [word for word in arguments if word == "--no-autostart"]
    rest = [word for word in arguments if word not in before]
    done = world.cli(*before, "doctor", *rest, "--json", check=False, env=env)
    assert done.stderr == b"", done.stderr
    told = json.loads(done.stdout)
    findings: list[Found] = told["findings"]
    failed = [one for one in findings if one["verdict"] == "fail"]
    assert told["ok"] is not bool(failed)
    assert done.returncode == (1 if failed else 0), done
    for one in findings:
        assert one["told"], one
        assert one["hint"] or one["verdict"] in ("ok", "skip"), one
    return Examined(done.returncode, findings)


async def examined(
    world: World, *arguments: str, env: Mapping[str, str] | None = None
) -> Examined:
    """Do the same without holding the test's loop."""
    return await asyncio.to_thread(examine, world, *arguments, env=env)


def block(sshd: Sshd, alias: str, **said: object) -> str:
    """Return a `Host` block that reaches `sshd`, but for what is `said`."""
    options: dict[str, object] = {
        "HostName": sshd.address,
        "Port": sshd.port,
        "User": sshd.user,
        "IdentityFile": sshd.key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": sshd.known_hosts,
        "GlobalKnownHostsFile": "none",
        **said,
    }
    lines = [f"  {name} {value}" for name, value in options.items()]
    return "\n".join([f"Host {alias}", *lines]) + "\n"
