"""How to reach a host, in ssh's own options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.v1 import common_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    _F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-p", "--port", type=click.IntRange(1, 65535), help="Port."),
    click.option("-l", "--user", default="", help="Login name."),
    click.option("-i", "--identity", default="", help="Private key file."),
    click.option("-J", "--jump", default="", help="Jump hosts, as ssh -J takes them."),
    click.option(
        "-o",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="OpenSSH option; those that run programs or forward are refused.",
    ),
)


def connect_options(command: _F) -> _F:
    """Let `command` take ssh's options, as keywords for `connect_message`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def connect_message(
    *,
    port: int | None,
    user: str,
    identity: str,
    jump: str,
    settings: tuple[str, ...],
) -> common_pb2.ConnectOptions | None:
    """Return what the options say; None when none was given."""
    told = common_pb2.ConnectOptions(user=user, jump=jump)
    if port is not None:
        told.port = port
    if identity:
        # The daemon has another working directory.
        told.identity_file = str(Path(identity).expanduser().absolute())
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found:
            name, found, value = setting.strip().partition(" ")
        if not found or not name.strip():
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="-o")
        # As in ssh, what was said first counts.
        if name.strip() not in told.options:
            told.options[name.strip()] = value.strip()
    return told if told.ByteSize() else None
