"""The house keeps its shape: arrows go down only, modules stay small."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DAEMON = ROOT / "daemon" / "holdfast_daemon"
SHIM = ROOT / "shim" / "holdfast_shim"

# Floors, the highest first; a module may import its own floor and those below.
FLOORS = [
    {"__main__", "app"},
    {"rpc", "service"},
    {"waiting"},
    {"session"},
    {"exec", "forward", "transfer", "file", "fleet", "doctor"},
    {"policy", "audit", "event", "output", "kept"},
    {"connection", "hosts"},
    {
        "errors", "ids", "limits", "clock", "secrets", "paths", "config", "schema",
        "config_file", "toml_lines", "streams", "instance", "hold", "logs",
        "failpoint", "leaving", "shape", "suspects", "unless",
    },
]  # fmt: skip
# The same within the largest room; what has no room there stands above them all.
TRANSFER_FLOORS = [{"plain"}, {"shell", "sync"}, {"here"}, {"means"}, {"tree"}]
SANS_IO = [
    "shape.py",
    "exec/preamble.py",
    "exec/request.py",
    "exec/claim.py",
    "exec/ledger.py",
    "exec/quota.py",
    "exec/sudo.py",
    "exec/wording.py",
    "connection/shell.py",
    "output/charset.py",
    "output/text.py",
    "output/escape.py",
    "output/line.py",
    "output/rows.py",
    "output/window.py",
    "output/backlog.py",
    "output/sequence.py",
    "output/grid.py",
    "output/answers.py",
    "output/screen.py",
    "output/redraw.py",
    "output/flood.py",
    "output/pattern.py",
    "output/until.py",
    "output/cast.py",
    "output/typed.py",
    "kept/script.py",
    "kept/standing.py",
    "kept/reader.py",
    "kept/wrapper.py",
    "forward/socks.py",
    "forward/wish.py",
    "audit/record.py",
    "policy/entry.py",
    "policy/rules.py",
    "connection/question.py",
    "connection/state.py",
    "connection/history.py",
    "connection/room.py",
    "connection/wake.py",
    "connection/demand.py",
    "connection/standby.py",
    "hosts/target.py",
    "session/frame.py",
    "session/trigger.py",
    "waiting/thing.py",
    "waiting/sight.py",
    "transfer/tree/compare.py",
    "transfer/sync/guard.py",
    "transfer/sync/itemize.py",
    "transfer/sync/outcome.py",
    "transfer/sync/past.py",
    "transfer/tree/draft.py",
    "transfer/tree/pattern.py",
    "transfer/tree/plan.py",
    "transfer/means/record.py",
    "transfer/means/tally.py",
    "transfer/tree/tar.py",
    "transfer/tree/thin.py",
    "transfer/shell/folders.py",
    "transfer/shell/moving.py",
    "transfer/shell/words.py",
    "transfer/sync/rsync.py",
    "file/content.py",
    "file/dialect.py",
    "file/editing.py",
    "file/fault.py",
    "file/finding.py",
    "file/globs.py",
    "file/listing.py",
    "file/nearest.py",
    "file/reading.py",
    "file/script.py",
    "file/searching.py",
    "file/sensitive.py",
    "file/writing.py",
]
MAX_LINES = 450
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}


def modules(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if "_pb2" not in p.name]


def imports(path: Path) -> Iterator[str]:
    """Yield every module that `path` imports, for types only or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if name in rooms:
            return number
    raise AssertionError(f"{name} stands on no floor: give it one in FLOORS")


def room(path: Path) -> str:
    return path.relative_to(DAEMON).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(DAEMON), ids=str)
def test_daemon_imports_go_down_only(path: Path) -> None:
    if path == DAEMON / "__init__.py":
        return
    own = floor(room(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "holdfast_daemon" or len(parts) == 1:
            continue
        other = parts[1]
        # app wires everything; the notify protocol is spoken by app alone
        assert own <= floor(other), f"{path.name} imports upwards: {name}"


@pytest.mark.parametrize("path", modules(DAEMON / "transfer"), ids=str)
def test_transfer_imports_go_down_only(path: Path) -> None:
    where = path.relative_to(DAEMON / "transfer").parts[0]
    own = _transfer_floor(where)
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] == ["holdfast_daemon", "transfer"] and len(parts) > 2:
            assert own <= _transfer_floor(parts[2]), f"{path} imports upwards: {name}"
            if own >= 0 and own == _transfer_floor(parts[2]):
                assert parts[2] == where, f"{path} imports its neighbour: {name}"


def _transfer_floor(name: str) -> int:
    found = [n for n, rooms in enumerate(TRANSFER_FLOORS) if name in rooms]
    return found[0] if found else -1


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Types count too: what only a checker follows is still what a reader must."""
    names = {
        ".".join(p.relative_to(DAEMON.parent).with_suffix("").parts): p
        for p in modules(DAEMON)
    }
    arrows = {name: {i for i in imports(p) if i in names} for name, p in names.items()}
    while leaves := [name for name, targets in arrows.items() if not targets]:
        for leaf in leaves:
            del arrows[leaf]
        for targets in arrows.values():
            targets.difference_update(leaves)
    assert not arrows, f"in or above a circle: {sorted(arrows)}"


@pytest.mark.parametrize("path", modules(DAEMON), ids=str)
def test_only_the_right_rooms_know_foreign_libraries(path: Path) -> None:
    where = room(path)
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in {"mcp", "holdfast_shim"}, f"{path.name} imports {name}"
        if top == "asyncssh":
            assert where in {"connection", "hosts"}, f"{path.name} imports asyncssh"
        if top in {"google", "grpc"} or name.startswith("holdfast."):
            assert where in {"rpc", "app"}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(SHIM), ids=str)
def test_shim_knows_neither_daemon_nor_ssh(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top != "holdfast_daemon", f"{path.name} imports {name}"
        if top == "asyncssh":
            pytest.fail(f"{path.name} imports asyncssh")
        if top == "mcp":
            assert path.name == "http.py", f"{path.name} imports mcp"


@pytest.mark.parametrize("name", SANS_IO)
def test_sans_io_modules_do_no_io(name: str) -> None:
    for found in imports(DAEMON / name):
        assert found.split(".")[0] not in {"asyncio", "asyncssh", "socket", "os"}, found


@pytest.mark.parametrize("path", modules(DAEMON) + modules(SHIM), ids=str)
def test_modules_stay_small_and_well_named(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{path} has {lines} lines"
    assert path.stem not in FORBIDDEN_NAMES


def test_top_folders_are_no_packages() -> None:
    """Else `import daemon` and `import packaging` would no longer be other people's."""
    for folder in ("proto", "daemon", "shim", "tests", "packaging"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_every_limit_is_kept_by_something() -> None:
    """One that people may set, and nothing reads, is a promise that nobody keeps."""
    used = set[str]()
    for path in modules(DAEMON):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    assert {field.name for field in dataclasses.fields(Limits)} <= used
