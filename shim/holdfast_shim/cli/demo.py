"""`holdfast demo`: the main job, shown for real."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import click

from holdfast_shim.cli import output
from holdfast_shim.cli.options import FAILED, OK, json_option, options


@click.command("demo")
@click.argument("host", required=False, default="")
@json_option
def demo(host: str) -> int:
    """Kill a client in the middle of a long command, and read on from the next one.

    On a throw-away SSH server, or on HOST, where its commands only print.
    """
    from holdfast_shim.demo import DemoError, main, show  # noqa: PLC0415 - a program of its own

    if not options().json:
        return main(host)
    told = io.StringIO()
    failure = ""
    try:
        with redirect_stdout(told):
            show(host)
    except DemoError as error:
        failure = str(error)
    document = {"ok": not failure, "story": told.getvalue().splitlines()}
    output.emit(document | ({"error": {"message": failure}} if failure else {}))
    return FAILED if failure else OK
