"""What the configuration made of a name: where it leads, as whom, by which file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING

from holdfast_daemon.doctor import finding
from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts.target import parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_daemon.connection.known import Known
    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.hosts.host import Host

_SECONDS = 15.0
_APPLIED = re.compile(
    r"^debug1: (\S.*?) line (\d+): Applying options for (.+?)\r?$", re.MULTILINE
)
_NAMED = 6
_NOTES = 3


async def origins(host: Host, environ: Mapping[str, str]) -> list[str]:
    """Ask ssh which blocks of which files speak about a host; none is no fault."""
    binary = environ.get("HOLDFAST_SSH_BIN", "") or "ssh"
    command = [binary, "-v", "-G"]
    if named := environ.get("HOLDFAST_SSH_CONFIG", ""):
        command += ["-F", named]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "--",
            parse(host.name).host,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, InputError):
        return []  # no ssh, or a name that was given by other means
    try:
        async with asyncio.timeout(_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        return []
    finally:
        if process.returncode is None:
            # A program of `Match exec` would go on, and hold the pipe open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    found = _APPLIED.findall(said.decode("utf-8", "replace"))
    return list(dict.fromkeys(f"{file}:{line}" for file, line, _ in found))


def judge(host: Host, applied: Sequence[str], *, inventory: bool) -> list[Finding]:
    """Say where a name leads, and what of its configuration is left undone."""
    check = "host"
    if host.show == "purpose":
        told = f"{host.name}: {host.description or 'shown by its purpose only'}"
        return [finding.ok(check, told)]
    details = {
        "hostname": host.hostname,
        "user": host.user,
        "port": str(host.port),
        "jump": ", ".join(hop.display for hop in hops(host)[:-1]),
        "proxy_command": "yes" if host.proxy_command else "",
        "from": ", ".join(applied),
    }
    told = f"{host.name} is {host.user}@{host.hostname} port {host.port}"
    if host.proxy_jump is not None:
        told += f", through {' and '.join(hop.name for hop in hops(host)[:-1])}"
    if host.proxy_command:
        told += ", by a ProxyCommand"
    sources = list(applied[:_NAMED])
    if inventory:
        sources.insert(0, f"[hosts.{host.name}] of the configuration")
    told += f"; said in {', '.join(sources)}" if sources else "; no Host block names it"
    return [finding.ok(check, told, details), *_undone(host)]


def _undone(host: Host) -> list[Finding]:
    """Tell what ssh would do for this host and holdfast does not."""
    if not host.notes:
        return []
    told = "; ".join(host.notes[:_NOTES])
    more = len(host.notes) - _NOTES
    told += f"; and {more} more" if more > 0 else ""
    return [finding.skip("ssh options", f"not done here: {told}")]


def hops(host: Host) -> list[Host]:
    """Return the way to a host, the first hop first and the host last."""
    way = [host]
    while way[0].proxy_jump is not None:
        way.insert(0, way[0].proxy_jump)
    return way


def known(host: Host, found: Known) -> Finding:
    """Say what is known of a host's key before anybody asks the host."""
    check, shown = "host key", host.name
    details = {"checking": host.host_key_checking, "known": "; ".join(found.lines)}
    if host.pinned_fingerprint:
        told = f"{host.pinned_fingerprint} is pinned for {shown}"
        return finding.ok(check, told, details)
    if found.lines:
        told = f"known for {shown}: {'; '.join(found.lines)}"
        return finding.ok(check, told, details)
    if host.host_key_checking == "no":
        told = f"no key is known for {shown}, and none is asked for"
        hint = "host_key_checking is no: anybody in between is believed"
        return finding.warn(check, told, hint, details)
    if host.host_key_checking == "accept-new":
        told = f"no key is known for {shown}; the first one it shows is taken"
        return finding.ok(check, told, details)
    if host.known_hosts_command:
        told = "no file knows one; KnownHostsCommand is asked at the login"
        return finding.ok(check, told, details)
    hint = f"a person compares and takes it by `holdfast hosts trust {shown}`"
    return finding.warn(check, f"no key is known for {shown}", hint, details)
