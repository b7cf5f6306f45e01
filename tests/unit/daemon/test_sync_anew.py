"""Where a sync may be begun anew, and how it knows its own unfinished files."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.connection.sftp_tree import ASIDE
from holdfast_daemon.errors import LimitError, Reason, StateError
from holdfast_daemon.limits import Limits
from holdfast_daemon.transfer.sync import anew
from holdfast_daemon.transfer.tree.draft import drafted, is_draft, token

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits(sync_idle_seconds=0.2)


async def test_a_process_that_inherits_the_lock_keeps_others_out(
    tmp_path: Path,
) -> None:
    """FI-02: as rsync does that outlived its daemon; with its end it is free."""
    async with anew.alone(tmp_path, LIMITS, anew=False) as lock:
        assert lock is not None
        child = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(lock,),
        )
    with child:
        with pytest.raises(LimitError) as found:
            async with anew.alone(tmp_path, LIMITS, anew=True):
                pass
        assert found.value.reason is Reason.IN_USE
        assert child.stdin is not None
        child.stdin.close()
    async with anew.alone(tmp_path, LIMITS, anew=True) as lock:
        assert lock is not None


async def test_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FI-02: a sync can be begun there, but not anew: nobody knows who is there."""

    def none(file: int, operation: int) -> None:
        del file, operation
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    async with anew.alone(tmp_path, LIMITS, anew=False) as lock:
        assert lock is None
    with pytest.raises(StateError) as found:
        async with anew.alone(tmp_path, LIMITS, anew=True):
            pass
    assert found.value.reason is Reason.UNSUPPORTED


async def test_a_record_that_is_gone(tmp_path: Path) -> None:
    """FI-02: the same where there is no place for a lock."""
    async with anew.alone(tmp_path / "none", LIMITS, anew=False) as lock:
        assert lock is None
    with pytest.raises(StateError):
        async with anew.alone(tmp_path / "none", LIMITS, anew=True):
            pass


@pytest.mark.parametrize("path", [b"f", b"a/b/f", b".f", b"x" * 255, b"a\nb", b"\xff"])
def test_only_own_unfinished_files_are_known(path: bytes) -> None:
    """FI-10: whatever the name is, and no other sync's file is taken for one."""
    own, other = token(), token()
    part = drafted(path, own)
    assert len(part) <= 255
    assert b"/" not in part
    assert is_draft(part, own)
    assert is_draft(b"above/" + part, own)
    assert is_draft(part + ASIDE, own)
    assert not is_draft(part, other)
    assert not is_draft(path, own)
    assert not is_draft(part + b"x", own)
    assert not is_draft(part.lstrip(b"."), own)
