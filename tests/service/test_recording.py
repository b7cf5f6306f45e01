"""The recording of the demo that the documentation shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyte

from fakes.world import program

ROOT = Path(__file__).resolve().parents[2]
CAST = ROOT / "docs" / "demo.cast"
# What it is about, in this order.
STORY = (
    "$ holdfast demo",
    "1. A throw-away SSH server is listening on 127.0.0.1:",
    "4. It starts something long and waits two seconds for it:",
    "running",
    "step 1 of a long build",
    "5. The editor crashes: SIGKILL to its shim",
    "still runs",
    "exit 0",
    "step 12 of a long build",
    "Every line is there, and the exit code",
    "claude mcp add --scope user holdfast -- /home/you/.local/bin/holdfast-mcp",
)


def told(text: str) -> list[int]:
    """Return where each part of the story stands, the one after the other."""
    places: list[int] = []
    for part in STORY:
        start = places[-1] if places else 0
        assert part in text[start:], part
        places.append(text.index(part, start))
    return places


def test_the_recording_plays_and_shows_the_story() -> None:
    """Each line is one of asciicast 3, and a terminal of its size shows the end."""
    header, *events = map(json.loads, CAST.read_text("utf-8").splitlines())
    assert header["version"] == 3
    size = header["term"]["cols"], header["term"]["rows"]
    screen = pyte.HistoryScreen(*size, history=1000)
    terminal = pyte.Stream(screen)
    text = ""
    for pause, code, data in events[:-1]:
        assert 0 <= pause < 20
        assert code == "o"
        terminal.feed(data)
        text += data
    assert events[-1][1:] == ["x", "0"]
    assert 5 < sum(pause for pause, _, _ in events) < 60
    told(text)
    assert "holdfast mcp-config CLIENT" in "\n".join(screen.display)


def test_our_own_player_plays_it() -> None:
    done = subprocess.run(
        [program("holdfast"), "replay", str(CAST), "--speed", "1000"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    told(done.stdout)


def test_documents_lead_to_it() -> None:
    assert "](docs/demo.cast)" in (ROOT / "README.md").read_text()
    assert "](demo.cast)" in (ROOT / "docs" / "index.md").read_text()


def test_it_tells_nothing_of_the_machine_it_was_made_on() -> None:
    text = CAST.read_text("utf-8")
    for private in (str(Path(sys.executable).parent), str(ROOT), str(Path.home())):
        assert private not in text
