"""ssh_connect, ssh_disconnect and `holdfast hosts test`: what is told, and refused."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.asyncssh_server import LOOPBACK, Odd
from fakes.sshd import Agent, Sshd, fingerprint, keygen
from fakes.tools import Tools, served, tools
from fakes.watch import PATIENCE, moment, soon

if TYPE_CHECKING:
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("connect_tools"),
    pytest.mark.needs_sshd,
]

PASSWORD = "the right one 4711"


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(ssh: Tools) -> Tools:
    """Return the tools while no connection is open."""
    await ssh.told("ssh_disconnect", target="box", force=True)
    return ssh


def rows(world: World) -> list[dict[str, Any]]:
    found = world.cli_json("status")["connections"]
    assert isinstance(found, list)
    return found


async def connected(ssh: Tools) -> bool:
    """Tell whether ssh_hosts shows the connection."""
    (box,) = (await ssh.told("ssh_hosts"))["hosts"]
    return bool(box["connected"])


async def test_the_first_connects_and_the_next_finds_it(
    fresh: Tools, shared: World, sshd: Sshd
) -> None:
    """NF-07, IN-05: one login for both faces and for what runs afterwards."""
    logins = sshd.logins
    assert await connected(fresh) is False
    told = await fresh.told("ssh_connect")
    assert (told["target"], told["connected"], told["reused"]) == ("box", True, False)
    assert await connected(fresh) is True
    again = await fresh.told("ssh_connect")
    assert again == {**told, "reused": True, "rtt_ms": again["rtt_ms"]}
    tested = await asyncio.to_thread(shared.cli_json, "hosts", "test", "box")
    assert tested == {**told, "reused": True, "rtt_ms": tested["rtt_ms"]}
    assert (await fresh.run("true"))["exit_code"] == 0
    assert sshd.logins == logins + 1


async def test_what_is_told_of_a_connection_is_true(fresh: Tools, sshd: Sshd) -> None:
    """Contract section 4: round trip, the server's version, its key, the login."""
    told = await fresh.told("ssh_connect")
    assert 0 < told["rtt_ms"] < 10_000
    banner = await asyncio.to_thread(greeting, sshd.port)
    assert told["server_version"] == banner
    assert told["host_key_fingerprint"] == sshd.host_fingerprint()
    assert told["auth_method"] == f"publickey {fingerprint(sshd.key)} ({sshd.key})"


def greeting(port: int) -> str:
    """Return a server's first line, as everybody may read it."""
    with socket.create_connection((LOOPBACK, port), 10) as client:
        return client.makefile("rb").readline().decode().strip()


async def test_people_are_told_the_same(fresh: Tools, shared: World) -> None:
    """IN-05, IN-08: `holdfast hosts test` in words."""
    for state in ("new", "was open already"):
        words = (await asyncio.to_thread(shared.cli, "hosts", "test", "box")).stdout
        told = words.decode()
        assert state in told
        assert re.search(r"\d+\.\d ms", told)
        assert "SSH-2.0-OpenSSH" in told
        assert "SHA256:" in told


async def test_a_connection_in_use_is_closed_only_by_force(
    fresh: Tools, shared: World, sshd: Sshd
) -> None:
    """EX-20: IN_USE names the command; force ends it as lost, and never as exit 0."""
    job = await fresh.start("echo up; exec sleep 300")
    await fresh.until(job, "up")
    error = await fresh.refused("ssh_disconnect", target="box")
    assert (error["reason"], error["ran"]) == ("IN_USE", "no")
    assert error["jobs"] == job
    assert job in error["hint"]
    done = await asyncio.to_thread(
        shared.cli, "hosts", "disconnect", "box", check=False
    )
    assert done.returncode == 1
    assert job.encode() in done.stderr
    # Nothing was closed by asking.
    assert await connected(fresh) is True
    assert (await fresh.read(job, offset=0))["status"] == "running"
    told = await fresh.told("ssh_disconnect", target="box", force=True)
    assert (told["closed"], told["jobs_ended"]) == (True, 1)
    lost = await fresh.read(job, offset=0)
    assert (lost["status"], lost["ok"], lost["stdout"]) == ("lost", False, "up\n")
    assert "exit_code" not in lost
    assert await connected(fresh) is False


@pytest.mark.parametrize("place", ["durable", "session"])
async def test_what_the_host_keeps_is_not_waited_for(
    fresh: Tools, shared: World, place: str
) -> None:
    """NF-02: a forced end took as long as what is kept ran, and was told as its end."""
    session = ""
    if place == "durable":
        job = await fresh.start("echo up; exec sleep 300", durable=True)
    else:
        opened = await fresh.told("ssh_session_open", target="box", durability="remote")
        session = opened["session_id"]
        told = await fresh.told(
            "ssh_session_run",
            session=session,
            command="echo up; sleep 300",
            wait_seconds=0,
        )
        job = told["job_id"]
    await fresh.until(job, "up")
    error = await fresh.refused("ssh_disconnect", target="box")
    assert "kept on the host go on there" in error["hint"]
    async with asyncio.timeout(40):
        ended = await fresh.told("ssh_disconnect", target="box", force=True)
    assert (ended["closed"], ended["jobs_ended"]) == (True, 0)
    assert (await fresh.read(job, offset=0))["status"] == "running"
    if place == "durable":
        # Once it is followed again.
        async with asyncio.timeout(PATIENCE):
            while not (await fresh.stop(job))["stopped"]:
                await moment()
    else:
        await fresh.told("ssh_session_close", session=session, force=True)
    assert (await fresh.ended(job))["status"] != "running"


async def test_a_closed_connection_is_closed_at_the_host_too(
    fresh: Tools, shared: World, sshd: Sshd
) -> None:
    """Contract section 4: closed says whether there was one; the next call reopens."""
    await fresh.told("ssh_connect")
    before = sshd.log.position
    assert (await fresh.told("ssh_disconnect", target="box"))["closed"] is True
    await asyncio.to_thread(sshd.log.wait_for, "isconnect", after=before)
    assert rows(shared) == []
    assert (await fresh.told("ssh_disconnect", target="box"))["closed"] is False
    assert (await fresh.told("ssh_connect"))["reused"] is False


async def test_people_close_a_connection_too(fresh: Tools, shared: World) -> None:
    """NF-18, IN-08: `holdfast hosts disconnect`, in words and as JSON."""
    await fresh.told("ssh_connect")
    said = await asyncio.to_thread(shared.cli, "hosts", "disconnect", "box")
    assert said.stdout == b"closed\n"
    said = await asyncio.to_thread(shared.cli, "hosts", "disconnect", "box")
    assert said.stdout == b"there was no connection\n"
    job = await fresh.start("exec sleep 300")
    done = await asyncio.to_thread(
        shared.cli_json, "hosts", "disconnect", "box", "--force"
    )
    assert (done["closed"], done["jobs_ended"]) == (True, 1)
    assert (await fresh.ended(job))["status"] == "lost"


async def test_a_lost_connection_is_not_shown_as_one(
    fresh: Tools, shared: World, sshd: Sshd
) -> None:
    """NF-09: `connected` is what is, and the next call connects anew."""
    await fresh.told("ssh_connect")
    await asyncio.to_thread(sshd.drop_connections)
    await soon(lambda: not open_rows(shared), "the loss is noticed")
    assert await connected(fresh) is False
    assert (await fresh.told("ssh_connect"))["reused"] is False


def open_rows(world: World) -> list[dict[str, Any]]:
    return [row for row in rows(world) if row["state"] == "ready"]


async def test_a_refused_connection_is_told_by_every_face(
    fresh: Tools, shared: World, tmp_path: Path
) -> None:
    """EX-20, IN-05: the same reason for agents and people, exit code 1."""
    stranger = keygen(tmp_path / "stranger")
    error = await fresh.refused("ssh_connect", connect={"identity_file": str(stranger)})
    assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")
    done = await asyncio.to_thread(
        shared.cli, "--json", "hosts", "test", "-i", str(stranger), "box", check=False
    )
    assert done.returncode == 1
    assert b'"AUTH_FAILED"' in done.stdout


async def test_the_login_is_called_by_what_it_was(sshd: Sshd, tmp_path: Path) -> None:
    """AU-01, AU-02, AU-14: auth_method for key, agent, certificate and password."""
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user")
    await asyncio.to_thread(
        subprocess.run,
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", sshd.user,
         f"{key}.pub"],
        check=True,
    )  # fmt: skip
    options = {"TrustedUserCAKeys": f"{authority}.pub"}
    known = tmp_path / "known_hosts"
    keeping = Path(tempfile.mkdtemp(prefix="hf-agent-"))
    async with Odd(password=PASSWORD) as odd:
        with (
            Agent(keeping) as agent,
            Sshd(tmp_path / "certain", options=options, alias="sealed") as certain,
        ):
            kept = keygen(tmp_path / "kept")
            sshd.authorize(kept.with_suffix(".pub"))
            agent.add(kept)
            known.write_text(odd.known_hosts)
            place = f"\n  HostName {LOOPBACK}\n  IdentitiesOnly no\n"
            config = tmp_path / "config"
            config.write_text(
                sshd.client_config("file")
                + f"Host keeper{place}  Port {sshd.port}\n  IdentityFile none\n"
                f"  UserKnownHostsFile {sshd.known_hosts}\n"
                f"Host odd{place}  Port {odd.port}\n"
                f"  UserKnownHostsFile {known}\n"
                + certain.client_config("sealed").replace(str(certain.key), str(key))
            )
            wanted = {
                "file": f"publickey {fingerprint(sshd.key)} ({sshd.key})",
                "keeper": f"publickey {fingerprint(kept)} (from the agent)",
                "sealed": f"publickey {fingerprint(key)} ({key}, certificate)",
                "odd": "password",
            }
            env = {
                "SSH_AUTH_SOCK": str(agent.socket),
                "SSH_DEFAULT_USER": sshd.user,
            }
            found: dict[str, str] = {}
            with served(config) as world:
                async with tools(world, target="", env=env) as ssh:
                    for target in wanted:
                        secret = {"password": PASSWORD} if target == "odd" else {}
                        told = await ssh.told(
                            "ssh_connect", target=target, connect=secret
                        )
                        found[target] = told["auth_method"]
                    # And by the person's command line, of the same connections.
                    for target in ("file", "sealed"):
                        done = await asyncio.to_thread(
                            world.cli_json, "hosts", "test", target
                        )
                        assert done["auth_method"] == wanted[target]
            assert found == wanted
            assert odd.attempts == [PASSWORD]
    shutil.rmtree(keeping, ignore_errors=True)
