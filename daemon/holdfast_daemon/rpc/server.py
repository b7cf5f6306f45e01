"""The gRPC server on its Unix socket: options, servicers, bind, graceful stop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc.aio

from holdfast.v1 import (
    admin_pb2_grpc,
    doctor_pb2_grpc,
    exec_pb2_grpc,
    file_pb2_grpc,
    forward_pb2_grpc,
    host_pb2_grpc,
    login_pb2_grpc,
    session_pb2_grpc,
    transfer_pb2_grpc,
    trust_pb2_grpc,
)

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.limits import Limits
    from holdfast_daemon.rpc.admin import AdminServicer
    from holdfast_daemon.rpc.doctor import DoctorServicer
    from holdfast_daemon.rpc.door import Door
    from holdfast_daemon.rpc.exec import ExecServicer
    from holdfast_daemon.rpc.file import FileServicer
    from holdfast_daemon.rpc.forward import ForwardServicer
    from holdfast_daemon.rpc.host import HostServicer
    from holdfast_daemon.rpc.login import LoginServicer
    from holdfast_daemon.rpc.session import SessionServicer
    from holdfast_daemon.rpc.transfer import TransferServicer
    from holdfast_daemon.rpc.trust import TrustServicer

# What gRPC binds is 0777 less the umask, so this gives 0600; it must hold before the
# socket exists.
_SOCKET_UMASK = 0o177
# So long calls that are cut off have to say so.
_TELLING_SECONDS = 0.5


class Listener:
    """One gRPC server on one path. A lost path is served again by a new listener."""

    def __init__(
        self,
        door: Door,
        limits: Limits,
        *,
        admin: AdminServicer,
        doctor: DoctorServicer,
        exec_: ExecServicer,
        forward: ForwardServicer,
        file: FileServicer,
        host: HostServicer,
        login: LoginServicer,
        session: SessionServicer,
        transfer: TransferServicer,
        trust: TrustServicer,
    ) -> None:
        """Build the server; every handler goes through `door`."""
        self._door = door
        self._server = grpc.aio.server(
            interceptors=[door],
            options=[
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", limits.message_bytes),
                ("grpc.max_metadata_size", limits.metadata_bytes),
                ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
                # Without these two, gRPC answers CANCELLED at random above ~1,000
                # queued calls.
                ("grpc.server.max_pending_requests", limits.pending_calls),
                ("grpc.server.max_pending_requests_hard_limit", limits.pending_calls),
                ("grpc.so_reuseport", 0),
            ],
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        doctor_pb2_grpc.add_DoctorServiceServicer_to_server(doctor, self._server)
        exec_pb2_grpc.add_ExecServiceServicer_to_server(exec_, self._server)
        file_pb2_grpc.add_FileServiceServicer_to_server(file, self._server)
        forward_pb2_grpc.add_ForwardServiceServicer_to_server(forward, self._server)
        host_pb2_grpc.add_HostServiceServicer_to_server(host, self._server)
        login_pb2_grpc.add_LoginServiceServicer_to_server(login, self._server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(session, self._server)
        transfer_pb2_grpc.add_TransferServiceServicer_to_server(transfer, self._server)
        trust_pb2_grpc.add_TrustServiceServicer_to_server(trust, self._server)

    async def start(self, path: Path) -> None:
        """Bind `path` with mode 0600 and serve.

        Raises:
            OSError: The path can't be bound.
        """
        before = os.umask(_SOCKET_UMASK)
        try:
            self._server.add_insecure_port(f"unix:{quote(os.fsencode(path))}")
        except RuntimeError as error:
            raise OSError(f"the socket {path} can't be bound: {error}") from error
        finally:
            os.umask(before)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones `grace` seconds, cut them off, end."""
        ending = asyncio.create_task(self._server.stop(grace + _TELLING_SECONDS))
        await asyncio.wait({ending}, timeout=grace)
        # gRPC would end them without a word
        self._door.close()
        await ending
