"""How to reach a host, in ssh's own options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.v1 import common_pb2
from holdfast_shim.cli.ends import absolute

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

_CHECKING = {
    "yes": common_pb2.HOST_KEY_CHECKING_YES,
    "accept-new": common_pb2.HOST_KEY_CHECKING_ACCEPT_NEW,
    "no": common_pb2.HOST_KEY_CHECKING_NO,
    "off": common_pb2.HOST_KEY_CHECKING_NO,
}


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
        told.identity_file = str(absolute(identity))
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found:
            name, found, value = setting.strip().partition(" ")
        if not found or not name.strip():
            raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="-o")
        _set(told, name.strip(), value.strip())
    return told if told.ByteSize() else None


def _set(told: common_pb2.ConnectOptions, name: str, value: str) -> None:
    """Say one option, where the daemon takes it; what was said first counts, as in ssh.

    Raises:
        BadParameter: It has no such value.
    """
    word = name.lower()
    if word == "stricthostkeychecking":
        checking = _CHECKING.get(value.lower())
        if checking is None:
            raise click.BadParameter(
                f"{name} is {', '.join(_CHECKING)}; `holdfast hosts trust` asks",
                param_hint="-o",
            )
        told.host_key_checking = told.host_key_checking or checking
    elif word == "userknownhostsfile" and value:
        if len(value.split()) > 1:
            raise click.BadParameter(f"{name} takes one file here", param_hint="-o")
        file = os.devnull if value == "none" else value
        place = str(absolute(file))
        told.known_hosts_file = told.known_hosts_file or place
    elif word == "proxyjump" and value:
        told.jump = told.jump or value
    elif name not in told.options:
        told.options[name] = value
