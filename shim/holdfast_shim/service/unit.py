"""The systemd unit of the daemon: every line with its reason. No I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from holdfast_shim.service.plan import Plan

NAME = "holdfast.service"
SOCKET = "%t/holdfast/holdfast.sock"
# systemd refuses a program with one of these in its path, or leaves its `$$` as it is.
_ODD = re.compile(r"[\x00-\x1f\x7f\"'\\$]")
# A shell, which takes any path, becomes the program: the process stays the same.
_BECOME = ("/bin/sh", "-c", 'exec "$0" "$@"')
# One variable a line, as `text` writes them.
_ENVIRONMENT = re.compile(r'^Environment=(?:"((?:[^"\\]|\\.)*)"|(\S+))$', re.MULTILINE)
# systemd knows nothing of it and says nothing of it: `uninstall` reads it.
_LINGER = "Linger=by-install"


class Line(NamedTuple):
    """One setting and why it stands there."""

    setting: str
    reason: str


_UNIT = (
    Line("Description=SSH for AI agents that does not lose its place", ""),
    Line("Documentation=man:ssh_config(5)", "what it reads, beside its own"),
    Line("StartLimitIntervalSec=60", "a daemon that can't start is not tried for ever"),
    Line("StartLimitBurst=10", "restarts by hand count too, so there is room for them"),
)
_SERVICE = (
    Line("Type=notify", "`start` returns when the socket answers, not before"),
    Line("NotifyAccess=main", "only the daemon itself speaks for the service"),
    Line("ExecReload=/bin/kill -HUP $MAINPID", "reads the configuration again"),
    Line("Restart=on-failure", "back after a crash; a clean end stays an end"),
    Line("RestartSec=1s", "a host or disk in trouble is not hammered"),
    Line(
        "RestartPreventExitStatus=64 75 78",
        "wrong usage, another daemon, wrong configuration: another try changes nothing",
    ),
    Line("WatchdogSec=30s", "a daemon whose loop hangs is ended and started again"),
    Line(
        "TimeoutStartSec=60s", "one that is just ending is waited for, its files read"
    ),
    Line(
        "TimeoutStopSec=30s",
        "the daemon needs 5 s at most (limit stop_seconds); then it is killed",
    ),
    Line(
        "KillMode=mixed",
        "TERM to the daemon alone, which ends its links in order; what is left of"
        " ProxyCommand and rsync is killed after it",
    ),
    Line("OOMPolicy=continue", "an rsync that ate the memory does not end the daemon"),
    Line("RuntimeDirectory=holdfast", f"makes the socket's directory, {SOCKET[:11]}"),
    Line("RuntimeDirectoryMode=0700", "who may connect is who may enter it"),
    Line(
        "RuntimeDirectoryPreserve=yes",
        "a daemon that a client started may use it after this one stopped",
    ),
    Line("UMask=0077", "no file of it is born open to others"),
    Line("LimitNOFILE=65536", "links, channels and clients each take descriptors"),
    Line("LimitCORE=0", "passwords and keys are in memory, and belong in no core file"),
    Line("NoNewPrivileges=yes", "nothing it starts gains rights by a setuid program"),
    Line("LockPersonality=yes", "nothing here emulates another system"),
    Line("RestrictRealtime=yes", "nothing here may crowd out the machine"),
    Line(
        "SystemCallArchitectures=native", "no foreign calls, which filters do not see"
    ),
    Line(
        "SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot"
        " @swap",
        "what neither SSH nor its helpers ever ask of a kernel",
    ),
    Line(
        "SystemCallFilter=~@debug process_vm_readv process_vm_writev",
        "no ptrace and its like: it does not steer or read your other programs",
    ),
    Line("SystemCallErrorNumber=EPERM", "refused, not killed: a helper can say so"),
    Line(
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_VSOCK",
        "agents and ControlPath; hosts; name lookups; virtual machines",
    ),
)
# What SSH needs; what a user manager only pretends to do stands in docs/service.md.
LEFT_OUT = (
    Line("ProtectHome= ProtectSystem=", "~/.ssh, and files to copy, are anywhere"),
    Line("PrivateTmp=", "agents and ControlPath sockets live in /tmp"),
    Line("PrivateDevices=", "security keys are devices"),
    Line("PrivateUsers=", "root's files would be nobody's, and ssh refuses such"),
    Line("RestrictNamespaces=", "ProxyCommand may be podman, bwrap or flatpak"),
    Line("SystemCallFilter=~@mount", "the same: they mount in namespaces of theirs"),
    Line("ProtectHostname=", "the same: they name their own machine"),
    Line("SystemCallFilter=~@privileged", "rsync as root keeps owners, by chown"),
    Line("SystemCallFilter=~@resources", "descriptors are raised, and Go does so too"),
    Line("MemoryDenyWriteExecute=", "ProxyCommand may be Java or Node"),
    Line("RestrictSUIDSGID=", "rsync keeps the modes of what it copies, also g+s"),
    Line("KeyringMode=", "a ProxyCommand with Kerberos finds its tickets there"),
)


def text(plan: Plan) -> str:
    """Return the whole unit file."""
    out = [
        f"# Written by `holdfast service install`, holdfast {plan.version}.",
        "# Your own settings: `systemctl --user edit holdfast` (kept by upgrades).",
        "",
        "[Unit]",
        *_told(_UNIT),
        "",
        "[Service]",
        "# the installed daemon, on the socket where clients look first",
        f"ExecStart={_command(plan)}",
    ]
    if plan.environment:
        out.append("# as in the shell that installed it: helpers are found there")
        out += [
            f"Environment={quoted(f'{name}={value}', dollar=False)}"
            for name, value in sorted(plan.environment.items())
        ]
    out += _told(_SERVICE)
    out.append("# Left out on purpose, as SSH would no longer work as in your shell:")
    out += [f"#   {line.setting} {line.reason}" for line in LEFT_OUT]
    out += [
        "",
        "[Install]",
        "# from your first login on, with lingering from the boot",
    ]
    out += ["WantedBy=default.target"]
    told = "\n".join(out) + "\n"
    return with_linger(told) if plan.linger else told


def with_linger(found: str) -> str:
    """Return a unit that notes that its installation switched lingering on."""
    why = "# uninstall switches off what install switched on"
    return f"{found}\n[X-Holdfast]\n{why}\n{_LINGER}\n"


def lingers_by_install(found: str) -> bool:
    """Return whether the unit says that its installation switched lingering on."""
    return _LINGER in found.splitlines()


def command_of(found: str) -> str:
    """Return the command line in a unit, as it stands there; empty: none."""
    said = re.search(r"^ExecStart=(.*)$", found, re.MULTILINE)
    return said[1] if said else ""


def environment_of(found: str) -> dict[str, str]:
    """Return the variables that a unit of ours gives the daemon."""
    told: dict[str, str] = {}
    for quoted_, plain in _ENVIRONMENT.findall(found):
        word = re.sub(r"\\(.)", r"\1", quoted_) if quoted_ else plain
        name, _, value = word.replace("%%", "%").partition("=")
        told[name] = value
    return told


def _told(lines: tuple[Line, ...]) -> list[str]:
    out: list[str] = []
    for line in lines:
        if line.reason:
            out.append(f"# {line.reason}")
        out.append(line.setting)
    return out


def _command(plan: Plan) -> str:
    odd = _ODD.search(plan.command[0]) is not None
    said = (*_BECOME, *plan.command) if odd else plan.command
    words = [quoted(word, dollar=True) for word in said]
    return " ".join([*words, "--socket", SOCKET])


def quoted(word: str, *, dollar: bool) -> str:
    """Return `word` so that systemd reads it back as one word, expanding nothing."""
    text = word.replace("%", "%%")
    if dollar:  # ExecStart knows variables, Environment does not
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w@%$+=:,./-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
