"""What CI makes of a test that did not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# The rule alone, as the rest is for what is below tests.
RULE = f"""
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("rules", {str(TESTS / "conftest.py")!r})
rules = module_from_spec(spec)
spec.loader.exec_module(rules)
pytest_runtest_makereport = rules.pytest_runtest_makereport
"""
SKIPPED = """
import pytest

def test_what_needs_a_server():
    pytest.skip("no sshd here")
"""


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_nothing_passes_for_want_of_an_sshd(tmp_path: Path, ci: str, code: int) -> None:
    """PK-09: the suite runs against a real sshd, or it fails."""
    file = tmp_path / "test_one.py"
    file.write_text(SKIPPED)
    (tmp_path / "conftest.py").write_text(RULE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", str(file)],
        env={**os.environ, "CI": ci, "PYTHONPATH": str(TESTS)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "no sshd here" in done.stdout or not ci
