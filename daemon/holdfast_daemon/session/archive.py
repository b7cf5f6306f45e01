"""Sessions on disk: a directory each, with `session.json`, output and recording."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast_daemon import failpoint, shape
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.ids import SessionId
from holdfast_daemon.output.display import Display
from holdfast_daemon.output.recording import Plan as Tape
from holdfast_daemon.output.recording import Recording
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.paths import private_dir
from holdfast_daemon.session.about import About
from holdfast_daemon.session.session import Session
from holdfast_daemon.session.shell import Durability, Over, Plan, ShellEnd

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor
    from holdfast_daemon.session.observer import Observers

_log = logging.getLogger(__name__)
_RECORD = "session.json"
# Enough of the output to draw a screen from.
_SCREEN_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
# So much is recorded late; more, as after a full disk, would hold up our start.
_UNRECORDED_BYTES = 1024 * 1024
# Who reads along reads often; what is not written by then is read twice.
_NOTE_SECONDS = 0.3
_PARTED = "the daemon ended while it was open"


class Archive:
    """The directory that holds every session's output, recording and record."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        clock: Clock,
        *,
        redactor: Redactor,
        observers: Observers,
    ) -> None:
        """Keep sessions below `directory`, which is private to the user."""
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._observers = observers
        self._writing = asyncio.Lock()
        self._noted: dict[str, asyncio.Task[None]] = {}

    async def make(self, about: About, host_title: str) -> Session:
        """Return a new session without a shell; its directory is made."""
        place = self._directory / about.id
        await asyncio.to_thread(private_dir, place)
        limits = self._limits
        spool = Spool(
            place / "output",
            limit_bytes=limits.spool_bytes,
            segment_bytes=limits.segment_bytes,
            backlog_bytes=limits.backlog_bytes,
            flush_seconds=limits.flush_seconds,
        )
        session = self._session(about, spool, host_title)
        await session.recording.begin()
        return session

    def _session(self, about: About, spool: Spool, title: str) -> Session:
        plan = about.plan
        tape = Tape(
            directory=self._directory / about.id,
            title=title,
            recording_bytes=self._limits.recording_bytes,
            transcript_bytes=self._limits.transcript_bytes,
        )
        session = Session(
            about,
            spool,
            Display(plan.cols, plan.rows),
            Recording(tape, self._redactor, cols=plan.cols, rows=plan.rows),
            self._limits,
            self._clock,
            self._observers.plain(about.id),
        )
        session.readers.on_read = lambda: self._note(session)
        return session

    def _note(self, session: Session) -> None:
        """Have the record written soon: somebody has read on."""
        if session.id not in self._noted:
            task = asyncio.create_task(self._keep_soon(session))
            self._noted[session.id] = task

    async def _keep_soon(self, session: Session) -> None:
        await asyncio.sleep(_NOTE_SECONDS)
        del self._noted[session.id]
        if (self._directory / session.id).is_dir():
            await self.keep(session)

    async def keep(self, session: Session) -> None:
        """Write the record; a failure is told, and costs only what outlives us."""
        try:
            async with self._writing:
                await asyncio.to_thread(
                    _write, self._directory / session.id, _record(session)
                )
        except OSError as error:
            _log.warning("session %s is not on disk: %s", session.id, error)

    async def close(self) -> None:
        """Wait until what was noted is written."""
        await asyncio.gather(*self._noted.values())

    async def remove(self, session: Session) -> None:
        """Delete a session's output and recording."""
        await session.spool.remove()
        await asyncio.to_thread(
            shutil.rmtree, self._directory / session.id, ignore_errors=True
        )

    async def recover(self) -> list[Session]:
        """Return the sessions of earlier runs, oldest first."""
        found: list[Session] = []
        keep = self._limits.session_keep_seconds
        for path, row in await asyncio.to_thread(_read_all, self._directory, keep):
            try:
                found.append(await self._revive(path, row))
            except (OSError, TypeError, ValueError) as error:
                _log.warning("session record %s is damaged: %s", path, error)
        return sorted(found, key=lambda session: session.about.opened)

    async def _revive(self, path: Path, row: dict[str, Any]) -> Session:
        _SHAPE("it", row)
        if row["id"] != path.name:
            raise ValueError("it is another's")
        limits = self._limits
        spool = await asyncio.to_thread(
            Spool.recover,
            path / "output",
            limit_bytes=limits.spool_bytes,
            segment_bytes=limits.segment_bytes,
            backlog_bytes=limits.backlog_bytes,
        )
        opened = datetime.fromisoformat(row["opened"])
        age = max(0.0, (self._clock.now() - opened).total_seconds())
        about = About(
            id=SessionId(row["id"]),
            name=row["name"],
            target=row["target"],
            address=row["address"],
            client=row["client"],
            plan=Plan(**row["plan"]),
            durability=Durability(row["durability"]),
            opened=opened,
            begun=self._clock.monotonic() - age,
            idle_timeout=row["idle_timeout"],
            auto_close=row["auto_close"],
            asked_keys=row.get("asked_keys", ""),
        )
        session = self._session(about, spool, row["name"] or row["target"])
        session.cwd = row["cwd"]
        await _redraw(session)
        session.nonce, session.skipped = row["nonce"], row["skipped"]
        session.readers.restore(row.get("readers", {}))
        session.left = row.get("left", False)
        end = row["end"]
        if end is None and session.about.durability is not Durability.HELD:
            spool.reopen()
            await _go_on_recording(session)
            return session
        if end is None:
            session.end = ShellEnd(Over.CONNECTION_LOST, why=_PARTED)
            session.finished = self._clock.monotonic()
        else:
            code, signal = end["exit_code"], end["signal"]
            session.end = ShellEnd(Over(end["over"]), code, signal, end["why"])
            session.finished = about.begun + row["uptime"]
        session.over.set()
        await session.close()
        return session


async def _go_on_recording(session: Session) -> None:
    """Record what an earlier daemon kept and did not come to record.

    What it recorded and did not keep comes from the host again, and is recorded once.
    """
    recording, spool = session.recording, session.spool
    recorded = await recording.begin()
    if recorded is None:
        return
    offset = max(recorded, spool.end - _UNRECORDED_BYTES)
    if offset > recorded:
        recording.mark(f"{offset - recorded:,} bytes of output are not recorded")
    while offset < spool.end:
        found = await spool.read(offset, _PIECE_BYTES)
        if found.next_offset <= offset:
            break
        offset = found.next_offset
        recording.output(b"".join(piece.data for piece in found.pieces), offset)
        await recording.sync()
    session.recorded = recorded


async def _redraw(session: Session) -> None:
    """Show on its screen what it printed last; what programs asked then is answered."""
    display, spool = session.display, session.spool
    display.answer_to(None)
    found = await spool.read(max(0, spool.end - _SCREEN_BYTES), _SCREEN_BYTES)
    display.feed(b"".join(piece.data for piece in found.pieces))
    await display.picture()
    session.answer_programs()


_SHAPE = shape.fields(
    {
        "id": shape.text,
        "name": shape.text,
        "target": shape.text,
        "address": shape.text,
        "client": shape.text,
        "plan": shape.fields(
            {
                "shell": shape.text,
                "cwd": shape.name_text,
                "cols": shape.count,
                "rows": shape.count,
            },
            {},
        ),
        "durability": shape.text,
        "opened": shape.text,
        "idle_timeout": shape.amount,
        "auto_close": shape.flag,
        "cwd": shape.name_text,
        "nonce": shape.text,
        "skipped": shape.count,
        "uptime": shape.amount,
        "end": shape.maybe(
            shape.fields(
                {
                    "over": shape.text,
                    "exit_code": shape.maybe(shape.number),
                    "signal": shape.maybe(shape.text),
                    "why": shape.text,
                },
                {},
            )
        ),
    },
    {"left": shape.flag, "readers": shape.table(shape.count), "asked_keys": shape.text},
)


def _record(session: Session) -> dict[str, Any]:
    # not the environment, which may hold what nobody should read
    about, plan, end = session.about, session.about.plan, session.end
    if about.durability is Durability.REMOTE and session.shell is not None:
        # not all it printed is safe here: the next daemon has that, and its end, from
        # its host, and has that wiped only then
        end = None
    return {
        "id": about.id,
        "name": about.name,
        "target": about.target,
        "address": about.address,
        "client": about.client,
        "plan": {
            "shell": plan.shell,
            "cwd": plan.cwd,
            "cols": session.cols,
            "rows": session.rows,
        },
        "durability": about.durability.value,
        "opened": rfc3339(about.opened),
        "idle_timeout": about.idle_timeout,
        "auto_close": about.auto_close,
        "asked_keys": about.asked_keys,
        "cwd": session.cwd,
        "nonce": session.nonce,
        "skipped": session.skipped,
        "left": session.left,
        "readers": session.readers.record(),
        "uptime": session.uptime_seconds,
        "end": end
        and {
            "over": end.over.value,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "why": end.why,
        },
    }


def _write(directory: Path, row: dict[str, Any]) -> None:
    fresh = directory / (_RECORD + ".new")
    fresh.touch(mode=0o600)
    # as ASCII: not every byte of a directory's name is of a character
    fresh.write_text(json.dumps(row), encoding="ascii")
    failpoint.reach("session.record.written")
    fresh.replace(directory / _RECORD)


def _read_all(directory: Path, keep: float) -> list[tuple[Path, dict[str, Any]]]:
    """Read all records; a directory without one goes, with a torn one once it is old.

    What only can't be read now may be read by the next daemon.
    """
    rows: list[tuple[Path, dict[str, Any]]] = []
    if not directory.is_dir():
        return rows
    for path in directory.iterdir():
        try:
            row = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            shutil.rmtree(path, ignore_errors=True)
            continue
        except (OSError, ValueError) as error:
            _log.warning("session record in %s can't be read: %s", path, error)
            torn = isinstance(error, ValueError)
            if torn and time.time() - path.stat().st_mtime > keep:
                shutil.rmtree(path, ignore_errors=True)
            continue
        if isinstance(row, dict):
            rows.append((path, row))
    return rows
