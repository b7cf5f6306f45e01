"""`holdfast audit`: what was done, by whom, and whether the record of it is whole."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_LAST = 20
_WHO = ("client", "server_name", "result")
# What a job is or was asked to do stands in the metadata; `method` says it of the rest.
_ABOUT = ("job_id", "session", "forward", "target", "path", "stopped_command")


@click.command("audit")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0, 2**32 - 1),
    default=_LAST,
    show_default=True,
    metavar="N",
    help="The newest N records; 0: all that are kept.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones.")
@click.option("--verify", is_flag=True, help="Check the hash chain instead.")
@json_option
def audit(last: int, *, follow: bool, verify: bool) -> int:
    """Show the audit log, or check that nobody changed it.

    With --json each line is one record as it stands in the log.
    """
    if verify and follow:
        raise click.UsageError("--verify and --follow do not go together")
    if verify:
        given = click.get_current_context().get_parameter_source("last")
        if given is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError("--verify reads the whole log; leave out --last")
        return _verify()
    chosen = options()
    request = admin_pb2.ReadAuditRequest(last=last, follow=follow)

    async def work(client: DaemonClient) -> None:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        async for answer in stub.ReadAudit(request, metadata=client.metadata()):
            text = answer.record if chosen.json else line(answer.record)
            print(text, flush=follow)

    ask(chosen, work)
    return OK


def _verify() -> int:
    chosen = options()

    async def work(client: DaemonClient) -> admin_pb2.VerifyAuditResponse:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        return await stub.VerifyAudit(
            admin_pb2.VerifyAuditRequest(), metadata=client.metadata()
        )

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
    elif answer.intact:
        output.say(f"the audit log is intact: {answer.records} records")
    else:
        output.note(f"the audit log is NOT intact ({answer.records} records read)")
        for fault in answer.faults:
            output.say(fault)
    return OK if answer.intact else FAILED


def line(record: str) -> str:
    """Return one record as a line for people; what is no record, as it stands."""
    try:
        found: Any = json.loads(record)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return output.plain(record)
    told: dict[str, Any] = found
    time = str(told.get("timestamp", ""))[:19].replace("T", " ")
    parts = [time, str(told.get("event_type", "")), str(told.get("phase", ""))]
    parts += [str(told.get(name) or "") for name in _WHO]
    if told.get("exit_code") is not None:
        parts.append(f"exit {told['exit_code']}")
    span = told.get("duration_ms")
    if isinstance(span, int | float) and math.isfinite(span):
        parts.append(output.span(span / 1000))
    elif span is not None:
        parts.append(f"{span} ms")  # as somebody wrote it in there
    parts += [_what(told), str(told.get("error") or "")]
    return output.plain("  ".join(filter(None, parts)))


def _what(told: dict[str, Any]) -> str:
    """Return what was done: the command, or the method and what it was about."""
    if told.get("command"):
        return str(told["command"])
    metadata: Any = told.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    more: dict[str, Any] = metadata
    words = [more.get(name) for name in ("method", *_ABOUT)]
    return " ".join(str(word) for word in words if word)
