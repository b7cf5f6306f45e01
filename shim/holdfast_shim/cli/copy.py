"""`holdfast copy`: files and trees to a host or from it, with a bar meanwhile."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from holdfast.v1 import common_pb2, transfer_pb2
from holdfast_shim.cli import ends, output
from holdfast_shim.cli.copying import copied
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_ENDED = common_pb2.EXEC_STATUS_EXITED


@click.command("copy")
@click.argument("sources", metavar="[HOST:]PATH…", nargs=-1, required=True)
@click.argument("destination", metavar="[HOST:]PATH")
@click.option("-r", "--recursive", is_flag=True, help="Directories with all in them.")
@click.option("-p", "--preserve", is_flag=True, help="Keep times and modes.")
@click.option("-f", "--overwrite", is_flag=True, help="Replace files that are there.")
@json_option
def copy(
    sources: tuple[str, ...],
    destination: str,
    *,
    recursive: bool,
    preserve: bool,
    overwrite: bool,
) -> int:
    """Copy files between this machine and a host, over the connection there is.

    The last path is where they go: a directory when it is one, ends in a slash, or
    there are several sources, and then it is made if need be. Patterns are not expanded
    on the host; ssh://HOST:PORT/PATH names a port, too. Nothing is replaced without
    --overwrite, and nothing is there half. Ctrl-C ends it. Cut off, it goes on by
    itself, also without this command (`holdfast jobs`) and when the daemon starts
    again.
    """
    chosen = options()
    first, last = [ends.end(word) for word in sources], ends.end(destination)
    host, upload = ends.one_host(first, last)
    way = (
        transfer_pb2.TRANSFER_DIRECTION_UPLOAD
        if upload
        else transfer_pb2.TRANSFER_DIRECTION_DOWNLOAD
    )
    request = transfer_pb2.CopyFilesRequest(
        target=host,
        direction=way,
        sources=[one.path for one in first],
        destination=last.path,
        recursive=recursive,
        preserve=preserve,
        overwrite=overwrite,
    )
    result = ask(
        chosen,
        lambda client: _work(client, request, shows=not chosen.json),
    )
    if chosen.json:
        output.emit(to_json(result))
    else:
        _print(result)
    return OK if result.status == _ENDED else FAILED


async def _work(
    client: DaemonClient, request: transfer_pb2.CopyFilesRequest, *, shows: bool
) -> transfer_pb2.CopyResult:
    if not (shows and sys.stderr.isatty()):
        return await copied(client, request, lambda _: None)
    bar = _Bar()
    try:
        return await copied(client, request, bar.show)
    finally:
        bar.end()


class _Bar:
    """A bar on a terminal; rich is loaded only where one is shown."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None)
        self._progress.start()
        # What ends or stops us at once, as Ctrl-Z does, would leave it hidden.
        self._progress.console.show_cursor(True)

    def show(self, progress: common_pb2.Progress) -> None:
        """Show how far it is."""
        _, _, name = progress.message.rpartition(": ")
        self._progress.update(
            self._task,
            completed=progress.progress,
            total=progress.total or None,
            description=output.plain(name)[-30:],
        )

    def end(self) -> None:
        """Take it away."""
        self._progress.stop()


def _print(result: transfer_pb2.CopyResult) -> None:
    if result.note:
        output.note(result.note)
    skipped = f", {result.skipped} left as they were" if result.skipped else ""
    output.say(
        f"{result.files} copied{skipped}; {output.size(result.bytes_transferred)} in"
        f" {output.span(result.duration_ms / 1000)}"
    )
    if result.sha256:
        output.say(f"sha256 {result.sha256}")
