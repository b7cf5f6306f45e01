"""Forwards of each direction, through the shim and a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes import services
from fakes.services import dial, echo, exchange, serve
from fakes.sshd import free_port
from fakes.tools import Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_ways"),
    pytest.mark.needs_sshd,
]

SIZE = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


async def opened(ssh: Tools, direction: str, **arguments: Any) -> dict[str, Any]:
    asked = {"target": "box", "direction": direction, **arguments}
    told = await ssh.told("ssh_forward_open", **asked)
    assert told["running"] is True
    return told


def _mode(path: str) -> int | None:
    try:
        return Path(path).stat().st_mode & 0o777
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def program(*words: str, directory: Path) -> Generator[None]:
    with subprocess.Popen(
        words, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


async def row(ssh: Tools, forward_id: str) -> dict[str, Any]:
    told = await ssh.told("ssh_forward_list", include_stopped=True)
    (found,) = [one for one in told["forwards"] if one["forward_id"] == forward_id]
    return dict(found)


async def close(ssh: Tools, forward_id: str) -> dict[str, Any]:
    return await ssh.told("ssh_forward_close", forward=forward_id)


async def test_a_local_forward_carries_bytes_and_counts_them(ssh: Tools) -> None:
    """FW-01, FW-03, FW-04, FW-05, FW-09: port 0 on loopback, listed, closed."""
    with serve(echo) as port:
        told = await opened(ssh, "local", local_port=0, remote_port=port, name="echo")
        host, _, picked = told["listen"].rpartition(":")
        assert (host, told["connect"]) == ("127.0.0.1", f"127.0.0.1:{port}")
        assert int(picked) > 0
        assert told["reused"] is False
        data = b"x" * 100_000
        assert await asyncio.to_thread(exchange, told["listen"], data) == data

        async def quiet() -> dict[str, Any]:
            return await row(ssh, told["forward_id"])

        found = await quiet()
        while found["connections"]:
            found = await quiet()
        assert (found["bytes_in"], found["bytes_out"]) == (100_000, 100_000)
        assert (found["served"], found["refused"], found["state"]) == (1, 0, "up")
        assert found["target"] == "box"
        assert found["client"].startswith("wire")
        assert "last_error" not in found
        hosts = (await ssh.told("ssh_hosts"))["hosts"]
        assert [h["forwards"] for h in hosts if h["name"] == "box"] == [1]
        ended = await close(ssh, "echo")
        assert (ended["was_running"], ended["running"]) == (True, False)
        assert (await close(ssh, told["forward_id"]))["was_running"] is False
    with pytest.raises(ConnectionRefusedError):
        dial(told["listen"])
    error = await ssh.refused("ssh_forward_close", forward="nothing")
    assert error["reason"] == "FORWARD_NOT_FOUND"
    listed = await ssh.told("ssh_forward_list")
    assert told["forward_id"] not in [f["forward_id"] for f in listed["forwards"]]


async def test_an_end_is_told(ssh: Tools) -> None:
    """FW-05: what a close broke off, who asked for it, and that it ran or did not."""
    with serve(echo) as port:
        told = await opened(ssh, "local", local_port=0, remote_port=port, name="ends")
        assert "termination_reason" not in told
        with dial(told["listen"]) as one, dial(told["listen"]) as two:
            for each in (one, two):
                each.sendall(b"x")
                assert await asyncio.to_thread(each.recv, 1) == b"x"
            ended = await close(ssh, "ends")
            for each in (one, two):
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(each.recv, 1)
    assert (ended["was_running"], ended["running"]) == (True, False)
    assert (ended["forced_kill"], ended["connections_ended"]) == (True, 2)
    assert ended["termination_signal"] == ""
    assert ended["termination_reason"].startswith("it was closed by wire")
    again = await close(ssh, told["forward_id"])
    assert (again["was_running"], again["forced_kill"]) == (False, False)
    assert again["connections_ended"] == 0
    assert again["termination_reason"] == ended["termination_reason"]
    listed = await row(ssh, told["forward_id"])
    assert listed["termination_reason"] == ended["termination_reason"]
    quiet = await opened(ssh, "dynamic")
    assert (await close(ssh, quiet["forward_id"]))["forced_kill"] is False


async def test_a_remote_forward_listens_on_the_host(ssh: Tools) -> None:
    """FW-02: remote_port listens on the host, local_port is ours."""
    with serve(echo) as port:
        wanted = free_port()
        told = await opened(ssh, "remote", remote_port=wanted, local_port=port)
        assert told["listen"] == f"127.0.0.1:{wanted}"
        assert told["connect"] == f"127.0.0.1:{port}"
        assert await asyncio.to_thread(exchange, told["listen"], b"hello") == b"hello"
        picked = await opened(ssh, "remote", remote_port=0, local_port=port, name="p0")
        # an equal forward with any port is the same one
        assert picked["reused"] is True
        await close(ssh, told["forward_id"])
        with pytest.raises(ConnectionRefusedError):
            dial(told["listen"])
        picked = await opened(ssh, "remote", remote_port=0, local_port=port)
        assert picked["reused"] is False
        assert await asyncio.to_thread(exchange, picked["listen"], b"hi") == b"hi"
    # nobody is there any more: the host's user is told at once, and so are we
    with dial(picked["listen"]) as one:
        assert one.recv(1) == b""
    found = await row(ssh, picked["forward_id"])
    assert "refused" in found["last_error"].lower()
    assert found["refused"] == 1
    await close(ssh, picked["forward_id"])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_a_remote_forward_finds_localhost_of_ipv6(
    world: World, ssh: Tools
) -> None:
    """FW-02: a server here that listens on ::1 alone is reached, as by ssh -R."""
    with serve(echo, host="::1") as port:
        spec = f"0:localhost:{port}"
        told = await asyncio.to_thread(world.cli_json, "forward", "box", "-R", spec)
        assert await asyncio.to_thread(exchange, told["listen"], b"six") == b"six"
    with dial(told["listen"]) as one:
        assert one.recv(1) == b""
    found = await row(ssh, told["forward_id"])
    assert (found["served"], found["refused"]) == (1, 1)
    assert found["last_error"] == f"127.0.0.1:{port}: Connection refused"
    await close(ssh, told["forward_id"])


async def test_a_socks_proxy_connects_from_the_host(ssh: Tools) -> None:
    """FW-08: CONNECT, names resolved there, and failures in SOCKS' own words."""
    with serve(echo) as port:
        told = await opened(ssh, "dynamic", local_port=0)
        assert told["connect"] == ""
        for host in ("localhost", "127.0.0.1"):
            one, code = await asyncio.to_thread(
                services.socks, told["listen"], host, port
            )
            with one:
                assert code == 0
                one.sendall(b"through")
                one.shutdown(socket.SHUT_WR)
                assert services.read_all(one) == b"through"
    dead, code = await asyncio.to_thread(
        services.socks, told["listen"], "127.0.0.1", free_port()
    )
    with dead:
        assert code == 5
    lost, code = await asyncio.to_thread(
        services.socks, told["listen"], "no-such-name.invalid", 80
    )
    with lost:
        assert code in {1, 4}
    with dial(told["listen"]) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert plain.recv(10) == b""
    with dial(told["listen"]) as bound:
        bound.sendall(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50")
        assert bound.recv(2) == b"\x05\x00"
        assert bound.recv(2) == b"\x05\x07"
    found = await row(ssh, told["forward_id"])
    assert found["served"] == 2
    assert found["refused"] == 4
    await close(ssh, told["forward_id"])


async def test_unix_sockets_at_both_sides(ssh: Tools, short_path: Path) -> None:
    """FW-01, FW-02: sockets in place of ports; the file is private and goes."""
    there, here = str(short_path / "there"), str(short_path / "here")
    back = str(short_path / "back")
    with serve(echo, there):
        told = await opened(ssh, "local", local_socket=here, remote_socket=there)
        assert (told["listen"], told["connect"]) == (here, there)
        assert _mode(here) == 0o600
        assert await asyncio.to_thread(exchange, here, b"abc") == b"abc"
        other = await opened(ssh, "remote", remote_socket=back, local_socket=there)
        assert await asyncio.to_thread(exchange, back, b"def") == b"def"
        error = await ssh.refused(
            "ssh_forward_open",
            target="box",
            direction="local",
            local_socket=there,
            remote_port=1,
        )
        assert error["reason"] == "IN_USE"
        for one in (told, other):
            await close(ssh, one["forward_id"])
    assert _mode(here) is None


@pytest.mark.parametrize("way", ["local", "remote", "dynamic"])
async def test_many_bytes_arrive_whole_both_ways(ssh: Tools, way: str) -> None:
    """FW-01, FW-02, FW-08: SHA-256 of 64 MiB, up and down."""
    with serve(services.digest) as up, serve(services.source(SIZE)) as down:

        async def through(port: int) -> tuple[socket.socket, str]:
            if way == "dynamic":
                told = await opened(ssh, way, local_port=0)
                one, code = await asyncio.to_thread(
                    services.socks, told["listen"], "localhost", port
                )
                assert code == 0
                return one, told["forward_id"]
            ports = {"local_port": 0, "remote_port": port}
            if way == "remote":
                ports = {"local_port": port, "remote_port": 0}
            told = await opened(ssh, way, **ports)
            return await asyncio.to_thread(dial, told["listen"]), told["forward_id"]

        def send(one: socket.socket) -> bytes:
            for at in range(0, SIZE, len(services.BLOCK)):
                one.sendall(services.BLOCK[: SIZE - at])
            one.shutdown(socket.SHUT_WR)
            return services.read_all(one)

        one, sent = await through(up)
        with one:
            told = await asyncio.to_thread(send, one)
            assert told.decode() == services.expected(SIZE)
        one, got = await through(down)
        with one:
            found = await asyncio.to_thread(services.digest_of, one)
            assert found == services.expected(SIZE)
        for forward_id in {sent, got}:
            await close(ssh, forward_id)


async def test_five_hundred_connections_at_once(ssh: Tools) -> None:
    """FW-01: each gets its own bytes back."""
    with serve(echo) as port:
        told = await opened(ssh, "local", local_port=0, remote_port=port)
        held = [await asyncio.to_thread(dial, told["listen"]) for _ in range(500)]
        for number, one in enumerate(held):
            one.sendall(b"%d" % number)

        def answer(one: socket.socket) -> bytes:
            one.shutdown(socket.SHUT_WR)
            with one:
                return services.read_all(one)

        with ThreadPoolExecutor(20) as pool:
            answers = await asyncio.to_thread(lambda: list(pool.map(answer, held)))
        assert answers == [b"%d" % number for number in range(500)]
        found = await row(ssh, told["forward_id"])
        assert (found["served"], found["refused"]) == (500, 0)
        await close(ssh, told["forward_id"])


async def test_a_real_web_server_behind_a_forward(ssh: Tools, tmp_path: Path) -> None:
    """FW-01: python's own http.server, asked by urllib."""
    (tmp_path / "page.txt").write_text("found\n")
    port = free_port()
    words = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    with program(*words, directory=tmp_path):
        told = await opened(ssh, "local", local_port=0, remote_port=port)

        def ask() -> bytes:
            request = b"GET /page.txt HTTP/1.0\r\n\r\n"
            try:
                return exchange(told["listen"], request)
            except OSError:
                return b""

        answer = await soon(ask, "the web server answers")
        assert answer.endswith(b"\r\n\r\nfound\n")
        await close(ssh, told["forward_id"])


async def test_a_real_redis_behind_a_forward(ssh: Tools, tmp_path: Path) -> None:
    """FW-01: a real server's own protocol, over a socket of its own."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server here: run packaging/test-packages.sh")
    port = free_port()
    words = (found, "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with program(*words, directory=tmp_path):
        told = await opened(ssh, "local", local_port=0, remote_port=port)

        def ask() -> bytes:
            try:
                with dial(told["listen"]) as one:
                    value = b"v" * 100_000
                    one.sendall(
                        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + value + b"\r\n"
                        b"*2\r\n$6\r\nSTRLEN\r\n$1\r\nk\r\n*1\r\n$4\r\nQUIT\r\n"
                    )
                    return services.read_all(one)
            except OSError:
                return b""

        answer = await soon(ask, "redis answers")
        assert answer == b"+OK\r\n:100000\r\n+OK\r\n"
        await close(ssh, told["forward_id"])


async def test_two_agents_share_an_equal_forward(world: World, ssh: Tools) -> None:
    """NF-14: reused: true, under both names, owned by the first; it outlives both."""
    with serve(echo) as port:
        asked = {"target": "box", "direction": "local", "remote_port": port}
        async with tools(world, client="other") as other:
            first, second = await asyncio.gather(
                ssh.told("ssh_forward_open", name="one", **asked),
                other.told("ssh_forward_open", name="two", **asked),
            )
            assert first["forward_id"] == second["forward_id"]
            assert sorted((first["reused"], second["reused"])) == [False, True]
            error = await other.refused(
                "ssh_forward_open",
                target="box",
                direction="dynamic",
                name="one",
            )
            assert (error["reason"], error["ran"]) == ("IN_USE", "no")
        assert await asyncio.to_thread(exchange, first["listen"], b"a") == b"a"
        found = await asyncio.to_thread(world.cli_json, "forwards", "box")
        assert first["forward_id"] in [f["forward_id"] for f in found["forwards"]]
        assert (await close(ssh, "two"))["forward_id"] == first["forward_id"]


async def test_a_request_id_is_for_one_forward(ssh: Tools) -> None:
    """NF-17: the same call gives the first one's forward; another is refused."""
    with serve(echo) as port:
        asked = {"remote_port": port, "request_id": "once"}
        first = await opened(ssh, "local", **asked)
        again = await opened(ssh, "local", **asked)
        assert again["forward_id"] == first["forward_id"]
        error = await ssh.refused(
            "ssh_forward_open", target="box", direction="dynamic", request_id="once"
        )
        assert error["reason"] == "REQUEST_ID_REUSED"
        await close(ssh, first["forward_id"])


async def test_a_connection_is_not_closed_below_a_forward(ssh: Tools) -> None:
    """CO-08: ssh_disconnect names the forward, and counts it with force."""
    with serve(echo) as port:
        told = await opened(ssh, "local", remote_port=port, name="kept")
        error = await ssh.refused("ssh_disconnect", target="box")
        assert error["reason"] == "IN_USE"
        assert "kept" in error["hint"]
        ended = await ssh.told("ssh_disconnect", target="box", force=True)
        assert ended["forwards_ended"] == 1
        found = await row(ssh, told["forward_id"])
        assert (found["running"], found["state"]) == (False, "stopped")
        assert "request" in found["last_error"]


async def test_the_command_line_opens_lists_and_closes(world: World) -> None:
    """FW-01, FW-02, FW-08: ssh's own spelling of -L, -R and -D."""

    def work() -> None:
        with serve(echo) as port:
            local = world.cli_json("forward", "box", "-L", f"0:localhost:{port}")
            assert exchange(local["listen"], b"l") == b"l"
            remote = world.cli_json(
                "forward", "box", "-R", f"0:localhost:{port}", "--name", "back"
            )
            assert exchange(remote["listen"], b"r") == b"r"
            proxy = world.cli_json("forward", "box", "-D", "0")
            one, code = services.socks(proxy["listen"], "localhost", port)
            one.close()
            assert code == 0
            shown = world.cli("forwards").stdout.decode()
            assert "SOCKS" in shown
            assert "back" in shown
            for ident in (local["forward_id"], "back", proxy["forward_id"]):
                done = world.cli("forwards", "--close", ident).stdout.decode()
                assert "is closed" in done
        for words in (
            ("-L", "x:y:z"),
            ("-L", "80"),
            ("-R", "80"),
            ("-D", "99999"),
            (),
            ("-L", "1:h:2", "-D", "3"),
        ):
            refused = world.cli("forward", "box", *words, check=False)
            assert refused.returncode == 2, refused

    await asyncio.to_thread(work)
