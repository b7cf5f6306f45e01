"""Sessions against a small model: whatever is done to them, in whatever order.

Clients open, run, type, read, attach and close; shells, clients and the daemon are
killed. HOLDFAST_MODEL_STEPS says for how many steps (`make soak`: 2,000). The sequences
are the same each time; a failing one is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import math
import os
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, tools
from fakes.watch import connected, soon
from fakes.world import World
from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.client import metadata_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

Request = session_pb2.AttachSessionRequest
STEPS = int(os.environ.get("HOLDFAST_MODEL_STEPS", "60"))
# of one life of a host: long enough for names to come again and again
LIFE = min(STEPS // 2, 60)
SECONDS = 60 + STEPS

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]

NAMES = ["ann", "bob"]
SIZES = [0, 3, 5000]
# What is done, and how often beside the others.
ACTS = (
    ["run"] * 7
    + ["open"] * 3
    + ["write"] * 3
    + ["leave"] * 3
    + ["collect"] * 2
    + ["read"] * 2
    + ["attach"] * 2
    + ["kill"] * 2
    + ["close", "leave_shell", "kill_shell", "kill_client", "restart"]
)
# a keyboard that another client used is free again after so long
LIMITS = f"{QUICK}session_writer_seconds = 0.1\n"
# How a shell ends that is hung up on, or killed.
HUNG_UP = {128 + signal.SIGHUP, 128 + signal.SIGKILL}
LOST = {"connection_lost", "host_restarted"}
counted = itertools.count()


@dataclass
class Living:
    """What the model knows of a session whose shell runs.

    Attributes:
        count: A variable of its shell.
        typed: Tokens that were typed and not yet known to have been run.
    """

    ident: str
    durability: str
    count: int = 0
    typed: list[str] = field(default_factory=list[str])


@dataclass
class Pending:
    """A command that was left running."""

    job: str
    session: str
    token: str
    code: int


class Sessions(RuleBasedStateMachine):
    """One host, one daemon after another, two clients."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.tokens = itertools.count()
        self.done: list[str] = []
        self.living: dict[str, Living] = {}
        # how the others may have ended: (reasons, exit code) by id
        self.ended: dict[str, tuple[set[str], int | None]] = {}
        self.lost: set[str] = set()
        self.pending: list[Pending] = []
        self.once: set[str] = set()
        self.maybe: set[str] = set()
        self.never: set[str] = set()
        self.cursors: dict[tuple[int, str], int] = {}
        self.clients: list[Tools] = []
        self.stacks = [contextlib.AsyncExitStack() for _ in range(2)]
        self.root = Path(tempfile.mkdtemp(prefix="hf-"))
        self.host = Sshd(
            self.root / "sshd", options={"SetEnv": f"HOME={self.root}/sshd"}
        )
        self.ran = self.root / "ran"
        self.ran.touch()
        self.host.start()
        self.world = World(self.root, ssh_config=self.host.config)
        self.world.configure(f"[limits]\n{LIMITS}")
        self.world.start()
        self.do(self.greet())

    # how things are done

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do it, in bounded time."""
        try:
            return self.runner.run(asyncio.wait_for(work, 60))
        except BaseException:
            self.print()
            raise

    def print(self) -> None:
        """Tell what was done so far; another time it may go well."""
        sys.stderr.write(f"{traceback.format_exc()}it failed after:\n")
        sys.stderr.write("\n".join([*self.done, ""]))

    async def greet(self) -> None:
        for stack in self.stacks:
            shim = tools(self.world, "--no-autostart")
            self.clients.append(await stack.enter_async_context(shim))

    def token(self) -> str:
        return f"t{next(self.tokens)}"

    async def call(
        self, client: int, tool: str, *bad: str, **arguments: Any
    ) -> tuple[Result, Result | None]:
        """Return what it told, or the error, which must be one of `bad`."""
        while True:
            found = await self.clients[client].call(tool, **arguments)
            told = found["structuredContent"]
            if "isError" not in found:
                return told, None
            error = told["error"]
            if error["reason"] in bad:
                return {}, error
            # nothing was done, and it is free in a moment
            assert error["reason"] in {"SESSION_BUSY", "DAEMON_UNAVAILABLE"}, error
            assert error["ran"] == "no", error
            await asyncio.sleep(0.02)

    def gone(self, name: str, *, reasons: set[str], code: int | None = None) -> None:
        """Its shell has ended."""
        one = self.living.pop(name)
        self.ended[one.ident] = (reasons, code)
        self.maybe |= set(one.typed)
        if reasons <= LOST:
            self.lost.add(name)

    @rule(
        act=st.sampled_from(range(len(ACTS))),
        name=st.sampled_from(NAMES),
        client=st.sampled_from([0, 1]),
        code=st.sampled_from([0, 1, 7, 255]),
        size=st.sampled_from(SIZES),
    )
    def step(self, act: int, name: str, client: int, code: int, size: int) -> None:
        """Do one thing."""
        # so that also the simplest sequence has all of them in it
        what = ACTS[(act + 7 * len(self.done)) % len(ACTS)]
        needs = what in {"leave", "read", "attach", "leave_shell", "kill_shell"}
        if needs and name not in self.living:
            what = "open"
        if what == "collect" and not self.pending:
            what = "run"
        self.done.append(f"{what} {name=} {client=} {code=} {size=}")
        if what in {"kill", "restart"}:
            getattr(self, what)()
            return
        given: dict[str, Any] = {
            "name": name, "client": client, "code": code, "size": size,
        }  # fmt: skip
        work = getattr(self, what)
        wanted = inspect.signature(work).parameters
        self.do(work(**{key: given[key] for key in wanted}))

    # opening and closing

    async def open(self, name: str, client: int) -> None:
        kind = "remote" if len(self.done) % 3 else "held"
        told, _ = await self.call(
            client, "ssh_session_open", target="box", session_name=name, durability=kind
        )
        before = self.living.get(name)
        assert told["created"] is (before is None)
        assert told["reused"] is (before is not None)
        if before is not None:
            assert told["session_id"] == before.ident
            assert told["matched_by"] == "name"
            return
        assert told["session_id"] not in self.ended
        assert told.get("matched_by") == ("restored" if name in self.lost else None)
        self.lost.discard(name)
        self.living[name] = Living(told["session_id"], told["durability"])
        assert told["durability"] == kind

    async def close(self, name: str, client: int, code: int) -> None:
        force = code == 0
        told, _ = await self.call(
            client, "ssh_session_close", session=name, force=force
        )
        before = self.living.get(name)
        if before is None:
            assert told.get("was_running", False) is False, told
            return
        assert (told["closed"], told["was_running"]) == (True, True), told
        assert told.get("exit_code") != 0
        self.gone(name, reasons={"closed"})

    # running

    async def run(self, name: str, client: int, code: int, size: int) -> None:
        token, before = self.token(), self.living.get(name)
        lines = f"seq -f '{token} %g' {size}"
        command = (
            f"echo {token} >> {self.ran}; N=$((N+1)); echo n=$N; {lines}; (exit {code})"
        )
        told, error = await self.call(
            client, "ssh_session_run", *self.refused(name), session=name,
            command=command, max_output_chars=200_000,
        )  # fmt: skip
        if before is None:
            self.check_refused(error, token)
            return
        before.count += 1
        wanted = "".join(f"{token} {n}\n" for n in range(1, size + 1))
        assert told["status"] == "exited", told
        assert told["exit_code"] == code
        assert told["stdout"] == f"n={before.count}\n{wanted}"
        assert told.get("stderr", "") == ""
        self.once |= {token, *before.typed}
        before.typed.clear()

    def refused(self, name: str) -> tuple[str, ...]:
        """What may be told of a session that there is not."""
        return () if name in self.living else ("SESSION_ENDED", "SESSION_NOT_FOUND")

    def check_refused(self, error: Result | None, token: str) -> None:
        assert error is not None
        assert error["ran"] == "no"
        self.never.add(token)

    async def leave(self, name: str, client: int, code: int) -> None:
        token, before = self.token(), self.living[name]
        told, _ = await self.call(
            client, "ssh_session_run", session=name, wait_seconds=0,
            command=f"sleep 0.3; echo {token} >> {self.ran}; echo {token};"
            f" (exit {code})",
        )  # fmt: skip
        self.pending.append(Pending(told["job_id"], before.ident, token, code))

    async def collect(self, client: int) -> None:
        one = self.pending.pop(0)
        told: Result = {"status": "running", "next_offset": 0}
        while told["status"] == "running":
            told, _ = await self.call(
                client, "ssh_job_read", job_id=one.job, offset=0, wait_seconds=1
            )
        if (told.get("exit_code"), told["stdout"]) == (one.code, f"{one.token}\n"):
            self.once.add(one.token)
            return
        self.maybe.add(one.token)
        # it is never made up how it ended: the daemon died, or its shell was ended
        assert told.get("exit_code") in {None, *HUNG_UP}, told
        ended = one.session in self.ended
        assert ended or told["status"] == "lost", told

    # typing and reading

    async def write(self, name: str, client: int) -> None:
        token, before = self.token(), self.living.get(name)
        _, error = await self.call(
            client, "ssh_session_write", *self.refused(name), session=name,
            input=f"echo {token} >> {self.ran}\n", wait_seconds=0,
        )  # fmt: skip
        if before is None:
            self.check_refused(error, token)
        else:
            before.typed.append(token)

    async def read(self, name: str, client: int) -> None:
        ident = self.living[name].ident
        told, _ = await self.call(client, "ssh_session_read", session=name, view="raw")
        assert told["session_id"] == ident
        assert told["running"] is True
        before = self.cursors.get((client, ident), 0)
        assert told["next_offset"] >= before
        self.cursors[client, ident] = told["next_offset"]

    async def attach(self, name: str) -> None:
        token, before = self.token(), self.living[name]
        before.typed.append(token)
        async with connected(self.world) as client:
            client.context.person = True
            stub = session_pb2_grpc.SessionServiceStub(client.channel)
            call = stub.AttachSession(metadata=metadata_of(client.context, ""))
            await call.write(Request(start=session_pb2.AttachStart(session=name)))
            keys = f"echo {token} >> {self.ran}; echo a''{token}\r"
            await call.write(Request(keys=keys.encode()))
            seen = b""
            while f"a{token}".encode() not in seen:
                found = await call.read()
                assert isinstance(found, session_pb2.AttachSessionResponse)
                assert not found.HasField("end")
                if found.away.startswith("not typed"):
                    before.typed.remove(token)
                    self.never.add(token)
                    break
                seen += found.output.data
            await call.write(Request(detach=True))
            while await call.read() is not grpc.aio.EOF:
                continue

    # what goes wrong

    async def leave_shell(self, name: str, client: int, code: int) -> None:
        token = self.token()
        told, _ = await self.call(
            client, "ssh_session_run", session=name,
            command=f"echo {token} >> {self.ran}; exit {code}",
        )  # fmt: skip
        ident = self.living[name].ident
        self.once.add(token)
        if "exit_code" in told:
            assert told["exit_code"] == code
        await self.over(ident)
        self.gone(name, reasons={"exited"}, code=code)

    async def kill_shell(self, name: str, client: int) -> None:
        told, _ = await self.call(
            client, "ssh_session_run", session=name, command="echo $$"
        )
        one = self.living[name]
        self.once |= set(one.typed)
        one.typed.clear()
        os.kill(int(told["stdout"]), signal.SIGKILL)
        # sshd tells the signal, a holder its shell's way of telling it
        code = (await self.over(one.ident)).get("exit_code")
        assert code in {None, 128 + signal.SIGKILL}
        self.gone(name, reasons={"signalled", "exited"}, code=code)

    async def kill_client(self, client: int) -> None:
        self.clients[client].wire.process.kill()
        await self.stacks[client].aclose()
        shim = tools(self.world, "--no-autostart")
        self.clients[client] = await self.stacks[client].enter_async_context(shim)
        for key in [key for key in self.cursors if key[0] == client]:
            del self.cursors[key]

    def kill(self) -> None:
        """SIGKILL of the daemon, and another one."""
        self.world.kill()
        self.begin_again()

    def restart(self) -> None:
        """A stop, as for an upgrade, and another one."""
        self.world.stop()
        self.begin_again()

    def begin_again(self) -> None:
        self.world.start()
        self.cursors.clear()
        for name, one in list(self.living.items()):
            if one.durability == "held":
                self.gone(name, reasons=set(LOST))
            else:
                self.maybe |= set(one.typed)
                one.typed.clear()

    # what always holds

    async def rows(self) -> list[Result]:
        told, _ = await self.call(0, "ssh_session_list", include_exited=True)
        found = told["sessions"]
        assert isinstance(found, list)
        return found

    async def over(self, ident: str) -> Result:
        """Return how it stands once its shell's end is known."""
        while True:
            rows = await self.rows()
            row = next(one for one in rows if one["session_id"] == ident)
            if not row["running"]:
                return row
            await asyncio.sleep(0.02)

    @invariant()
    def known(self) -> None:
        """Living ones are there, once each; the others ended as they did."""
        next(counted)
        self.do(self.compare())

    async def compare(self) -> None:
        rows = {one["session_id"]: one for one in await self.rows()}
        names = [one["session_name"] for one in rows.values() if one["running"]]
        assert sorted(names) == sorted(self.living), rows
        for name, one in self.living.items():
            row = rows.pop(one.ident)
            assert (row["session_name"], row["running"]) == (name, True)
            assert "exit_code" not in row
        assert set(rows) == set(self.ended)
        for ident, row in rows.items():
            reasons, code = self.ended[ident]
            assert row["exit_reason"] in reasons, row
            if row.get("exit_code") == 0 or code is not None:
                assert row.get("exit_code") == code, row

    def teardown(self) -> None:
        """Each command ran as often as was told, and nothing stays on the host."""
        try:
            self.do(self._last_look())
        finally:
            self.do(self._part())
            self.runner.close()
            self.world.close()
            self.host.__exit__(None, None, None)
            shutil.rmtree(self.root, ignore_errors=True)

    async def _part(self) -> None:
        for stack in self.stacks:
            await stack.aclose()

    async def _last_look(self) -> None:
        while self.pending:
            await self.collect(0)
        for name in list(self.living):
            await self.run(name, 0, 0, 0)
            await self.close(name, 0, 0)
        found = self.ran.read_text().split()
        times = {token: found.count(token) for token in set(found)}
        assert {token for token, count in times.items() if count > 1} == set()
        assert self.once <= set(found), self.once - set(found)
        assert not self.never & set(found)
        assert set(found) <= self.once | self.maybe
        # a daemon that died as a session ended may have left what it knows to be over
        kept = await asyncio.to_thread(self.world.cli_json, "sessions", "--on", "box")
        assert {one["id"] for one in kept.get("kept", [])} <= set(self.ended)
        wipe = ("sessions", "--on", "box", "--wipe-all", "--force")
        await asyncio.to_thread(self.world.cli, *wipe)
        room = self.host.directory / ".cache" / "holdfast"
        await soon(lambda: not room.exists(), "nothing is left on the host")


def test_sessions_are_as_the_model_says() -> None:
    """SE-04, SE-06, SE-11, NF-01, NF-17, NF-20: any order of use and of crashes."""
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=math.ceil(STEPS / LIFE),
            stateful_step_count=LIFE,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    # the look after each step, and the one before the first
    assert next(counted) >= STEPS
