"""What a service has to run: the program, and where it finds its world. No I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast_shim.errors import CallError


class Plan(NamedTuple):
    """What is written into a unit or an agent.

    Attributes:
        command: The daemon's command line, the program absolute.
        home: The user's home directory.
        environment: Variables that the manager would not set as this user's shell does.
        version: Of the program that wrote it.
        linger: It was the installation that switched lingering on.
    """

    command: tuple[str, ...]
    home: str
    environment: dict[str, str]
    version: str
    linger: bool = False


# Where the daemon keeps its things; told to the service only where they are not usual.
_XDG = ("XDG_CONFIG_HOME", "XDG_STATE_HOME")
# A service is not one of many worlds: it has the standard places.
OWN = ("HOLDFAST_SOCKET", "HOLDFAST_STATE_DIR", "HOLDFAST_CONFIG")
# No file of a manager takes these: line breaks and their like, and bytes of no UTF-8.
_UNTOLD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def environment_of(env: dict[str, str]) -> dict[str, str]:
    """Return what a service needs of the installing shell's environment.

    Raises:
        CallError: It names places of its own for the daemon.
    """
    for name in OWN:
        if env.get(name):
            raise CallError(
                "INVALID_ARGUMENT",
                f"{name} is set, and the service serves the standard places only",
                hint=f"run `env -u {name} holdfast service …`, or go on without a "
                "service: clients start the daemon themselves",
                metadata={"field": name},
            )
    kept = {name: env[name] for name in _XDG if env.get(name, "").startswith("/")}
    path = [
        part
        for part in env.get("PATH", "").split(":")
        if part.startswith("/") and not _UNTOLD.search(part)
    ]
    if path:
        kept["PATH"] = ":".join(dict.fromkeys(path))
    return kept
