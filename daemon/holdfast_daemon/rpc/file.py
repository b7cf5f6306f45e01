"""FileService: files on hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import file_pb2, file_pb2_grpc
from holdfast_daemon.errors import InputError
from holdfast_daemon.exec.site import Site
from holdfast_daemon.file.editing import Edit
from holdfast_daemon.file.files import Files
from holdfast_daemon.file.finding import FindRequest
from holdfast_daemon.file.listing import ListRequest
from holdfast_daemon.file.reading import ReadRequest
from holdfast_daemon.file.searching import Output, SearchRequest
from holdfast_daemon.file.writing import Mode, WriteAnswer, WriteRequest
from holdfast_daemon.hosts import fidelity
from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.once import Once, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from holdfast_daemon.config import Config
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.file.listing import Entry
    from holdfast_daemon.secrets import Redactor

    type_context = grpc.aio.ServicerContext[Any, Any]

_MODES = {
    file_pb2.WRITE_MODE_UNSPECIFIED: Mode.CREATE,
    file_pb2.WRITE_MODE_CREATE: Mode.CREATE,
    file_pb2.WRITE_MODE_OVERWRITE: Mode.OVERWRITE,
    file_pb2.WRITE_MODE_APPEND: Mode.APPEND,
}
_OUTPUTS = {
    file_pb2.SEARCH_OUTPUT_UNSPECIFIED: Output.FILES,
    file_pb2.SEARCH_OUTPUT_FILES: Output.FILES,
    file_pb2.SEARCH_OUTPUT_CONTENT: Output.CONTENT,
    file_pb2.SEARCH_OUTPUT_COUNT: Output.COUNT,
}
DEFAULT_LIMIT = 200


class FileServicer(file_pb2_grpc.FileServiceServicer):
    """Thin: converts and calls `Files`."""

    def __init__(
        self,
        pool: Pool,
        config: Callable[[], Config],
        redactor: Redactor,
    ) -> None:
        """Work on files over `pool`, under the current configuration."""
        self._pool = pool
        self._config = config
        self._redactor = redactor
        self._files = Files()
        self._once = Once[WriteAnswer](
            lambda: config().limits.request_id_seconds, "another change of a file"
        )

    def _site(self) -> Site:
        host = current().host
        if host is None:
            raise InputError("target", "target names no host")
        fidelity.check_command(host)
        return Site(host, self._pool, self._config().limits, self._redactor)

    async def ReadFile(
        self, request: file_pb2.ReadFileRequest, context: type_context
    ) -> file_pb2.ReadFileResponse:
        """Read a file, or lines of it."""
        wanted = ReadRequest(
            path=request.path,
            first=request.start_line if request.HasField("start_line") else None,
            last=request.end_line if request.HasField("end_line") else None,
            size=request.max_bytes if request.HasField("max_bytes") else None,
            force=request.force,
        )
        told = await self._files.read(self._site(), wanted, sudo=request.sudo)
        return file_pb2.ReadFileResponse(
            path=told.path,
            content=told.piece.text,
            size_bytes=told.size,
            total_lines=told.lines,
            start_line=told.piece.first,
            end_line=told.piece.last,
            truncated=told.piece.truncated,
            sha256=told.sha256,
            encoding=told.piece.encoding,
            note=told.note or None,
        )

    async def WriteFile(
        self, request: file_pb2.WriteFileRequest, context: type_context
    ) -> file_pb2.WriteFileResponse:
        """Write a file."""
        wanted = WriteRequest(
            path=request.path,
            data=request.content.encode(),
            mode=_MODES[request.mode],
            permissions=request.permissions,
            make_parents=request.make_parents,
            expected=request.expected_sha256,
        )
        site = self._site()
        told = await self._once.do(
            key_of(current().caller, request.request_id),
            _print(request, site),
            lambda: self._files.write(site, wanted, sudo=request.sudo),
        )
        return file_pb2.WriteFileResponse(
            path=told.path,
            bytes_written=told.written,
            created=told.created,
            sha256=told.sha256,
            note=told.note or None,
        )

    async def EditFile(
        self, request: file_pb2.EditFileRequest, context: type_context
    ) -> file_pb2.EditFileResponse:
        """Edit a file."""
        edits = [Edit(edit.old, edit.new) for edit in request.edits]
        site = self._site()
        told = await self._once.do(
            key_of(current().caller, request.request_id),
            _print(request, site),
            lambda: self._files.edit(site, request.path, edits, sudo=request.sudo),
        )
        return file_pb2.EditFileResponse(
            path=told.path,
            edits_applied=len(edits),
            bytes_written=told.written,
            sha256=told.sha256,
            note=told.note or None,
        )

    async def ListDirectory(
        self, request: file_pb2.ListDirectoryRequest, context: type_context
    ) -> file_pb2.ListDirectoryResponse:
        """List a directory."""
        wanted = ListRequest(
            path=request.path or ".",
            depth=request.depth if request.HasField("depth") else 1,
            hidden=request.hidden,
        )
        told = await self._files.list(self._site(), wanted, sudo=request.sudo)
        return file_pb2.ListDirectoryResponse(
            path=told.path,
            entries=[_entry(one, detailed=request.detailed) for one in told.entries],
            truncated=told.truncated,
            note=told.note or None,
        )

    async def SearchFiles(
        self, request: file_pb2.SearchFilesRequest, context: type_context
    ) -> file_pb2.SearchFilesResponse:
        """Search the contents of files."""
        wanted = SearchRequest(
            pattern=request.pattern,
            path=request.path or ".",
            glob=request.glob,
            ignore_case=request.case_insensitive,
            output=_OUTPUTS[request.output],
            before=request.before,
            after=request.after,
            limit=request.limit if request.HasField("limit") else DEFAULT_LIMIT,
        )
        told = await self._files.search(self._site(), wanted, sudo=request.sudo)
        return file_pb2.SearchFilesResponse(
            matches=[
                file_pb2.SearchMatch(
                    path=one.path, line=one.line, text=one.text, count=one.count
                )
                for one in told.matches
            ],
            truncated=told.truncated,
            note=told.note or None,
        )

    async def FindFiles(
        self, request: file_pb2.FindFilesRequest, context: type_context
    ) -> file_pb2.FindFilesResponse:
        """Find files by name."""
        wanted = FindRequest(
            glob=request.glob,
            path=request.path or ".",
            limit=request.limit if request.HasField("limit") else DEFAULT_LIMIT,
        )
        told = await self._files.find(self._site(), wanted, sudo=request.sudo)
        return file_pb2.FindFilesResponse(
            matches=told.matches, truncated=told.truncated, note=told.note or None
        )


def _print(
    request: file_pb2.WriteFileRequest | file_pb2.EditFileRequest, site: Site
) -> list[bytes]:
    """Return what tells one change from another under the same request_id."""
    return [
        request.SerializeToString(deterministic=True),
        repr(site.host.endpoint).encode(),
    ]


def _entry(one: Entry, *, detailed: bool) -> file_pb2.DirectoryEntry:
    entry = file_pb2.DirectoryEntry(path=one.path, type=one.kind)
    if detailed:
        entry.size_bytes = one.size
        entry.mode = one.shown_mode
        entry.owner = one.owner
        entry.modified = one.shown_time
    return entry
