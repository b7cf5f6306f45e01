"""`holdfast sessions`: the shells that are kept, and what lies on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_session, complete_target
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.kept import list_kept, wipe_kept
from holdfast_shim.cli.options import FAILED, OK, Options, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_COLUMNS = ("session", "target", "state", "age", "idle", "kept", "keyboard")


@click.command("sessions")
@click.argument("target", required=False, default="", shell_complete=complete_target)
@click.option("--all", "ended", is_flag=True, help="Also those that ended.")
@click.option(
    "--close",
    metavar="S",
    shell_complete=complete_session,
    help="End the session of this name or id.",
)
@click.option(
    "--on",
    "host",
    metavar="HOST",
    shell_complete=complete_target,
    help="Look at what is kept on HOST, whichever daemon made it.",
)
@click.option(
    "--wipe", multiple=True, metavar="ID", help="With --on: remove it; again for more."
)
@click.option("--wipe-all", is_flag=True, help="With --on: remove all that is there.")
@click.option(
    "--force",
    is_flag=True,
    help="With --close: kill at once, also where its host is away."
    " With --wipe: also what runs.",
)
@json_option
def sessions(
    target: str,
    *,
    ended: bool,
    close: str | None,
    host: str | None,
    wipe: tuple[str, ...],
    wipe_all: bool,
    force: bool,
) -> int:
    """List sessions, from every client, newest first.

    With --on HOST the host itself is asked: it shows what any daemon keeps there, also
    one that is gone for good, and --wipe removes it.
    """
    chosen = options()
    if host is None and (wipe or wipe_all):
        raise click.UsageError("--wipe and --wipe-all need --on HOST")
    if force and not (close or wipe or wipe_all):
        raise click.UsageError("--force goes with --close, --wipe or --wipe-all")
    if host is not None:
        if target or ended or close:
            raise click.UsageError("--on goes with neither a target, --all nor --close")
        if wipe and wipe_all:
            raise click.UsageError("--wipe-all removes the --wipe ones too: give one")
        if wipe or wipe_all:
            return wipe_kept(chosen, host, wipe, everything=wipe_all, force=force)
        return list_kept(chosen, host)
    if close is not None:
        if target or ended:
            raise click.UsageError("--close goes with neither a target nor --all")
        return _close(chosen, close, force=force)
    return _list(chosen, target, ended=ended)


def _list(chosen: Options, target: str, *, ended: bool) -> int:
    request = session_pb2.ListSessionsRequest(target=target, include_exited=ended)

    async def work(client: DaemonClient) -> session_pb2.ListSessionsResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        return await stub.ListSessions(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(answer)
        return OK
    found = answer.get("sessions", [])
    if not found:
        output.note(f"no sessions on {target}" if target else "no sessions")
        return OK
    output.table(_COLUMNS, [_row(one) for one in found])
    for one in found:
        if note := one.get("note"):
            output.note(f"{one.get('session_name') or one['session_id']}: {note}")
    return OK


def _row(one: dict[str, Any]) -> list[str]:
    holder = one.get("holder") or {}
    return [
        one.get("session_name") or one["session_id"],
        one["target"],
        state(one),
        output.span(one["uptime_seconds"]),
        output.span(one["idle_seconds"]),
        str(one.get("durability", "")),
        f"{holder['client']}, {output.ago(holder['since'])}" if holder else "",
    ]


def state(one: dict[str, Any]) -> str:
    """Return how a session stands, in a few words."""
    if one.get("running"):
        return "running"
    reason = str(one.get("exit_reason", "ended")).replace("_", " ")
    if "exit_code" in one:
        told = f"exit {one['exit_code']}"
    elif one.get("signal"):
        told = f"signal {one['signal']}"
    else:
        return reason
    return told if reason in ("exited", "signalled") else f"{reason}, {told}"


def _close(chosen: Options, session: str, *, force: bool) -> int:
    request = session_pb2.CloseSessionRequest(session=session, force=force)

    async def work(client: DaemonClient) -> session_pb2.CloseSessionResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        return await stub.CloseSession(request, metadata=client.metadata())

    answer = ask(chosen, work)
    told = to_json(answer)
    if chosen.json:
        output.emit(told)
    elif not answer.closed:
        output.note(f"there is no session {session}: `holdfast sessions` lists them")
    elif answer.was_running:
        output.say(f"session {session} is closed")
    else:
        output.say(f"session {session} had ended before: {state(told)}")
    return OK if answer.closed else FAILED
