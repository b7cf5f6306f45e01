"""DoctorService: what the checks found, for whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import doctor_pb2, doctor_pb2_grpc
from holdfast_daemon.doctor.finding import Verdict
from holdfast_daemon.errors import InputError
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc.aio

    from holdfast_daemon.doctor.doctor import Doctor
    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.secrets import Redactor

    type_context = grpc.aio.ServicerContext[Any, Any]

_VERDICTS = {
    Verdict.OK: doctor_pb2.VERDICT_OK,
    Verdict.WARN: doctor_pb2.VERDICT_WARN,
    Verdict.FAIL: doctor_pb2.VERDICT_FAIL,
    Verdict.SKIP: doctor_pb2.VERDICT_SKIP,
}


class DoctorServicer(doctor_pb2_grpc.DoctorServiceServicer):
    """Thin: has the doctor look, and converts."""

    def __init__(self, doctor: Doctor, redactor: Redactor) -> None:
        """Speak for `doctor`; what it tells is cleaned of secrets like all texts."""
        self._doctor = doctor
        self._redactor = redactor

    async def CheckDaemon(
        self, request: doctor_pb2.CheckDaemonRequest, context: type_context
    ) -> doctor_pb2.CheckDaemonResponse:
        """Look at the daemon and its surroundings."""
        found = await self._doctor.daemon(current().caller.defaults.auth_sock)
        return doctor_pb2.CheckDaemonResponse(findings=self._told(found))

    async def CheckHost(
        self, request: doctor_pb2.CheckHostRequest, context: type_context
    ) -> doctor_pb2.CheckHostResponse:
        """Look at one host and the way to it."""
        host = current().host
        if host is None:
            raise InputError("target", "target names no host")
        found = await self._doctor.host(host)
        return doctor_pb2.CheckHostResponse(findings=self._told(found))

    def _told(self, findings: Iterable[Finding]) -> list[doctor_pb2.Finding]:
        clean = self._redactor.clean
        return [
            doctor_pb2.Finding(
                check=one.check,
                verdict=_VERDICTS[one.verdict],
                told=clean(one.told),
                hint=clean(one.hint),
                details={name: clean(value) for name, value in one.details.items()},
            )
            for one in findings
        ]
