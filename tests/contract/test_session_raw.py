"""The bytes of a terminal as they came: `view: raw` of ssh_session_read."""

from __future__ import annotations

import asyncio
import base64
import random
from typing import TYPE_CHECKING

import pytest

from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.tools import Tools

pytestmark = pytest.mark.usefixtures("terminals")


async def raw(ssh: Tools, session: str, chars: int, wanted: bytes) -> bytes:
    """Read a session's output from its start, until it ends with `wanted`."""
    said, kinds = b"", set[str]()
    async with asyncio.timeout(40):
        while not said.endswith(wanted):
            told = await ssh.told(
                "ssh_session_read",
                session=session,
                view="raw",
                offset=len(said),
                max_output_chars=chars,
                wait_seconds=1,
            )
            assert len(told["output"]) <= chars
            kinds.add(told["encoding"])
            if told["encoding"] == "base64":
                said += base64.b64decode(told["output"], validate=True)
            else:
                said += told["output"].encode()
            assert told["next_offset"] == len(said)
    assert kinds <= {"utf-8", "base64"}
    return said


@pytest.mark.parametrize("durability", ["held", "remote"])
async def test_raw_is_byte_exact_whatever_came(
    short_path: Path, sshd: Sshd, durability: str
) -> None:
    """SE-22: every byte, escapes, broken UTF-8 and NUL too; said how it is written."""
    data = bytes(range(256)) + random.Random(3).randbytes(600) + "é€😀".encode()
    path = short_path / "bytes"
    path.write_bytes(b"BEGIN" + data + b"\xe2END")
    with served(sshd) as world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", durability=durability
            )
            session = opened["session_id"]
            await ssh.told(
                "ssh_session_write",
                session=session,
                input=f"stty -opost; cat {path}; exec sleep 1000\n",
            )
            said = await raw(ssh, session, 700, b"END")
            assert said.endswith(b"BEGIN" + data + b"\xe2END")
            assert await raw(ssh, session, 5, b"END") == said
            # text is text, and says nothing of how
            told = await ssh.told("ssh_session_read", session=session, offset=0)
            assert "encoding" not in told
            await ssh.told("ssh_session_close", session=session, force=True)
