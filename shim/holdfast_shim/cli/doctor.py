"""`holdfast doctor`: what is wrong between a person and a host, and the next step."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import click
from grpc import aio

from holdfast.v1 import doctor_pb2, doctor_pb2_grpc
from holdfast_shim import doctor as checks
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import QUICK_SECONDS, dial
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.client import error_of
from holdfast_shim.doctor import Row
from holdfast_shim.errors import CallError
from holdfast_shim.places import PlaceError, home_of, places
from holdfast_shim.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.v1.common_pb2 import ConnectOptions
    from holdfast_shim.cli.options import Options
    from holdfast_shim.client import DaemonClient

_WORDS = {
    doctor_pb2.VERDICT_OK: checks.OK,
    doctor_pb2.VERDICT_WARN: checks.WARN,
    doctor_pb2.VERDICT_FAIL: checks.FAIL,
    doctor_pb2.VERDICT_SKIP: checks.SKIP,
}
# What a person is shown: faults must not be overlooked.
_SHOWN = {checks.FAIL: "FAIL"}
_STYLES = {checks.OK: "green", checks.WARN: "yellow", checks.FAIL: "bold red"}


@click.command("doctor")
@click.argument("target", required=False, default="", shell_complete=complete_target)
@connect_options
@json_option
def doctor(target: str, **connect: Any) -> int:
    """Find out what is wrong, and the next step.

    Looks at this client, the daemon and what is around them; with TARGET also at that
    host: what the configuration makes of its name, its keys, and the way to it hop by
    hop. Logs in as a command would, and runs nothing. Exit code 0: nothing failed.
    """
    chosen = options()
    asked = connect_message(**connect)
    if asked is not None and not target:
        raise click.UsageError("these options need a TARGET")
    rows = asyncio.run(_examine(chosen, target, asked))
    failed = sum(row.verdict == checks.FAIL for row in rows)
    if chosen.json:
        output.emit({"ok": not failed, "findings": [row.json for row in rows]})
    else:
        _show(rows)
    return FAILED if failed else OK


async def _examine(
    chosen: Options, target: str, connect: ConnectOptions | None
) -> list[Row]:
    """Look from here first: the daemon may be what is wrong."""
    rows = [checks.own()]
    problem = Settings.read(os.environ).problem
    if problem is not None:
        return [*rows, checks.of_error("environment", problem)]
    try:
        home = home_of(os.environ)
        where = places(os.environ, home, os.geteuid(), socket=chosen.socket)
    except PlaceError as error:
        return [*rows, Row("places", checks.FAIL, error.message, error.hint)]
    running, found = await checks.standing(where.socket)
    rows += found
    if not running:
        rows += checks.startable(where.socket, os.environ)
    begun = time.monotonic()
    try:
        async with dial(chosen) as client:
            if not running:
                told = f"one was started in {time.monotonic() - begun:.1f} s"
                rows.append(Row("start", checks.OK, told))
            rows.append(checks.versions(await client.connected()))
            found = await _daemon(client)
            more = await _host(client, target, connect) if target else []
            # Of a host it is told what holds there, not what would hold in general.
            names = {row.check for row in more}
            rows += [row for row in found if row.check not in names]
            rows += more
    except CallError as error:
        rows.append(checks.of_error("daemon", error))
    return rows


async def _daemon(client: DaemonClient) -> list[Row]:
    stub = doctor_pb2_grpc.DoctorServiceStub(client.channel)
    try:
        answer = await stub.CheckDaemon(
            doctor_pb2.CheckDaemonRequest(),
            metadata=client.metadata(),
            timeout=QUICK_SECONDS,
        )
    except aio.AioRpcError as error:
        # What can be said of the host is said nevertheless.
        return [checks.of_error("daemon", error_of(error))]
    return _rows(answer.findings)


async def _host(
    client: DaemonClient, target: str, connect: ConnectOptions | None
) -> list[Row]:
    stub = doctor_pb2_grpc.DoctorServiceStub(client.channel)
    request = doctor_pb2.CheckHostRequest(target=target, connect=connect)
    try:
        answer = await stub.CheckHost(request, metadata=client.metadata())
    except aio.AioRpcError as error:
        # A rule, or ssh's configuration, refuses it: that is a finding too.
        return [checks.of_error(f"host {target}", error_of(error))]
    return _rows(answer.findings)


def _rows(findings: Iterable[doctor_pb2.Finding]) -> list[Row]:
    return [
        Row(one.check, _WORDS.get(one.verdict, checks.SKIP), one.told, one.hint,
            dict(one.details))
        for one in findings
    ]  # fmt: skip


def _show(rows: Sequence[Row]) -> None:
    if output.interactive():
        _table(rows)
    else:
        width = max(len(row.check) for row in rows)
        for row in rows:
            told, hint = output.plain(row.told), _hint(row)
            print(f"{_verdict(row):<4}  {output.plain(row.check):<{width}}  {told}")
            if hint:
                print(f"{'':<6}{'':<{width}}  next: {hint}")
    print()
    print(summary(rows))


def _table(rows: Sequence[Row]) -> None:
    """Show it to a person: nothing is cut, for what is cut may be the next step."""
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, max_width=28, overflow="fold")
    grid.add_column(ratio=3, overflow="fold")
    for row in rows:
        style = _STYLES.get(row.verdict, "dim")
        told = Text(output.plain(row.told))
        if hint := _hint(row):
            told.append(f"\nnext: {hint}", style="bold")
        grid.add_row(
            Text(_verdict(row), style=style), Text(output.plain(row.check)), told
        )
    Console(highlight=False).print(grid)


def _verdict(row: Row) -> str:
    return _SHOWN.get(row.verdict, row.verdict)


def _hint(row: Row) -> str:
    return output.plain(output.for_people(row.hint))


def summary(rows: Sequence[Row]) -> str:
    """Return all of it in one line."""
    count = {word: sum(row.verdict == word for row in rows) for word in _WORDS.values()}
    told = [f"{count[checks.OK]} ok"]
    if warned := count[checks.WARN]:
        told.append(f"{warned} warning{'s' if warned > 1 else ''}")
    if skipped := count[checks.SKIP]:
        told.append(f"{skipped} not looked at")
    failed = count[checks.FAIL]
    whole = f"{failed} failed" if failed else "nothing failed"
    return f"{len(rows)} checks: {whole} ({', '.join(told)})"
