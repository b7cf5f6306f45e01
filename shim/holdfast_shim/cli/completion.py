"""`holdfast completion`: what a shell needs to complete our words."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from holdfast_shim.cli import output
from holdfast_shim.cli.options import OK, json_option, options

SHELLS = ("bash", "zsh", "fish")


def source(root: click.Command, shell: str) -> str:
    """Return the script for `shell`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(shell)
    # The base class's method: bash's own would start bash to see its version.
    return ShellComplete.source(kind(root, {}, "holdfast", "_HOLDFAST_COMPLETE"))


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@json_option
def completion(shell: str) -> int:
    """Print the completion script for SHELL: bash, zsh or fish.

    For bash, put it into ~/.local/share/bash-completion/completions/holdfast.
    """
    text = source(click.get_current_context().find_root().command, shell)
    if options().json:
        output.emit({"shell": shell, "text": text})
    else:
        print(text.rstrip("\n"))
    return OK
