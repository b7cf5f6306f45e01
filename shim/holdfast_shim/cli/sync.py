"""`holdfast sync`: one directory made like another by rsync."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING

import click

from holdfast.v1 import common_pb2, transfer_pb2, transfer_pb2_grpc
from holdfast_shim.cli import ends, output, terminal
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.cli.restarts import over_restarts
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_ENDED = common_pb2.EXEC_STATUS_EXITED
# Of a terminal that does not tell its size.
_COLUMNS = 80


@click.command("sync")
@click.argument("source", metavar="[HOST:]DIR")
@click.argument("destination", metavar="[HOST:]DIR")
@click.option("--delete", is_flag=True, help="Delete what SOURCE does not have.")
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing, only tell.")
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="Leave out; may be repeated."
)
@click.option("-z", "--compress", is_flag=True, help="Compress on the way.")
@click.option(
    "-c", "--checksum", is_flag=True, help="Compare contents, not size and time."
)
@json_option
def sync(
    source: str,
    destination: str,
    *,
    delete: bool,
    dry_run: bool,
    exclude: tuple[str, ...],
    compress: bool,
    checksum: bool,
) -> int:
    """Make the second directory like the first; one of them is a host's.

    What is in the first is made to be in the second, whether or not the names end in a
    slash. rsync does it, as `rsync -a` would, over the connection that the daemon has;
    where a host or this machine has none, the daemon compares by itself, and says so.
    Ctrl-C ends it; called again it goes on. Where the daemon stops or dies, the next
    one begins it anew, also without this command (`holdfast jobs`).
    """
    chosen = options()
    first, second = ends.end(source), ends.end(destination)
    host, upload = ends.one_host([first], second)
    way = (
        transfer_pb2.TRANSFER_DIRECTION_UPLOAD
        if upload
        else transfer_pb2.TRANSFER_DIRECTION_DOWNLOAD
    )
    request = transfer_pb2.SyncDirectoryRequest(
        target=host,
        direction=way,
        source=first.path,
        destination=second.path,
        delete=delete,
        dry_run=dry_run,
        exclude=exclude,
        compress=compress,
        checksum=checksum,
        request_id=f"cli-{secrets.token_hex(8)}",
    )
    shows = not chosen.json and sys.stderr.isatty()

    result = ask(chosen, lambda client: _synced(client, request, shows=shows))
    if chosen.json:
        output.emit(to_json(result))
    else:
        _print(result, dry_run=dry_run)
    return OK if result.status == _ENDED else FAILED


async def _synced(
    client: DaemonClient, request: transfer_pb2.SyncDirectoryRequest, *, shows: bool
) -> transfer_pb2.SyncResult:
    """Sync, and return what came of it, from the next daemon if need be."""

    async def once() -> transfer_pb2.SyncResult | None:
        stub = transfer_pb2_grpc.TransferServiceStub(client.channel)
        async for frame in stub.SyncDirectory(request, metadata=client.metadata()):
            if frame.WhichOneof("event") == "result":
                running = frame.result.status == common_pb2.EXEC_STATUS_RUNNING
                return None if running else frame.result
            if shows:
                _show(frame.progress.message)
        return None

    try:
        return await over_restarts(client, once, "sync")
    finally:
        if shows:
            _show("")


def _show(text: str) -> None:
    """Put one line in the place of the one before; what is wrapped would stay."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - as for the bar

    room = (terminal.size().cols or _COLUMNS) - 1
    line = output.plain(text)
    if cell_len(line) > room:
        line = set_cell_size(line, room)
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()


def _print(result: transfer_pb2.SyncResult, *, dry_run: bool) -> None:
    for change in result.changes:
        output.say(output.plain(change))
    if result.changes_more:
        output.note(
            f"{result.changes_more} more changes: `holdfast job {result.job_id}`"
        )
    if result.note:
        output.note(result.note)
    would = "would be " if dry_run else ""
    output.say(
        f"{result.files} compared: {result.created} {would}created,"
        f" {result.updated} {would}updated, {result.deleted} {would}deleted;"
        f" {output.size(result.bytes_transferred)} in"
        f" {output.span(result.duration_ms / 1000)}"
    )
