"""From what went wrong with a connection to the error a caller is told."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection import diagnosis
from holdfast_daemon.connection.diagnosis import Step
from holdfast_daemon.errors import (
    DaemonError,
    LimitError,
    LinkError,
    NeedsError,
    NotFoundError,
    Ran,
    Reason,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host

_TOO_MANY = "too many authentication failures"
_SHOWN = 300
# What it mostly is when a step is never answered.
_SILENT: dict[Step | None, str] = {
    Step.TCP: "check name, network, VPN and firewall",
    Step.BANNER: "is there an SSH server at this port?",
}
# How the system tells what the library otherwise calls a lost connection.
_CUTS = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


class ChannelRefused(LimitError):  # noqa: N818  a refusal first, an error second
    """The server opens no further channel on this connection; nothing ran."""

    def __init__(self, host: Host, why: str) -> None:
        super().__init__(
            Reason.LIMIT_REACHED,
            f"{host.shown} opens no further channel on this connection: {why}",
            hint="wait until a command on it has ended",
            metadata={"limit": "MaxSessions", "host": host.shown},
        )


class LinkGone(LinkError):  # noqa: N818  a state first, an error second
    """The connection was gone before the command was sent; nothing ran."""

    def __init__(self, host: Host, why: str) -> None:
        super().__init__(
            Reason.CONNECTION_LOST,
            f"the connection to {host.shown} is closed: {why}",
            hint="nothing ran; call again",
            metadata={"host": host.shown},
        )


def closed_after_login(host: Host, tries: int, why: str) -> DaemonError:
    """Return the error for a host that lets in and then hangs up, every time."""
    return LinkError(
        Reason.CONNECTION_LOST,
        f"{host.shown} closes connections right after login: {tries} in a row were"
        f" of no use; {why}",
        hint="nothing ran; the host's log says why (`journalctl -u ssh`): often a"
        " broken ChrootDirectory, home or login shell, or a limit of processes",
        metadata={"host": host.shown, "tries": str(tries)},
    )


def _name(host: Host) -> str:
    return host.hostname if host.show == "all" else host.name


def _spot(host: Host) -> str:
    """Return where it is, unless it is shown by its purpose only."""
    return f"{host.hostname} port {host.port}" if host.show == "all" else host.name


def unreachable(
    host: Host, error: BaseException, *, spoke: bool, hop: Host | None
) -> DaemonError:
    """Return the error for a connection that was not made, except by its credentials.

    Args:
        host: Where it was to lead.
        error: What came of it.
        spoke: The server had introduced itself.
        hop: The jump host in between.
    """
    metadata = {"host": host.shown}
    if host.show == "all":
        metadata |= {"address": host.hostname, "port": str(host.port)}
    if isinstance(error, DaemonError):
        return error
    if isinstance(error, socket.gaierror):
        return NotFoundError(
            Reason.HOST_NOT_FOUND,
            f"the name {_name(host)} does not resolve: {error.strerror or error}"
            + diagnosis.where(host, Step.NAME),
            hint=diagnosis.advice(
                host,
                "check the name: ssh_hosts lists the known ones, a new one goes into"
                " ~/.ssh/config",
            ),
            metadata=metadata | diagnosis.facts(Step.NAME),
        )
    if is_early_close(error, spoke=spoke):
        return _hung_up(host, metadata)
    if isinstance(error, asyncssh.ChannelOpenError):
        via = hop.shown if hop else "the jump host"
        return LinkError(
            Reason.HOST_UNREACHABLE,
            f"{via} could not open a connection to {_spot(host)}: {error.reason}"
            + diagnosis.where(host, Step.TCP),
            hint=diagnosis.advice(
                host, f"check that {via} reaches it and allows TCP forwarding"
            ),
            metadata=metadata | diagnosis.facts(Step.TCP) | {"via": via},
        )
    if isinstance(error, OSError) and not isinstance(error, _CUTS):
        return _network(host, error, metadata)
    return _protocol(host, error, metadata, spoke=spoke)


def too_slow(host: Host, seconds: float, doing: str) -> DaemonError:
    """Return the error for a connection that was not ready in time."""
    step = diagnosis.step_of(doing)
    tried = diagnosis.addresses(host)
    slow = "raise connect_timeout_seconds if the host is only slow"
    return LinkError(
        Reason.CONNECT_TIMEOUT,
        f"{host.shown} was not ready within {seconds:g} s: {doing}"
        + diagnosis.where(host, step, tried),
        hint=diagnosis.advice(host, "nothing ran", _SILENT.get(step, ""), slow),
        metadata={
            "host": host.shown,
            "seconds": f"{seconds:g}",
            "waiting_for": doing,
            **diagnosis.facts(step, tried),
        },
    )


def auth_refused(
    host: Host,
    *,
    methods: Sequence[str],
    tried: Sequence[str],
    notes: Sequence[str],
    why: str = "",
) -> DaemonError:
    """Return the error for refused credentials: what is allowed, what was tried."""
    offered = ", ".join(methods) or "nothing holdfast can use"
    attempts = diagnosis.bounded(tried) or "nothing, for want of a credential"
    hint = diagnosis.bounded(notes)
    if _TOO_MANY in why.lower():
        counts = "the server counts every key: set IdentitiesOnly and IdentityFile"
        hint = "; ".join(filter(None, [hint, counts]))
    if not hint:
        hint = "check user, key and agent; try the same with `ssh` in a terminal"
    return NeedsError(
        Reason.AUTH_FAILED,
        f"{host.shown} refused the login: it allows {offered}; tried {attempts}"
        + (f" ({why})" if why else ""),
        hint=diagnosis.advice(host, hint),
        metadata={
            "host": host.shown,
            "methods": ", ".join(methods),
            "tried": diagnosis.bounded(tried),
            **diagnosis.facts(Step.LOGIN),
        },
    )


def is_auth_refusal(error: BaseException) -> bool:
    """Whether the server turned the credentials down."""
    return isinstance(error, asyncssh.PermissionDenied) or (
        isinstance(error, asyncssh.DisconnectError)
        and _TOO_MANY in str(error.reason).lower()
    )


def is_early_close(error: BaseException, *, spoke: bool) -> bool:
    """Whether the server hung up before a word: its way to say that it is busy."""
    return isinstance(error, (asyncssh.ConnectionLost, *_CUTS)) and not spoke


def unsupported(host: Host, what: str) -> DaemonError:
    """Return the error for a configuration this release can't follow."""
    return StateError(
        Reason.UNSUPPORTED,
        f"{host.shown} can't be reached as configured: {what}",
        hint="change it in ssh config for this host",
        metadata={"host": host.shown},
    )


def channel_unanswered(host: Host, seconds: float, *, sent: bool) -> DaemonError:
    """Return the error for a channel that was not opened in time."""
    return LinkError(
        Reason.CONNECT_TIMEOUT,
        f"{host.shown} did not start the command within {seconds:g} s",
        hint="it may have run" if sent else "nothing ran; the server opens no channel",
        ran=Ran.UNKNOWN if sent else Ran.NO,
        metadata={"host": host.shown, "seconds": f"{seconds:g}"},
    )


def lost_reason(error: BaseException | None) -> str:
    """Return why a connection ended, in words for people."""
    if error is None:
        return "it was closed"
    text = _short(error)
    if "keepalive" in text:
        return "the host stopped answering"
    if isinstance(error, (asyncssh.ConnectionLost, *_CUTS)):
        return "the host or the network cut it"
    if isinstance(error, asyncssh.DisconnectError):
        return f"the host ended it: {text}"
    return text


def _network(host: Host, error: OSError, metadata: dict[str, str]) -> DaemonError:
    reasons = {
        errno.ECONNREFUSED: ("the connection was refused", "is sshd running there?"),
        errno.EHOSTUNREACH: ("there is no route to it", "check network and VPN"),
        errno.ENETUNREACH: ("the network is unreachable", "check network and VPN"),
        errno.ETIMEDOUT: ("it does not answer", "check network, VPN and firewall"),
    }
    what, hint = reasons.get(diagnosis.number(error), ("", ""))
    if not what:
        text = str(error).lower()
        if "refused" in text or isinstance(error, ConnectionRefusedError):
            what, hint = reasons[errno.ECONNREFUSED]
        else:
            # The system's words name addresses.
            what = _short(error) if host.show == "all" else "the connection failed"
    tried = diagnosis.addresses(host, error)
    return LinkError(
        Reason.HOST_UNREACHABLE,
        f"{_spot(host)} can't be reached: {what}"
        + diagnosis.where(host, Step.TCP, tried),
        hint=diagnosis.advice(host, hint),
        metadata=metadata | diagnosis.facts(Step.TCP, tried),
    )


def _hung_up(host: Host, metadata: dict[str, str]) -> DaemonError:
    return LinkError(
        Reason.HOST_UNREACHABLE,
        f"{_spot(host)} took the connection, then hung up"
        + diagnosis.where(host, Step.BANNER),
        hint=diagnosis.advice(
            host,
            "sshd does so when it is busy (MaxStartups), after too many failed"
            " logins, or when it blocks this address; wait a moment",
        ),
        metadata=metadata | diagnosis.facts(Step.BANNER, diagnosis.addresses(host)),
        retry_after=5.0,
    )


def _protocol(
    host: Host,
    error: BaseException,
    metadata: dict[str, str],
    *,
    spoke: bool,
) -> DaemonError:
    if isinstance(error, (asyncssh.ConnectionLost, *_CUTS)):
        return LinkError(
            Reason.PROTOCOL_ERROR,
            f"{host.shown} hung up before the login was done",
            hint=diagnosis.advice(host, "its log says why (`journalctl -u ssh`)"),
            metadata=metadata,
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        hint = "the host is very old or very strict; see Ciphers and KexAlgorithms"
    else:
        hint = "is there an SSH server at this port?" if not spoke else ""
    step = Step.KEY_EXCHANGE if spoke else Step.BANNER
    return LinkError(
        Reason.PROTOCOL_ERROR,
        f"{host.shown} does not speak SSH as expected: {_short(error)}"
        + diagnosis.where(host, step),
        hint=diagnosis.advice(host, hint),
        metadata=metadata | diagnosis.facts(step),
    )


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def not_started(host: Host, why: str) -> DaemonError:
    """Return the error for a server that refuses to run this command, or a terminal."""
    return StateError(
        Reason.SHELL_FAILED,
        f"{host.shown} refused to start the command: {why}",
        hint="this account may not run commands, or gets no terminal",
        metadata={"host": host.shown},
    )


def lost_in_start(host: Host, why: str) -> DaemonError:
    """Return the error for a connection that ended while a command started."""
    return LinkError(
        Reason.CONNECTION_LOST,
        f"the connection to {host.shown} was lost while a command started: {why}",
        hint="it may have run: look before calling again",
        ran=Ran.UNKNOWN,
        metadata={"host": host.shown},
    )


def proxy_ended(host: Host, said: str) -> DaemonError:
    """Return the error for a ProxyCommand that brought no connection."""
    return LinkError(
        Reason.HOST_UNREACHABLE,
        f"the ProxyCommand for {host.shown} ended without a connection"
        + (f": {said[:_SHOWN]}" if said else "")
        + diagnosis.where(host, Step.TCP),
        hint=diagnosis.advice(host, "run it in a terminal; it is in ssh config"),
        metadata={"host": host.shown, **diagnosis.facts(Step.TCP)},
    )
