"""Looks names up in threads of its own.

A name service that is gone holds a thread for half a minute, and nobody can take it
back. In those that files are read in, a few hosts that are away would hold up all the
others.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

# More names at once wait their turn.
_MOST = 64

Found = Sequence[
    tuple[
        socket.AddressFamily,
        socket.SocketKind,
        int,
        str,
        tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
    ]
]


class _Question(NamedTuple):
    host: str
    port: int
    family: int
    flags: int

    def ask(self, more: int = 0) -> Found:
        return socket.getaddrinfo(
            self.host,
            self.port,
            family=self.family,
            type=socket.SOCK_STREAM,
            flags=self.flags | more,
        )


class _Asked:
    """One question under way, and how many wait for its answer."""

    def __init__(self) -> None:
        self.answer: Future[Found] = Future()
        # who gives up must not take it from the others
        self.answer.set_running_or_notify_cancel()
        self.waiting = 0


_lock = threading.Lock()
_asked: dict[_Question, _Asked] = {}
_queue: deque[_Question] = deque()
_threads = 0


async def look_up(host: str, port: int, *, family: int, flags: int = 0) -> Found:
    """Return the addresses of `host` for TCP, as `socket.getaddrinfo` does.

    Whoever asks the same meanwhile gets the same answer.

    Raises:
        OSError: It has none, or nobody can say.
    """
    question = _Question(host, port, family, flags)
    try:
        return question.ask(socket.AI_NUMERICHOST)  # an address, which nobody is asked
    except (OSError, UnicodeError):
        one = _enter(question)
    try:
        return await asyncio.wrap_future(one.answer)
    finally:
        with _lock:
            one.waiting -= 1


def _enter(question: _Question) -> _Asked:
    global _threads  # noqa: PLW0603 - a count of this process's threads
    with _lock:
        one = _asked.get(question)
        if one is None:
            one = _asked[question] = _Asked()
            _queue.append(question)
            if _threads < _MOST:
                _threads += 1
                # none that hangs may hold up the end of the daemon
                threading.Thread(target=_work, name="lookup", daemon=True).start()
        one.waiting += 1
    return one


def _next() -> tuple[_Question, _Asked] | None:
    """Return what is to be looked up next; None: nothing, and this thread may go."""
    global _threads  # noqa: PLW0603 - see above
    with _lock:
        while _queue:
            question = _queue.popleft()
            one = _asked[question]
            if one.waiting:
                return question, one
            del _asked[question]
        _threads -= 1
    return None


def _work() -> None:
    while (task := _next()) is not None:
        question, one = task
        found: Found = ()
        trouble: Exception | None = None
        try:
            found = question.ask()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            trouble = error
        with _lock:
            del _asked[question]
        if trouble is not None:
            one.answer.set_exception(trouble)
        else:
            one.answer.set_result(found)
