"""Looking at processes from outside: bounded waits, descriptors, records, calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.v1 import exec_pb2, exec_pb2_grpc
from holdfast_shim.client import DaemonClient
from holdfast_shim.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from fakes.world import World

    _T = TypeVar("_T")

PATIENCE = 40.0
_LOOK_SECONDS = 0.02


def until(condition: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Return the first true answer of `condition`; other processes send no event.

    A file or process that goes in the middle of a look is looked at anew.
    """
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = condition()
            if found:
                return found
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what}"
        time.sleep(_LOOK_SECONDS)


async def soon(condition: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Do as `until`, without holding the test's loop."""
    return await asyncio.to_thread(until, condition, what, seconds)


async def moment() -> None:
    """Wait before another look: what is looked at needs the processor, too."""
    await asyncio.sleep(_LOOK_SECONDS)


def alive(pid: int) -> bool:
    """Return whether process `pid` is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def descriptors(pid: int) -> int:
    """Return how many files process `pid` has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Return a process's resident size in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


def contents(directory: Path) -> dict[Path, bytes]:
    """Return the files below `directory` and their text; some may go meanwhile."""
    found: dict[Path, bytes] = {}
    for at, _, names in os.walk(directory):
        for path in (Path(at, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[path] = path.read_bytes()
    return found


def weight(directory: Path) -> int:
    """Return the bytes of a directory's files, hidden ones included.

    Files come and go meanwhile; a directory that goes ends the look.
    """
    found = 0
    with contextlib.suppress(FileNotFoundError):
        for path in directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found += path.stat().st_size if path.is_file() else 0
    return found


def started_by(text: str) -> list[int]:
    """Return the processes whose command line contains `text`."""
    found: list[int] = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if text.encode() in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
    return found


def in_front(program: Path) -> bool:
    """Say whether what its terminal sends a key's signal to is `program`."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            # its group, and the one in the foreground: proc(5)
            if words[0] == os.fsencode(program) and fields[2] == fields[5]:
                return True
    return False


def told_of(directory: Path) -> dict[int, str]:
    """Return the processes whose environment names `directory`: their command lines."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError, PermissionError
        ):
            if os.fsencode(directory) in path.read_bytes():
                found[int(path.parent.name)] = path.with_name("cmdline").read_text()
    return found


def daemons_of(world: World) -> list[int]:
    """Return the daemon processes that serve, or are about to serve, `world`."""
    return [
        pid
        for pid in started_by("holdfast")
        if alive(pid) and (world.started(pid) or _serves(Path(f"/proc/{pid}"), world))
    ]


def _serves(process: Path, world: World) -> bool:
    try:
        words = (process / "cmdline").read_bytes()
        known = words + (process / "environ").read_bytes()
    except OSError:
        return False
    daemon = b"holdfastd" in words or b"holdfast_daemon" in words
    return daemon and str(world.root).encode() in known


def records(world: World) -> list[dict[str, Any]]:
    """Return the audit log as it stands on the disk, oldest first."""
    text = (world.state / "audit" / "audit.jsonl").read_text()
    # the last line may just be written
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def first_answer(
    words: Sequence[str | Path], line: str, env: Mapping[str, str]
) -> tuple[str, int]:
    """Send one line to an MCP server; return its answer and its exit code after EOF."""
    with subprocess.Popen(
        words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        process.stdin.close()
        return answer, process.wait(PATIENCE)


@contextlib.asynccontextmanager
async def connected(
    world: World, name: str = "watch", env: Mapping[str, str] | None = None
) -> AsyncGenerator[DaemonClient]:
    """Yield a client of `world`'s daemon that speaks gRPC itself."""
    context = Settings.read(dict(env or {})).context(name, "1")
    async with DaemonClient(world.socket, context, autostart=False) as client:
        await client.connect()
        yield client


async def run(client: DaemonClient, command: str, **fields: Any) -> exec_pb2.ExecResult:
    """Run `command` on the host `box` and return the call's result."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    request = exec_pb2.RunRequest(target="box", command=command, **fields)
    result: exec_pb2.ExecResult | None = None
    async for frame in stub.Run(request, metadata=client.metadata("test")):
        if frame.HasField("result"):
            result = frame.result
    assert result is not None
    return result


async def wait_for_output(client: DaemonClient, job_id: str, text: str) -> None:
    """Return when the job has printed `text`."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    request = exec_pb2.FollowJobRequest(job_id=job_id)
    seen = ""
    async with asyncio.timeout(PATIENCE):
        async for frame in stub.FollowJob(request, metadata=client.metadata()):
            seen += frame.output.data.decode()
            if text in seen:
                return
    raise AssertionError(f"job {job_id} ended without {text!r}: {seen}")
