"""Which places of this machine a transfer may use: the project, and configured ones.

A path is looked at after all links in it are resolved. A guard for agents, which act
for somebody: a person's own command line may use what that person may use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, InputError, Reason
from holdfast_daemon.file import sensitive

if TYPE_CHECKING:
    from holdfast_daemon.config import Config
    from holdfast_daemon.policy.caller import Caller

_PATH_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Roots:
    """What one caller may use.

    Attributes:
        project: The client's working directory; empty: it told none.
        configured: `local_roots` of the configuration.
        confined: Nothing else may be used.
    """

    project: str
    configured: tuple[str, ...]
    confined: bool = True

    @property
    def allowed(self) -> tuple[Path, ...]:
        """The directories, resolved."""
        given = [Path(os.path.expanduser(one)) for one in self.configured]  # noqa: PTH111
        found = [_real(one) for one in given if one.is_absolute()]
        project = _real(Path(self.project)) if self.project else None
        # A client started in / or /home has no project: all would be allowed.
        if project is not None and project not in (_home(), *_home().parents):
            found.insert(0, project)
        return tuple(found)

    def check(self, path: str, *, write: bool, field: str = "path") -> Path:
        """Return a path of this machine without links, where it may be used.

        `write`: it is to be written. Blocks for a moment: it looks at links.

        Raises:
            InputError: It can't be a path.
            DeniedError: It leads out of all roots, or is one that holds secrets.
        """
        if not path:
            raise InputError(field, f"{field} is empty", hint="Give a path.")
        if "\0" in path or len(os.fsencode(path)) > _PATH_BYTES:
            raise InputError(field, f"{field} can't be a path: {path[:80]!r}")
        home = os.path.expanduser(path)  # noqa: PTH111  Path's fails without an account
        if path[:1] == "~" and home == path:
            raise InputError(
                field,
                f"{field} {path!r}: no account of this machine is called so",
                hint="Give the whole path, or ./ before a name that begins so.",
            )
        given = Path(home)
        if not given.is_absolute() and not self.project:
            raise InputError(
                field,
                f"{field} {path!r} is relative, and the client told no directory",
                hint="Give an absolute path.",
            )
        found = _real(Path(self.project or "/") / given)
        allowed = self.allowed
        if self.confined and not any(found.is_relative_to(one) for one in allowed):
            raise self._refused(found, path, allowed)
        self.guard(found, write=write)
        return found

    def guard(self, path: Path, *, write: bool) -> None:
        """Refuse a path (resolved) that holds secrets or lets people in.

        Raises:
            DeniedError: It is one.
        """
        shown = os.fsencode(path).decode("utf-8", "replace")
        if self.guarded(os.fsencode(path), write=write):
            raise DeniedError(
                Reason.SENSITIVE_PATH,
                f"{shown} holds secrets or lets people in, and was not touched",
                hint="Let a person copy it, with a program of their own, if it is meant"
                " to be copied.",
                metadata={"path": shown},
            )

    def guarded(self, path: bytes, *, write: bool) -> bool:
        """Say whether a path (resolved) holds secrets or lets people in."""
        guarded = sensitive.lets_in if write else sensitive.holds_secrets
        return guarded(path.decode("utf-8", "replace"))

    def _refused(
        self, found: Path, path: str, allowed: tuple[Path, ...]
    ) -> DeniedError:
        shown = os.fsencode(found).decode("utf-8", "replace")
        leads = "" if shown == path else f" (that is {shown})"
        names = ", ".join(map(str, allowed)) or "none"
        return DeniedError(
            Reason.LOCAL_PATH_DENIED,
            f"{path}{leads} is outside the directories of this machine that transfers"
            f" may use: {names}; nothing was copied",
            hint="Use a path there, or let a person add the directory to local_roots in"
            " holdfast's config.toml.",
            metadata={"path": shown, "roots": "\n".join(map(str, allowed))},
        )


def roots_of(caller: Caller, config: Config) -> Roots:
    """Return what `caller` may use under `config`."""
    return Roots(caller.project, config.local_roots, confined=not caller.person)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _home() -> Path:
    return _real(Path("~").expanduser())
