"""`holdfast-mcp`: the MCP server on stdin and stdout that a client spawns.

This is its first stage. Most shims sit idle, so it answers what needs no daemon with
next to no imports; the first tool call moves on to `dispatch` with asyncio and grpc.
"""

from __future__ import annotations

import select
import signal
import sys
from typing import TYPE_CHECKING

from holdfast_shim.arguments import USAGE, Options, UsageError, parse
from holdfast_shim.catalogue import Catalogue
from holdfast_shim.pipes import UNREAD_BYTES, ClosedError, Pipes, claim
from holdfast_shim.protocol import INTERNAL_ERROR, Call, Protocol, ProtocolError
from holdfast_shim.standard import know_home
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from holdfast_shim.protocol import Event

# How often the parent is looked for where the kernel can't tell of its end.
PARENT_CHECK_SECONDS = 1.0
# What a slow reader gets for taking the last replies.
DRAIN_SECONDS = 1.0


def main() -> int:
    """Serve until the client goes away; return the exit code."""
    know_home()
    try:
        options = parse(sys.argv[1:])
    except UsageError as error:
        sys.stderr.write(f"holdfast-mcp: {error}\n")
        return 2
    if options.action != "serve":
        told = USAGE if options.action == "help" else f"holdfast-mcp {VERSION}\n"
        sys.stdout.write(told)
        return 0
    # Ctrl-C in the client's terminal reaches us too; it is no reason for a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        pipes = claim()
    except OSError:
        return 0  # started without stdin or stdout: the client is gone
    catalogue = Catalogue(options)
    protocol = Protocol(catalogue.tools, catalogue.instructions())
    try:
        events = serve(protocol, pipes)
        if events:
            return _second_stage(options, catalogue, protocol, pipes, events)
        pipes.outbox.drain(DRAIN_SECONDS)
    except ClosedError:
        return 0
    return 0


def serve(protocol: Protocol, pipes: Pipes) -> list[Event]:
    """Answer until the first call, and return it with what came after it.

    An empty list says that the client or the parent is gone.
    """
    waiting = select.poll()
    waiting.register(pipes.stdin, select.POLLIN)
    timeout: float | None = PARENT_CHECK_SECONDS * 1000
    if pipes.parent.fd is not None:
        waiting.register(pipes.parent.fd, select.POLLIN)
        timeout = None
    while True:
        ready = [fd for fd, _ in waiting.poll(timeout)]
        if pipes.parent.fd in ready or pipes.parent.gone():
            return []
        if pipes.stdin in ready:
            calls, ended = _answer(protocol, pipes)
            if calls or ended:
                return calls
        if not pipes.outbox.flush():
            waiting.register(pipes.outbox.fd, select.POLLOUT)
            if pipes.outbox.size > UNREAD_BYTES and pipes.stdin in ready:
                waiting.unregister(pipes.stdin)
        elif pipes.outbox.fd in ready:
            waiting.unregister(pipes.outbox.fd)
            waiting.register(pipes.stdin, select.POLLIN)


def _answer(protocol: Protocol, pipes: Pipes) -> tuple[list[Event], bool]:
    """Answer what came; return the first call and what follows, and if it ended."""
    lines, ended = pipes.read()
    events = [event for line in lines for event in protocol.receive(line)]
    for index, event in enumerate(events):
        if isinstance(event, Call):
            return events[index:], ended
        if isinstance(event, bytes):
            pipes.outbox.push(event)
    return [], ended


def _second_stage(
    options: Options,
    catalogue: Catalogue,
    protocol: Protocol,
    pipes: Pipes,
    events: list[Event],
) -> int:
    try:
        from holdfast_shim import dispatch  # noqa: PLC0415 - the point of two stages
    except ImportError as error:
        _refuse(protocol, pipes, events, str(error))
        return 1

    return dispatch.run(options, catalogue, protocol, pipes, events)


def _refuse(protocol: Protocol, pipes: Pipes, events: list[Event], cause: str) -> None:
    """Answer what can't be done: an upgrade put other files in the place of ours."""
    told = "holdfast was upgraded or removed since this client started it"
    told += f" ({cause}): restart this MCP server"
    for event in events:
        if isinstance(event, Call):
            refused = ProtocolError(INTERNAL_ERROR, told)
            pipes.outbox.push(protocol.refuse(event, refused))
    pipes.outbox.drain(DRAIN_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
