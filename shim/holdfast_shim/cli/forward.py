"""`holdfast forward` and `holdfast forwards`: ports carried through hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import forward_pb2, forward_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.options import FAILED, OK, Options, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_COLUMNS = ("forward", "target", "listens", "leads to", "state", "open", "bytes", "age")
_MOST_PORT = 65535
_PORT_DIGITS = 5
_SHOWN_CHARS = 60
# Parts of PORT:HOST:PORT.
_SHORT = 3


@click.command("forward")
@click.argument("target", shell_complete=complete_target)
@click.option(
    "-L",
    "local",
    multiple=True,
    metavar="SPEC",
    help="Listen here: [ADDRESS:]PORT:HOST:PORT.",
)
@click.option(
    "-R",
    "remote",
    multiple=True,
    metavar="SPEC",
    help="Listen there: [ADDRESS:]PORT:LOCALPORT.",
)
@click.option(
    "-D",
    "dynamic",
    multiple=True,
    metavar="SPEC",
    help="SOCKS proxy here: [ADDRESS:]PORT.",
)
@click.option("--name", default="", help="Name to find it by.")
@click.option("--durable", is_flag=True, help="Reopen it after a daemon restart.")
@json_option
def forward(
    target: str,
    *,
    local: tuple[str, ...],
    remote: tuple[str, ...],
    dynamic: tuple[str, ...],
    name: str,
    durable: bool,
) -> int:
    """Open a forward through TARGET, or find the same one open.

    It stays open when this command ends: `holdfast forwards --close` closes it. In
    place of PORT or HOST:PORT a path stands for a Unix socket; port 0 picks one.
    """
    chosen = options()
    given = [*local, *remote, *dynamic]
    if len(given) != 1:
        # ssh would open several; here each is found, named and closed by itself
        raise click.UsageError("give one of -L, -R and -D, and once")
    request = forward_pb2.OpenForwardRequest(target=target, name=name, durable=durable)
    if local:
        _local(request, given[0])
    elif remote:
        _remote(request, given[0])
    else:
        _dynamic(request, given[0])

    async def work(client: DaemonClient) -> forward_pb2.OpenForwardResponse:
        stub = forward_pb2_grpc.ForwardServiceStub(client.channel)
        return await stub.OpenForward(request, metadata=client.metadata())

    told = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(told)
        return OK
    verb = "was open already" if told["reused"] else "is open"
    output.say(f"forward {called(told)} {verb}: {leads(told)}")
    if told.get("last_error"):
        output.note(f"its target does not answer now: {told['last_error']}")
    return OK


def _parts(option: str, spec: str) -> list[str]:
    """Split at colons, but not within brackets."""
    parts: list[str] = [""]
    inside = False
    for char in spec:
        if char in "[]":
            inside = char == "["
        elif char == ":" and not inside:
            parts.append("")
        else:
            parts[-1] += char
    if inside or not all(parts):
        raise click.BadParameter(f"{spec!r} has an empty part", param_hint=option)
    return parts


def _port(option: str, text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS
    if not digits or int(text) > _MOST_PORT:
        raise click.BadParameter(
            f"{text[:_SHOWN_CHARS]!r} is no port, 0 to {_MOST_PORT}", param_hint=option
        )
    return int(text)


def _local(request: forward_pb2.OpenForwardRequest, spec: str) -> None:
    request.direction = forward_pb2.FORWARD_DIRECTION_LOCAL
    parts = _parts("-L", spec)
    if parts[-1].startswith("/"):
        request.remote_socket = parts.pop()
    elif len(parts) >= _SHORT:
        request.remote_port = _port("-L", parts.pop())
        request.remote_host = parts.pop()
    else:
        raise click.BadParameter(
            f"{spec!r} is not [ADDRESS:]PORT:HOST:PORT", param_hint="-L"
        )
    _here(request, "-L", spec, parts)


def _remote(request: forward_pb2.OpenForwardRequest, spec: str) -> None:
    request.direction = forward_pb2.FORWARD_DIRECTION_REMOTE
    parts = _parts("-R", spec)
    if parts[-1].startswith("/"):
        request.local_socket = parts.pop()
    elif len(parts) > 1:
        request.local_port = _port("-R", parts.pop())
        # as ssh has it, with the host that can only be this machine
        if len(parts) > 1 and parts[-1] in ("localhost", "127.0.0.1"):
            parts.pop()
    if len(parts) == 1 and parts[0].startswith("/"):
        request.remote_socket = parts[0]
    elif 1 <= len(parts) <= 2 and (request.local_port or request.local_socket):  # noqa: PLR2004
        request.remote_port = _port("-R", parts.pop())
        request.bind_address = parts[0] if parts else ""
    else:
        raise click.BadParameter(
            f"{spec!r} is not [ADDRESS:]PORT:LOCALPORT", param_hint="-R"
        )


def _dynamic(request: forward_pb2.OpenForwardRequest, spec: str) -> None:
    request.direction = forward_pb2.FORWARD_DIRECTION_DYNAMIC
    _here(request, "-D", spec, _parts("-D", spec))


def _here(
    request: forward_pb2.OpenForwardRequest, option: str, spec: str, parts: list[str]
) -> None:
    if len(parts) == 1 and parts[0].startswith("/"):
        request.local_socket = parts[0]
    elif 1 <= len(parts) <= 2:  # noqa: PLR2004
        request.local_port = _port(option, parts[-1])
        request.bind_address = parts[0] if len(parts) > 1 else ""
    else:
        raise click.BadParameter(f"{spec!r} is not understood", param_hint=option)


@click.command("forwards")
@click.argument("target", required=False, default="", shell_complete=complete_target)
@click.option("--all", "stopped", is_flag=True, help="Also those that stopped.")
@click.option("--close", metavar="F", help="Close the forward of this name or id.")
@json_option
def forwards(target: str, *, stopped: bool, close: str | None) -> int:
    """List forwards, from every client, newest first."""
    chosen = options()
    if close is not None:
        if target or stopped:
            raise click.UsageError("--close goes with neither a target nor --all")
        return _close(chosen, close)
    request = forward_pb2.ListForwardsRequest(target=target, include_stopped=stopped)

    async def work(client: DaemonClient) -> forward_pb2.ListForwardsResponse:
        stub = forward_pb2_grpc.ForwardServiceStub(client.channel)
        return await stub.ListForwards(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(answer)
        return OK
    found = answer.get("forwards", [])
    if not found:
        output.note(f"no forwards on {target}" if target else "no forwards")
        return OK
    output.table(_COLUMNS, [_row(one) for one in found])
    for one in found:
        if one.get("last_error"):
            output.note(f"{called(one)}: {one['last_error']}")
    return OK


def called(one: dict[str, Any]) -> str:
    """Return what to call a forward."""
    return str(one.get("name") or one["forward_id"])


def leads(one: dict[str, Any]) -> str:
    """Return where a forward listens and leads, in words."""
    target = one["target"]
    if one["direction"] == "remote":
        return f"{one['listen']} on {target} leads to {one['connect']} here"
    if one["direction"] == "dynamic":
        return f"{one['listen']} here is a SOCKS proxy on {target}"
    return f"{one['listen']} here leads to {one['connect']} as {target} sees it"


def _row(one: dict[str, Any]) -> list[str]:
    there = " there" if one["direction"] == "remote" else ""
    passed = int(one["bytes_in"]) + int(one["bytes_out"])
    return [
        called(one),
        one["target"],
        one["listen"] + there,
        one.get("connect") or "SOCKS",
        one["state"],
        str(one["connections"]),
        str(passed),
        output.span(one["uptime_seconds"]),
    ]


def _close(chosen: Options, ident: str) -> int:
    request = forward_pb2.CloseForwardRequest(forward=ident)

    async def work(client: DaemonClient) -> forward_pb2.CloseForwardResponse:
        stub = forward_pb2_grpc.ForwardServiceStub(client.channel)
        return await stub.CloseForward(request, metadata=client.metadata())

    answer = ask(chosen, work)
    told = to_json(answer)
    if chosen.json:
        output.emit(told)
    elif answer.was_running:
        broken = answer.connections_ended
        more = f"; {broken} connections were broken off" if broken else ""
        output.say(f"forward {called(told)} is closed{more}")
    else:
        output.say(f"forward {called(told)} had stopped before")
    return FAILED if answer.running else OK
