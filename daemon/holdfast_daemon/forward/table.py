"""All forwards of all clients: found by name, shared when equal, ended when unused."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from holdfast_daemon import ids
from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LimitError,
    NotFoundError,
    Reason,
    StateError,
)
from holdfast_daemon.forward import store
from holdfast_daemon.forward.about import FORBIDDEN, About, forbidden
from holdfast_daemon.forward.absent import Absent, host_of
from holdfast_daemon.forward.book import Book
from holdfast_daemon.forward.claim import Claim
from holdfast_daemon.forward.forward import Forward
from holdfast_daemon.hosts.host import may_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.forward.guard import Guard
    from holdfast_daemon.forward.restore import Restorer
    from holdfast_daemon.forward.store import Saved
    from holdfast_daemon.forward.wish import Wish
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.caller import Caller

_log = logging.getLogger(__name__)


class ForwardTable:
    """Opens, finds and ends forwards."""

    def __init__(
        self,
        pool: Pool,
        limits: Limits,
        clock: Clock,
        *,
        path: Path,
        rules: Restorer,
        guard: Guard,
    ) -> None:
        """Write durable ones to `path`; `guard` keeps sockets from being led to."""
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._rules = rules
        self._guard = guard
        self._forwards: list[Forward] = []
        self._opening: dict[asyncio.Task[None], Forward] = {}
        self._claims: dict[tuple[str, str], Claim] = {}
        self._book = Book(path, clock, self.list)
        self._absent = Absent(self._book)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(
        self, wish: Wish, host: Host, caller: Caller, request_id: str = ""
    ) -> tuple[Forward, bool]:
        """Return a forward that does what `wish` says, and whether it was there.

        Raises:
            DaemonError: It can't be had; says why.
        """
        await self._guard.check(wish, host)
        await self._absent.looked()  # it may be one of these
        if self._closed:
            raise _stopping()
        while True:
            claimed = self._claimed(wish, host, caller, request_id)
            found = claimed or self._equal(wish, host)
            if found is None or not found.closing:
                break
            await found.changed()  # what is just being closed is nobody's
            if self._closed:
                raise _stopping()
        if found is not None:
            await self._wait(found)
            return _kept(await self._reuse(found, wish)), True
        self._check_new(wish)
        forward = self._make(wish, host, caller)
        task = asyncio.create_task(forward.open())
        self._opening[task] = forward
        task.add_done_callback(self._opened)
        if request_id:
            self._claims[caller.principal, request_id] = Claim(
                wish, host, forward, self._clock.monotonic()
            )
        await self._wait(forward)
        if self._closed:
            raise _stopping()
        if wish.durable:
            await self._book.write()
        return _kept(forward), False

    def find(self, ident: str) -> Forward:
        """Return the forward of this id or name, one that is kept first.

        Raises:
            NotFoundError: There is none.
            InputError: A name fits several that run.
        """
        waiting, known = self.waiting(), self.list(stopped=True)
        for forward in (*known, *waiting):
            if forward.about.id == ident:
                return forward
        named = [f for f in known if ident in f.about.names]
        running = [f for f in named if f.running]
        running = running or [f for f in waiting if ident in f.about.names]
        if len(running) > 1:
            told = ", ".join(f"{f.about.id} on {f.about.target}" for f in running)
            raise InputError(
                "forward",
                f"{len(running)} forwards are named {ident!r}: {told}",
                hint="Name it by its id.",
            )
        if running or named:
            return (running or named)[0]
        raise NotFoundError(
            Reason.FORWARD_NOT_FOUND,
            f"there is no forward {ident!r}",
            hint="ssh_forward_list shows all that are open.",
            metadata={"forward": ident},
        )

    def list(self, *, stopped: bool = False) -> list[Forward]:
        """Return those that run, and with `stopped` also those that did; newest first.

        Those that are still being opened are in neither.
        """
        opening = set(map(id, self._opening.values()))
        return [
            forward
            for forward in reversed(self._forwards)
            if id(forward) not in opening and (stopped or forward.running)
        ]

    def waiting(self) -> Sequence[Forward]:
        """Return those of an earlier daemon that wait for their hosts; newest first."""
        return self._absent.list()

    def on(self, host: Host) -> Sequence[Forward]:
        """Return those that would end with the connections to `host`."""
        return [one for one in self.list() if one.host.needs(host)]

    def count(self, account: object) -> int:
        """Return how many run on `Host.account`."""
        return sum(one.host.account == account for one in self.list())

    async def close(self, forward: Forward, why: str = "") -> bool:
        """End a forward; return whether it was running."""
        was = forward.running
        if self._absent.take(forward):
            self._forwards.append(forward)  # to be told of for a while
        if was:
            await (forward.close(why) if why else forward.close())
        if why not in FORBIDDEN:
            self._book.away.pop(forward.about.id, None)
        if forward.wish.durable:
            await self._book.write(gone=forward.about.id)
        return was

    async def recover(self) -> None:
        """Keep up again what was declared durable, once its host is found and allowed.

        Nothing is waited for but the file: hosts may be away.
        """
        for saved in await self._book.read():
            forward = self._forward(saved.about, saved.wish, host_of(saved))
            self._absent.add(forward)
            self._start(self._recover(saved, forward))

    async def _recover(self, saved: Saved, forward: Forward) -> None:
        absent = self._absent
        try:
            host = await self._rules.admit(
                saved,
                wanted=lambda: forward in absent,
                told=lambda why: absent.told(forward, why),
            )
            while rivals := self._rivals(saved):
                await asyncio.wait(rivals)
            if host is None or self._closed or not absent.take(forward):
                return
            forward.host = host
            forward.last_error = ""
            self._forwards.append(forward)
            forward.on_end = self._ended
            forward.keep()
        finally:
            absent.seen(forward)

    def _rivals(self, saved: Saved) -> set[asyncio.Task[None]]:
        """Return what is just being opened in the place of one that returns."""
        return {
            task
            for task, one in self._opening.items()
            if one.wish.durable and store.does(store.row(one)) == store.does(saved.row)
        }

    def heed_rules(self) -> None:
        """End those that the rules do not allow any more, for these have changed."""
        self._start(self._heed_rules())

    async def _heed_rules(self) -> None:
        for forward in self.list():
            if why := await self._forbids(forward):
                await self.close(forward, why)

    async def reap(self) -> None:
        """End what nobody used for long, and forget what ended long ago."""
        limits, now = self._limits, self._clock.monotonic()
        most = limits.forward_idle_seconds
        for forward in self.list():
            if most and not forward.wish.durable and forward.idle >= most:
                await self.close(forward, f"nobody used it for {most:g} s")
        self._forwards = [
            one
            for one in self._forwards
            if one.ended_at is None or now - one.ended_at < limits.forward_keep_seconds
        ]
        oldest = now - limits.request_id_seconds
        self._claims = {k: c for k, c in self._claims.items() if c.at >= oldest}

    async def stop(self) -> None:
        """End all; the durable ones stay written down."""
        self._closed = True
        self._book.close()
        for task in [*self._opening, *self._tasks]:
            task.cancel()
        await asyncio.gather(*self._opening, *self._tasks, return_exceptions=True)
        ending = [
            one.close("the daemon stopped", tell_host=False) for one in self.list()
        ]
        await asyncio.gather(*ending)

    # opening

    def _make(self, wish: Wish, host: Host, caller: Caller) -> Forward:
        about = About(
            id=ids.forward_id(),
            names=[wish.name] if wish.name else [],
            target=host.name,
            address=host.display,
            client=caller.label,
            principal=caller.principal,
            allowed_hosts=caller.allowed_hosts,
            default_port=caller.defaults.port,
            opened=self._clock.now(),
            begun=self._clock.monotonic(),
        )
        forward = self._forward(about, wish, host)
        self._forwards.append(forward)
        return forward

    def _forward(self, about: About, wish: Wish, host: Host) -> Forward:
        return Forward(
            about,
            wish,
            host,
            pool=self._pool,
            limits=self._limits,
            clock=self._clock,
            forbids=self._forbids,
            barred=self._guard.bars,
        )

    async def _forbids(self, forward: Forward) -> str:
        return await self._rules.forbids(forward.about, forward.listen, forward.host)

    def _opened(self, task: asyncio.Task[None]) -> None:
        forward = self._opening.pop(task)
        if task.cancelled() or task.exception() is not None:
            self._forwards.remove(forward)
            self._claims = {
                key: claim
                for key, claim in self._claims.items()
                if claim.forward is not forward
            }
            return
        forward.on_end = self._ended
        if forward.wish.durable:
            self._book.supersede()
            # whoever asked may have gone away meanwhile
            self._start(self._book.write())

    async def _wait(self, forward: Forward) -> None:
        """Wait until it is open; who goes away does not end it for the others."""
        for task, opening in self._opening.items():
            if opening is forward:
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError:
                    if self._closed and task.cancelled():
                        raise _stopping() from None
                    raise
                return

    async def _reuse(self, forward: Forward, wish: Wish) -> Forward:
        forward.used_at = self._clock.monotonic()  # who asks for it means to use it
        name = wish.name
        if name and name not in forward.about.names:
            self._check_name(name)
            forward.about.names.append(name)
        if wish.durable and not forward.wish.durable:
            forward.declare_durable()
            self._book.supersede()
        if forward.wish.durable:
            await self._book.write()
        try:
            await forward.probe()
        except DaemonError as error:
            _log.info("forward %s: %s", forward.about.id, error.message)
        return forward

    def _claimed(
        self, wish: Wish, host: Host, caller: Caller, request_id: str
    ) -> Forward | None:
        claim = self._claims.get((caller.principal, request_id)) if request_id else None
        if claim is None:
            return None
        if (claim.wish, claim.host.identity) != (wish, host.identity):
            raise StateError(
                Reason.REQUEST_ID_REUSED,
                f"request_id {request_id!r} was used for another forward",
                hint=f"The earlier one is {claim.forward.about.id}; give this its own"
                " id.",
                metadata={"forward_id": claim.forward.about.id},
            )
        return claim.forward if claim.forward.running else None

    def _equal(self, wish: Wish, host: Host) -> Forward | None:
        """Return a forward that does the same; port 0 is any."""
        for forward in self._forwards:
            if forward.running and _same(forward, wish, host):
                return forward
        return None

    def _check_new(self, wish: Wish) -> None:
        if wish.name:
            self._check_name(wish.name)
        most = self._limits.forwards_total
        if sum(one.running for one in self._forwards) >= most:
            raise LimitError(
                Reason.LIMIT_REACHED,
                f"{most} forwards are open, the most there may be",
                hint="Close one: ssh_forward_list shows them.",
                metadata={"limit": "forwards_total", "value": str(most)},
            )

    def _check_name(self, name: str) -> None:
        for other in self._forwards:
            if other.running and name in other.about.names:
                raise StateError(
                    Reason.IN_USE,
                    f"the name {name!r} belongs to another forward,"
                    f" {other.wish.direction} on {other.listen}"
                    f" through {other.about.target}",
                    hint="Close that one, or take another name.",
                    metadata={"forward_id": other.about.id, "name": name},
                )

    # ends

    def _ended(self, forward: Forward) -> None:
        if forward.wish.durable and not self._closed:
            if forward.ended_for in FORBIDDEN:
                self._book.put_away(forward)
            self._start(self._book.write())

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _same(forward: Forward, wish: Wish, host: Host) -> bool:
    have = forward.wish
    if (have.direction, have.connect) != (wish.direction, wish.connect):
        return False
    listens, asked = forward.listen, wish.listen
    if (listens.host, listens.path) != (asked.host, asked.path):
        return False
    if asked.port not in (0, listens.port, have.listen.port):
        return False
    return forward.host.identity == host.identity or may_share(forward.host, host)


def names(forwards: Iterable[Forward], most: int) -> str:
    """Return the first few, as people call them."""
    return ", ".join(
        one.about.names[0] if one.about.names else one.about.id
        for one in list(forwards)[:most]
    )


def _kept(forward: Forward) -> Forward:
    """Return it, unless the rules have ended it by now.

    Raises:
        DeniedError: They have.
    """
    if forward.ended_for in FORBIDDEN:
        raise forbidden(forward.ended_for)
    return forward


def _stopping() -> StateError:
    return StateError(
        Reason.DRAINING, "the daemon is stopping", hint="Call again in a moment."
    )
