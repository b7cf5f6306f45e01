"""`holdfast status` and `holdfast reload`: the daemon itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient


_CLIENTS = 8
# Each call of a person's command line is a client of its own, and soon they are many.
_ONE_SHOT = "cli"


def client_rows(answer: admin_pb2.StatusResponse) -> list[list[str]]:
    """Return a row for each client, the most recent first; one for all `cli` ones."""
    single: list[admin_pb2.Client] = []
    grouped = admin_pb2.Client(name=_ONE_SHOT)
    for row in sorted(answer.clients, key=lambda row: row.idle_seconds):
        if row.name.partition("/")[0] != _ONE_SHOT:
            single.append(row)
            continue
        if not grouped.calls:
            grouped.idle_seconds = row.idle_seconds
        grouped.calls += row.calls
    rows = [*([grouped] if grouped.calls else []), *single]
    return [
        [
            row.name,
            str(row.pid or ""),
            str(row.calls),
            output.span(row.idle_seconds),
        ]
        for row in sorted(rows, key=lambda row: row.idle_seconds)
    ]


@click.command("status")
@click.option("--limits", is_flag=True, help="Every limit, its unit and its reason.")
@json_option
def status(*, limits: bool) -> int:
    """Show how the daemon and everything it holds stand."""
    chosen = options()
    request = admin_pb2.StatusRequest(limits=limits)

    async def work(client: DaemonClient) -> admin_pb2.StatusResponse:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        return await stub.Status(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
        return OK
    output.pairs(_facts(answer))
    if answer.connections:
        print()
        output.table(
            ("connection", "state", "channels", "open for", "idle for"),
            [
                [
                    row.target,
                    row.state,
                    str(row.channels),
                    output.span(row.age_seconds),
                    output.span(row.idle_seconds),
                ]
                for row in answer.connections
            ],
        )
    if rows := client_rows(answer):
        print()
        output.table(("client", "pid", "calls", "idle for"), rows[:_CLIENTS])
        if len(rows) > _CLIENTS:
            print(f"… and {len(rows) - _CLIENTS} more, see --json")
    if limits:
        print()
        output.table(
            ("limit", "value", "unit", "reason"),
            [[row.name, row.value, row.unit, row.reason] for row in answer.limits],
        )
    return OK


def _facts(answer: admin_pb2.StatusResponse) -> list[tuple[str, str]]:
    audit = [("audit", "can't be written" if answer.audit_error else "written")]
    if answer.audit_error:
        audit.append(("", answer.audit_error))
    config = [("configuration", answer.config_file or "none")]
    if answer.config_error:
        config.append(("", f"the newest was not taken: {answer.config_error}"))
    return [
        ("daemon", f"holdfast {answer.version}, pid {answer.pid}"),
        ("up", output.span(answer.uptime_seconds)),
        ("memory", output.size(answer.memory_bytes)),
        ("socket", answer.socket),
        *config,
        ("state", answer.state_dir),
        ("jobs", f"{answer.jobs_running} running, {answer.jobs_kept} kept"),
        *audit,
    ]


@click.command("reload")
@json_option
def reload_configuration() -> int:
    """Read the configuration again; after a mistake the last good one stays."""
    chosen = options()

    async def work(client: DaemonClient) -> tuple[admin_pb2.ReloadResponse, str]:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        answer = await stub.Reload(
            admin_pb2.ReloadRequest(),
            metadata=client.metadata(),
            timeout=QUICK_SECONDS,
        )
        stands = await stub.Status(
            admin_pb2.StatusRequest(),
            metadata=client.metadata(),
            timeout=QUICK_SECONDS,
        )
        return answer, stands.config_file

    answer, file = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
    elif answer.error:
        output.note(f"the configuration was not taken: {answer.error}")
    elif not file:
        output.say("no configuration file; nothing changed")
    else:
        output.say(
            f"the configuration in {file} is in force"
            if answer.reloaded
            else "the configuration has not changed"
        )
    return FAILED if answer.error else OK
