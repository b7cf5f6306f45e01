"""The LaunchAgent of the daemon on macOS: every key with its reason. No I/O."""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from holdfast_shim.managers import AGENT

if TYPE_CHECKING:
    from holdfast_shim.service.plan import Plan

LABEL = AGENT

# Why each key stands there; what is not in this table is not written.
KEYS = {
    "Label": "the name that launchctl knows it by",
    "ProgramArguments": "the installed daemon; launchd expands neither ~ nor $VAR",
    "RunAtLoad": "starts with the login, as WantedBy=default.target does",
    "KeepAlive": "back after a crash, not after a clean end, as Restart=on-failure",
    "ThrottleInterval": "one that can't start is tried every 10 s, not all the time",
    "ExitTimeOut": "TERM to KILL: the daemon needs 5 s at most (limit stop_seconds)",
    "ProcessType": "others have their timers and I/O slowed, which keep-alives feel",
    "Umask": "077 (plists have no octal): no file of it is born open to others",
    "WorkingDirectory": "the user's home, so that it holds no volume",
    "StandardOutPath": "what is said before the daemon's own log is open",
    "StandardErrorPath": "the same file, so that the order is kept",
    "EnvironmentVariables": "launchd's PATH lacks Homebrew's, where helpers are",
    "SoftResourceLimits": "the default of 256 descriptors is soon used up",
    "HardResourceLimits": "passwords and keys are in memory, and belong in no core",
}
_LANGUAGE = {"LANG": "en_US.UTF-8"}
_SYSTEM_PATH = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def content(plan: Plan) -> dict[str, Any]:
    """Return the agent as a property list's content.

    There is no Sockets key (gRPC can't adopt a descriptor) and no SSH_AUTH_SOCK: each
    login has an agent of its own, and launchd tells its jobs of it.
    """
    log = f"{plan.home}/Library/Logs/holdfast/service.log"
    path = plan.environment.get("PATH", "").split(":") + _SYSTEM_PATH.split(":")
    told = {k: v for k, v in plan.environment.items() if k != "PATH"}
    told["PATH"] = ":".join(dict.fromkeys(part for part in path if part))
    told |= _LANGUAGE
    return {
        "Label": LABEL,
        "ProgramArguments": list(plan.command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 30,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "WorkingDirectory": plan.home,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "EnvironmentVariables": told,
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "HardResourceLimits": {"Core": 0},
    }


def environment_of(found: str) -> dict[str, str]:
    """Return the variables that an agent gives the daemon; none of a damaged one."""
    try:
        told = plistlib.loads(found.encode())["EnvironmentVariables"]
    except (KeyError, TypeError, ValueError, ExpatError):
        return {}
    return {name: value for name, value in told.items() if name not in _LANGUAGE}


def text(plan: Plan) -> str:
    """Return the plist file."""
    found = plistlib.dumps(content(plan), sort_keys=False).decode()
    reasons = "\n".join(f"  {key}: {reason}" for key, reason in KEYS.items())
    head, mark, rest = found.partition("<plist")
    # XML knows no two hyphens in a comment.
    told = f"holdfast {plan.version}\n{reasons}".replace("--", "-")
    return (
        f"{head}<!-- Written by `holdfast service install`, {told}\n-->\n{mark}{rest}"
    )
