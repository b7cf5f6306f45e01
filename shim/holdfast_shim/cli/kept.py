"""What is kept on a host, whichever daemon made it: listed and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.options import FAILED, OK, Options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_shim.client import DaemonClient

_COLUMNS = ("id", "kind", "state", "name", "owner", "made", "size", "command")


def list_kept(chosen: Options, host: str) -> int:
    """Show what is kept on `host`."""

    async def work(client: DaemonClient) -> session_pb2.ListKeptResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        request = session_pb2.ListKeptRequest(target=host)
        return await stub.ListKept(request, metadata=client.metadata())

    answer = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(answer)
        return OK
    if not answer.get("kept"):
        output.note(f"nothing is kept on {host}")
        return OK
    output.table(_COLUMNS, [_row(one) for one in answer["kept"]])
    return OK


def wipe_kept(
    chosen: Options, host: str, ids: Sequence[str], *, everything: bool, force: bool
) -> int:
    """Remove what was named; fails where some of it still runs and is left."""

    async def work(client: DaemonClient) -> session_pb2.WipeKeptResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        request = session_pb2.WipeKeptRequest(
            target=host, ids=ids, all=everything, force=force
        )
        return await stub.WipeKept(request, metadata=client.metadata())

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
    else:
        count = len(answer.wiped)
        output.say(f"{count} {'is' if count == 1 else 'are'} removed from {host}")
        for one in answer.left:
            name = f" ({one.name})" if one.name else ""
            output.note(f"{one.id}{name} still runs and is left: --force ends it")
    return FAILED if answer.left else OK


def _row(one: dict[str, Any]) -> list[str]:
    state = str(one.get("state", ""))
    if "exit_code" in one:
        state = f"exit {one['exit_code']}"
    elif one.get("signal"):
        state = f"signal {one['signal']}"
    elif one.get("why"):
        state = f"{state}, {str(one['why']).replace('_', ' ')}"
    created = str(one.get("created", ""))
    return [
        str(one["id"]),
        str(one.get("kind", "")),
        state,
        str(one.get("name", "")),
        str(one.get("owner", "")),
        output.ago(created) if created else "",
        output.size(int(one.get("size_bytes", 0))),
        str(one.get("command", "")),
    ]
