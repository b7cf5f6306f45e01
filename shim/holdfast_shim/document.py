"""What file tools tell, as a model reads it: one line on how it stands, then it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.v1 import file_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

DOCUMENTS = (
    file_pb2.ReadFileResponse,
    file_pb2.ListDirectoryResponse,
    file_pb2.SearchFilesResponse,
    file_pb2.FindFilesResponse,
)


def text(message: Message) -> str:
    """Return what one of `DOCUMENTS` tells."""
    return _TEXTS[type(message)](message)


def _head(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def _read(message: file_pb2.ReadFileResponse) -> str:
    """A file's lines stand as they are, after the first line."""
    lines = f"lines {message.start_line}-{message.end_line} of {message.total_lines:,}"
    if message.encoding == "base64":
        lines = ""
    elif message.end_line < message.start_line:
        lines = f"{message.total_lines:,} lines"
    head = _head(
        message.path,
        f"{message.size_bytes:,} bytes",
        lines,
        message.encoding if message.encoding != "utf-8" else "",
        f"sha256 {message.sha256}" if message.sha256 else "",
        "cut" if message.truncated else "",
        message.note,
    )
    return f"{head}\n{message.content}"


def _list(message: file_pb2.ListDirectoryResponse) -> str:
    rows = [_entry(entry) for entry in message.entries]
    head = _head(
        message.path, _counted(len(rows), message.truncated, "entries"), message.note
    )
    return "\n".join([head, *rows])


def _entry(entry: file_pb2.DirectoryEntry) -> str:
    name = _name(entry.path) + {"directory": "/", "link": "@"}.get(entry.type, "")
    if not entry.HasField("mode"):
        return name
    told = f"{entry.mode} {entry.owner} {entry.size_bytes:>10} {entry.modified}"
    return f"{told} {name}"


def _search(message: file_pb2.SearchFilesResponse) -> str:
    rows = [_match(match) for match in message.matches]
    counted = _counted(len(rows), message.truncated, "matches")
    return "\n".join([_head(counted, message.note), *rows])


def _match(match: file_pb2.SearchMatch) -> str:
    name = _name(match.path)
    if match.HasField("count"):
        return f"{name}:{match.count}"
    if not match.HasField("text"):
        return name
    if "\n" in match.text:
        return f"{name}:{match.line}\n{match.text}"
    return f"{name}:{match.line}:{match.text}"


def _find(message: file_pb2.FindFilesResponse) -> str:
    counted = _counted(len(message.matches), message.truncated, "matches")
    return "\n".join(
        [_head(counted, message.note), *(_name(path) for path in message.matches)]
    )


def _counted(number: int, truncated: bool, what: str) -> str:
    return f"{number:,} {what}{', and more' if truncated else ''}"


def _name(path: str) -> str:
    """Return a name so that it stands on one line."""
    return path if path.isprintable() else repr(path)


_TEXTS: dict[type[Message], Callable[..., str]] = {
    file_pb2.ReadFileResponse: _read,
    file_pb2.ListDirectoryResponse: _list,
    file_pb2.SearchFilesResponse: _search,
    file_pb2.FindFilesResponse: _find,
}
