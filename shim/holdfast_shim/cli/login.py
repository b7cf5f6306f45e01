"""`holdfast login`: a person answers what a host asks, once for all agents."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click
from grpc import aio

from holdfast.v1 import login_pb2, login_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import ask
from holdfast_shim.cli.desk import Desk
from holdfast_shim.cli.options import OK, json_option, options
from holdfast_shim.errors import CallError
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast_shim.client import DaemonClient

    _Call = aio.StreamStreamCall[login_pb2.LoginRequest, login_pb2.LoginResponse]

# As ssh's NumberOfPasswordPrompts, which the daemon keeps to.
_TRIES = 3
# Ctrl-\ is one of them: nothing that is typed may stay unseen after us.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SIGNALLED = 128


@click.command("login")
@click.argument("target", shell_complete=complete_target)
@click.option(
    "--again", is_flag=True, help="Make one more connection where one is open."
)
@connect_options
@json_option
def login(target: str, *, again: bool, **connect: Any) -> int:
    """Log in to a host, answering what it asks: a code, a password, a passphrase.

    The daemon keeps the connection, and every agent uses it. Calls that wait for this
    login go on with it. What you type is kept nowhere.
    """
    chosen = options()
    start = login_pb2.LoginStart(
        target=target, connect=connect_message(**connect), force=again
    )

    ended: list[int] = []

    async def work(client: DaemonClient) -> login_pb2.LoginDone:
        stub = login_pb2_grpc.LoginServiceStub(client.channel)
        call = stub.Login(metadata=client.metadata())
        with ExitStack() as stack:
            # However we leave, the daemon learns that nobody answers any more.
            stack.callback(call.cancel)
            stack.enter_context(_ending_in_order(ended))
            desk = stack.enter_context(Desk())
            return await _Conversation(call, desk).hold(start)

    try:
        done = ask(chosen, work)
    except asyncio.CancelledError:
        return _SIGNALLED + ended[0]
    told = to_json(done.connection)
    if chosen.json:
        output.emit({**told, "waited": done.waited})
        return OK
    connection = done.connection
    rows = [
        ("host", connection.target),
        ("connection", "was open already" if connection.reused else "new"),
        ("login", connection.auth_method),
        ("host key", connection.host_key_fingerprint),
        ("server", connection.server_version),
    ]
    if done.waited:
        calls = "call" if done.waited == 1 else "calls"
        rows.append(("waited", f"{done.waited} {calls} of others, which go on now"))
    output.pairs(rows)
    return OK


class _Conversation:
    """One login: frames of the daemon in, what is typed out."""

    def __init__(self, call: _Call, desk: Desk) -> None:
        self._call = call
        self._desk = desk
        self._typing: asyncio.Task[login_pb2.LoginAnswers] | None = None

    async def hold(self, start: login_pb2.LoginStart) -> login_pb2.LoginDone:
        """Go on until the login is done.

        Raises:
            CallError: There is nobody to ask, or the person gave up.
            grpc.aio.AioRpcError: It failed.
        """
        await self._send(login_pb2.LoginRequest(start=start))
        reading = asyncio.create_task(self._read())
        try:
            while True:
                both: set[asyncio.Task[Any]] = {reading}
                if self._typing is not None:
                    both.add(self._typing)
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    done = self._take(reading.result())
                    if done is not None:
                        return done
                    reading = asyncio.create_task(self._read())
                elif self._typing is not None:
                    answers = self._typing.result()
                    self._typing = None
                    await self._send(login_pb2.LoginRequest(answers=answers))
        finally:
            # The login may end by itself while somebody still types.
            tasks: list[asyncio.Task[Any]]
            tasks = [task for task in (reading, self._typing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> login_pb2.LoginResponse:
        frame = await self._call.read()
        if isinstance(frame, login_pb2.LoginResponse):
            return frame
        # The end of the stream: its status says why.
        async for _ in self._call:
            continue
        raise CallError(
            "DAEMON_LOST",
            "the daemon ended the call without telling how the login ended",
            hint="look with `holdfast status`",
            ran="unknown",
        )

    def _take(self, frame: login_pb2.LoginResponse) -> login_pb2.LoginDone | None:
        kind = frame.WhichOneof("frame")
        if kind == "done":
            return frame.done
        if kind == "told":
            self._desk.say(frame.told)
        elif kind == "question":
            self._typing = asyncio.create_task(self._answer(frame.question))
        return None

    async def _answer(
        self, question: login_pb2.LoginQuestion
    ) -> login_pb2.LoginAnswers:
        desk = self._desk
        if not desk.there:
            asked = ", ".join(prompt.text.strip(" :") for prompt in question.prompts)
            raise CallError(
                "LOGIN_NEEDED",
                f"{question.host} asks for: {asked}; there is no terminal to ask at",
                hint=f"run `holdfast login {question.host}` in a terminal",
            )
        if question.tries:
            desk.say(f"That was not accepted; try {question.tries + 1} of {_TRIES}.")
        for text in (question.name, question.instructions):
            if text:
                desk.say(text)
        typed: list[str] = []
        foreign = question.kind == login_pb2.LOGIN_QUESTION_KIND_INTERACTIVE
        for prompt in question.prompts:
            # As ssh does it: no server can pass its words off as ours.
            before = f"({question.host}) " if foreign else ""
            text = f"{before}{prompt.text.rstrip()} "
            typed.append(await desk.ask(text, echo=prompt.echo))
        return login_pb2.LoginAnswers(question=question.number, answers=typed)

    async def _send(self, request: login_pb2.LoginRequest) -> None:
        try:
            await self._call.write(request)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # who reads the call learns why


@contextmanager
def _ending_in_order(ended: list[int]) -> Generator[None]:
    """Have a signal that ends us end the login first, with the terminal as it was."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one

    def end(number: int) -> None:
        ended.append(number)
        task.cancel()

    for number in _ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)
