"""Forwards when something goes wrong: with a link, an end, a port, or the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes import services
from fakes.account import login
from fakes.services import dial, echo, exchange, serve
from fakes.sshd import Sshd, free_port
from fakes.tools import Tools, served, tools
from fakes.watch import moment, soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_faults"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("own")
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as one:
        yield one


@pytest.fixture(scope="module")
def world(own: Sshd) -> Iterator[World]:
    with served(own) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


async def opened(ssh: Tools, direction: str, **arguments: Any) -> dict[str, Any]:
    asked = {"target": "box", "direction": direction, **arguments}
    return await ssh.told("ssh_forward_open", **asked)


async def row(ssh: Tools, forward_id: str) -> dict[str, Any]:
    told = await ssh.told("ssh_forward_list", include_stopped=True)
    (found,) = [one for one in told["forwards"] if one["forward_id"] == forward_id]
    return dict(found)


async def stands(ssh: Tools, forward_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        while (found := await row(ssh, forward_id))["state"] != state:
            await moment()
    return found


async def close(ssh: Tools, *forward_ids: str) -> None:
    for forward_id in forward_ids:
        await ssh.told("ssh_forward_close", forward=forward_id)


def answers(address: str) -> bool:
    try:
        return exchange(address, b"ping") == b"ping"
    except OSError:
        return False


async def test_each_end_may_stop_talking_and_go_on_reading(ssh: Tools) -> None:
    """FW-01: half-closed either way."""
    heard: list[bytes] = []

    def last_word(peer: socket.socket) -> None:
        peer.sendall(b"mine")
        peer.shutdown(socket.SHUT_WR)
        heard.append(services.read_all(peer))

    with serve(last_word) as port:
        told = await opened(ssh, "local", remote_port=port)

        def talk() -> None:
            with dial(told["listen"]) as one:
                assert services.read_all(one) == b"mine"
                one.sendall(b"yours")
                one.shutdown(socket.SHUT_WR)
                until(lambda: b"yours" in heard, "the rest arrives")

        await asyncio.to_thread(talk)
        await close(ssh, told["forward_id"])


async def test_a_slow_reader_holds_up_only_its_own_sender(
    ssh: Tools,
) -> None:
    """FW-01: what is not read stays at its source, others go on; then it all comes."""
    size = 256 * 1024 * 1024
    sent = [0]

    def send(peer: socket.socket) -> None:
        for at in range(0, size, len(services.BLOCK)):
            peer.sendall(services.BLOCK[: size - at])
            sent[0] += len(services.BLOCK)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)

    with serve(send) as port, serve(echo) as other:
        told = await opened(ssh, "local", remote_port=port)
        quick = await opened(ssh, "local", remote_port=other)

        def read() -> None:
            with dial(told["listen"]) as slow:
                assert slow.recv(1, socket.MSG_PEEK)
                before = -1

                def settled() -> bool:
                    nonlocal before
                    same, before = before == sent[0], sent[0]
                    time.sleep(0.2)
                    return same

                until(settled, "the sender waits")
                assert sent[0] < size // 4
                assert answers(quick["listen"])
                assert services.digest_of(slow) == services.expected(size)

        await asyncio.to_thread(read)
        await close(ssh, told["forward_id"], quick["forward_id"])


async def test_a_last_word_to_who_is_gone_costs_nobody_else_anything(
    ssh: Tools, own: Sshd
) -> None:
    """FW-01, NF-09: a client that is gone is no reason to end the link."""
    heard: list[bytes] = []

    def late(peer: socket.socket) -> None:
        heard.append(services.read_all(peer))
        peer.sendall(b"bye")

    with serve(late) as port, serve(echo) as other:
        told = await opened(ssh, "local", remote_port=port)
        kept = await opened(ssh, "local", remote_port=other)
        logins = own.logins

        def answered(before: int) -> bool:
            return len(heard) > before

        def talk() -> None:
            with dial(kept["listen"]) as held:
                while heard.count(b"hi") < 5:
                    before = len(heard)
                    with dial(told["listen"]) as gone:
                        gone.sendall(b"hi")
                    until(partial(answered, before), "it answers")
                    held.sendall(b"ping")
                    assert held.recv(4) == b"ping"

        await asyncio.to_thread(talk)
        async with asyncio.timeout(40):
            while (await row(ssh, told["forward_id"]))["connections"]:
                await moment()
        assert own.logins == logins
        assert (await row(ssh, kept["forward_id"]))["state"] == "up"
        await close(ssh, told["forward_id"], kept["forward_id"])


async def test_a_reset_of_one_end_reaches_the_other(ssh: Tools) -> None:
    """FW-01: what was broken off is not taken for an end."""
    ends: list[str] = []

    def watch(peer: socket.socket) -> None:
        peer.sendall(b"go")
        try:
            while peer.recv(1000):
                peer.sendall(b"more" * 100)
        except OSError as error:
            ends.append(type(error).__name__)
        else:
            ends.append("end")

    def cut(peer: socket.socket) -> None:
        peer.recv(2)
        services.reset(peer)

    with serve(watch) as port, serve(cut) as cutting:
        told = await opened(ssh, "local", remote_port=port)
        other = await opened(ssh, "local", remote_port=cutting)
        # the look at the target when the forward was opened is gone again
        await soon(lambda: ends, "the look is over")
        ends.clear()

        def talk() -> None:
            one = dial(told["listen"])
            assert one.recv(2) == b"go"
            services.reset(one)
            until(lambda: ends, "the service hears of it")
            with dial(other["listen"]) as two:
                two.sendall(b"hi")
                # SSH can tell a reset only as an end; who goes on talking is reset
                assert two.recv(1) == b""
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    until(lambda: two.sendall(b"more"), "it is reset")

        await asyncio.to_thread(talk)
        async with asyncio.timeout(40):
            while (await row(ssh, told["forward_id"]))["connections"]:
                await moment()
        await close(ssh, told["forward_id"], other["forward_id"])


async def test_a_dead_target_is_told_with_the_reason_ssh_gave(ssh: Tools) -> None:
    """FW-06, NF-14: at once, in the list, with counts."""
    port = free_port()
    told = await opened(ssh, "local", remote_port=port)
    assert told["running"] is True
    assert told["last_error"] == "Connection refused"
    with pytest.raises(ConnectionResetError), dial(told["listen"]) as one:
        one.recv(1)
    found = await row(ssh, told["forward_id"])
    assert (found["refused"], found["served"]) == (1, 0)
    assert found["last_error"] == "Connection refused"
    named = await opened(
        ssh, "local", remote_host="no-such-name.invalid", remote_port=1
    )
    assert named["last_error"]
    await close(ssh, told["forward_id"], named["forward_id"])


async def test_a_lost_link_comes_back_on_the_same_port(ssh: Tools, own: Sshd) -> None:
    """FW-10, NF-09: local, remote and dynamic; who comes meanwhile is told, counted."""
    with serve(echo) as port:
        local = await opened(ssh, "local", remote_port=port)
        remote = await opened(ssh, "remote", remote_port=0, local_port=port)
        proxy = await opened(ssh, "dynamic")
        held = await asyncio.to_thread(dial, local["listen"])
        held.sendall(b"x")
        assert held.recv(1) == b"x"
        await asyncio.to_thread(own.stop)
        # what went through it is broken off, not ended
        with pytest.raises(ConnectionResetError), held:
            await asyncio.to_thread(held.recv, 1)
        away = await stands(ssh, local["forward_id"], "away")
        assert away["running"] is True
        assert away["last_error"]
        with contextlib.suppress(ConnectionResetError), dial(local["listen"]) as one:
            assert one.recv(1) == b""
        found = await row(ssh, local["forward_id"])
        assert found["refused"] == 1
        await asyncio.to_thread(own.start)
        for before in (local, remote, proxy):
            back = await stands(ssh, before["forward_id"], "up")
            assert back["listen"] == before["listen"]
        assert await soon(lambda: answers(local["listen"]), "local is back")
        assert await soon(lambda: answers(remote["listen"]), "remote is back")
        through, code = await asyncio.to_thread(
            services.socks, proxy["listen"], "localhost", port
        )
        through.close()
        assert code == 0
        ids = [one["forward_id"] for one in (local, remote, proxy)]
        await close(ssh, *ids)


async def test_a_port_in_use_fails_the_call(ssh: Tools) -> None:
    """FW-06: here and on the host, with the reason; nothing is left behind."""
    with serve(echo) as taken:
        asked = {"target": "box", "direction": "local", "remote_port": 9}
        error = await ssh.refused("ssh_forward_open", local_port=taken, **asked)
        assert (error["reason"], error["ran"]) == ("IN_USE", "no")
        assert str(taken) in error["message"]
        error = await ssh.refused(
            "ssh_forward_open",
            target="box",
            direction="remote",
            remote_port=taken,
            local_port=9,
        )
        assert error["reason"] == "FORWARD_REFUSED"
        assert "in use" in error["message"]
    told = await ssh.told("ssh_forward_list", include_stopped=True)
    assert [one for one in told["forwards"] if one["running"]] == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "direction"),
    ({"direction": "sideways"}, "direction"),
    ({"direction": "local"}, "remote_port"),
    ({"direction": "local", "remote_port": 70000}, "remote_port"),
    ({"direction": "local", "remote_port": 0}, "remote_port"),
    ({"direction": "local", "remote_port": 1, "local_port": -1}, "local_port"),
    ({"direction": "local", "remote_port": 1, "local_port": "x"}, "local_port"),
    ({"direction": "local", "remote_port": 1, "remote_host": "-x"}, "remote_host"),
    ({"direction": "local", "remote_port": 1, "remote_host": "a b"}, "remote_host"),
    ({"direction": "local", "remote_port": 1, "bind_address": "here"}, "bind_address"),
    (
        {"direction": "local", "remote_port": 1, "bind_address": "192.0.2.1"},
        "bind_address",
    ),
    ({"direction": "local", "remote_port": 1, "name": "-x"}, "name"),
    ({"direction": "local", "remote_port": 1, "name": "a b"}, "name"),
    ({"direction": "local", "remote_socket": "x"}, "remote_socket"),
    ({"direction": "local", "remote_socket": "/x", "remote_port": 1}, "remote_socket"),
    (
        {"direction": "local", "remote_port": 1, "local_socket": "/" + "x" * 200},
        "local_socket",
    ),
    (
        {"direction": "local", "remote_port": 1, "local_socket": "/no/dir/x"},
        "local_socket",
    ),
    (
        {
            "direction": "local",
            "remote_port": 1,
            "local_socket": "/tmp/x",
            "local_port": 1,
        },
        "local_socket",
    ),
    ({"direction": "remote", "remote_port": 0}, "local_port"),
    ({"direction": "remote", "local_port": 1}, "remote_port"),
    (
        {
            "direction": "remote",
            "local_port": 1,
            "remote_port": 0,
            "remote_host": "h",
        },
        "remote_host",
    ),
    ({"direction": "dynamic", "remote_port": 1}, "remote_port"),
    ({"direction": "dynamic", "remote_host": "h"}, "remote_host"),
    ({"direction": "dynamic", "remote_socket": "/x"}, "remote_socket"),
]


@pytest.mark.parametrize(("arguments", "field"), BAD, ids=str)
async def test_wrong_arguments_are_named(
    ssh: Tools, arguments: dict[str, Any], field: str
) -> None:
    """FW-06: a clear error that names the argument; nothing ran."""
    error = await ssh.refused("ssh_forward_open", **{"target": "box", **arguments})
    assert error["reason"] == "INVALID_ARGUMENT", error
    assert error["ran"] == "no"
    assert field in error["message"], error


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*", "[::]", "::ffff:0.0.0.0"])
@pytest.mark.parametrize("direction", ["local", "remote", "dynamic"])
async def test_nobody_listens_on_every_address(
    ssh: Tools, direction: str, address: str
) -> None:
    """FW-03: refused clearly unless the configuration allows it."""
    ports = {
        "local": {"remote_port": 1},
        "remote": {"remote_port": 0, "local_port": 1},
        "dynamic": {},
    }[direction]
    error = await ssh.refused(
        "ssh_forward_open",
        target="box",
        direction=direction,
        bind_address=address,
        **ports,
    )
    assert error["reason"] == "POLICY_DENIED"
    assert "forward_wildcard" in error["hint"]


async def test_the_configuration_may_allow_every_address(own: Sshd) -> None:
    """FW-03: forward_wildcard = true."""
    with serve(echo) as port, served(own, more="forward_wildcard = true\n") as one:
        async with tools(one) as ssh:
            told = await opened(ssh, "local", remote_port=port, bind_address="0.0.0.0")
            listen = told["listen"].replace("0.0.0.0", "127.0.0.2")
            assert await asyncio.to_thread(exchange, listen, b"all") == b"all"


async def test_our_own_socket_is_not_handed_to_a_host(ssh: Tools, world: World) -> None:
    """FW-02: nor is an agent's; a host must not act as the person."""
    link = world.root / "link"
    link.symlink_to(world.socket)
    for path in (world.socket, link):
        error = await ssh.refused(
            "ssh_forward_open",
            target="box",
            direction="remote",
            remote_port=0,
            local_socket=str(path),
        )
        assert error["reason"] == "SENSITIVE_PATH"


@pytest.mark.parametrize(
    ("options", "direction", "ports"),
    [
        ({"AllowTcpForwarding": "no"}, "local", {"remote_port": 22}),
        ({"AllowTcpForwarding": "no"}, "remote", {"remote_port": 0, "local_port": 22}),
        ({"AllowTcpForwarding": "no"}, "remote", {"remote_port": 9, "local_port": 22}),
        ({"DisableForwarding": "yes"}, "local", {"remote_port": 22}),
        ({"PermitOpen": "127.0.0.1:1"}, "local", {"remote_port": 22}),
        (
            {"PermitListen": "127.0.0.1:1"},
            "remote",
            {"remote_port": 0, "local_port": 22},
        ),
        (
            {"AllowStreamLocalForwarding": "no"},
            "remote",
            {"remote_socket": "/tmp/none", "local_port": 22},
        ),
    ],
    ids=str,
)
async def test_a_host_that_forbids_it_fails_the_call(
    tmp_path: Path, options: dict[str, str], direction: str, ports: dict[str, Any]
) -> None:
    """FW-06: with the reason, and the option to look at."""
    with Sshd(tmp_path / "strict", options=options) as strict, served(strict) as one:
        async with tools(one) as ssh:
            error = await ssh.refused(
                "ssh_forward_open", target="box", direction=direction, **ports
            )
            assert error["reason"] == "FORWARD_REFUSED"
            (name,) = options
            assert name in error["hint"] + error["message"]
            assert (await ssh.told("ssh_forward_list"))["count"] == 0


async def test_a_stop_leaves_no_listener(own: Sshd, short_path: Path) -> None:
    """FW-10, PK-05: SIGTERM closes what listens, here and on the host."""
    here = short_path / "here"
    with serve(echo) as port, served(own) as one:
        async with tools(one) as ssh:
            told = [
                await opened(ssh, "local", remote_port=port),
                await opened(ssh, "remote", remote_port=0, local_port=port),
                await opened(ssh, "local", remote_port=port, local_socket=str(here)),
            ]
            held = await asyncio.to_thread(dial, told[0]["listen"])
        code = await asyncio.to_thread(one.stop)
        assert code == 0
        with held, contextlib.suppress(ConnectionResetError):
            assert held.recv(1) == b""
        for address in (told[0]["listen"], told[1]["listen"]):

            def gone(address: str = address) -> bool:
                try:
                    dial(address).close()
                except ConnectionRefusedError:
                    return True
                return False

            await soon(gone, "nobody listens")
        assert not here.exists()
        assert not one.state.joinpath("forwards.json").exists()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_durable_one_returns_after_a_restart(
    own: Sshd, short_path: Path, how: str
) -> None:
    """FW-10, NF-20: same id, name and port; others do not; the file is private."""
    here = str(short_path / "here")
    with serve(echo) as port, served(own) as one:
        async with tools(one) as ssh:
            kept = await opened(ssh, "local", remote_port=port, durable=True, name="k")
            path = await opened(
                ssh, "local", remote_port=port, local_socket=here, durable=True
            )
            back = await opened(
                ssh, "remote", remote_port=0, local_port=port, durable=True
            )
            await opened(ssh, "dynamic", name="gone")
        file = one.state / "forwards.json"
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(json.loads(file.read_text())) == 3
        await asyncio.to_thread(getattr(one, how))
        await asyncio.to_thread(one.start)
        async with tools(one) as ssh:
            for before in (kept, path, back):
                found = await stands_there(ssh, before["forward_id"])
                assert found["listen"] == before["listen"]
                assert found["durable"] is True
                await comes_back(before["listen"])
            listed = await ssh.told("ssh_forward_list")
            assert listed["count"] == 3
            await close(ssh, "k", path["forward_id"], back["forward_id"])
        assert json.loads(file.read_text()) == []


async def comes_back(address: str) -> None:
    await soon(lambda: answers(address), "it answers again")


async def stands_there(ssh: Tools, forward_id: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        while True:
            told = await ssh.told("ssh_forward_list")
            for one in told["forwards"]:
                if one["forward_id"] == forward_id and one["state"] == "up":
                    return dict(one)
            await moment()


async def test_one_that_nobody_uses_is_closed(own: Sshd) -> None:
    """NF-14: after forward_idle_seconds; durable and used ones stay."""
    limits = "forward_idle_seconds = 8\nreap_seconds = 0.2\n"
    with serve(echo) as port, served(own, limits=limits) as one:
        async with tools(one) as ssh:
            told = await opened(ssh, "local", remote_port=port)
            lasting = await opened(ssh, "dynamic", durable=True)
            busy = await opened(ssh, "remote", remote_port=0, local_port=port)
            with dial(busy["listen"]):
                found = await stands(ssh, told["forward_id"], "stopped")
                assert "nobody used it" in found["last_error"]
                for other in (lasting, busy):
                    assert (await row(ssh, other["forward_id"]))["running"] is True
            await stands(ssh, busy["forward_id"], "stopped")


async def test_many_forwards_share_one_connection(own: Sshd) -> None:
    """FW-10: they take none of its channels, and it is in use while they are."""
    limits = "channels_per_connection = 1\n"
    with serve(echo) as port, served(own, limits=limits) as one:
        before = own.logins
        async with tools(one) as ssh:
            for number in range(5):
                # five names of one and the same, and five others
                await opened(ssh, "local", remote_port=port, name=f"n{number}")
                await opened(ssh, "dynamic", local_port=free_port())
            await ssh.run("true")
            assert own.logins == before + 1
            status = await asyncio.to_thread(one.cli_json, "status")
            (link,) = status["connections"]
            assert (link["passengers"], link["idle_seconds"]) == (6, 0)


async def test_limits_are_told(own: Sshd) -> None:
    """NF-14: so many forwards, and so many connections through each."""
    limits = "forwards_total = 1\nforward_connections = 2\n"
    with serve(echo) as port, served(own, limits=limits) as one:
        async with tools(one) as ssh:
            told = await opened(ssh, "local", remote_port=port)
            error = await ssh.refused(
                "ssh_forward_open", target="box", direction="dynamic"
            )
            assert error["reason"] == "LIMIT_REACHED"
            assert error["limit"] == "forwards_total"
            with dial(told["listen"]) as first, dial(told["listen"]) as second:
                for held in (first, second):
                    held.sendall(b"x")
                    assert held.recv(1) == b"x"
                with pytest.raises(ConnectionResetError), dial(told["listen"]) as more:
                    more.recv(1)
            found = await row(ssh, told["forward_id"])
            assert "forward_connections" in found["last_error"]
            assert found["refused"] == 1


async def test_a_privileged_port_is_told(tmp_path: Path) -> None:
    """FW-06: an account that is not root gets none on the host."""
    with login(tmp_path, "bash") as (strict, _), served(strict) as one:
        async with tools(one) as ssh:
            error = await ssh.refused(
                "ssh_forward_open",
                target="box",
                direction="remote",
                remote_port=81,
                local_port=9,
            )
            assert error["reason"] == "FORWARD_REFUSED"
            assert "needs root" in error["message"]
            told = await opened(ssh, "remote", remote_port=0, local_port=9)
            assert told["running"] is True
