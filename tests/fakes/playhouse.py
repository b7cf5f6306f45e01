"""Sessions of this machine behind the real door, for those who take part in them.

The shell, its terminal and the servicer are real; only SSH and the daemon around them
are not. A test plays the agent itself.
"""

# ruff: noqa: N802, ARG002 - names and signatures of RPCs are the contract's

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from fakes.audit import audit_log, records
from fakes.served import Admin
from holdfast.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    session_pb2,
)
from holdfast_daemon.clock import SystemClock, rfc3339
from holdfast_daemon.config import Config
from holdfast_daemon.errors import NotFoundError, Reason, StateError
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.output.display import Display
from holdfast_daemon.policy.gate import Gate
from holdfast_daemon.rpc.attach import AttachServicer
from holdfast_daemon.rpc.door import Door
from holdfast_daemon.rpc.kept import KeptServicer
from holdfast_daemon.session.frame import (
    Ended,
    KeyboardChanged,
    Printed,
    Resized,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from holdfast.v1 import common_pb2
    from holdfast_daemon.kept.standing import Standing
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.frame import Frame

    AnyContext = grpc.aio.ServicerContext[Any, Any]

_PIECE = 64 * 1024


class Stage:
    """One session: a real shell on a real terminal."""

    def __init__(self, name: str, directory: Path) -> None:
        self.id = f"s-{name}"
        self.name = name
        self.target = "web1"
        self.address = "me@web1"
        self.host: Host | None = None
        self.cols, self.rows = 80, 24
        self.keyboard = KeyboardChanged()
        self.output = b""
        self.typed = b""
        self.ended: Ended | None = None
        self.watching = asyncio.Semaphore(0)
        self._happened: list[Frame] = []
        self._changed = asyncio.Condition()
        self._screen = Display(80, 24)
        self._directory = directory
        self._ours = -1
        self._work: asyncio.Task[None] | None = None
        self._shell: asyncio.subprocess.Process | None = None

    async def open(self, *command: str) -> None:
        """Start the shell, or another command."""
        self._ours, theirs = pty.openpty()
        self._set_size()
        self._shell = await asyncio.create_subprocess_exec(
            "setsid",
            "--ctty",
            *(command or ("sh",)),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "vt220"},
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self._work = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Kill the shell and what it runs."""
        if self._shell is not None and self._shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)
        if self._work is not None:
            await self._work
        await self._screen.close()

    async def _read(self) -> None:
        assert self._shell is not None
        while data := await self._next():
            async with self._changed:
                self.output += data
                self._screen.feed(data)
                self._changed.notify_all()
        code = await self._shell.wait()
        os.close(self._ours)
        name = signal.Signals(-code).name.removeprefix("SIG") if code < 0 else None
        await self.tell(
            Ended(
                "signalled" if name else "exited",
                exit_code=None if name else code,
                signal=name,
            )
        )

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._ours, ready.set)
        try:
            await ready.wait()
            return os.read(self._ours, _PIECE)
        except OSError:
            return b""  # its last process has gone
        finally:
            loop.remove_reader(self._ours)

    async def tell(self, frame: Frame) -> None:
        """Let something happen."""
        async with self._changed:
            if isinstance(frame, KeyboardChanged):
                self.keyboard = frame
            if isinstance(frame, Ended):
                self.ended = frame
            self._happened.append(frame)
            self._changed.notify_all()

    async def feed(self, keys: bytes) -> None:
        """Type without anybody who does."""
        await asyncio.to_thread(os.write, self._ours, keys)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds."""
        async with asyncio.timeout(40), self._changed:
            await self._changed.wait_for(condition)

    # What one who takes part needs

    @property
    def running(self) -> bool:
        return self.ended is None

    async def watch(self, offset: int) -> AsyncGenerator[Frame]:
        self.watching.release()
        seen = 0 if self.ended else len(self._happened)
        if self.keyboard.client:
            yield self.keyboard
        while True:
            async with self._changed:
                while len(self.output) <= offset and len(self._happened) <= seen:
                    await self._changed.wait()
            if data := self.output[offset : offset + _PIECE]:
                offset += len(data)
                yield Printed(data, offset)
                continue
            frame = self._happened[seen]
            seen += 1
            yield frame
            if isinstance(frame, Ended):
                return

    async def picture(self) -> tuple[bytes, int]:
        end = len(self.output)
        return await self._screen.redraw(), end

    def take(self, caller: Caller) -> None:
        if self.keyboard.instance != caller.instance:
            self._hand(
                KeyboardChanged(
                    caller.label,
                    caller.instance,
                    rfc3339(SystemClock().now()),
                    person=True,
                )
            )

    def release(self, caller: Caller) -> None:
        if self.keyboard.instance == caller.instance:
            self._hand(KeyboardChanged())

    def _hand(self, keyboard: KeyboardChanged) -> None:
        self.keyboard = keyboard
        self._telling = asyncio.create_task(self.tell(keyboard))

    async def type(self, caller: Caller, data: bytes) -> None:
        assert self.keyboard.instance == caller.instance
        if self.ended:
            raise StateError(Reason.INTERNAL, "the session has ended")
        rest = data
        while rest:
            try:
                rest = rest[os.write(self._ours, rest) :]
            except BlockingIOError:
                await self._writable()
        async with self._changed:
            self.typed += data
            self._changed.notify_all()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._ours, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._ours)

    async def resize(self, cols: int, rows: int) -> None:
        self.cols, self.rows = cols, rows
        self._screen.resize(cols, rows)
        self._set_size()
        await self.tell(Resized(cols, rows))

    def _set_size(self) -> None:
        packed = struct.pack("HHHH", self.rows, self.cols, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, packed)


class _Admin(Admin):
    async def Hello(
        self, request: admin_pb2.HelloRequest, context: AnyContext
    ) -> admin_pb2.HelloResponse:
        return admin_pb2.HelloResponse(version="9.9", protocol_min=1, protocol_max=1)


def _sessions(house: Playhouse) -> grpc.GenericRpcHandler:
    """Serve what is served of the service."""

    async def list_sessions(
        request: session_pb2.ListSessionsRequest, context: AnyContext
    ) -> session_pb2.ListSessionsResponse:
        rows = [
            session_pb2.Session(
                session_id=one.id,
                session_name=one.name,
                target=one.address,
                running=one.running,
                transcript_path=str(house.root / one.id / "session.txt"),
            )
            for one in house.stages.values()
            if one.running or request.include_exited
        ]
        return session_pb2.ListSessionsResponse(count=len(rows), sessions=rows)

    servicer = house.servicer
    kept = KeptServicer(lambda _: house.store)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "AttachSession": grpc.stream_stream_rpc_method_handler(
            servicer.AttachSession,
            session_pb2.AttachSessionRequest.FromString,
            session_pb2.AttachSessionResponse.SerializeToString,
        ),
        "ListKept": grpc.unary_unary_rpc_method_handler(
            kept.ListKept,
            session_pb2.ListKeptRequest.FromString,
            session_pb2.ListKeptResponse.SerializeToString,
        ),
        "WipeKept": grpc.unary_unary_rpc_method_handler(
            kept.WipeKept,
            session_pb2.WipeKeptRequest.FromString,
            session_pb2.WipeKeptResponse.SerializeToString,
        ),
        "ListSessions": grpc.unary_unary_rpc_method_handler(
            list_sessions,
            session_pb2.ListSessionsRequest.FromString,
            session_pb2.ListSessionsResponse.SerializeToString,
        ),
    }
    return grpc.method_handlers_generic_handler("holdfast.v1.SessionService", handlers)


async def _resolve(
    caller: Caller, target: str, connect: common_pb2.ConnectOptions | None
) -> Host:
    return Host(name=target, hostname=target, user="me")


class Lumber:
    """What is kept on the one host there is."""

    def __init__(self) -> None:
        self.things: dict[str, Standing] = {}
        self.ended: list[str] = []

    async def list(self) -> list[Standing]:
        return [*self.things.values()]

    async def end(self, ident: str, *, force: bool) -> None:
        assert force
        self.ended.append(ident)

    async def wipe(self, ident: str) -> None:
        del self.things[ident]


async def _anywhere(_: Host | None) -> None:
    """Let every session be reached: none is on a host."""


class Playhouse:
    """A daemon with sessions of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run" / "holdfast.sock"
        self.stages: dict[str, Stage] = {}
        self.store = Lumber()
        self.servicer = AttachServicer(self.find, _anywhere)
        self._log = audit_log(root / "audit")
        self._server: grpc.aio.Server | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the command line finds."""
        return {
            **os.environ,
            "HOLDFAST_SOCKET": str(self.socket),
            "HOLDFAST_STATE_DIR": str(self.root / "state"),
        }

    def find(self, name: str) -> Stage:
        for one in self.stages.values():
            if name in (one.id, one.name):
                return one
        raise NotFoundError(Reason.SESSION_NOT_FOUND, f"there is no session {name}")

    async def open(self, name: str, *command: str) -> Stage:
        """Add a session."""
        stage = self.stages[name] = Stage(name, self.root)
        await stage.open(*command)
        return stage

    async def records(self) -> list[dict[str, Any]]:
        """Return what the audit log holds by now."""
        await self._log.flush()
        return records(self._log.directory)

    async def __aenter__(self) -> Self:
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        await self._log.open()
        gate = Gate(Config, self._log, SystemClock())
        self._server = grpc.aio.server(
            interceptors=[Door(gate, _resolve, principal="uid:1")]
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(_Admin(), self._server)
        self._server.add_generic_rpc_handlers((_sessions(self),))
        old = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
        finally:
            os.umask(old)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Go away as a daemon that is killed does."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for stage in self.stages.values():
            await stage.close()
        await self._log.close()
