"""LoginService: carries what a login asks to a person's terminal, and answers back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast.v1 import host_pb2, login_pb2, login_pb2_grpc
from holdfast_daemon.connection.question import GaveUp, Kind
from holdfast_daemon.errors import DaemonError, InputError
from holdfast_daemon.rpc.door import current
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc.aio

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.connection.question import Question

    type_context = grpc.aio.ServicerContext[Any, Any]

_KINDS = {
    Kind.PASSWORD: login_pb2.LOGIN_QUESTION_KIND_PASSWORD,
    Kind.NEW_PASSWORD: login_pb2.LOGIN_QUESTION_KIND_NEW_PASSWORD,
    Kind.PASSPHRASE: login_pb2.LOGIN_QUESTION_KIND_PASSPHRASE,
    Kind.INTERACTIVE: login_pb2.LOGIN_QUESTION_KIND_INTERACTIVE,
}
# A server may say what it likes before it lets in; nobody reads more than this.
_MOST_TOLD = 50


class LoginServicer(login_pb2_grpc.LoginServiceServicer):
    """Thin: one login of the pool, with the caller as the person to ask."""

    def __init__(self, pool: Pool) -> None:
        """Serve `pool`."""
        self._pool = pool

    async def Login(
        self,
        request_iterator: AsyncIterator[login_pb2.LoginRequest],
        context: type_context,
    ) -> AsyncIterator[login_pb2.LoginResponse]:
        """Log in, asking the caller what the host asks."""
        call = current()
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        host = call.host
        if first is None or host is None:
            raise InputError("start", "the first frame must be start")
        person = _Person()
        work = asyncio.create_task(
            self._pool.login(host, person, again=first.start.force)
        )
        work.add_done_callback(lambda _: person.over())
        listening = asyncio.create_task(_listen(frames, person))
        try:
            while (frame := await person.frames.get()) is not None:
                yield frame
            if person.fault is not None:
                raise person.fault
            lease, waited = await work
            async with lease:
                link = lease.link
                call.ticket.add(auth_method=link.auth_method, waited=waited)
                connection = await _told(host.name, lease)
            done = login_pb2.LoginDone(connection=connection, waited=waited)
            yield login_pb2.LoginResponse(done=done)
        finally:
            person.leave()
            listening.cancel()
            # Only the wait: a login that others wait for ends by itself.
            work.cancel()
            outcomes = await asyncio.gather(work, listening, return_exceptions=True)
            if isinstance(outcomes[0], tuple):
                outcomes[0][0].release()


class _Person:
    """The person behind one call, as a login sees them.

    Attributes:
        frames: What to send; None at the end.
        fault: What was wrong with what they sent.
    """

    def __init__(self) -> None:
        self.frames: asyncio.Queue[login_pb2.LoginResponse | None] = asyncio.Queue()
        self.fault: DaemonError | None = None
        self._number = 0
        self._wanted = 0
        self._told = 0
        self._answers: asyncio.Future[list[Secret]] | None = None
        self._gone = False

    async def ask(self, question: Question) -> Sequence[Secret]:
        """Send a question and wait for its answers."""
        if self._gone:
            raise GaveUp
        self._number += 1
        self._wanted = len(question.prompts)
        self._answers = asyncio.get_running_loop().create_future()
        self.frames.put_nowait(
            login_pb2.LoginResponse(
                question=login_pb2.LoginQuestion(
                    number=self._number,
                    host=question.host,
                    kind=_KINDS[question.kind],
                    name=question.name,
                    instructions=question.instructions,
                    prompts=[
                        login_pb2.LoginPrompt(text=prompt.text, echo=prompt.echo)
                        for prompt in question.prompts
                    ],
                    tries=question.tries,
                )
            )
        )
        try:
            return await self._answers
        finally:
            self._answers = None

    def tell(self, text: str) -> None:
        """Send what needs no answer."""
        self._told += 1
        if self._told <= _MOST_TOLD:
            self.frames.put_nowait(login_pb2.LoginResponse(told=text))

    def answer(self, answers: login_pb2.LoginAnswers) -> None:
        """Take what was typed.

        Raises:
            InputError: It answers no question that is open.
        """
        waiting = self._answers
        if waiting is None or waiting.done() or answers.question != self._number:
            raise InputError(
                "answers.question", f"question {answers.question} is not being asked"
            )
        if len(answers.answers) != self._wanted:
            raise InputError(
                "answers.answers",
                f"{len(answers.answers)} answers came to {self._wanted} prompts",
            )
        waiting.set_result([Secret(text) for text in answers.answers])

    def leave(self, fault: DaemonError | None = None) -> None:
        """Answer no more."""
        self._gone = True
        self.fault = self.fault or fault
        if self._answers is not None and not self._answers.done():
            self._answers.set_exception(GaveUp())

    def over(self) -> None:
        """Send no more."""
        self.frames.put_nowait(None)


async def _listen(
    frames: AsyncIterator[login_pb2.LoginRequest], person: _Person
) -> None:
    """Pass on what is typed; who closes their side answers no more."""
    try:
        async for frame in frames:
            if frame.WhichOneof("frame") != "answers":
                raise InputError("start", "start comes once, in the first frame")
            person.answer(frame.answers)
    except DaemonError as error:
        person.leave(error)
    else:
        person.leave()


async def _told(name: str, lease: Lease) -> host_pb2.ConnectResponse:
    link = lease.link
    return host_pb2.ConnectResponse(
        target=name,
        connected=True,
        reused=lease.reused,
        rtt_ms=round(await link.rtt() * 1000, 2),
        server_version=link.server_version,
        host_key_fingerprint=link.host_key_fingerprint,
        auth_method=link.auth_method,
    )
