"""A shim and a daemon of different releases: what is offered, and what is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fakes.daemon import FakeDaemon
from fakes.mcp_wire import Wire
from holdfast.v1 import admin_pb2
from holdfast_shim.arguments import parse
from holdfast_shim.catalogue import Catalogue

if TYPE_CHECKING:
    from pathlib import Path

OURS = Catalogue(parse([])).entries


class Release(FakeDaemon):
    """A daemon with tools of its own; None: one that can't tell of them yet."""

    def __init__(self, path: Path, tools: list[dict[str, Any]] | None) -> None:
        super().__init__(path)
        self._tools = tools

    def become(self, tools: list[dict[str, Any]]) -> None:
        """Be another daemon from now on, of which no connection tells."""
        self.instance += "+"
        self._tools = tools

    async def _hello(
        self,
        request: admin_pb2.HelloRequest,  # noqa: ARG002  the fake's own
        _: Any,
    ) -> admin_pb2.HelloResponse:
        return admin_pb2.HelloResponse(
            version="0.0.9",
            instance=self.instance,
            protocol_min=1,
            protocol_max=1,
            contract_hash="another",
        )

    async def _catalogue(
        self,
        request: admin_pb2.ReadCatalogueRequest,  # noqa: ARG002  the fake's own
        context: Any,
    ) -> admin_pb2.ReadCatalogueResponse:
        if self._tools is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        told = {
            "contract": "another",
            "tools": [{"tool": t} for t in self._tools or ()],
        }
        return admin_pb2.ReadCatalogueResponse(catalogue=json.dumps(told))

    def _handlers(self) -> tuple[Any, ...]:
        handler = grpc.unary_unary_rpc_method_handler(
            self._catalogue,
            admin_pb2.ReadCatalogueRequest.FromString,
            admin_pb2.ReadCatalogueResponse.SerializeToString,
        )
        more = grpc.method_handlers_generic_handler(
            "holdfast.v1.AdminService", {"ReadCatalogue": handler}
        )
        return (more, *super()._handlers())


def without(tool: dict[str, Any], field: str) -> dict[str, Any]:
    schema = tool["inputSchema"]
    left = {k: v for k, v in schema["properties"].items() if k != field}
    return {**tool, "inputSchema": {**schema, "properties": left}}


@pytest.mark.parametrize("era", ["2025-11-25", ""])
async def test_what_the_daemon_does_not_know_is_not_offered(
    short_path: Path, era: str
) -> None:
    """NF-20: an older daemon's missing tools and arguments go, and it is told."""
    theirs = [
        without(entry["tool"], "durable")
        for name, entry in OURS.items()
        if name != "ssh_search"
    ]
    theirs.append({**theirs[0], "name": "ssh_brand_new"})
    async with (
        Release(short_path / "s", theirs),
        Wire("--socket", str(short_path / "s"), "--no-autostart") as shim,
    ):
        if era:
            hands = await shim.initialize(era)
            assert hands["capabilities"]["tools"] == {"listChanged": True}
        before = (await shim.request("tools/list"))["result"]["tools"]
        assert "ssh_search" in {tool["name"] for tool in before}
        assert "isError" not in await shim.call("ssh_hosts", {})
        told = [note["method"] for note in shim.notes]
        assert told == (["notifications/tools/list_changed"] if era else [])
        after = (await shim.request("tools/list"))["result"]["tools"]
        names = {tool["name"]: tool for tool in after}
        assert {t["name"] for t in before} - set(names) == {"ssh_search"}
        assert "durable" not in names["ssh_exec"]["inputSchema"]["properties"]
        gone = await shim.call("ssh_search", {"target": "web1", "pattern": "x"})
        error = gone["structuredContent"]["error"]
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
        assert "(holdfast 0.0.9) does not know ssh_search" in error["message"]
        assert "holdfast service upgrade" in error["hint"]
        shim.close_stdin()
        await shim.ended()
        assert shim.process.stderr is not None
        said = (await shim.process.stderr.read()).decode()
        assert "the daemon is holdfast 0.0.9" in said
        assert "not offered: ssh_search" in said
        assert "new, once this client starts anew: ssh_brand_new" in said


async def test_an_argument_the_daemon_would_drop_is_refused(short_path: Path) -> None:
    """NF-20: it is never ignored: `durable` must not become a command that is lost."""
    theirs = [without(entry["tool"], "durable") for entry in OURS.values()]
    daemon = Release(short_path / "s", theirs)
    async with daemon, Wire("--socket", str(short_path / "s")) as shim:
        words = {"target": "web1", "command": "x"}
        refused = await shim.call("ssh_exec", {**words, "durable": True})
        error = refused["structuredContent"]["error"]
        assert (error["reason"], error["field"]) == ("UNSUPPORTED", "durable")
        assert daemon.runs == []
        await shim.call("ssh_exec", {**words, "durable": False})
        assert len(daemon.runs) == 1


async def test_a_daemon_that_cannot_tell_is_used_as_it_is(short_path: Path) -> None:
    """NF-20: one from before catalogues were told; what it lacks fails typed."""
    socket = short_path / "s"
    async with Release(socket, None), Wire("--socket", str(socket)) as shim:
        await shim.initialize()
        assert "isError" not in await shim.call("ssh_hosts", {})
        assert shim.notes == []
        lacking = await shim.call("ssh_session_list", {})
        assert lacking["structuredContent"]["error"]["reason"] == "UNSUPPORTED"


@pytest.mark.parametrize("noticed", [True, False])
async def test_the_whole_list_is_back_with_our_own_daemon(
    short_path: Path, *, noticed: bool
) -> None:
    """NF-20: after an upgrade of the daemon under a living shim.

    It need not have noticed yet that the connection is another.
    """
    theirs = [e["tool"] for name, e in OURS.items() if name != "ssh_search"]
    socket = short_path / "s"
    async with Wire("--socket", str(socket), "--no-autostart") as shim:
        await shim.initialize()
        async with Release(socket, theirs) as daemon:
            await shim.call("ssh_hosts", {})
            if not noticed:
                daemon.become([entry["tool"] for entry in OURS.values()])
                assert "isError" not in await shim.call("ssh_hosts", {})
        if noticed:
            async with FakeDaemon(socket, instance="new"):
                assert "isError" not in await shim.call("ssh_hosts", {})
        listed = (await shim.request("tools/list"))["result"]["tools"]
        assert "ssh_search" in {tool["name"] for tool in listed}
        assert len(shim.notes) == 2


async def test_another_daemon_gets_no_argument_that_it_would_drop(
    short_path: Path,
) -> None:
    """NF-20: one that took over unnoticed refuses, and is looked at before all else."""
    ours = [entry["tool"] for entry in OURS.values()]
    daemon = Release(short_path / "s", ours)
    async with daemon, Wire("--socket", str(short_path / "s")) as shim:
        words = {"target": "web1", "command": "x"}
        await shim.call("ssh_exec", {**words, "durable": True})
        assert [run.durable for run in daemon.runs] == [True]
        daemon.become([without(tool, "durable") for tool in ours])
        refused = await shim.call("ssh_exec", {**words, "durable": True})
        error = refused["structuredContent"]["error"]
        assert (error["reason"], error["field"]) == ("UNSUPPORTED", "durable")
        await shim.call("ssh_exec", words)
        assert [run.durable for run in daemon.runs] == [True, False]
