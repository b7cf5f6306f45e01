"""What lies about on this machine for a host: an agent to lend, a master connection.

Both are sockets that the person's ssh configuration names.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.hosts.host import Host

_SECONDS = 0.2


def agent(host: Host, environ: Mapping[str, str], used: str) -> str:
    """Return the socket to lend `host`, or nothing. Blocks.

    As with ssh it is the one that is asked for keys: the one `used` at the login,
    else IdentityAgent, the caller's own or the daemon's; or what ForwardAgent names.
    """
    if not host.forward_agent:
        return ""
    if host.forward_agent != "yes":
        named = [host.forward_agent]
    elif host.identity_agent:
        named = [host.identity_agent]
    else:
        named = [used, host.auth_sock, environ.get("SSH_AUTH_SOCK", "")]
    return next((path for path in named if _is_ours(path)), "")


def has_master(host: Host) -> bool:
    """Whether an ssh of the person's own listens at ControlPath. May block briefly."""
    if not host.control_path or not _is_ours(host.control_path):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(host.control_path)
        except OSError:
            return False
    return True


def _is_ours(path: str) -> bool:
    try:
        state = Path(path).stat()
    except OSError:
        return False
    return stat.S_ISSOCK(state.st_mode) and state.st_uid == os.geteuid()
