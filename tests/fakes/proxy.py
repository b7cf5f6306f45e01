"""A bad network on loopback: a TCP proxy whose faults are switched on and off live.

It runs in a thread of its own, so tests with and without a loop, and plain scripts such
as the bench, use it alike; every method may be called from any thread and is in force
when it returns::

    with Proxy(sshd.port, delay=0.05) as proxy:      # a round trip of 100 ms
        config = proxy.config(sshd, tmp_path / "config")  # for ssh: leads through here
        proxy.freeze()            # no bytes either way, the sockets stay open
        proxy.freeze(Way.DOWN)    # stalls what comes from the server only
        proxy.heal()              # all flows again, also what was held back
        proxy.throttle(1024)      # bytes a second, each way
        proxy.delay(0.2)          # seconds, each way
        proxy.fin()               # ends every connection in good order
        proxy.rst()               # the same, rudely
        proxy.refuse()            # hangs up on new connections before a word; heal()
        proxy.aim(Fault(Cut.RST, after=300))   # each new connection after 300 bytes
        proxy.flaky(0.3)          # three in ten new connections meet some fault
        proxy.wait_for(connections=3, down=1000)

`accepted` are the moments of the connections, for tests of storms. What is left to
chance comes from `seed`, the number of the connection and the direction, so a failure
is the same one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from fakes.sshd import Sshd

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
PATIENCE = 40.0
_CHUNK = 32 * 1024
# Held back by the proxy itself; beyond it the sockets' own buffers fill up.
_HELD = 256 * 1024
_RECORDED = 16 * 1024
# What a slow network carries between two looks at the clock.
_BEAT = 0.05


class Way(enum.Flag):
    """A direction."""

    UP = enum.auto()  # to the server
    DOWN = enum.auto()  # from the server
    BOTH = UP | DOWN


class Cut(enum.StrEnum):
    """What becomes of a connection."""

    FIN = "fin"
    RST = "rst"
    FREEZE = "freeze"  # no bytes, the sockets stay open
    STALL = "stall"  # so in the fault's direction only


@dataclass(frozen=True, slots=True)
class Fault:
    """What meets one connection after it has carried `after` bytes one way."""

    cut: Cut
    after: int
    way: Way = Way.DOWN


class Flow:
    """One direction of one connection.

    Attributes:
        passed: Bytes that went on.
        recorded: The first of them.
    """

    def __init__(
        self,
        connection: Connection,
        way: Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.way = way
        self.passed = 0
        self.recorded = b""
        self._connection = connection
        self._proxy = connection.proxy
        self._dice = self._proxy.dice(connection.number, str(way))
        self._reader = reader
        self._writer = writer
        # when it came, and what; None for a rude end
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._held = 0
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Carry until the sender has ended and all went on.

        Raises:
            ConnectionError: A side was cut.
        """
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def look(self) -> None:
        """Take notice of what was switched."""
        async with self._changed:
            self._changed.notify_all()

    async def _read(self) -> None:
        data: bytes | None = b"-"
        while data:
            async with self._changed:
                await self._changed.wait_for(lambda: self._held < _HELD)
            try:
                data = await self._reader.read(_CHUNK)
            except ConnectionError:
                data = None
            async with self._changed:
                self._queue.append((time.monotonic(), data))
                self._held += len(data or b"")
                self._changed.notify_all()

    async def _write(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._queue))
                came, data = self._queue.popleft()
            await self._in_time(came, self._proxy.jitter * self._dice.random())
            await self._flowing()
            if data is None:
                raise ConnectionResetError
            if not data:
                self._writer.write_eof()
                return
            for at in range(0, len(data), step := self._step()):
                await self._pass(data[at : at + step])

    def _step(self) -> int:
        return max(1, int(self._proxy.rate * _BEAT)) if self._proxy.rate else _CHUNK

    async def _pass(self, data: bytes) -> None:
        size = len(data)
        while data:
            await self._flowing()
            left = self._connection.left(self)
            piece, data = data[:left], data[left:]
            self._writer.write(piece)
            await self._writer.drain()
            self.passed += len(piece)
            self.recorded = (self.recorded + piece)[:_RECORDED]
            self._proxy.count(self.way, len(piece))
            self._connection.look()
            if self._proxy.rate:
                await asyncio.sleep(len(piece) / self._proxy.rate)
        async with self._changed:
            self._held -= size
            self._changed.notify_all()

    async def _in_time(self, came: float, jitter: float) -> None:
        while (left := came + self._proxy.seconds + jitter - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left), self._changed:
                    await self._changed.wait()

    async def _flowing(self) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self.way & (self._connection.frozen | self._proxy.frozen)
            )


class Connection:
    """One connection through the proxy.

    Attributes:
        number: The first one is 0.
        fault: What is still to meet it.
        frozen: Where nothing passes, whatever the others do.
    """

    def __init__(
        self,
        proxy: Proxy,
        number: int,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        fault: Fault | None,
    ) -> None:
        self.proxy = proxy
        self.number = number
        self.fault = fault
        self.frozen = Way(0)
        self._readers = (client[0], server[0])
        self._writers = (client[1], server[1])
        self.up = Flow(self, Way.UP, client[0], server[1])
        self.down = Flow(self, Way.DOWN, server[0], client[1])
        self._finished = asyncio.Event()

    async def run(self) -> None:
        """Carry both ways until both have ended or the connection is cut."""
        self.look()
        carrying = asyncio.create_task(self._carry())
        finished = asyncio.create_task(self._wait_finished())
        try:
            await asyncio.wait(
                {carrying, finished}, return_when=asyncio.FIRST_COMPLETED
            )
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
            if self._finished.is_set():
                await self._finish()
            elif not carrying.cancelled() and carrying.exception() is not None:
                self.rst()
        finally:
            carrying.cancel()
            finished.cancel()
            await asyncio.gather(carrying, finished, return_exceptions=True)
            for writer in self._writers:
                writer.close()

    async def _carry(self) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self.up.run())
            both.create_task(self.down.run())

    async def _wait_finished(self) -> None:
        await self._finished.wait()

    def left(self, flow: Flow) -> int:
        """Return how many bytes may pass at once: a fault is met at its byte."""
        if self.fault is None or not flow.way & self.fault.way:
            return _CHUNK
        return max(1, self.fault.after - flow.passed)

    def look(self) -> None:
        """Let the fault happen, if it is time."""
        fault = self.fault
        if fault is None:
            return
        flows = [flow for flow in (self.up, self.down) if flow.way & fault.way]
        if all(flow.passed < fault.after for flow in flows):
            return
        self.fault = None
        if fault.cut is Cut.FIN:
            self.fin()
        elif fault.cut is Cut.RST:
            self.rst()
        else:
            self.frozen |= fault.way if fault.cut is Cut.STALL else Way.BOTH

    def heal(self) -> None:
        """Be a good one again, unless it has ended."""
        self.fault = None
        self.frozen = Way.BOTH if self._finished.is_set() else Way(0)

    def fin(self) -> None:
        """End it in good order: both sides are told that no more comes."""
        self.frozen = Way.BOTH
        self._finished.set()

    def rst(self) -> None:
        """End it rudely."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            writer.transport.abort()

    async def _finish(self) -> None:
        # not `close`, which says RST where something came that nobody has read
        with contextlib.suppress(ConnectionError, TimeoutError):
            for writer in self._writers:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                for reader in self._readers:
                    while await reader.read(_CHUNK):
                        pass


class Proxy:
    """Leads to a port on loopback, as well or as badly as told.

    Attributes:
        port: Where it listens.
        accepted: When each connection came, by the monotonic clock.
        connections: Those that are open.
    """

    def __init__(
        self,
        target: int,
        *,
        seed: int = 0,
        delay: float = 0.0,
        jitter: float = 0.0,
        rate: float = 0.0,
    ) -> None:
        """Lead to port `target`; `delay` and `jitter` in seconds, `rate` in bytes/s."""
        self.target = target
        self.port = 0
        self.seed = seed
        self.seconds = delay
        self.jitter = jitter
        self.rate = rate
        self.frozen = Way(0)
        self.accepted: list[float] = []
        self.connections: list[Connection] = []
        self._refusing: bytes | None = None
        self._chance = 0.0
        self._aimed: Fault | None = None
        self._span = 4096
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._carried = {Way.UP: 0, Way.DOWN: 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Listen."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(PATIENCE):
            raise TimeoutError("the proxy does not listen")
        return self

    def __exit__(self, *_: object) -> None:
        """End every connection and stop listening."""
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the proxy does not stop"

    def config(self, sshd: Sshd, path: Path, *, extra: str = "") -> Path:
        """Write an ssh configuration that reaches `sshd` by its alias through here."""
        known = path.with_name(path.name + ".known_hosts")
        known.write_text(sshd.known_hosts_lines([f"[{LOOPBACK}]:{self.port}"]))
        lines = sshd.client_config(extra=extra).splitlines(keepends=True)
        changed = {
            "HostName": LOOPBACK,
            "Port": str(self.port),
            "UserKnownHostsFile": str(known),
        }
        for at, line in enumerate(lines):
            name = line.split()[0]
            if name in changed:
                lines[at] = f"  {name} {changed[name]}\n"
        path.write_text("".join(lines))
        return path

    # what the network does

    def delay(self, seconds: float) -> None:
        """Let each byte take so long each way."""
        self.seconds = seconds
        self._look()

    def throttle(self, rate: float) -> None:
        """Let so many bytes a second through each way; 0: as many as come."""
        self.rate = rate
        self._look()

    def freeze(self, way: Way = Way.BOTH) -> None:
        """Let nothing through; new connections are taken, and hear nothing either."""
        self.frozen = way
        self._look()

    def refuse(self, words: bytes = b"") -> None:
        """Hang up on new connections instead of a banner, as a busy sshd does."""
        self._refusing = words

    def aim(self, fault: Fault | None) -> None:
        """Let `fault` meet every new connection."""
        self._aimed = fault

    def flaky(self, chance: float, span: int = 4096) -> None:
        """Let some of the new connections meet a fault within `span` bytes."""
        self._chance, self._span = chance, span

    def heal(self) -> None:
        """Be a good network again; what was held back goes on."""
        self.seconds = self.jitter = self.rate = 0.0
        self._refusing, self._aimed, self._chance = None, None, 0.0
        self.frozen = Way(0)

        self._do(lambda: [one.heal for one in self.connections])
        self._look()

    def fin(self) -> None:
        """End every connection in good order."""
        self._do(lambda: [one.fin for one in self.connections])

    def rst(self) -> None:
        """End every connection rudely."""
        self._do(lambda: [one.rst for one in self.connections])

    # what can be seen of it

    @property
    def up(self) -> int:
        """Bytes that went to the server."""
        with self._changed:
            return self._carried[Way.UP]

    @property
    def down(self) -> int:
        """Bytes that came from the server."""
        with self._changed:
            return self._carried[Way.DOWN]

    def wait_for(
        self,
        *,
        connections: int = 0,
        up: int = 0,
        down: int = 0,
        seconds: float = PATIENCE,
    ) -> None:
        """Wait until so many connections came, ever, and so many bytes went on."""

        def enough() -> bool:
            return (
                len(self.accepted) >= connections
                and self._carried[Way.UP] >= up
                and self._carried[Way.DOWN] >= down
            )

        with self._changed:
            if not self._changed.wait_for(enough, seconds):
                raise TimeoutError(
                    f"{len(self.accepted)} connections, {self._carried} bytes"
                    f" within {seconds:g} s"
                )

    # inside

    def dice(self, number: int, what: str) -> random.Random:
        """Return the dice of one connection for one purpose."""
        return random.Random(f"{self.seed}:{number}:{what}")

    def count(self, way: Way, size: int) -> None:
        """Count what went on."""
        with self._changed:
            self._carried[way] += size
            self._changed.notify_all()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopping.wait()
        server.close()
        for one in list(self.connections):
            one.rst()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        number = len(self.accepted)
        with self._changed:
            self.accepted.append(time.monotonic())
            self._changed.notify_all()
        if self._refusing is not None:
            writer.write(self._refusing)
            writer.close()
            return
        inner = await asyncio.open_connection(LOOPBACK, self.target)
        one = Connection(self, number, (reader, writer), inner, self._fault(number))
        self.connections.append(one)
        try:
            await one.run()
        finally:
            self.connections.remove(one)

    def _fault(self, number: int) -> Fault | None:
        dice = self.dice(number, "fault")
        if self._aimed is None and dice.random() < self._chance:
            cut = dice.choice(list(Cut))
            way = dice.choice([Way.UP, Way.DOWN])
            return Fault(cut, dice.randrange(self._span), way)
        return self._aimed

    def _look(self) -> None:
        async def look() -> None:
            for one in list(self.connections):
                await one.up.look()
                await one.down.look()

        self._run(look())

    def _do(self, steps: Callable[[], list[Callable[[], None]]]) -> None:
        async def done() -> None:
            for step in steps():
                step()

        self._run(done())

    def _run(self, work: Coroutine[object, object, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)
