"""The demo, recorded anew: the recording that is shown is still what happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def story(path: Path) -> list[str]:
    """Return what a recording shows, without what differs from run to run."""
    _, *events = map(json.loads, path.read_text("utf-8").splitlines())
    text = "".join(data for _, code, data in events if code == "o")
    text = re.sub(r"\bj[0-9a-z]{8}\b", "JOB", text)
    # how far the build had come after two seconds is the machine's affair
    lines = [line for line in text.splitlines() if " step " not in line]
    return [re.sub(r"[0-9]+(\.[0-9]+)*", "N", line) for line in lines]


def test_the_recording_shows_what_the_demo_does_today(tmp_path: Path) -> None:
    """`make recording` makes it anew where this fails."""
    made = tmp_path / "demo.cast"
    subprocess.run(
        [sys.executable, ROOT / "packaging" / "recording.py", made],
        check=True,
        timeout=90,
    )
    shown = story(ROOT / "docs" / "demo.cast")
    assert story(made) == shown
    assert len(shown) > 15
