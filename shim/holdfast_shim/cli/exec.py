"""`holdfast exec`: one command on a host, as ssh would run it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import click
from grpc import aio

from holdfast.v1 import exec_pb2, exec_pb2_grpc
from holdfast_shim.cli import outcome, output, terminal
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask, dial
from holdfast_shim.cli.durable import begin, take_input
from holdfast_shim.cli.interact import Interaction, Left, Outcome
from holdfast_shim.cli.options import (
    TRANSPORT,
    Number,
    Options,
    json_option,
    options,
)
from holdfast_shim.cli.streams import Kept, Live
from holdfast_shim.errors import CallError

# Where a live command's fields lie in the call; a person gave them no such name.
_FRAME = "start."
# In the order of ssh_exec.
_FIELDS = tuple(field.name for field in exec_pb2.ExecResult.DESCRIPTOR.fields)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_shim.client import DaemonClient


def arrange(words: Sequence[str], valued: frozenset[str]) -> tuple[list[str], str]:
    """Put options first, as ssh reads them: they end where the command begins.

    Args:
        words: The command line behind `exec`.
        valued: Options that take a value.

    Returns:
        The words for the parser, and the target; it is empty when `--` comes first.
    """
    rest = list(words)
    found: list[str] = []
    target = ""
    while rest:
        word = rest[0]
        if word == "--":
            rest.pop(0)
            break
        if word.startswith("-") and word != "-":
            found.append(rest.pop(0))
            if rest and _wants_value(word, valued):
                found.append(rest.pop(0))
        elif target:
            break
        else:
            target = rest.pop(0)
    return [*found, "--", target, *rest], target


def _wants_value(word: str, valued: frozenset[str]) -> bool:
    if word.startswith("--"):
        return word in valued
    for index, letter in enumerate(word[1:], 1):
        if f"-{letter}" in valued:
            return index == len(word) - 1
    return False


class SshCommand(click.Command):
    """A command whose options may stand before and after the target, as with ssh."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what `arrange` made of the words."""
        valued = frozenset(
            name
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and not (param.is_flag or param.count)
            for name in param.opts
        )
        arranged, target = arrange(args, valued)
        if ctx.resilient_parsing and not target:
            arranged = [word for word in arranged if word]
        return super().parse_args(ctx, arranged)


@click.command("exec", cls=SshCommand)
@click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_target
)
@click.argument("words", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-t",
    "--tty",
    count=True,
    help="Give the command a terminal; twice: also when stdin is none.",
)
@click.option("-n", "no_stdin", is_flag=True, help="Do not read standard input.")
@click.option(
    "--sudo",
    is_flag=True,
    help="Run it as root by sudo, with the password that the configuration names.",
)
@click.option(
    "--durable",
    is_flag=True,
    help="Keep it on the host: it outlives this call, the link and the daemon.",
)
@click.option("--cwd", default="", help="Working directory on the host.")
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable."
)
@click.option("--shell", default="", help="Shell to use instead of the login shell.")
@click.option(
    "--timeout",
    type=Number(0),
    metavar="SECONDS",
    help="End the command after so long, with exit code 124; 0: never.",
)
@connect_options
@json_option
def command(
    target: str | None,
    words: tuple[str, ...],
    *,
    tty: int,
    no_stdin: bool,
    sudo: bool,
    durable: bool,
    cwd: str,
    env: tuple[str, ...],
    shell: str,
    timeout: float | None,
    **connect: Any,
) -> int:
    """Run a command on a host.

    The words of COMMAND are joined with blanks and read by the login shell, as ssh
    does. Both outputs arrive as they come and byte for byte; input and signals are
    passed on. The exit code is the command's own, 128+n when signal n ended it, 124
    when --timeout did, and 255 when it did not run or its end is not known. Without
    TARGET the default host is used.
    """
    if not words:
        raise click.UsageError("no command was given")
    if not " ".join(words).strip():
        raise click.UsageError("command is blank")
    with_terminal = _with_terminal(tty, no_stdin=no_stdin)
    request = exec_pb2.RunRequest(
        target=target or "",
        command=" ".join(words),
        cwd=cwd,
        env=variables(env),
        shell=shell,
        tty=with_terminal,
        terminal=terminal.size() if with_terminal else None,
        connect=connect_message(**connect),
        sudo=sudo,
        durable=durable,
    )
    if timeout is not None:
        request.timeout_seconds = timeout
    chosen = options()
    if durable and not no_stdin:
        take_input(request)

    def work() -> int:
        if durable:
            return ask(chosen, lambda client: begin(client, request))
        return asyncio.run(_run(chosen, request, None if no_stdin else 0))

    return outcome.apart(work, as_json=chosen.json, plainly=plainly)


def _with_terminal(asked: int, *, no_stdin: bool) -> bool:
    """Return whether the command gets a terminal: as in ssh, -tt insists on it."""
    if asked != 1 or (not no_stdin and os.isatty(0)):
        return asked > 0
    output.note("a terminal is not given because stdin is none")
    return False


def plainly(error: CallError) -> CallError:
    """Return `error` without the frame's name before the fields that it names."""
    path = error.metadata.get("field", "")
    name = path.removeprefix(_FRAME)
    if name == path:
        return error
    return CallError(
        error.reason,
        error.message.replace(path, name),
        hint=error.hint.replace(path, name),
        ran=error.ran,
        metadata=error.metadata | {"field": name},
        code=error.code,
    )


def variables(given: Sequence[str]) -> dict[str, str]:
    """Return what NAME=VALUE options say."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found


async def _run(chosen: Options, request: exec_pb2.RunRequest, stdin: int | None) -> int:
    async with dial(chosen) as client:
        raw = request.tty and not chosen.json
        work = Interaction(client, request, stdin=stdin, raw=raw)
        try:
            if not chosen.json:
                return _told(await work.run(Live(work.failed)))
            kept = Kept()
            found = await work.run(kept)
        except Left as left:
            if left.message:
                output.note(left.message)
            return left.code
        if found.end is None:
            raise _no_end()
        target = await _target(client, found.job_id, request.target)
        output.emit(_document(found, found.end, kept, request, target))
        return _code(found, found.end)


def _told(found: Outcome) -> int:
    for text in found.trouble:
        output.note(text)
    if found.end is None:
        raise _no_end()
    for text in outcome.remarks(found.end, found.job_id):
        output.note(text)
    if found.skipped:
        output.note(_gap(found.skipped))
    return _code(found, found.end)


def _code(found: Outcome, end: exec_pb2.JobEnd) -> int:
    # Output with a hole in it must not pass for a success.
    return outcome.exit_code(end) or (TRANSPORT if found.skipped else 0)


def _gap(count: int) -> str:
    return f"{count} bytes of the output were discarded before they could be read"


def _no_end() -> CallError:
    return CallError(
        "DAEMON_LOST",
        "the daemon ended the call without telling how the command ended",
        hint="look with ssh_job_list before running it again",
        ran="unknown",
    )


async def _target(client: DaemonClient, job_id: str, asked: str) -> str:
    """Return the host as the daemon names it."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    request = exec_pb2.ReadJobRequest(job_id=job_id, tail_lines=1, max_output_chars=0)
    try:
        async for frame in stub.ReadJob(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        ):
            if frame.WhichOneof("event") == "result":
                return frame.result.target
    except aio.AioRpcError:
        return asked  # the result must not be lost over a name
    return asked


def _document(
    found: Outcome,
    end: exec_pb2.JobEnd,
    kept: Kept,
    request: exec_pb2.RunRequest,
    target: str,
) -> dict[str, Any]:
    told = outcome.document(end)
    notes = [*found.trouble, *([_gap(found.skipped)] if found.skipped else [])]
    if notes:
        told["note"] = "; ".join(filter(None, [told.get("note", ""), *notes]))
    told |= {
        "stdout": kept.out.decode(errors="replace"),
        "stderr": kept.err.decode(errors="replace"),
        "truncated": found.skipped > 0,
        "stdout_bytes": len(kept.out),
        "stderr_bytes": len(kept.err),
        "target": target,
        "command": request.command,
        "job_id": found.job_id,
    }
    return {name: told[name] for name in _FIELDS if name in told}
