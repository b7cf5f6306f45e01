"""Which host a command goes to when the call does not say, or says more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_target"),
]


@pytest.fixture(scope="module")
def several(sshd: Sshd) -> Iterator[World]:
    """Yield a daemon that knows several hosts and has no default."""
    known = '[hosts.web]\nhost = "box"\n[hosts.db]\nhost = "box"\n'
    with served(sshd, more=known) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(several: World) -> AsyncIterator[Tools]:
    async with tools(several, target="") as one:
        yield one


async def test_several_hosts_and_none_selected_is_refused(ssh: Tools) -> None:
    """EX-18, IN-11: never guessed; the candidates are named."""
    error = await ssh.refused("ssh_exec", command="true")
    assert (error["reason"], error["ran"]) == ("NO_TARGET", "no")
    for name in ("web", "db"):
        assert name in error["hint"]


async def test_the_clients_environment_names_the_default(
    several: World, sshd: Sshd
) -> None:
    """EX-18: SSH_DEFAULT_HOST, and the call's own target wins."""
    async with tools(several, target="", env={"SSH_DEFAULT_HOST": "box"}) as ssh:
        assert (await ssh.run("true"))["target"] == "box"
        error = await ssh.refused("ssh_exec", command="true", target="no.such.invalid")
        assert error["reason"] == "HOST_NOT_FOUND"


async def test_the_clients_environment_completes_a_target(
    several: World, sshd: Sshd
) -> None:
    """EX-18: SSH_DEFAULT_USER and SSH_DEFAULT_PORT where nothing else says it."""
    env = {"SSH_DEFAULT_USER": sshd.user, "SSH_DEFAULT_PORT": str(sshd.port)}
    key = {
        "identity_file": str(sshd.key),
        "known_hosts_file": str(sshd.known_hosts),
    }
    async with tools(several, target="", env=env) as ssh:
        result = await ssh.run("true", target="127.0.0.1", connect=key)
        # The name as it was given; the unusual port belongs to it.
        assert result["target"] == f"127.0.0.1:{sshd.port}"
        assert result["exit_code"] == 0
        # What ssh config says of a host is nearer to it than a client's default.
        assert (await ssh.run("true", target="box"))["target"] == "box"


async def test_a_call_says_how_to_reach_the_host(ssh: Tools, sshd: Sshd) -> None:
    """EX-18, AU-02: user, port, key file and known hosts of one call."""
    connect = {
        "user": sshd.user,
        "port": sshd.port,
        "identity_file": str(sshd.key),
        "known_hosts_file": str(sshd.known_hosts),
    }
    result = await ssh.run("echo here", target="127.0.0.1", connect=connect)
    assert (result["stdout"], result["target"]) == (
        "here\n",
        f"127.0.0.1:{sshd.port}",
    )
    wrong = {**connect, "user": "nobody-of-that-name"}
    error = await ssh.refused(
        "ssh_exec", command="true", target="127.0.0.1", connect=wrong
    )
    assert error["reason"] == "AUTH_FAILED"


@pytest.mark.parametrize("form", ["{user}@{host}:{port}", "ssh://{user}@{host}:{port}"])
async def test_every_form_of_a_target_leads_there(
    ssh: Tools, sshd: Sshd, form: str
) -> None:
    """EX-18: the forms of contract section 4."""
    target = form.format(user=sshd.user, host="127.0.0.1", port=sshd.port)
    connect = {
        "identity_file": str(sshd.key),
        "known_hosts_file": str(sshd.known_hosts),
    }
    assert (await ssh.run("true", target=target, connect=connect))["exit_code"] == 0


async def test_the_configuration_names_the_default(sshd: Sshd) -> None:
    """EX-18: default_host in the file."""
    with served(sshd, more='default_host = "box"\n') as world:
        async with tools(world, target="") as ssh:
            assert (await ssh.run("true"))["target"] == "box"


async def test_the_only_host_of_the_configuration_may_be_marked(sshd: Sshd) -> None:
    """EX-18: `default = true` at a host."""
    known = '[hosts.web]\nhost = "box"\ndefault = true\n[hosts.db]\nhost = "box"\n'
    with served(sshd, more=known) as world:
        async with tools(world, target="") as ssh:
            assert (await ssh.run("true"))["exit_code"] == 0


async def test_a_host_shown_by_purpose_gives_no_address_away(sshd: Sshd) -> None:
    """IN-10: alias and purpose only, in results, lists and errors.

    On BUGGY code: headers, lists and error texts named user, address and port.
    """
    entry = '[hosts.box]\nshow = "purpose"\ndescription = "the build machine"\n'
    with served(sshd, more=entry) as world:
        async with tools(world, target="box") as ssh:
            told = [
                str(await ssh.call("ssh_hosts")),
                str(await ssh.call("ssh_exec", command="true")),
                str(await ssh.call("ssh_exec", command="true", cwd="/nonexistent")),
                str(await ssh.call("ssh_job_list")),
                str(
                    await ssh.call(
                        "ssh_exec", command="true", connect={"user": "no-such-user"}
                    )
                ),
                str(await ssh.call("ssh_disconnect", target="box", force=True)),
            ]
            assert "the build machine" in told[0]
            sshd.stop()
            told.append(str(await ssh.call("ssh_exec", command="true")))
            sshd.start()
    for text in told:
        assert sshd.address not in text
        assert str(sshd.port) not in text
