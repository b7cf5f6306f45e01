"""What is kept, while links and channels fail: each byte once, or its loss told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.gate import Gate
from fakes.kept import KINDS, Kept, Reading, kept_on
from fakes.proxy import Proxy
from fakes.sshd import Sshd, descendants
from fakes.watch import soon
from holdfast_daemon.errors import LinkError
from holdfast_daemon.kept import script

if TYPE_CHECKING:
    from holdfast_daemon.kept.standing import Kind

# the full number where there is time for it
KILLS = int(os.environ.get("HOLDFAST_KEPT_KILLS", "8"))
LINES = 4000
HOST = Path(script.__file__).parent / "host"
# goes on as somebody comes by, so that every kill finds it in mid-stream
BATCHES = (
    "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line-$i-end;"
    " [ $((i % {every})) -gt 0 ] || {wait}; done; exit 9\n"
)
# slow enough for a link that comes and goes
COUNT = (
    "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line-$i-end;"
    " [ $((i % {every})) -gt 0 ] || sleep 0.1; done; exit 9\n"
)


def numbers(data: bytes) -> list[int]:
    return [int(n) for n in re.findall(rb"line-(\d+)-end", data)]


def kill_connections(kept: Kept) -> None:
    for pid in descendants(kept.sshd.pid):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("kind", KINDS)
async def test_each_line_comes_once_whatever_is_killed(
    tmp_path: Path, kind: Kind
) -> None:
    """SE-06: 4,000 lines through kills of the connection: each once and in order."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", kind)
        reading = Reading(kept, "sone", nonce)
        await reading.follower.attached()
        gate = Gate(tmp_path / "gate")

        def opened(size: int) -> bool:
            if len(reading.data) > size or reading.follower.end is not None:
                return True
            gate.open()
            return False

        def left(before: int) -> bool:
            return reading.times_away > before

        every = max(20, LINES // (KILLS * 16))
        text = BATCHES.format(lines=LINES, every=every, wait=gate.wait)
        await reading.follower.write(text.encode())
        # what is typed just before one leaves may not arrive
        await soon(lambda: bool(numbers(reading.data)), "it began")
        for _ in range(KILLS):
            size = len(reading.data)
            await soon(partial(opened, size), "more came")
            before = reading.times_away
            kill_connections(kept)
            await soon(partial(left, before), "it noticed")
            reading.follower.nudge()
            await reading.follower.attached()
        await soon(lambda: opened(1 << 40), "it came to its end", 45)
        end = await reading.follower.ended()
        assert (end.kind, end.exit_code) == ("exited", 9)
        assert reading.times_away >= KILLS
        assert numbers(reading.data) == list(range(1, LINES + 1))
        # byte for byte what the host has
        log = (kept.room / "sone" / "out").read_bytes()
        assert log.startswith(reading.data)
        assert log[len(reading.data) :].startswith(b"\x1eholdfast-end:")


async def test_a_frozen_and_a_cut_link_lose_nothing(tmp_path: Path) -> None:
    """NF-09: the link stands still, is cut, and comes back."""
    directory = tmp_path / "host"
    with (
        Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        config = proxy.config(sshd, tmp_path / "config")
        async with kept_on(directory, sshd=sshd, config=config) as kept:
            _, nonce = await kept.start("sone", "script")
            reading = Reading(kept, "sone", nonce)
            await reading.follower.attached()
            go_on = tmp_path / "go on"
            until = f"until [ -e '{go_on}' ]; do sleep 0.02; done"
            count = "i=$((i+1)); echo line-$i-end"
            await reading.follower.write(
                f"i=0; while [ $i -lt 600 ]; do {count}; [ $i -ne 300 ] || {until};"
                " done; exit 9\n".encode()
            )
            await reading.more(1000)
            proxy.freeze()
            proxy.rst()
            await soon(lambda: bool(reading.follower.away), "it noticed")
            with pytest.raises(LinkError) as wrong:
                await reading.follower.write(b"echo never\n")
            assert wrong.value.ran == "no"
            go_on.touch()
            proxy.heal()
            reading.follower.nudge()
            async with asyncio.timeout(40):
                end = await reading.follower.ended()
            assert end.exit_code == 9
            assert numbers(reading.data) == list(range(1, 601))
            assert b"never" not in reading.data


async def test_without_a_reader_the_oldest_goes_and_that_is_told(
    tmp_path: Path,
) -> None:
    """SE-09: the host's disk is bounded; who comes late is told where it begins."""
    cap = 1024 * 1024
    async with kept_on(tmp_path, kept_bytes=cap, kept_patience_seconds=0) as kept:
        _, nonce = await kept.start("sone", "script")
        line, sink = await kept.attach("sone", nonce)
        await line.write(b"yes holdfast | head -c 6000000; exit 2\n")
        # what is typed just before one leaves may not arrive
        await sink.wait_for(b"holdfast")
        line.close()
        out = kept.room / "sone" / "out"
        most = 0
        while (await kept.keeper.look("sone")).state == "running":
            most = max(most, out.stat().st_blocks * 512)
        assert most <= 2 * cap
        standing = await kept.keeper.look("sone")
        assert standing.earliest > 0
        reading = Reading(kept, "sone", nonce)
        end = await reading.follower.ended()
        assert end.exit_code == 2
        assert reading.base == standing.earliest
        assert reading.base + len(reading.data) == standing.size
        assert b"\0" not in reading.data


@pytest.mark.parametrize("holes", [True, False], ids=["holes", "copies"])
async def test_a_reader_that_acks_gets_all_and_the_disk_stays_small(
    tmp_path: Path, *, holes: bool
) -> None:
    """SE-06: output beyond the cap waits for a reader, and nothing is dropped.

    Where what is dropped becomes a hole, its reader stays; one that is behind is ended
    before it reads that.
    """
    cap = 1024 * 1024
    path = "" if holes else f"{tmp_path}/bin:{os.environ['PATH']}"
    if not holes:
        write_refusal(tmp_path / "bin" / "fallocate")
    async with kept_on(
        tmp_path, path=path, kept_bytes=cap, kept_patience_seconds=60
    ) as kept:
        _, nonce = await kept.start("sone", "script")
        reading = Reading(kept, "sone", nonce)
        await reading.follower.attached()
        slow, seen = await kept.attach("sone", nonce, looking=True)
        slow.pause()
        await reading.follower.write(b"seq -f line-%.0f-end 1 200000; exit 2\n")
        out = kept.room / "sone" / "out"
        size = 0
        async with asyncio.timeout(45):
            while reading.follower.end is None:
                # it says what it has from time to time too: the host may wait for it
                with contextlib.suppress(TimeoutError):
                    await reading.more(len(reading.data) + cap // 4, 0.2)
                await kept.keeper.ack("sone", "out", len(reading.data))
                size = max(size, out.stat().st_blocks * 512)
            slow.resume()
            assert (await slow.ended()).kind == "gone"
        slow.close()
        assert reading.base == 0
        assert (reading.times_away == 0) is holes
        assert numbers(reading.data)[-200000:] == list(range(1, 200001))
        assert reading.data.startswith(seen.out)
        assert 0 < len(seen.out) < len(reading.data)
        assert size <= 2 * cap


def write_refusal(program: Path) -> None:
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash"])
def test_the_pump_drops_also_where_no_hole_can_be_made(
    tmp_path: Path, shell: str
) -> None:
    """SE-09: positions stay right when what is left is copied instead."""
    write_refusal(tmp_path / "bin" / "fallocate")
    data = b"".join(b"%015d\n" % n for n in range(200_000))
    # what both use stands in the other, which does nothing by itself for most words
    words = (HOST / "quick.sh").read_text()
    text = words + (HOST / "pump.sh").read_text() + "pump out 1048576 0 .\n"
    done = subprocess.run(
        [*shell.split(), "-c", text, "holdfast", "look"],
        input=data,
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=40,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    low = int((tmp_path / "out.low").read_text())
    base = int((tmp_path / "out.base").read_text())
    left = (tmp_path / "out").read_bytes()
    assert low == base > 0
    assert len(left) <= 2 * 1024 * 1024
    assert left == data[base:]


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox ash"])
def test_one_that_ends_while_it_is_looked_at_has_not_been_killed(
    tmp_path: Path, shell: str
) -> None:
    """SE-11, NF-10: its end is written between the two looks; it is the true one."""
    words = (HOST / "quick.sh").read_text()
    ends = "living() { echo 'exit 5 0' >rc; return 1; }\n"
    text = words + ends + 'boot_id >boot; state; echo "$hf_state $hf_code"\n'
    done = subprocess.run(
        [*shell.split(), "-c", text, "holdfast", "look"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == b"exited 5\n"


def readers(kept: Kept) -> list[str]:
    """Return what hands on to links, and not what keeps."""
    return [one for one in kept.processes() if "hf_file=" in one or one == "cat "]


async def test_nothing_stays_of_a_reader_whose_link_is_gone(tmp_path: Path) -> None:
    """SE-06, SE-09: its processes end with the link, though the shell says nothing."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        lines = [await kept.attach("sone", nonce) for _ in range(4)]
        for line, sink in lines:
            await sink.wait_for(b"$" if os.getuid() else b"#")
            assert line.answered
        await soon(lambda: len(readers(kept)) >= 8, "they are there")
        await kept.pool.close()
        try:
            await soon(lambda: not readers(kept), "they are gone")
        except AssertionError as error:
            raise AssertionError(readers(kept)) from error
        for line, _ in lines:
            line.close()
