"""The verbs of `holdfast`, loaded when used, and one place for all that goes wrong."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, shell_complete

from holdfast_shim.cli import output
from holdfast_shim.cli.options import (
    FAILED,
    INTERRUPTED,
    OK,
    PIPE_CLOSED,
    UNAVAILABLE,
    USAGE,
    Options,
)
from holdfast_shim.errors import CallError, invalid
from holdfast_shim.nearest import meant
from holdfast_shim.planned import PLANNED_VERBS
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a shell sets when it wants our words completed.
COMPLETE = "_HOLDFAST_COMPLETE"
_NO_VERB = re.compile(r"No such command '([^']*)'")
# Verb: module, name in it, and its help, so that `holdfast --help` loads none of them.
_VERBS = {
    "status": ("status", "status", "Show how the daemon and all it holds stand."),
    "doctor": ("doctor", "doctor", "Find out what is wrong, and the next step."),
    "exec": ("exec", "command", "Run a command on a host."),
    "shell": ("shell", "shell", "Open a kept shell on a host and take part in it."),
    "attach": ("attach", "attach", "Take part in a session, or watch it."),
    "sessions": (
        "sessions",
        "sessions",
        "List sessions, close them, see a host's.",
    ),
    "replay": ("replay", "replay", "Play what a session showed."),
    "jobs": ("jobs", "jobs", "List commands, running and ended."),
    "job": ("jobs", "job", "Show a job's output, follow it, or stop it."),
    "copy": ("copy", "copy", "Copy files to a host or from it."),
    "sync": ("sync", "sync", "Make a directory like another, by rsync."),
    "forward": ("forward", "forward", "Forward a port through a host."),
    "forwards": ("forward", "forwards", "List forwards, or close one."),
    "hosts": ("hosts", "hosts", "List hosts, test them, decide on their keys."),
    "login": ("login", "login", "Log in to a host that asks a person something."),
    "audit": ("audit", "audit", "Show the audit log, or check it."),
    "service": ("service", "service", "Run the daemon as a service of your own."),
    "mcp-config": ("config_snippets", "mcp_config", "Print what a client needs."),
    "demo": ("demo", "demo", "Show the main job for real."),
    "reload": ("status", "reload_configuration", "Read the configuration again."),
    "completion": ("completion", "completion", "Print a shell completion script."),
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the verbs, the most used first."""
        return list(_VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        cmd_name: str,
    ) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in _VERBS:
            return None
        module, name, _ = _VERBS[cmd_name]
        found: Any = getattr(import_module(f"holdfast_shim.cli.{module}"), name)
        if not isinstance(found, click.Command):
            raise TypeError(name)
        return found

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        formatter: click.HelpFormatter,
    ) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, told) for verb, (_, _, told) in _VERBS.items()])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        """Offer verbs without importing them."""
        offered = click.Command.shell_complete(self, ctx, incomplete)
        offered += [
            CompletionItem(verb, help=told)
            for verb, (_, _, told) in _VERBS.items()
            if verb.startswith(incomplete)
        ]
        return offered


class SocketPath(click.Path):
    """The path of a socket; an empty one names none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Refuse the empty value: click would take it for the working directory."""
        if value == "":
            self.fail("it is empty; name a socket or leave it out", param, ctx)
        return super().convert(value, param, ctx)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=SocketPath(path_type=Path),
    help="The daemon's socket.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option("--no-autostart", is_flag=True, help="Do not start the daemon.")
@click.version_option(VERSION, message="holdfast %(version)s")
@click.pass_context
def root(
    context: click.Context,
    *,
    socket: Path | None,
    as_json: bool,
    no_autostart: bool,
) -> None:
    """SSH that holds on: hosts, commands, jobs and sessions of the holdfast daemon.

    The daemon is started when nothing answers. Exit codes: 0 done, 1 failed or refused,
    2 wrong usage, 69 no daemon; exec, attach and job --follow return the command's or
    the shell's own, or 255.
    """
    context.obj = Options(socket=socket, json=as_json, autostart=not no_autostart)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `argv` and return the exit code; whatever goes wrong, no traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(root, {}, "holdfast", COMPLETE, instruction)
    own = args[: args.index("--")] if "--" in args else args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale without our characters must not end a command.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _guarded(args, as_json="--json" in own)
        for stream in (sys.stdout, sys.stderr):
            # A closed one is None, whatever its stub says.
            if stream:
                stream.flush()
    except BrokenPipeError:
        _hush()
        return PIPE_CLOSED
    except KeyboardInterrupt:  # while the last of it is written
        _hush()
        return INTERRUPTED
    except OSError as error:
        _hush()
        named = f"{error.filename}: " if error.filename else ""
        output.note(f"{named}{error.strerror or error}")
        return FAILED
    return code


def _guarded(args: list[str], *, as_json: bool) -> int:
    try:
        for arg in args:
            arg.encode()
        # Not root.main(): it would make a broken pipe an exit code of its own.
        with root.make_context("holdfast", args) as context:
            found: Any = root.invoke(context)
    except UnicodeEncodeError:
        return _usage("an argument is not valid UTF-8", as_json=as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _refused(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except CallError as error:
        output.fail(error, as_json=as_json)
        gone = error.reason in ("DAEMON_UNAVAILABLE", "DAEMON_LOST")
        return UNAVAILABLE if gone else FAILED
    return found if isinstance(found, int) else OK


def _refused(error: click.ClickException, *, as_json: bool) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None and isinstance(error, click.exceptions.NoArgsIsHelpError):
        if as_json:
            return _usage("missing command", context.command_path, as_json=True)
        click.echo(error.format_message(), err=True)
        return USAGE
    path = "holdfast" if context is None else context.command_path
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = _no_such_option(error)
    elif context is not None and (found := _NO_VERB.match(message)):
        verb = f"{path} {found[1]}"
        if (instead := PLANNED_VERBS.get(verb)) is not None:
            return _usage(
                f"`{verb}` is not available yet in this release",
                path,
                hint=instead,
                as_json=as_json,
            )
        message = _no_such_verb(context, message, found[1])
    return _usage(message.strip().rstrip("."), path, as_json=as_json)


def _no_such_option(error: click.NoSuchOption) -> str:
    """Name the option that was meant, where one is near enough."""
    names: list[str] = []
    if error.ctx is not None:
        params = error.ctx.command.get_params(error.ctx)
        names = [n for p in params for n in p.opts if n.startswith("--")]
    near = meant(error.option_name.lstrip("-"), [name[2:] for name in names])
    return error.message + (f" Did you mean --{near}?" if near else "")


def _no_such_verb(context: click.Context, message: str, verb: str) -> str:
    """Name the verb that was meant, where one is near enough."""
    group = context.command
    if "?" in message or not isinstance(group, click.Group):
        return message
    near = meant(verb, group.list_commands(context))
    return message + (f" Did you mean {near!r}?" if near else "")


def _usage(
    message: str, path: str = "holdfast", *, hint: str = "", as_json: bool
) -> int:
    message = message[:1].lower() + message[1:]
    error = invalid("arguments", message, hint=hint or f"see `{path} --help`")
    output.fail(error, as_json=as_json)
    return USAGE


def _hush() -> None:
    """Drop what stdout still holds: it would only fail once more."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
