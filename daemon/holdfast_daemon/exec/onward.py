"""What the next daemon needs to go on with work of this one. Sans-I/O.

A secret that the client gave is not among it: who needs one must ask a person again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from holdfast_daemon import shape
from holdfast_daemon.policy.caller import Caller, CallerDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping

# what its row holds is known to those of its kind
SHAPE = shape.fields(
    {
        "kind": shape.text,
        "row": shape.mapping,
        "caller": shape.fields(
            {
                "principal": shape.text,
                "name": shape.text,
                "version": shape.text,
                "tool": shape.text,
                "read_only": shape.flag,
                "person": shape.flag,
                "project": shape.text,
                "allowed_hosts": shape.several(shape.text),
                "host": shape.text,
                "user": shape.text,
                "port": shape.maybe(shape.count),
                "auth_sock": shape.text,
            },
            {},
        ),
    },
    {},
)


@dataclass(frozen=True, slots=True)
class Onward:
    """A job that is done from here, and so can be gone on with from here.

    Attributes:
        kind: Who knows what `row` means.
        caller: Who asked, without secrets.
        row: What was asked, how far it is, and what came of it.
    """

    kind: str
    caller: Caller
    row: Mapping[str, Any]

    def noting(self, **row: Any) -> Self:
        """Return the same with more known."""
        return replace(self, row={**self.row, **row})

    def record(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        caller, own = self.caller, self.caller.defaults
        return {
            "kind": self.kind,
            "row": dict(self.row),
            "caller": {
                "principal": caller.principal,
                "name": caller.name,
                "version": caller.version,
                "tool": caller.tool,
                "read_only": caller.read_only,
                "person": caller.person,
                "project": caller.project,
                "allowed_hosts": list(caller.allowed_hosts),
                "host": own.host,
                "user": own.user,
                "port": own.port,
                "auth_sock": own.auth_sock,
            },
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return what `record` wrote.

        Raises:
            TypeError: It is damaged.
        """
        SHAPE("onward", row)
        told = row["caller"]
        caller = Caller(
            told["principal"],
            name=told["name"],
            version=told["version"],
            tool=told["tool"],
            read_only=told["read_only"],
            person=told["person"],
            project=told["project"],
            allowed_hosts=tuple(told["allowed_hosts"]),
            defaults=CallerDefaults(
                host=told["host"],
                user=told["user"],
                port=told["port"],
                auth_sock=told["auth_sock"],
            ),
        )
        return cls(row["kind"], caller, row["row"])
