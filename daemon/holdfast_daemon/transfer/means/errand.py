"""What a copy is asked to do, and what it has to do it with."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, Ran, Reason, StateError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.fault import cause_of, fault
from holdfast_daemon.file.script import shown
from holdfast_daemon.transfer.means.reach import Reach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.transfer.means.placing import Placing
    from holdfast_daemon.transfer.means.rate import Rate
    from holdfast_daemon.transfer.means.roots import Roots
    from holdfast_daemon.transfer.means.stream import Reply
    from holdfast_daemon.transfer.means.tally import Tally
    from holdfast_daemon.transfer.tree.plan import Plan

    Unit = Callable[[Reach], Awaitable[None]]

# A file up to here goes with others in one stream.
SMALL_BYTES = 256 * 1024
BATCH_BYTES = 8 * 1024 * 1024
BATCH_FILES = 8192
PIECE_BYTES = 1024 * 1024
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """One copy.

    Attributes:
        here: Places of this machine as they were given, absolute and resolved but for
            the sources' last name.
        there: Paths on the host, as they were given.
    """

    upload: bool
    here: tuple[str, ...]
    there: tuple[str, ...]
    recursive: bool = False
    preserve: bool = False
    overwrite: bool = False
    into: bool = False

    def key(self, where: str, signature: str) -> bytes:
        """Return the name under which what is not whole yet lies beside its place.

        `signature`: of the daemon that writes it; no two of them share it.
        """
        told = repr((self, where, signature)).encode("utf-8", "surrogateescape")
        return b".holdfast-" + hashlib.sha256(told).hexdigest()[:20].encode()


@dataclass(slots=True)
class Means:
    """What a copy works with.

    Attributes:
        key: The name under which what is not whole yet lies beside its place.
        placing: Returns when it is on disk that all has come, and where it goes.
        troubles: Names that could not be copied, each with why.
        left: Names that were left out on purpose, each with why.
        notes: What else is to be said.
        sha256: Of the file, where it is one.
    """

    site: Site
    tally: Tally
    rate: Rate
    roots: Roots
    say: Callable[[str], None]
    begun: Callable[[], None]
    key: bytes
    placing: Callable[[Placing], Awaitable[None]]
    troubles: dict[bytes, str] = field(default_factory=dict[bytes, str])
    left: dict[bytes, str] = field(default_factory=dict[bytes, str])
    notes: list[str] = field(default_factory=list[str])
    sha256: str = ""

    def trouble(self, path: bytes, why: str) -> None:
        """Note that a name could not be copied."""
        self.troubles[path] = why
        self.say(f"{shown(path)}: {why}")

    def leave(self, path: bytes, why: str) -> None:
        """Note that a name was left out on purpose."""
        self.left[path] = why
        self.tally.skipped += 1
        self.say(f"{shown(path)}: {why}")

    def note(self, text: str) -> None:
        """Note what else is to be said, once."""
        if text not in self.notes:
            self.notes.append(text)

    def unset(self, why: str) -> None:
        """Note that modes or times could not be given, if there is a reason."""
        if why:
            self.note(f"not every mode and time could be set: {' '.join(why.split())}")

    async def all(self, units: Sequence[Unit]) -> None:
        """Do everything, several at once."""
        waiting = list(reversed(units))

        async def work() -> None:
            reach = Reach(self.site, self.tally)
            try:
                while waiting:
                    await waiting.pop()(reach)
            finally:
                reach.release()

        count = min(len(units), self.site.limits.copy_parallel)
        tasks = [asyncio.create_task(work()) for _ in range(count)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def refused(reply: Reply, *, write: bool) -> DaemonError:
    """Return the error for a script that said no."""
    fields = reply.texts
    word = fields[0] if fields else ""
    if word == "short":
        return StateError(
            Reason.FILE_FAILED,
            f"{fields[1]} has {fields[2]} bytes there: somebody else wrote to it",
            hint="Call again.",
            ran=Ran.YES,
        )
    error = fault(fields, write=write)
    if word in ("write", "stage", "sum"):
        path, said = (*fields, "", "")[1:3]
        cause, words = cause_of(said)
        error = StateError(
            Reason.FILE_FAILED,
            f"{path} can't be written: {words}; nothing was put in its place",
            hint="Make room there, and call again."
            if cause == "space"
            else "Choose another place, or let the account write there.",
            metadata={"path": path, "cause": cause},
        )
    return error


def check_names(names: Sequence[bytes]) -> None:
    """Refuse sources of which two would go to one place.

    Raises:
        StateError: They would.
    """
    if twice := {name for name in names if names.count(name) > 1}:
        raise StateError(
            Reason.FILE_EXISTS,
            f"several sources are called {shown(twice.pop())}",
            hint="Copy them one by one.",
        )


def check_one(todo: Plan, path: str, at: str) -> None:
    """Refuse the one file that was meant, where it can't be put.

    Args:
        todo: What there is to do.
        path: Where it would go.
        at: Words for whose path that is; may be empty.

    Raises:
        StateError: Something is there, or in the way.
    """
    if todo.skipped:
        raise StateError(
            Reason.FILE_EXISTS,
            f"{path} exists{at}; nothing was copied",
            hint="Set overwrite to replace it.",
            metadata={"path": path},
        )
    for why in todo.blocked.values():
        raise StateError(Reason.FILE_FAILED, f"{path}: {why}", hint="")


def secret(path: str, *, write: bool) -> DaemonError:
    """Return the error for a path of the host that copies leave alone."""
    error = sensitive.refusal(path, write=write)
    if not write:
        error.hint = "To use a secret on the host, name its path in a command there."
    return error


def local(error: OSError, path: str, *, write: bool) -> DaemonError:
    """Return the error for what this machine's system refused."""
    cause, words = cause_of(error.strerror or str(error))
    reason = Reason.FILE_NOT_FOUND if cause == "missing" else Reason.FILE_FAILED
    doing = "written" if write else "read"
    return StateError(
        reason,
        f"{path} of this machine can't be {doing}: {words}",
        hint="Make room there, and call again."
        if cause == "space"
        else "Check the path and its permissions.",
        metadata={"path": path, "cause": cause},
    )


def listed(names: Mapping[bytes, str]) -> str:
    """Return names and why, the first few of them."""
    items = list(names.items())
    told = "; ".join(f"{shown(path)}: {why}" for path, why in items[:_SHOWN])
    return told if len(items) <= _SHOWN else f"{told}; and {len(items) - _SHOWN} more"


def failed(means: Means, where: str) -> DaemonError | None:
    """Return the error for names that could not be copied; None: all were."""
    if not means.troubles:
        return None
    items = list(means.troubles.items())
    told = listed(means.troubles)
    cause, _ = cause_of(items[0][1])
    return StateError(
        Reason.FILE_FAILED,
        f"{len(items)} of {means.tally.files + len(items)} files could not be copied"
        f" ({where}), the others are: {told}",
        hint="The job's output has all of them (ssh_job_read).",
        ran=Ran.YES,
        metadata={"cause": cause, "path": shown(items[0][0])},
    )
