"""A session as text: a line that says how it stands, then what its terminal showed."""

from __future__ import annotations

from typing import TypeAlias

from holdfast.v1 import session_pb2

Snapshot: TypeAlias = (
    session_pb2.OpenSessionResponse
    | session_pb2.SessionWriteResult
    | session_pb2.SessionReadResult
    | session_pb2.CloseSessionResponse
)
SNAPSHOTS = (
    session_pb2.OpenSessionResponse,
    session_pb2.SessionWriteResult,
    session_pb2.SessionReadResult,
    session_pb2.CloseSessionResponse,
)

_DURABILITY = {
    session_pb2.DURABILITY_HELD: "held: lives as long as the daemon",
    session_pb2.DURABILITY_REMOTE: "kept on the host",
}


def text(message: Snapshot) -> str:
    """Return what an agent needs to know of it."""
    if isinstance(message, session_pb2.CloseSessionResponse) and not message.closed:
        return f"there is no session {message.session_id}"
    parts = [" · ".join(filter(None, _header(message)))]
    parts += [f"note: {note}" for note in filter(None, (message.note, _seen(message)))]
    if message.output.strip():
        parts.append(message.output.removesuffix("\n"))
    return "\n".join(parts)


def _seen(message: Snapshot) -> str:
    """Return how a person looks on, where somebody asked for that."""
    observer = message.observer
    if observer.warning:
        return f"{observer.warning}: {observer.command}"
    shown = observer.mode == session_pb2.OBSERVER_MODE_TMUX
    if not shown or not isinstance(message, session_pb2.OpenSessionResponse):
        return ""
    return f"a person sees it in tmux by: {observer.command}"


def _header(message: Snapshot) -> list[str]:
    named = f" {message.session_name}" if message.session_name else ""
    header = [f"session {message.session_id}{named}", _state(message), message.target]
    if isinstance(message, session_pb2.OpenSessionResponse):
        how = "new" if message.created else "was open already"
        if message.matched_by == "restored":
            how = "new, in the directory of the one that was lost"
        header += [how, _DURABILITY.get(message.durability, "")]
    if message.HasField("holder"):
        header.append(f"{message.holder.client} writes since {message.holder.since}")
    if isinstance(message, session_pb2.SessionReadResult):
        if message.HasField("matched"):
            header.append("matched" if message.matched else "not matched")
        header.append(f"next offset {message.next_offset}")
        if message.encoding == "base64":
            header.append("base64: bytes that are no text")
    if message.pending_output_chars:
        header.append(
            f"{message.pending_output_chars:,} more to read: ssh_session_read"
            f" session={message.session_id}"
        )
    return header


def _state(message: Snapshot) -> str:
    if message.running:
        return "running"
    how = message.exit_reason or "ended"
    if message.HasField("exit_code"):
        return f"{how}, exit {message.exit_code}"
    if message.HasField("signal"):
        return f"{how}, signal {message.signal}"
    return how
