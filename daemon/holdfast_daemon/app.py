"""Builds the daemon's parts and holds the order in which they start and stop.

Start: descriptors, lock, directories, recover, bind, READY=1. Stop: refuse new work,
end waits, close links, last audit record, unlink our own socket, unlock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from holdfast_daemon import ids
from holdfast_daemon.audit.chain import AuditLog
from holdfast_daemon.clock import SystemClock, beat
from holdfast_daemon.connection.pool import Pool
from holdfast_daemon.connection.wake import Watch
from holdfast_daemon.doctor.doctor import Doctor
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.exec.adopter import Adopter
from holdfast_daemon.exec.archive import Archive
from holdfast_daemon.exec.parting import part
from holdfast_daemon.exec.table import JobTable
from holdfast_daemon.forward.guard import Guard
from holdfast_daemon.forward.restore import Restorer
from holdfast_daemon.forward.table import ForwardTable
from holdfast_daemon.hosts.inventory import Inventory
from holdfast_daemon.instance import AlreadyRunning, raise_descriptors
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.leaving import at_latest
from holdfast_daemon.paths import private_dir
from holdfast_daemon.policy.gate import Gate
from holdfast_daemon.rpc import convert
from holdfast_daemon.rpc.admin import AdminServicer, Parts
from holdfast_daemon.rpc.clients import Clients
from holdfast_daemon.rpc.copy import CopyCalls
from holdfast_daemon.rpc.doctor import DoctorServicer
from holdfast_daemon.rpc.door import Door
from holdfast_daemon.rpc.exec import ExecServicer
from holdfast_daemon.rpc.file import FileServicer
from holdfast_daemon.rpc.forward import ForwardServicer
from holdfast_daemon.rpc.host import HostServicer
from holdfast_daemon.rpc.kept import KeptServicer
from holdfast_daemon.rpc.login import LoginServicer
from holdfast_daemon.rpc.reaching import Reaching
from holdfast_daemon.rpc.server import Listener
from holdfast_daemon.rpc.session import SessionServicer
from holdfast_daemon.rpc.sync import Syncs
from holdfast_daemon.rpc.transfer import TransferServicer
from holdfast_daemon.rpc.trust import TrustServicer
from holdfast_daemon.rpc.wait import WaitServicer
from holdfast_daemon.service import systemd
from holdfast_daemon.session.archive import Archive as SessionArchive
from holdfast_daemon.session.observer import Observers
from holdfast_daemon.session.recovery import Recovery
from holdfast_daemon.session.table import SessionTable
from holdfast_daemon.transfer.adoption import Adoption
from holdfast_daemon.transfer.means.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.v1.common_pb2 import ConnectOptions
    from holdfast_daemon.config import Config, ConfigHolder
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.instance import Instance
    from holdfast_daemon.paths import Places
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.secrets import Redactor

_log = logging.getLogger(__name__)

# Of the time for a stop, what commands and then calls get to end by themselves.
_SHARE = 0.4
_FORCED_SECONDS = 1.0
# Behind that time, until a stop that hangs is given up.
_HANGING_SECONDS = 10.0


class App:
    """One run of the daemon."""

    def __init__(
        self,
        places: Places,
        config: ConfigHolder,
        instance: Instance,
        redactor: Redactor,
    ) -> None:
        """Build the parts; nothing is opened yet. `instance` holds the lock."""
        self._places = places
        self._config = config
        self._instance = instance
        self._redactor = redactor
        self._clock = SystemClock()
        self._limits = config.limits
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        limits = self._limits
        self._audit = AuditLog(
            places.audit,
            file_bytes=limits.audit_file_bytes,
            files=limits.audit_files,
            sync_seconds=limits.audit_sync_seconds,
            write_seconds=limits.audit_write_seconds,
            backlog_records=limits.audit_backlog_records,
            retry_seconds=limits.audit_retry_seconds,
            clock=self._clock,
            redactor=redactor,
        )
        self._pool = Pool(limits, self._clock, redactor)
        self._sleep = Watch()
        self._inventory = Inventory(self._current, limits)
        self._pool.renewal.ask = self._inventory.renew
        archive = Archive(places.jobs, limits, self._clock)
        self._gate = Gate(self._current, self._audit, self._clock)
        self._adopter = Adopter(self._gate, self._inventory, self._pool.pauses)
        check = self._adopter.check
        self._table = JobTable(
            archive, self._pool, limits, self._clock, redactor, check=check
        )
        self._copies = CopyCalls(
            self._table, self._current, Signature(places.signature)
        )
        self._syncs = Syncs(self._table, self._current)
        left = (self._copies.left, self._syncs.left)
        self._adoption = Adoption(self._gate, self._inventory, self._current, left)
        self._observers = Observers(places.socket.parent, socket=places.socket)
        self._sessions = SessionTable(
            SessionArchive(
                places.sessions,
                limits,
                self._clock,
                redactor=redactor,
                observers=self._observers,
            ),
            self._pool,
            limits,
            self._clock,
            redactor=redactor,
            observers=self._observers,
            recovery=Recovery(
                self._table,
                find=self._adopter.found,
                admit=self._adopter.admit,
            ),
        )
        self._servicers: list[SessionServicer | ExecServicer] = []
        self._forwards = ForwardTable(
            self._pool,
            limits,
            self._clock,
            path=places.forwards,
            rules=Restorer(self._gate, self._inventory, self._pool, self._current),
            guard=Guard(places, os.environ, self._inventory.agents),
        )
        self._clients = Clients(self._clock, limits.clients_listed)
        self._parts = Parts(
            version=version("holdfast"),
            instance=ids.instance_id(),
            pid=os.getpid(),
            started=self._clock.now(),
            begun=self._clock.monotonic(),
            clock=self._clock,
            places=places,
            config=config,
            audit=self._audit,
            pool=self._pool,
            table=self._table,
            clients=self._clients,
        )
        self._listeners: list[Listener] = []
        self._reloading: asyncio.Task[None] | None = None
        self._adopting: asyncio.Task[None] | None = None

    def _current(self) -> Config:
        return self._config.current

    async def run(self) -> None:
        """Serve until a signal asks for the end; a second one forces it.

        Raises:
            AlreadyRunning: Our lock was deleted, and another daemon serves instead.
            DaemonError: A place is not safe to use.
            OSError: The socket can't be served.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        raise_descriptors(self._limits.descriptors)
        for directory in (
            self._places.jobs,
            self._places.sessions,
            self._places.audit,
        ):
            private_dir(directory)
        await self._audit.open()
        try:
            await self._table.recover()
            self._adoption.reserve(self._table)
            await self._sessions.recover()
            await self._forwards.recover()
            self._config.subscribe(lambda _old, _new: self._forwards.heed_rules())
            await self._listen()
            self._adopting = asyncio.create_task(self._adopt())
            systemd.ready(self._standing())
            _log.info("serving on %s", self._places.socket)
            await self._attend()
        finally:
            await self._stop()

    async def _adopt(self) -> None:
        """Go on with what earlier daemons left."""
        try:
            await self._adoption.take_up(self._table)
            clearing = self._adopter.clear_up(self._table, self._pool, self._limits)
            await asyncio.gather(self._adopter.take_up(self._table), clearing)
        except Exception:  # noqa: BLE001 - its own error boundary
            _log.exception("what was left running is not gone on with")

    async def _attend(self) -> None:
        """Do the chores until the end is asked for, or somebody took our place."""
        limits = self._limits
        asked = asyncio.create_task(self._stopping.wait())
        watch_config = partial(self._config.watch, limits.config_check_seconds)
        chores = [
            asyncio.create_task(self._every(seconds, chore))
            for seconds, chore in (
                (limits.socket_check_seconds, self._look_at_socket),
                (limits.config_check_seconds, watch_config),
                (limits.reap_seconds, self._reap),
                (limits.wake_check_seconds, self._look_at_clocks),
                (systemd.watchdog_interval(), self._ping),
            )
            if seconds is not None
        ]
        done, _ = await asyncio.wait(
            {asked, *chores}, return_when=asyncio.FIRST_COMPLETED
        )
        at_latest(limits.stop_seconds + _HANGING_SECONDS)
        for task in (asked, *chores):
            task.cancel()
        await asyncio.gather(asked, *chores, return_exceptions=True)
        for task in done:
            task.result()

    def _ask_to_stop(self) -> None:
        if self._stopping.is_set():
            self._forced.set()
        self._stopping.set()

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._read_config())

    async def _read_config(self) -> None:
        systemd.reloading()
        await self._config.refresh()
        systemd.ready(self._standing())

    def _standing(self) -> str:
        """Return one line for `systemctl status`."""
        running = len(self._table.list(running_only=True))
        told = f"serving, {running} jobs running"
        if self._config.error:
            told += "; the newest configuration was not taken"
        if self._audit.error:
            told += "; the audit log can't be written"
        return told

    async def _listen(self) -> None:
        door = Door(
            self._gate,
            self._resolve,
            principal=f"uid:{os.getuid()}",
            seen=self._clients.note,
            redactor=self._redactor,
            instance=self._parts.instance,
            failed=self._note_refusal,
            first_frame_seconds=self._limits.first_frame_seconds,
        )
        kept = KeptServicer(lambda host: Keeper(self._pool, host, self._limits))
        reaching = Reaching(self._gate, self._resolve)
        self._pool.assent.go_by(reaching.confirm, self._current)
        sessions = SessionServicer(
            self._sessions, self._table, self._current, kept, reaching.check
        )
        waits = WaitServicer(
            jobs=self._table,
            sessions=self._sessions,
            forwards=self._forwards,
            pool=self._pool,
            config=self._current,
            door=door,
        )
        execs = ExecServicer(self._table, self._current, waits)
        self._servicers += (sessions, execs)
        listener = Listener(
            door,
            self._limits,
            admin=AdminServicer(self._parts, door.resolve),
            doctor=DoctorServicer(self._doctor(), self._redactor),
            exec_=execs,
            forward=ForwardServicer(self._forwards, self._current),
            file=FileServicer(self._pool, self._current, self._redactor),
            host=HostServicer(
                self._inventory,
                self._pool,
                self._table,
                door.resolve,
                self._limits,
                forwards=self._forwards,
                sessions=self._sessions,
            ),
            login=LoginServicer(self._pool),
            session=sessions,
            transfer=TransferServicer(self._syncs, self._copies),
            trust=TrustServicer(self._pool, self._limits),
        )
        await listener.start(self._instance.bind_path())
        try:
            self._instance.publish()
        except BaseException:
            await listener.stop(0)
            raise
        # Those before it serve on for the clients they have: what is under way there
        # would not survive their end.
        self._listeners.append(listener)

    def _note_refusal(self, caller: Caller, error: DaemonError) -> None:
        """Remember who asked for a host whose key only a person may trust."""
        if waits := error.metadata.get("pending"):
            self._pool.pending.asked_by(waits, caller.label)

    def _doctor(self) -> Doctor:
        return Doctor(
            version=self._parts.version,
            places=self._places,
            config=self._config,
            audit=self._audit,
            pool=self._pool,
            limits=self._limits,
            ours=self._instance.ours,
            jobs=lambda: {str(job.id) for job in self._table.list()},
            environ=os.environ,
        )

    async def _resolve(
        self, caller: Caller, target: str, connect: ConnectOptions | None
    ) -> Host:
        config = self._current()
        wanted = target or self._inventory.default_target(caller.defaults.host)
        return await self._inventory.resolve(
            wanted, convert.overrides(connect, caller, config)
        )

    async def _look_at_socket(self) -> None:
        """Serve again when our socket was deleted or replaced; we hold the lock."""
        if await asyncio.to_thread(self._instance.ours):
            return
        _log.error("the socket %s is not ours any more", self._places.socket)
        if await asyncio.to_thread(self._instance.restore):
            _log.warning("it leads to us again")
            return
        await self._listen()
        _log.warning("serving again on %s", self._places.socket)

    async def _reap(self) -> None:
        await self._table.reap()
        await self._sessions.reap()
        await self._forwards.reap()
        systemd.status(self._standing())

    async def _look_at_clocks(self) -> None:
        """After a sleep ask every connected host whether it is still there."""
        missed = self._sleep.look(
            self._clock.monotonic(),
            self._clock.boottime(),
            due=self._limits.wake_check_seconds,
            least=self._limits.wake_gap_seconds,
        )
        if missed:
            _log.info("nobody was awake here for %.0f s", missed)
            await self._pool.wake(missed)
            self._sessions.nudge()

    async def _ping(self) -> None:
        systemd.watchdog()

    async def _every(
        self, seconds: float, chore: Callable[[], Awaitable[None]]
    ) -> None:
        """Do a chore again and again; a failure is told and does not end the daemon."""
        while True:
            try:
                await chore()
            except AlreadyRunning:
                raise
            except DaemonError as error:
                _log.error("%s %s", error.message, error.hint)
            except Exception:  # noqa: BLE001 - its own error boundary
                _log.exception("a chore failed")
            await beat(seconds)

    async def _stop(self) -> None:
        _log.info("stopping")
        systemd.stopping("stopping")
        self._gate.drain()
        forced = asyncio.create_task(self._forced.wait())
        orderly = asyncio.create_task(self._close())
        await asyncio.wait(
            {forced, orderly},
            timeout=self._limits.stop_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        forced.cancel()
        if not orderly.done():
            _log.warning("the stop took too long and is forced")
            orderly.cancel()
        (fault,) = await asyncio.gather(orderly, return_exceptions=True)
        if isinstance(fault, Exception):
            _log.error("the stop was not clean", exc_info=fault)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FORCED_SECONDS):
                # Forced or not: every job's end is told.
                await self._table.close()
        await self._end_calls(0)
        await self._audit.close()
        self._instance.withdraw()

    async def _close(self) -> None:
        share = self._limits.stop_seconds * _SHARE
        for servicer in self._servicers:
            servicer.close()
        await asyncio.gather(self._pool.farewells.stop(), self._forwards.stop())
        if self._adopting is not None:
            self._adopting.cancel()
        await part(self._table, share)
        await self._table.close()
        await self._sessions.stop()
        await self._audit.part()
        await asyncio.gather(self._pool.close(), self._end_calls(share))

    async def _end_calls(self, grace: float) -> None:
        await asyncio.gather(*(one.stop(grace) for one in self._listeners))
