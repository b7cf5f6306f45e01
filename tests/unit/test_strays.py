"""That a test's world ends with nobody in it is found out, and put right."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fakes import strays


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_who_is_left_in_a_directory_is_named_and_ended(short_path: Path) -> None:
    environment = {**os.environ, "PLACE": f"{short_path}/socket"}
    strays.none_left(short_path, 0)
    with subprocess.Popen(["sleep", "60"], env=environment) as left:
        try:
            assert list(strays.naming(short_path)) == [left.pid]
            assert not strays.naming(short_path / "socket")
            with pytest.raises(AssertionError, match="sleep 60"):
                strays.none_left(short_path, 0)
            assert left.wait(10) == -signal.SIGKILL
        finally:
            left.kill()
    strays.none_left(short_path, 0)
