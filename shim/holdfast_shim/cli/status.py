"""`holdfast status` and `holdfast reload`: the daemon itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient


CONNECTION_COLUMNS = ("connection", "state", "channels", "open for", "idle for")
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
@click.argument("target", required=False, default="", shell_complete=complete_target)
@click.option("--limits", is_flag=True, help="Every limit, its unit and its reason.")
@json_option
def status(target: str, *, limits: bool) -> int:
    """Show how the daemon and everything it holds stand.

    With TARGET how that host stands: its connections, and what became of them lately.
    """
    chosen = options()
    if target and limits:
        raise click.UsageError("--limits goes without a target: they hold for all")
    request = admin_pb2.StatusRequest(limits=limits, target=target)

    async def work(client: DaemonClient) -> admin_pb2.StatusResponse:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        return await stub.Status(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer.host if target else answer))
        return OK
    if target:
        _show_host(answer.host)
        return OK
    output.pairs(_facts(answer))
    if answer.connections:
        print()
        output.table(
            CONNECTION_COLUMNS, [connection_row(row) for row in answer.connections]
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


def connection_row(row: admin_pb2.Connection) -> list[str]:
    """Return one connection as `CONNECTION_COLUMNS` has it."""
    others = f" and {row.passengers} hosts beyond" if row.passengers else ""
    return [
        f"{row.target} over {row.via}" if row.via else row.target,
        row.state,
        f"{row.channels}{others}",
        output.span(row.age_seconds),
        output.span(row.idle_seconds),
    ]


def _show_host(host: admin_pb2.HostStatus) -> None:
    """Print how one host stands."""
    since = f", {output.ago(host.since)}" if host.since else ""
    facts = [("host", host.name), ("reached at", host.target)]
    facts.append(("state", f"{host.state or 'not used yet'}{since}"))
    if host.retry_seconds:
        facts.append(("next login", f"in {output.span(host.retry_seconds)} or later"))
    if host.last_error:
        when = output.ago(host.last_error_time)
        facts.append(("last error", f"{when}: {host.last_error}"))
    if host.jobs:
        facts.append(("running jobs", ", ".join(host.jobs)))
    output.pairs([(name, value) for name, value in facts if value])
    if host.connections:
        print()
        output.table(
            CONNECTION_COLUMNS, [connection_row(row) for row in host.connections]
        )
    if host.events:
        print()
        output.table(
            ("when", "what", "how or why"),
            [
                [
                    output.ago(event.time),
                    f"{event.kind} ({event.times} times)"
                    if event.times > 1
                    else event.kind,
                    event.detail,
                ]
                for event in reversed(host.events)
            ],
        )


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
        *_waiting(answer),
    ]


def _waiting(answer: admin_pb2.StatusResponse) -> list[tuple[str, str]]:
    if not answer.trust_requests:
        return []
    names = ", ".join(answer.trust_requests)
    return [("host keys", f"`holdfast hosts trust` has to decide on {names}")]


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
            if answer.changed
            else f"the configuration in {file} was in force already"
        )
    return FAILED if answer.error else OK
