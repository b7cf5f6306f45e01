"""The service manager: whether the unit is installed, and lives without a login."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.doctor.finding import Finding

UNIT = "holdfast.service"
AGENT = "io.holdfast.holdfastd"
_LINGER = Path("/var/lib/systemd/linger")
_BOOTED = Path("/run/systemd/system")
_KERNEL = Path("/proc/version")


class Manager(NamedTuple):
    """What is to be seen of systemd, or of launchd.

    Attributes:
        booted: systemd runs this machine.
        unit: Where our unit file or agent lies; empty: nowhere.
        enabled: It starts with the user's manager.
        supervised: This daemon was started by it.
        lingers: The user's manager outlives the last logout.
        wsl: The machine is one of Windows' own.
    """

    booted: bool
    unit: str
    enabled: bool
    supervised: bool
    lingers: bool
    wsl: bool


def manager(environ: Mapping[str, str], home: Path, user: str) -> Manager:
    """Look at the manager's files; it is not asked. Blocks."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    # systemd may not know of the XDG_CONFIG_HOME of a shell.
    tops = [config, home / ".config", Path("/etc"), runtime, Path("/run"), data]
    tops += [Path("/usr/local/lib"), Path("/usr/lib")]
    folders = [top / "systemd/user" for top in tops]
    # What we may not look into is hidden from the user's manager too; Path's own would
    # raise that.
    units = (str(folder / UNIT) for folder in folders)
    unit = next((path for path in units if os.path.isfile(path)), "")  # noqa: PTH113
    agent = home / "Library/LaunchAgents" / f"{AGENT}.plist"
    launchd = not unit and os.path.isfile(agent)  # noqa: PTH113
    try:
        kernel = _KERNEL.read_text("utf-8", "replace")
    except OSError:
        kernel = ""
    return Manager(
        booted=_BOOTED.is_dir(),
        unit=str(agent) if launchd else unit,
        enabled=launchd
        or any(
            os.path.lexists(folder / "default.target.wants" / UNIT)
            for folder in folders
        ),
        supervised="INVOCATION_ID" in environ
        or "NOTIFY_SOCKET" in environ
        or environ.get("XPC_SERVICE_NAME") == AGENT,
        lingers=(_LINGER / user).exists(),
        wsl="microsoft" in kernel.lower(),
    )


def unit(found: Manager) -> Finding:
    """Say whether the service is installed. That it is not, is no fault."""
    check, details = "service", {"unit": found.unit, "enabled": str(found.enabled)}
    if not found.unit:
        told = "not installed: clients start the daemon when they need it"
        return finding.ok(check, told, details)
    told = f"{found.unit}, {'enabled' if found.enabled else 'not enabled'}"
    if not found.supervised:
        hint = "`holdfast service restart` has the service take over"
        told += "; but this daemon was not started by it"
        return finding.warn(check, told, hint, details)
    return finding.ok(check, told, details)


def linger(found: Manager, user: str) -> Finding:
    """Say whether the service outlives the last logout."""
    check, details = "linger", {"user": user, "lingers": str(found.lingers)}
    if not found.booted:
        return finding.skip(check, "systemd does not run this machine", "", details)
    if not found.unit and not found.supervised:
        told = f"{'on' if found.lingers else 'off'}, and of no matter without a service"
        return finding.ok(check, told, details)
    if found.lingers:
        return finding.ok(check, f"on for {user}: it outlives the last logout", details)
    if found.wsl:
        told = "off, which is as it should be under WSL"
        return finding.ok(check, told, details)
    return finding.warn(
        check,
        f"off for {user}: some seconds after the last logout the service ends, and all"
        " that runs with it",
        f"`loginctl enable-linger {user}` keeps it",
        details,
    )
