"""A session's screen beside its traffic: drawn in time, never at the loop's expense.

Small pieces are drawn at once, larger ones in a thread, for a tenth of one core at
most; of what comes faster than that only the newest part is drawn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from holdfast_daemon.output.flood import Rest, shorten
from holdfast_daemon.output.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.output.screen import Picture

_T = TypeVar("_T")

_AT_ONCE_BYTES = 1024
_BEHIND_BYTES = 256 * 1024
_TAIL_BYTES = 32 * 1024
# What comes together is drawn at once, and behind an answer that somebody waits for.
_SOON = 0.003
# So many times the work is rest, unless somebody wants to look.
_REST = 9


class _Size(NamedTuple):
    cols: int
    rows: int


class Scene(NamedTuple):
    """The screen as bytes that draw it, and how many bytes had been fed till then."""

    drawing: bytes
    fed: int


class Display:
    """Shows what is fed, in order, and says what a terminal would answer to it."""

    def __init__(
        self, cols: int, rows: int, *, answer: Callable[[bytes], None] | None = None
    ) -> None:
        """Start with an empty screen; `answer` gets what the terminal answers."""
        self._screen = Screen(cols, rows)
        self._answer = answer
        self._queue: deque[bytes | _Size | Rest] = deque()
        self._behind = 0
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._free_at = 0.0
        self._fed = self._drawn = 0
        self._closed = False
        self._size = _Size(self._screen.cols, self._screen.rows)

    @property
    def fed(self) -> int:
        """How many bytes were ever fed."""
        return self._fed

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._size

    def feed(self, data: bytes) -> None:
        """Take output; returns at once."""
        if self._closed or not data:
            return
        self._queue.append(data)
        self._fed += len(data)
        self._behind += len(data)
        if self._behind > _BEHIND_BYTES:
            self._shorten()
        self._plan()

    def resize(self, cols: int, rows: int) -> None:
        """Take another size from here on."""
        if not self._closed:
            self._size = _Size(cols, rows)
            self._queue.append(self._size)
            self._plan()

    def answer_to(self, answer: Callable[[bytes], None] | None) -> None:
        """Give answers to somebody else; None: a person's terminal gives its own."""
        self._answer = answer

    async def picture(self) -> Picture:
        """Return what is shown after all that was fed."""
        return await self._look(self._screen.picture)

    async def redraw(self) -> bytes:
        """Return bytes that make a terminal show the same."""
        return await self._look(self._screen.redraw)

    async def scene(self) -> Scene:
        """Return the same, and of how much output it is."""
        return await self._look(lambda: Scene(self._screen.redraw(), self._drawn))

    async def close(self) -> None:
        """Draw no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _look(self, question: Callable[[], _T]) -> _T:
        found: list[_T] = []

        def look() -> None:
            found.append(question())

        # Who asks may go away; the thread must not be left alone with the screen.
        await asyncio.shield(self._start(look))
        return found[0]

    def _plan(self) -> None:
        """Draw soon, or as soon as it has rested."""
        if self._timer is not None or self._tasks or self._closed or not self._queue:
            return
        rest = max(self._free_at - time.monotonic(), _SOON)
        self._timer = asyncio.get_running_loop().call_later(rest, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._tasks or self._closed:
            return
        if self._behind <= _AT_ONCE_BYTES:
            self._work(self._due())
            self._say()
        else:
            self._start(None)

    def _start(self, look: Callable[[], None] | None) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._draw(look))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._plan()

    async def _draw(self, look: Callable[[], None] | None) -> None:
        async with self._lock:
            await asyncio.to_thread(self._work, self._due(), look)
            self._say()

    def _take(self) -> list[bytes | _Size | Rest]:
        taken = list(self._queue)
        self._queue.clear()
        self._behind = 0
        return taken

    def _due(self) -> list[bytes | _Size | Rest]:
        """Take what is to be drawn now."""
        self._drawn = self._fed
        return self._take()

    def _work(
        self,
        taken: list[bytes | _Size | Rest],
        look: Callable[[], None] | None = None,
    ) -> None:
        begun = time.monotonic()
        for item in taken:
            if isinstance(item, _Size):
                self._screen.resize(*item)
            elif isinstance(item, Rest):
                self._screen.skip(item.lasting, exact=item.exact)
                self._screen.feed(item.tail)
            else:
                self._screen.feed(item)
        if look is not None:
            look()
        now = time.monotonic()
        self._free_at = now + _REST * (now - begun)

    def _say(self) -> None:
        answers = self._screen.take_answers()
        if answers and self._answer is not None:
            self._answer(answers)

    def _shorten(self) -> None:
        """Leave out the older part of what is not drawn yet."""
        parts: list[bytes] = []
        exact = True
        for item in self._take():
            if isinstance(item, Rest):
                parts += (item.lasting, item.tail)
                exact = exact and item.exact
            elif isinstance(item, bytes):
                parts.append(item)
            else:
                self._queue.append(item)
        rest = shorten(b"".join(parts), rows=self._size.rows, limit=_TAIL_BYTES)
        while len(self._queue) > 1:
            self._queue.popleft()
        self._queue.append(rest._replace(exact=exact and rest.exact))
        self._behind = len(rest.lasting) + len(rest.tail)
