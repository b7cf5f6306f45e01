"""A daemon of another release: which of our tools and arguments it does not know.

protobuf drops what it does not know without a word, so an argument that the daemon was
built before would be ignored. Here it is refused instead, and its tool not shown.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from grpc import aio

from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.client import RESTART, error_of
from holdfast_shim.errors import CallError
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_shim.catalogue import Catalogue
    from holdfast_shim.client import DaemonClient

_SECONDS = 10.0


class Skew:
    """Compares our catalogue with the daemon's, once for each daemon."""

    def __init__(
        self, client: DaemonClient, catalogue: Catalogue, changed: Callable[[], None]
    ) -> None:
        """Be ready for a daemon; `changed` hears that other tools are offered."""
        self._client = client
        self._catalogue = catalogue
        self._changed = changed
        self._all = list(catalogue.tools)
        self._instance = ""
        self._version = ""
        self._theirs: dict[str, dict[str, Any]] | None = None

    async def meet(self, hello: admin_pb2.HelloResponse) -> None:
        """Look at the daemon that answers, and offer what both sides know."""
        if hello.instance == self._instance:
            return
        theirs = None
        if hello.contract_hash != self._catalogue.contract:
            theirs = await self._fetch(hello)
        self._instance, self._version = hello.instance, hello.version
        self._theirs = theirs
        self._offer()

    def check(self, name: str, arguments: object) -> None:
        """Refuse a call that the daemon would not know, or not know all of.

        Raises:
            CallError: Nothing ran.
        """
        if self._theirs is None:
            return
        theirs = self._theirs.get(name)
        if theirs is None:
            raise self._unknown(name)
        given: dict[str, Any] = arguments if isinstance(arguments, dict) else {}
        known = _properties(theirs)
        ours = _properties(self._catalogue.entries[name]["tool"])
        for field, value in given.items():
            if field in ours and field not in known and value not in (None, "", False):
                raise self._unknown(f"{name}'s {field}", field)

    async def _fetch(
        self, hello: admin_pb2.HelloResponse
    ) -> dict[str, dict[str, Any]] | None:
        """Return the daemon's tools by name; None when it is too old to tell."""
        stub = admin_pb2_grpc.AdminServiceStub(self._client.channel)
        try:
            answer = await stub.ReadCatalogue(
                admin_pb2.ReadCatalogueRequest(),
                metadata=self._client.metadata(),
                timeout=_SECONDS,
            )
        except aio.AioRpcError as error:
            failure = error_of(error, sent=False)
            if failure.reason != "UNSUPPORTED":
                raise failure from error
            _say(f"the daemon {hello.version} is older than this client {VERSION}")
            return None
        tools = json.loads(answer.catalogue)["tools"]
        return {entry["tool"]["name"]: entry["tool"] for entry in tools}

    def _offer(self) -> None:
        """Offer of our tools what the daemon knows too; this list is the protocol's."""
        tools = self._all
        if self._theirs is not None:
            theirs = self._theirs
            tools = [
                _common(tool, theirs[tool["name"]])
                for tool in self._all
                if tool["name"] in theirs
            ]
            ours = self._catalogue.entries
            gone = [name for name in ours if name not in theirs]
            new = [name for name in theirs if name not in ours]
            told = f"the daemon is holdfast {self._version}, this client {VERSION}"
            told += f"; not offered: {', '.join(gone)} ({RESTART})" if gone else ""
            told += f"; new, once this client starts anew: {', '.join(new)}" * bool(new)
            _say(told)
        if tools != self._catalogue.tools:
            self._catalogue.tools[:] = tools
            self._changed()

    def _unknown(self, what: str, field: str = "") -> CallError:
        return CallError(
            "UNSUPPORTED",
            f"the running daemon (holdfast {self._version}) does not know {what}; this"
            f" client is {VERSION}",
            hint=RESTART,
            metadata={"field": field} if field else {},
        )


def _properties(tool: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tool["inputSchema"].get("properties", {})
    return found


def _common(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return our tool without the arguments that the daemon does not know."""
    known = _properties(theirs)
    schema = ours["inputSchema"]
    both = {k: v for k, v in _properties(ours).items() if k in known}
    if len(both) == len(_properties(ours)):
        return ours
    return {**ours, "inputSchema": {**schema, "properties": both}}


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a client may have closed it
        sys.stderr.write(f"holdfast-mcp: {text}\n")
