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
_LINGER = Path("/var/lib/systemd/linger")
_BOOTED = Path("/run/systemd/system")
_KERNEL = Path("/proc/version")


class Manager(NamedTuple):
    """What is to be seen of systemd.

    Attributes:
        booted: It runs this machine.
        unit: Where our unit file lies; empty: nowhere.
        enabled: The unit starts with the user's manager.
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
    """Look at systemd's files; it is not asked. Blocks."""
    runtime = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    tops = [config, Path("/etc"), runtime, Path("/run"), data]
    tops += [Path("/usr/local/lib"), Path("/usr/lib")]
    folders = [top / "systemd/user" for top in tops]
    unit = next((str(f / UNIT) for f in folders if (f / UNIT).is_file()), "")
    try:
        kernel = _KERNEL.read_text("utf-8", "replace")
    except OSError:
        kernel = ""
    return Manager(
        booted=_BOOTED.is_dir(),
        unit=unit,
        enabled=any(
            os.path.lexists(folder / "default.target.wants" / UNIT)
            for folder in folders
        ),
        supervised="INVOCATION_ID" in environ or "NOTIFY_SOCKET" in environ,
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
        hint = "`systemctl --user restart holdfast` once no command runs"
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
