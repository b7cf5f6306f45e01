"""KnownHostsCommand: a program of the person's own that prints known_hosts lines.

Run as ssh runs it: by itself and not by a shell, once per question. Blocks.
"""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Literal

from holdfast_daemon.errors import DaemonError, Reason, StateError
from holdfast_daemon.hosts import known_hosts, public_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.known_hosts import KnownKey

PLACE = "KnownHostsCommand"
Invocation = Literal["ORDER", "HOSTNAME", "ADDRESS"]
_TOKEN = re.compile(r"%(.)")
_NONE = "NONE"
_MOST_BYTES = 1024 * 1024
_SHOWN = 300


def told(
    host: Host, name: str, invocation: Invocation, seconds: float, blob: bytes = b""
) -> Sequence[KnownKey]:
    """Return the lines about `name` that the command of `host` prints.

    Args:
        host: Whose configuration names the command.
        name: As known_hosts calls the host, or its address.
        invocation: What the answer is for.
        seconds: How long it may take.
        blob: The key that the host shows; none yet while they are put in order.

    Raises:
        DaemonError: It fails; then ssh connects nowhere either.
    """
    tokens = _tokens(name, invocation, blob)
    try:
        words = [
            _TOKEN.sub(lambda found: tokens.get(found[1], found[0]), word)
            for word in shlex.split(host.known_hosts_command)
        ]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _failed(host, f"it did not end within {seconds:g} s") from None
    except (OSError, ValueError) as error:
        raise _failed(host, str(error)) from None
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:_SHOWN]
        raise _failed(host, f"it ended with {done.returncode}: {said}".rstrip(": "))
    text = done.stdout[:_MOST_BYTES].decode("utf-8", "surrogateescape")
    found = known_hosts.KnownHosts(known_hosts.parse(PLACE, text))
    return found.about(name)


def _tokens(name: str, invocation: Invocation, blob: bytes) -> dict[str, str]:
    return {
        "%": "%",
        "H": name,
        "I": invocation,
        "t": public_key.key_type(blob) if blob else _NONE,
        "f": public_key.fingerprint(blob) if blob else _NONE,
        "K": base64.b64encode(blob).decode("ascii") if blob else _NONE,
    }


def _failed(host: Host, why: str) -> DaemonError:
    return StateError(
        Reason.BAD_CONFIGURATION,
        f"no key of {host.shown} can be trusted: its KnownHostsCommand failed: {why};"
        " no credential was sent",
        hint="a person mends the command or takes it out of ssh config; it runs with"
        " the environment of the holdfast service",
        metadata={"host": host.shown},
    )
