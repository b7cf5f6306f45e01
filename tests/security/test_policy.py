"""What the rules keep a caller from, with two real servers on one address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fakes.restarting import restart
from fakes.services import echo, exchange, serve
from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import connected, records, soon
from holdfast.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    session_pb2,
    session_pb2_grpc,
)
from holdfast_daemon.rpc.context import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World


@pytest.fixture(scope="module")
def other(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a second server on the address of `sshd`, which takes the same key."""
    directory = tmp_path_factory.mktemp("other")
    home = directory / "remote-home"
    home.mkdir()
    options = {"SetEnv": f"HOME={home}"}
    with Sshd(directory, alias="other", client_key=sshd.key, options=options) as server:
        sshd.config.write_text(sshd.client_config() + server.client_config("other"))
        lines = sshd.known_hosts_lines() + server.known_hosts_lines()
        sshd.known_hosts.write_text(lines)
        server.known_hosts.write_text(lines)
        yield server


def key(sshd: Sshd) -> dict[str, Any]:
    return {
        "identity_file": str(sshd.key),
        "known_hosts_file": str(sshd.known_hosts),
    }


async def test_an_allowed_name_does_not_lead_to_another_server(
    sshd: Sshd, other: Sshd
) -> None:
    """SC-01: the allow-list ignored the port, so connect.port reached the other one."""
    ways: list[dict[str, Any]] = [
        {"target": "box", "connect": {"port": other.port}},
        {"target": "box", "connect": {"options": {"Port": str(other.port)}}},
        {"target": "box", "connect": {"options": {"pOrT": str(other.port)}}},
        {"target": f"box:{other.port}"},
        {"target": f"{sshd.user}@box:{other.port}"},
        {"target": f"ssh://{sshd.user}@box:{other.port}"},
        {"target": other.target, "connect": key(sshd)},
        {"target": "box", "connect": {"jump": f"box:{other.port}"}},
        {"target": "box", "connect": {"jump": "other"}},
    ]
    before = other.logins
    with served(sshd, more='allowed_hosts = ["box"]\n') as world:
        async with tools(world, target="") as ssh:
            for way in ways:
                error = await ssh.refused("ssh_exec", command="true", **way)
                assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")
                assert "box" in error["message"] + error["hint"]
            for way in ({"port": other.port}, {"options": {"HostName": "::1"}}):
                await ssh.refused("ssh_connect", target="box", connect=way)
            for fine in (
                {"target": "box"},
                {"target": f"box:{sshd.port}"},
                {"target": f"{sshd.user}@box"},
                {"target": "box", "connect": {"port": sshd.port}},
                {"target": "box", "connect": {"jump": f"box:{sshd.port}"}},
            ):
                assert (await ssh.run("true", **fine))["exit_code"] == 0
        done = await asyncio.to_thread(
            world.cli, "exec", f"box:{other.port}", "--", "true", check=False
        )
        assert done.returncode != 0
        assert b"not an allowed host" in done.stderr
    assert other.logins == before


async def test_a_default_port_of_the_client_opens_no_other_server(
    sshd: Sshd, other: Sshd
) -> None:
    """SC-01: SSH_DEFAULT_PORT led an allowed address to any of its ports."""
    before = other.logins
    env = {"SSH_DEFAULT_USER": other.user, "SSH_DEFAULT_PORT": str(other.port)}
    call = {"target": "127.0.0.1", "connect": key(sshd)}
    with served(sshd, more='allowed_hosts = ["127.0.0.1"]\n') as world:
        async with tools(world, target="", env=env) as ssh:
            error = await ssh.refused("ssh_exec", command="true", **call)
            assert error["reason"] == "HOST_NOT_ALLOWED"
            assert f"127.0.0.1:{other.port}" in error["message"]
    assert other.logins == before


async def test_an_entry_may_name_the_port(sshd: Sshd, other: Sshd) -> None:
    """SC-01: `host:port` and globs of it; a client's own list takes its own default."""
    more = f'allowed_hosts = ["127.0.0.1:{other.port}", "bo?:{sshd.port}"]\n'
    call = {"target": "127.0.0.1", "connect": key(sshd)}
    default = {
        "SSH_DEFAULT_USER": other.user,
        "SSH_DEFAULT_PORT": str(other.port),
        "SSH_ALLOWED_HOSTS": "127.0.0.1",
    }
    with served(sshd, more=more) as world:
        async with tools(world, target="", env=default) as ssh:
            job = await ssh.run("echo on", **call)
            assert job["exit_code"] == 0
            read = await ssh.read(job["job_id"], offset=0)
            assert read["stdout"] == "on\n"
        async with tools(world, target="") as ssh:
            assert (await ssh.run("true", target="box"))["exit_code"] == 0
            error = await ssh.refused("ssh_exec", target="other:1", command="true")
            assert error["reason"] == "HOST_NOT_ALLOWED"


def answers(address: str) -> bool:
    try:
        return exchange(address, b"ping") == b"ping"
    except OSError:
        return False


async def test_a_forward_may_be_on_the_default_port_of_its_client(
    other: Sshd, tmp_path: Path
) -> None:
    """SC-01, FW-10: the call said OK, and it was ended at once; durable ones, too."""
    config = tmp_path / "config"
    stanza = other.client_config("127.0.0.1").splitlines(keepends=True)
    config.write_text("".join(x for x in stanza if x.split()[0] not in NAMED))
    env = {
        "SSH_DEFAULT_USER": other.user,
        "SSH_DEFAULT_PORT": str(other.port),
        "SSH_ALLOWED_HOSTS": "127.0.0.1",
    }
    asked = {"target": "127.0.0.1", "direction": "local", "durable": True}
    with serve(echo) as port, served(config) as world:
        async with tools(world, target="", env=env) as ssh:
            told = await ssh.told("ssh_forward_open", remote_port=port, **asked)
            assert (told["running"], told["state"]) == (True, "up")
            # a look at the rules that comes later finds the same
            await asyncio.to_thread(world.cli, "reload")
            assert answers(told["listen"])
            (row,) = (await ssh.told("ssh_forward_list"))["forwards"]
            assert row["state"] == "up"
        await asyncio.to_thread(restart, world)
        await soon(lambda: answers(told["listen"]), "it is back")


NAMED = ("HostName", "Port", "User")


async def test_a_job_on_an_unusual_port_is_not_one_of_the_allowed_host(
    sshd: Sshd, other: Sshd
) -> None:
    """SC-01: its name was the alias, so whoever may use `box` could stop it."""
    with served(sshd) as world:
        async with tools(world, target="") as ssh:
            call = {"target": "box", "connect": {"port": other.port}}
            job = await ssh.start("sleep 60", **call)
            narrow = {"SSH_ALLOWED_HOSTS": "box"}
            async with tools(world, target="", env=narrow) as less:
                assert (await less.told("ssh_job_list"))["jobs"] == []
                error = await less.refused("ssh_job_stop", job_id=job)
                assert error["reason"] == "HOST_NOT_ALLOWED"
            await ssh.stop(job)


def denied(world: World, count: int) -> list[dict[str, Any]]:
    """Return the refusals on record, once there are so many."""
    found = [one for one in records(world) if one["phase"] == "denied"]
    return found if len(found) == count else []


DISABLED = "[hosts.box]\nenabled = false\n"


async def test_a_disabled_host_is_not_reached_under_its_address(sshd: Sshd) -> None:
    """`enabled = false` held for the alias only: user@address:port still ran."""
    with served(sshd) as world:
        world.configure(DISABLED)
        world.cli("reload")
        before = sshd.logins
        async with tools(world, target="") as ssh:
            for target in (
                "box",
                sshd.target,
                f"ssh://{sshd.target}",
                f"{sshd.user}@localhost:{sshd.port}",
                f"{sshd.user}@127.1:{sshd.port}",
            ):
                error = await ssh.refused(
                    "ssh_exec", command="true", target=target, connect=key(sshd)
                )
                assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
                assert "[hosts.box]" in error["hint"]
        done = await asyncio.to_thread(
            world.cli, "exec", sshd.target, "--", "true", check=False
        )
        assert done.returncode != 0
        assert b"is disabled" in done.stderr
        assert sshd.logins == before


async def test_what_a_disabled_host_left_can_be_read_and_ended(sshd: Sshd) -> None:
    """Kept output needs no host; what runs there can still be stopped and closed."""
    with served(sshd) as world:
        async with tools(world, target="") as ssh:
            done = await ssh.run("echo kept", target="box")
            running = await ssh.start("sleep 60", target="box")
            world.configure(DISABLED)
            await asyncio.to_thread(world.cli, "reload")
            error = await ssh.refused("ssh_exec", target="box", command="true")
            assert error["reason"] == "HOST_DISABLED"
            assert (await ssh.read(done["job_id"], offset=0))["stdout"] == "kept\n"
            assert (await ssh.stop(running))["stopped"] is True
            assert (await ssh.told("ssh_disconnect", target="box"))["closed"]


async def test_a_session_is_no_way_into_a_host_that_was_disabled_since(
    sshd: Sshd,
) -> None:
    """SC-01: commands and keys still went into sessions that were opened before."""
    with served(sshd) as world:
        async with tools(world, target="") as ssh:
            ways = {"box": {}, sshd.target: key(sshd)}
            ids = [
                (await ssh.told("ssh_session_open", target=target, connect=connect))[
                    "session_id"
                ]
                for target, connect in ways.items()
            ]
            marker = world.root / "reached"
            world.configure(DISABLED)
            await asyncio.to_thread(world.cli, "reload")
            for session in ids:
                for tool, given in (
                    ("ssh_session_run", {"command": f"touch {marker}"}),
                    ("ssh_session_write", {"input": f"touch {marker}\n"}),
                ):
                    error = await ssh.refused(tool, session=session, **given)
                    assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
                    assert "[hosts.box]" in error["hint"]
                # What reaches no host goes on.
                await ssh.told("ssh_session_read", session=session)
            person = common_pb2.ClientContext(name="cli", person=True)
            async with connected(world) as client:
                stub = session_pb2_grpc.SessionServiceStub(client.channel)
                start = session_pb2.AttachStart(session=ids[0])
                call = stub.AttachSession(metadata=((KEY, person.SerializeToString()),))
                await call.write(session_pb2.AttachSessionRequest(start=start))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            refused = await soon(lambda: denied(world, 5), "all five are recorded")
            assert {one["metadata"]["reason"] for one in refused} == {"HOST_DISABLED"}
            world.configure("")
            await asyncio.to_thread(world.cli, "reload")
            for session in ids:
                told = await ssh.told(
                    "ssh_session_run", session=session, command=f"ls {marker}"
                )
                assert told["exit_code"] != 0
                assert (await ssh.told("ssh_session_close", session=session))["closed"]


async def test_the_record_of_a_stop_names_the_host_and_the_job(
    world: World, sshd: Sshd
) -> None:
    """OB-01: it named neither the host nor, at its end, anything but the id."""
    async with tools(world, target="box") as ssh:
        job = await ssh.start("sleep 61")
        await ssh.stop(job)

        def told() -> list[dict[str, Any]]:
            return [
                record
                for record in records(world)
                if record["phase"] == "end"
                and record["metadata"]["method"] == "ExecService/StopJob"
            ]

        (end,) = await soon(told, "the stop is recorded")
    assert end["server_name"] == "box"
    assert end["metadata"]["job_id"] == job
    assert end["metadata"]["address"] == sshd.target


async def test_a_hand_made_context_gets_no_answer_beyond_the_limit(
    world: World,
) -> None:
    """A5: max_output_chars of a context had no bound; 50 MB were gathered for it."""
    context = common_pb2.ClientContext(name="x", max_output_chars=50_000_000)
    metadata = ((KEY, context.SerializeToString()),)
    async with connected(world) as client:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Hello(admin_pb2.HelloRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "max_output_chars" in str(caught.value.details())
