"""Which manager of services this machine has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from holdfast_shim.errors import CallError
from holdfast_shim.places import PlaceError, home_of
from holdfast_shim.service.launchd import Launchd
from holdfast_shim.service.systemd import Systemd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_shim.service.shape import Service

# A name of its own, so that tests can act another platform.
PLATFORM: str = sys.platform


def service(env: Mapping[str, str]) -> Service:
    """Return the manager of this platform; whether it answers, `check` says."""
    try:
        home = home_of(env)
    except PlaceError as error:
        raise CallError("UNSUPPORTED", error.message, hint=error.hint) from error
    if PLATFORM == "darwin":
        return Launchd(env, home)
    return Systemd(env, home)
