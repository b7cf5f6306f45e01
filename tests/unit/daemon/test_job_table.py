"""What a job becomes when running it fails in a way nobody foresaw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast_daemon.clock import SystemClock
from holdfast_daemon.errors import DaemonError, Ran, Reason
from holdfast_daemon.exec import table as table_module
from holdfast_daemon.exec.archive import Archive
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.exec.table import JobTable
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.limits import Limits
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import Action, Operation

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.exec.job import Job


class Slip:
    """A ticket that only carries its caller."""

    operation = Operation("ExecService/Run", Action.EXECUTE, "", Caller("uid:0"))

    def add(self, **_: Any) -> None:
        """Take nothing."""

    def detach(self) -> None:
        """Take nothing."""

    async def finish(self, *_: Any, **__: Any) -> None:
        """Take nothing."""


@pytest.mark.parametrize(
    ("stage", "fault", "ran"),
    [
        ("", RuntimeError("bug"), Ran.NO),
        ("asked", RuntimeError("bug"), Ran.UNKNOWN),
        ("opened", RuntimeError("bug"), Ran.UNKNOWN),
        ("opened", DaemonError(Reason.UNSUPPORTED, "late"), Ran.UNKNOWN),
    ],
)
async def test_a_fault_after_the_command_was_sent_never_says_that_nothing_ran(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    fault: Exception,
    ran: Ran,
) -> None:
    """EX-20, NF-17: a caller that trusts `ran: no` runs it again.

    On BUGGY code: the incident said `ran: no` and gave the request_id free.
    """

    async def run(job: Job, _: object) -> None:
        job.asked = bool(stage)
        if stage == "opened":
            job.opened.set_result(None)
        raise fault

    monkeypatch.setattr(table_module, "run", run)
    archive = Archive(tmp_path, Limits(), SystemClock())
    table = JobTable(archive, cast("Any", None), Limits(), SystemClock())
    host = Host(name="box", hostname="127.0.0.1", user="me")
    request = ExecRequest(command="true")
    job = table.start(request, host, cast("Any", Slip()), "shim-1")
    await job.ended.wait()
    assert job.error is not None
    assert job.error.ran is ran
    again = table.start(request, host, cast("Any", Slip()), "shim-1")
    assert (again is job) is (ran is not Ran.NO)
    await again.ended.wait()
    await table.close()
