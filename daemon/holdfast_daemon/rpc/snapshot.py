"""How a session stands, as every answer about it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import session_pb2
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.session.observer import Mode
from holdfast_daemon.session.shell import Durability

if TYPE_CHECKING:
    from holdfast_daemon.session.reading import Page
    from holdfast_daemon.session.session import Session

_DURABILITY = {
    Durability.AUTO: session_pb2.DURABILITY_AUTO,
    Durability.HELD: session_pb2.DURABILITY_HELD,
    Durability.REMOTE: session_pb2.DURABILITY_REMOTE,
}
_MODES = {
    Mode.NONE: session_pb2.OBSERVER_MODE_NONE,
    Mode.TMUX: session_pb2.OBSERVER_MODE_TMUX,
}


def snapshot(session: Session, page: Page | None = None) -> dict[str, Any]:
    """Return the fields that all messages about one session share."""
    end, view, held = session.end, session.view, session.holder
    found: dict[str, Any] = {
        "session_id": session.id,
        "session_name": session.name,
        "target": session.address,
        "running": session.running,
        "uptime_seconds": round(session.uptime_seconds),
        "idle_seconds": round(session.idle_seconds),
        "durability": _DURABILITY[session.about.durability],
        "clients": session.clients,
        "transcript_path": str(session.recording.transcript_path),
        "transcript_size_bytes": session.recording.transcript_size_bytes,
        "observer": session_pb2.Observer(
            mode=_MODES[view.mode], command=view.command, warning=view.warning or None
        ),
        "note": _note(session, page) or None,
    }
    if end is not None:
        found |= {
            "exit_code": end.exit_code,
            "signal": end.signal,
            "exit_reason": end.over.value,
        }
    if held is not None:
        since = rfc3339(held.since)
        found["holder"] = session_pb2.Holder(client=held.client, since=since)
    if page is not None:
        # What was read of a daemon that was killed may not be back from its host yet.
        left = max(0, session.spool.end - page.next_offset)
        found |= {
            "output": page.text,
            "truncated": left > 0 or page.skipped > 0,
            "pending_output_chars": left,
        }
    return found


def _note(session: Session, page: Page | None) -> str:
    notes = [session.spool.fault]
    if page is not None and page.skipped:
        notes.append(
            f"{page.skipped:,} bytes of output were discarded:"
            f" what is kept begins at offset {session.spool.earliest}"
        )
    if session.skipped:
        notes.append(
            f"its host kept no more of it: {session.skipped:,} bytes of output are lost"
        )
    if session.away_because:
        notes.append(f"not attached to its shell now: {session.away_because}")
    if session.end is not None and session.end.untold:
        notes.append(
            f"its host is told that it is over once it is back: {session.end.untold}"
        )
    return "; ".join(filter(None, notes))
