"""`holdfast shell`: a kept shell on a host, made or found, and taken part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.attach import guarded, keys_option, session_size, take_part
from holdfast_shim.cli.attending import has_terminal
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.exec import SshCommand, variables
from holdfast_shim.cli.options import OK, Number, Options, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_DURABILITIES = {
    "auto": session_pb2.DURABILITY_AUTO,
    "held": session_pb2.DURABILITY_HELD,
    "remote": session_pb2.DURABILITY_REMOTE,
}
_OBSERVERS = {
    "none": session_pb2.OBSERVER_MODE_NONE,
    "tmux": session_pb2.OBSERVER_MODE_TMUX,
}


@click.command("shell", cls=SshCommand)
@click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_target
)
@click.option("--name", default="", help="Find the session of this name, or make it.")
@click.option("--new", is_flag=True, help="Always a new one.")
@click.option(
    "--durability",
    type=click.Choice(list(_DURABILITIES)),
    default="auto",
    show_default=True,
    help="What it outlives: held every client, remote also a lost link and the daemon.",
)
@click.option(
    "--observer",
    type=click.Choice(list(_OBSERVERS)),
    default="none",
    show_default=True,
    help="tmux: also show it in a tmux session on this machine.",
)
@click.option("--cwd", default="", help="Working directory of a new shell.")
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Variable of a new shell."
)
@click.option("--shell", default="", help="Shell to use instead of the login shell.")
@click.option(
    "--idle-timeout",
    type=Number(0),
    metavar="SECONDS",
    help="Close it after so long without use; 0: never.",
)
@click.option("-d", "--detached", is_flag=True, help="Only open it.")
@keys_option
@connect_options
@json_option
def shell(
    target: str | None,
    *,
    name: str,
    new: bool,
    durability: str,
    observer: str,
    cwd: str,
    env: tuple[str, ...],
    shell: str,
    idle_timeout: float | None,
    detached: bool,
    detach_keys: bytes,
    **connect: Any,
) -> int:
    """Open a kept shell on TARGET and take part in it.

    It goes on when you leave, by Enter ~. unless --detach-keys says otherwise:
    `holdfast attach` comes back, and agents can use it by its name. With --detached or
    --json it is only opened. The exit code is that of `holdfast attach`.
    """
    chosen = options()
    only_open = detached or chosen.json
    if not (only_open or has_terminal()):
        raise click.UsageError(
            "stdin and stdout must be a terminal to type in a session;"
            " --detached only opens it, `holdfast exec` runs a command"
        )
    request = session_pb2.OpenSessionRequest(
        target=target or "",
        session_name=name,
        cwd=cwd,
        env=variables(env),
        shell=shell,
        durability=_DURABILITIES[durability],
        observer=_OBSERVERS[observer],
        new=new,
        connect=connect_message(**connect),
    )
    if idle_timeout is not None:
        request.idle_timeout_seconds = idle_timeout
    if size := session_size():
        request.cols, request.rows = size
    return guarded(
        chosen,
        name or "S",
        lambda: _open(chosen, request, keys=detach_keys, only_open=only_open),
    )


def _open(
    chosen: Options,
    request: session_pb2.OpenSessionRequest,
    *,
    keys: bytes,
    only_open: bool,
) -> int:
    async def work(client: DaemonClient) -> session_pb2.OpenSessionResponse:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        return await stub.OpenSession(request, metadata=client.metadata())

    found = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(found))
        return OK
    session = found.session_name or found.session_id
    for text in _remarks(found, request):
        output.note(text)
    if only_open:
        output.say(session)
        return OK
    return take_part(chosen, found.session_id, watch=False, keys=keys)


def _remarks(
    found: session_pb2.OpenSessionResponse, request: session_pb2.OpenSessionRequest
) -> list[str]:
    """Return what a person must know of the session beside the session itself."""
    told: list[str] = []
    if found.created and found.durability == session_pb2.DURABILITY_HELD:
        asked = request.durability == session_pb2.DURABILITY_HELD
        told += [] if asked else ["it ends with the daemon: the host can't keep it"]
    if found.matched_by == "restored":
        told.append("a new shell, where the lost one of this name was")
    if found.observer.mode == session_pb2.OBSERVER_MODE_TMUX:
        told.append(f"shown in tmux by: {found.observer.command}")
    if found.observer.HasField("warning"):
        told.append(found.observer.warning)
    return told
