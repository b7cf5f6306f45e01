"""Puts what was sent to a host in its place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.transfer.means.errand import refused
from holdfast_daemon.transfer.means.stream import Cut
from holdfast_daemon.transfer.shell import words

if TYPE_CHECKING:
    from holdfast_daemon.transfer.means.errand import CopyRequest, Means
    from holdfast_daemon.transfer.means.placing import Placing
    from holdfast_daemon.transfer.means.reach import Reach
    from holdfast_daemon.transfer.means.stream import Reply, Wire

# Seconds; a host that is at it says so as often.
_BEAT = 10.0


async def put(
    placing: Placing,
    request: CopyRequest,
    means: Means,
    reach: Reach,
    *,
    again: bool = False,
) -> None:
    """Put it there; `again`: that may have been asked for before.

    Raises:
        DaemonError: It can't be put there.
    """
    script = words.finish(
        placing.folder,
        placing.key,
        placing.names,
        placing.first,
        overwrite=request.overwrite,
        beat=min(_BEAT, means.site.limits.copy_idle_seconds / 4),
    )

    async def attempt(wire: Wire) -> tuple[Reply, bytes]:
        nonlocal again
        before, again = again, True
        reply, rest = await wire.ask(script)
        if reply.ok and not rest.endswith(script.mark):
            raise Cut("the host's shell ended before all was in its place")
        if before and not reply.ok and reply.fields[:1] == (b"gone",):
            # All was moved, and what told so was lost.
            reply, _ = await wire.ask(words.placed(placing.folder, placing.names))
            return reply, b""
        return reply, rest

    reply, rest = await reach.steadily(attempt)
    if not reply.ok:
        raise refused(reply, write=True)
    fields = rest.rpartition(script.mark)[0].split(b"\0")
    for path, why in zip(fields[::2], fields[1::2], strict=False):
        if not path:
            continue
        means.trouble(path.removeprefix(b"./"), why.decode("utf-8", "replace"))
        means.tally.files = max(0, means.tally.files - 1)
    if placing.then:
        after = words.after(placing.folder, placing.then)
        reply, _ = await reach.steadily(lambda wire: wire.ask(after))
        if not reply.ok:
            raise refused(reply, write=True)
        means.unset(reply.texts[0])
