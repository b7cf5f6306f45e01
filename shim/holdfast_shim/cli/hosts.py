"""`holdfast hosts`: which hosts are known, and whether one can be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import host_pb2, host_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.options import OK, json_option, options
from holdfast_shim.cli.trust import trust
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient


@click.group("hosts")
def hosts() -> None:
    """List hosts, test them, and decide on their keys."""


hosts.add_command(trust)


@hosts.command("list")
@click.argument("query", required=False, default="")
@click.option("--tag", default="", help="Only hosts with this tag.")
@json_option
def list_hosts(query: str, *, tag: str) -> int:
    """List the hosts of inventory and ssh configuration.

    QUERY keeps those whose name, tags or description contain it.
    """
    chosen = options()
    request = host_pb2.ListHostsRequest(query=query, tag=tag)

    async def work(client: DaemonClient) -> host_pb2.ListHostsResponse:
        stub = host_pb2_grpc.HostServiceStub(client.channel)
        return await stub.ListHosts(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(answer)
    elif answer["hosts"]:
        columns = ("name", "target", "connected", "tags", "description")
        output.table(columns, [_row(host) for host in answer["hosts"]])
    else:
        output.note("no hosts")
    for note in [] if chosen.json else answer["notes"]:
        output.note(note)
    return OK


def _row(host: dict[str, Any]) -> list[str]:
    return [
        host["name"],
        host["target"],
        "yes" if host["connected"] else "",
        ", ".join(host["tags"]),
        host["description"],
    ]


@hosts.command("test")
@click.argument("target", shell_complete=complete_target)
@connect_options
@json_option
def test_host(target: str, **connect: Any) -> int:
    """Connect to a host and tell what was found."""
    chosen = options()
    request = host_pb2.ConnectRequest(target=target, connect=connect_message(**connect))

    async def work(client: DaemonClient) -> host_pb2.ConnectResponse:
        stub = host_pb2_grpc.HostServiceStub(client.channel)
        return await stub.Connect(request, metadata=client.metadata())

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
        return OK
    output.pairs(
        [
            ("host", answer.target),
            ("connection", "was open already" if answer.reused else "new"),
            ("round trip", f"{answer.rtt_ms:.1f} ms"),
            ("server", answer.server_version),
            ("host key", answer.host_key_fingerprint),
            ("login", answer.auth_method),
            *(("not done", note) for note in answer.notes),
        ]
    )
    return OK


@hosts.command("disconnect")
@click.argument("target", shell_complete=complete_target)
@click.option("--force", is_flag=True, help="Even while commands use it: they end.")
@json_option
def disconnect_host(target: str, *, force: bool) -> int:
    """Close the shared connection to a host."""
    chosen = options()
    request = host_pb2.DisconnectRequest(target=target, force=force)

    async def work(client: DaemonClient) -> host_pb2.DisconnectResponse:
        stub = host_pb2_grpc.HostServiceStub(client.channel)
        return await stub.Disconnect(request, metadata=client.metadata())

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
        return OK
    if not answer.closed:
        output.say("there was no connection")
        return OK
    ended = (
        (answer.jobs_ended, "commands that ended as lost"),
        (answer.sessions_ended, "sessions"),
        (answer.forwards_ended, "forwards"),
    )
    told = ", ".join(f"{count} {what}" for count, what in ended if count)
    output.say(f"closed, with {told}" if told else "closed")
    return OK
