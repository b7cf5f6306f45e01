"""`holdfast service`: the daemon as a service of the user's own manager."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast_shim import autostart
from holdfast_shim.cli import output
from holdfast_shim.cli.options import FAILED, OK, Number, json_option, options
from holdfast_shim.errors import CallError
from holdfast_shim.service import program, standing
from holdfast_shim.service.choose import service as chosen_service
from holdfast_shim.service.plan import Plan, environment_of
from holdfast_shim.service.shape import Logs
from holdfast_shim.settings import Settings
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from holdfast.v1 import common_pb2
    from holdfast_shim.service.shape import Service, State
    from holdfast_shim.service.standing import Standing

_WAIT_SECONDS = 60.0
# Hosts are looked up anew after a start, and what they keep comes back one by one.
_BACK_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_SIGNALLED = 128

_wait = click.option(
    "--wait",
    type=Number(min=0),
    default=_WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for commands that would end with the daemon.",
)
_now = click.option("--now", is_flag=True, help="Do not wait: such commands end.")


@click.group("service")
def service() -> None:
    """Run the daemon as a service of your own.

    It starts with your login, and again after a crash. Without a service, clients start
    the daemon when they need it.
    """
    if options().socket is not None:
        raise click.UsageError(
            "--socket names another daemon: the service serves the standard place only"
        )


@service.command("install")
@click.option(
    "--linger/--no-linger",
    default=None,
    help="Go on after your last logout, and start at boot.",
)
@_wait
@_now
@json_option
def install(*, linger: bool | None, wait: float, now: bool) -> int:
    """Write, enable and start the service; again, it changes only what is new.

    A daemon that a client started is handed over: commands on it are waited for, kept
    sessions, durable commands and durable forwards go on under the service.
    """
    manager, did = chosen_service(os.environ), Report()
    plan = _plan()
    manager.check()
    # One that hangs, or is of another protocol, can't be asked; with --now it need not.
    change = now or _changes(manager, plan)
    before = _before(manager, wait, now=now, change=change)
    changed = manager.write(plan)
    did.note(f"{manager.path} is {'written' if changed else 'as it should be'}")
    did.note(manager.agent())
    _end_other(did, manager, before, now=now)
    _bring_up(manager, changed=changed)
    _compare(did, before, _after(manager, before))
    _linger(did, manager, wanted=linger)
    return did.told(manager)


@service.command("uninstall")
@_wait
@_now
@json_option
def uninstall(*, wait: float, now: bool) -> int:
    """Stop the service and remove what install made.

    Your configuration, results and audit log stay; so does what hosts keep: the next
    daemon finds it.
    """
    manager, did = chosen_service(os.environ), Report()
    manager.check()
    if not manager.path.is_file():
        did.note("no service was installed")
        return did.told(None)
    _before(manager, wait, now=now, change=True)
    for line in manager.remove():
        did.note(line)
    if not standing.tidy(manager.socket):
        did.note(f"{manager.socket.parent} stays: it is in use")
    return did.told(None)


@service.command("restart")
@_wait
@_now
@json_option
def restart(*, wait: float, now: bool) -> int:
    """Restart the daemon; what is kept goes on, and is found again."""
    return _renew(wait, now=now, rewrite=False)


@service.command("upgrade")
@_wait
@_now
@json_option
def upgrade(*, wait: float, now: bool) -> int:
    """Let the installed version take over from the one that runs.

    Install it first (pipx upgrade holdfast, uv tool upgrade holdfast, pip install -U
    holdfast). The service's file is written anew, for the environment it was installed
    with; `install` takes that of the shell it is run in.
    """
    return _renew(wait, now=now, rewrite=True)


@service.command("status")
@json_option
def status() -> int:
    """Show how the service stands; exit code 0 when it runs, 1 when not."""
    manager = chosen_service(os.environ)
    state = manager.state()
    found: Standing | None = None
    try:
        found = _look(manager.socket)
    except CallError as error:
        # It hangs, or speaks another protocol; what the manager knows is told even so.
        told = "; ".join(filter(None, (error.message, error.hint)))
        state.notes.append(f"the daemon is not known: {told}")
    outdated = state.installed and _renewable(manager)
    good = state.active == "active" and found is not None and found.pid == state.pid
    document: dict[str, Any] = {
        "kind": manager.kind,
        "file": str(manager.path),
        "socket": str(manager.socket),
        "outdated": outdated,
        **asdict(state),
        "daemon": None if found is None else asdict(found),
    }
    if options().json:
        output.emit(document)
        return OK if good else FAILED
    output.pairs(_facts(manager, state, found, outdated=outdated))
    return OK if good else FAILED


@service.command("logs")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with new records.")
@click.option(
    "--since", default="", metavar="TIME", help='As journalctl: "1 hour ago".'
)
@click.option("--host", default="", help="Only records about this host.")
@click.option("--session", default="", metavar="ID", help="… about it; or its name.")
@click.option("--client", default="", help="… about this client.")
@click.option("--job", default="", metavar="ID", help="… about this job.")
@json_option
def logs(*, lines: int, follow: bool, since: str, **fields: str) -> int:
    """Show the service's log."""
    wanted = Logs(lines, follow, since, {k: v for k, v in fields.items() if v})
    wanted.json = options().json
    words = chosen_service(os.environ).logs(wanted)
    try:
        code = subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        raise CallError(
            "UNSUPPORTED",
            f"there is no {words[0]} here",
            hint="the daemon's own log is log/holdfastd.log in the state directory that"
            " `holdfast status` names",
        ) from None
    return _SIGNALLED - code if code < 0 else code


class Report:
    """What was done, for people and for programs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.facts: dict[str, Any] = {}

    def note(self, line: str) -> None:
        """Add a sentence."""
        self.lines.append(line)

    def told(self, manager: Service | None) -> int:
        """Print it all; return the exit code."""
        if options().json:
            state = {} if manager is None else {"state": asdict(manager.state())}
            output.emit({"ok": True, "done": self.lines, **self.facts, **state})
        else:
            for line in self.lines:
                output.say(line)
        return OK


def _renew(wait: float, *, now: bool, rewrite: bool) -> int:
    manager, did = chosen_service(os.environ), Report()
    installed = manager.path.is_file()
    if installed:
        manager.check()
    else:
        # The standard place is meant, and a daemon started from here would use another.
        environment_of(dict(os.environ))
    plan = _plan(manager.environment()) if rewrite else None
    before = _before(manager, wait, now=now, change=True)
    if not installed:
        _end_other(did, manager, before, now=now)
        _start_by_hand(manager.socket)
        did.note("no service is installed; the daemon was started by itself")
    else:
        if plan is not None and manager.write(plan):
            did.note(f"{manager.path} is written anew")
        _end_other(did, manager, before, now=now)
        manager.restart()
    _compare(did, before, _after(manager, before))
    return did.told(manager if installed else None)


def _plan(kept: dict[str, str] | None = None) -> Plan:
    """Return what is to run, in this shell's environment unless one is `kept`."""
    env = dict(os.environ)
    own = environment_of(env)
    return Plan(
        program.command(env),
        str(Path(env.get("HOME") or Path.home())),
        kept or own,
        VERSION,
    )


def _renewable(manager: Service) -> bool:
    """Return whether `upgrade` would write another file."""
    try:
        plan = _plan(manager.environment())
        return manager.text(plan) != manager.path.read_text("utf-8")
    except CallError:
        return False  # from here nothing would be written


def _changes(manager: Service, plan: Plan) -> bool:
    """Return whether an installation would end the daemon that runs."""
    path = manager.path
    if not path.is_file() or manager.text(plan) != path.read_text("utf-8"):
        return True
    found = _look(manager.socket)
    return found is not None and found.pid != manager.state().pid


def _before(
    manager: Service, wait: float, *, now: bool, change: bool
) -> Standing | None:
    """Look at the daemon that runs, once it may be ended."""
    if not change:
        return _look(manager.socket)
    if now:
        try:
            return _look(manager.socket)
        except CallError as error:
            # It hangs, or speaks another protocol; its end was asked for all the same.
            output.note(f"what runs is not known: {error.message}")
            return None

    def told(bound: list[str]) -> None:
        output.note(f"waiting for {', '.join(bound)} (at most {wait:g} s)")

    return asyncio.run(standing.drained(manager.socket, _context(), wait, told))


def _look(socket: Path) -> Standing | None:
    return asyncio.run(standing.look(socket, _context()))


def _context() -> common_pb2.ClientContext:
    settings = Settings.read(os.environ)
    if settings.problem is not None:
        raise settings.problem
    return settings.context("cli", VERSION, person=True)


def _end_other(
    did: Report, manager: Service, before: Standing | None, *, now: bool
) -> None:
    """End a daemon that runs besides the service: its manager ends its own.

    From here on clients start the service, where its file is there.
    """
    stuck = now and before is None
    pid = standing.holder(manager.socket) if stuck else before.pid if before else 0
    if not pid or (manager.path.is_file() and pid == manager.state().pid):
        return
    standing.end(pid, manager.socket, stuck=stuck)
    if stuck:
        did.note(f"process {pid}, which did not answer, was ended")


def _bring_up(manager: Service, *, changed: bool) -> None:
    """Have the service serve."""
    state = manager.state()
    if state.active == "active" and changed:
        manager.restart()
    elif state.active != "active" or not state.enabled:
        manager.start()


def _start_by_hand(socket: Path) -> None:
    asyncio.run(autostart.reach(socket, os.environ, start=True))


def _after(manager: Service, before: Standing | None) -> Standing:
    """Return how it stands, once what was there is back or has had its time."""
    limit = time.monotonic() + _BACK_SECONDS
    while True:
        found = _look(manager.socket)
        if found is None:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"the service was started, but nothing answers on {manager.socket}",
                hint="`holdfast service logs` tells why",
            )
        there = {*found.sessions, *found.forwards}
        missing = before and {*before.sessions, *before.forwards} - there
        if not missing or time.monotonic() >= limit:
            return found
        time.sleep(_LOOK_SECONDS)


def _compare(did: Report, before: Standing | None, after: Standing) -> None:
    did.facts["daemon"] = asdict(after)
    if before is None:
        did.note(f"holdfast {after.version} runs (process {after.pid})")
        return
    did.facts["before"] = asdict(before)
    if before.instance == after.instance:
        did.note(f"holdfast {after.version} runs on (process {after.pid})")
        return
    did.note(
        f"holdfast {after.version} (process {after.pid}) took over from"
        f" {before.version} (process {before.pid})"
    )
    for what, old, new in (
        ("sessions", before.sessions, after.sessions),
        ("durable forwards", before.forwards, after.forwards),
    ):
        if old:
            did.note(f"{what} kept: {', '.join(n for n in old if n in new) or 'none'}")
        if gone := [name for name in old if name not in new]:
            did.note(f"{what} gone: {', '.join(gone)}")
    if before.closing:
        did.note(f"forwards closed, as they are not durable: {len(before.closing)}")


def _linger(did: Report, manager: Service, *, wanted: bool | None) -> None:
    if wanted:
        did.note(manager.linger())
        return
    if manager.state().lingers is False and wanted is None:
        did.note(
            "lingering is off: some seconds after your last logout the service ends."
            " `holdfast service install --linger` lets it go on, and start at boot"
        )


def _facts(
    manager: Service, state: State, found: Standing | None, *, outdated: bool
) -> list[tuple[str, str]]:
    facts = [("service", f"{manager.path}" if state.installed else "not installed")]
    if outdated:
        facts.append(("", "of another version: `holdfast service upgrade` renews it"))
    if state.installed:
        facts.append(("starts by itself", "yes" if state.enabled else "no"))
    facts.append(("state", f"{state.active}{', ' if state.told else ''}{state.told}"))
    facts += [("", note) for note in state.notes]
    if state.restarts:
        facts.append(("restarts", str(state.restarts)))
    if state.lingers is not None:
        facts.append(
            ("after logout", "goes on" if state.lingers else "ends (no linger)")
        )
    if state.agent:
        facts.append(("agent", state.agent))
    facts.append(("socket", str(manager.socket)))
    if found is None:
        facts.append(("daemon", "none answers"))
        return facts
    ours = "" if found.pid == state.pid else ", not of the service"
    facts.append(("daemon", f"holdfast {found.version}, process {found.pid}{ours}"))
    if found.version != VERSION or not found.same:
        facts.append(("", f"not this holdfast {VERSION}: `holdfast service upgrade`"))
    return facts
