from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_daemon.output.spool import Slice, Spool
from holdfast_daemon.streams import Stream

STREAMS = st.sampled_from(list(Stream))
LIMIT, SEGMENT, BACKLOG = 3000, 700, 100_000


class Append(NamedTuple):
    stream: Stream
    data: bytes


class Read(NamedTuple):
    where: float
    limit: int
    stream: Stream | None


class Tail(NamedTuple):
    stream: Stream
    limit: int
    since: float


class Sync(NamedTuple):
    pass


class Breathe(NamedTuple):
    pass


STEPS = st.lists(
    st.one_of(
        st.builds(Append, STREAMS, st.binary(max_size=40)),
        st.builds(
            Append, STREAMS, st.builds(bytes, st.integers(min_value=1, max_value=2000))
        ),
        st.builds(Read, st.floats(0, 1.1), st.integers(0, 3000), st.none() | STREAMS),
        st.builds(Tail, STREAMS, st.integers(0, 3000), st.floats(0, 1)),
        st.builds(Sync),
        st.builds(Breathe),
    ),
    max_size=60,
)


@dataclass
class Model:
    """All bytes in memory, each with its stream."""

    data: bytearray = field(default_factory=bytearray)
    streams: list[Stream] = field(default_factory=list[Stream])

    def append(self, stream: Stream, data: bytes) -> None:
        self.data += data
        self.streams += [stream] * len(data)

    def of(self, stream: Stream | None, start: int, end: int) -> bytes:
        return bytes(
            byte
            for byte, of in zip(
                self.data[start:end], self.streams[start:end], strict=True
            )
            if stream in {None, of}
        )

    def check(
        self, found: Slice, asked: int, limit: int, stream: Stream | None
    ) -> None:
        asked = min(asked, len(self.data))
        assert found.end == len(self.data)
        # The oldest may go while a read is under way: it had what it returns.
        assert found.offset == asked or asked < found.offset <= found.earliest
        assert found.skipped == found.offset - asked
        assert found.offset <= found.next_offset <= found.end
        got = b"".join(piece.data for piece in found.pieces)
        assert len(got) <= limit
        assert got == self.of(stream, found.offset, found.next_offset)
        if len(got) < limit and found.next_offset != found.end:
            # What comes next was discarded while this was read.
            assert found.next_offset < found.earliest
        position = found.offset
        for piece in found.pieces if stream is None else ():
            following = position + len(piece.data)
            assert set(self.streams[position:following]) == {piece.stream}
            position = following

    def totals(self, stream: Stream) -> tuple[int, int]:
        data = self.of(stream, 0, len(self.data))
        lines = data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
        return len(data), lines


async def compare(steps: list[object], directory: Path) -> None:
    spool = Spool(
        directory,
        limit_bytes=LIMIT,
        segment_bytes=SEGMENT,
        backlog_bytes=BACKLOG,
        flush_seconds=0.001,
    )
    model = Model()
    earliest = 0
    for step in steps:
        match step:
            case Append(stream, data):
                spool.append(stream, data)
                model.append(stream, data)
            case Read(where, limit, stream):
                asked = int(where * len(model.data))
                model.check(
                    await spool.read(asked, limit, stream), asked, limit, stream
                )
            case Tail(stream, limit, where):
                since = int(where * len(model.data))
                found = await spool.tail(stream, limit, since=since)
                kept = model.of(stream, max(since, spool.earliest), len(model.data))
                assert model.of(stream, since, len(model.data)).endswith(found)
                assert min(limit, len(kept)) <= len(found) <= limit
            case Sync():
                await spool.sync()
                assert spool.backlog == 0
            case _:
                await asyncio.sleep(0.002)
        assert earliest <= spool.earliest
        earliest = spool.earliest
        assert spool.end == len(model.data)
        assert spool.fault == ""
        for stream in Stream:
            totals = spool.bytes_of(stream), spool.lines_of(stream)
            assert totals == model.totals(stream)
    spool.close()
    await spool.sync()
    assert spool.end - spool.earliest >= min(spool.end, LIMIT - 2 * SEGMENT)
    assert spool.disk_bytes <= LIMIT
    back = await asyncio.to_thread(
        Spool.recover,
        directory,
        limit_bytes=LIMIT,
        segment_bytes=SEGMENT,
        backlog_bytes=BACKLOG,
    )
    assert (back.earliest, back.end, back.fault) == (spool.earliest, spool.end, "")
    for stream in (None, *Stream):
        model.check(await back.read(0, 10**6, stream), 0, 10**6, stream)
    for stream in Stream:
        totals = back.bytes_of(stream), back.lines_of(stream)
        assert totals == model.totals(stream)
        assert await back.head(stream, 99) == (await spool.head(stream, 99))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_a_spool_is_a_list_of_bytes_that_forgets_its_start(
    steps: list[object],
) -> None:
    """NF-03, EX-14: reads at any offset of either stream, caps, restart: exact."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(steps, Path(directory) / "job"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(STREAMS, st.binary(min_size=1, max_size=300)), min_size=1),
    st.floats(0, 1),
    st.booleans(),
)
def test_a_torn_file_gives_back_all_whole_frames_before_the_tear(
    appends: list[tuple[Stream, bytes]], where: float, zeroes: bool
) -> None:
    """A daemon killed in mid-write: what is read back is a true prefix, and told."""

    async def scenario(directory: Path) -> None:
        spool = Spool(
            directory, limit_bytes=10**6, segment_bytes=10**6, backlog_bytes=10**6
        )
        model = Model()
        for stream, data in appends:
            spool.append(stream, data)
            model.append(stream, data)
            await spool.sync()
        spool.close()
        await spool.sync()

        def tear() -> Spool:
            (path,) = directory.iterdir()
            content = path.read_bytes()
            cut = int(where * (len(content) - 1))
            path.write_bytes(content[:cut] + bytes(len(content) - cut) * zeroes)
            return Spool.recover(
                directory, limit_bytes=10**6, segment_bytes=10**6, backlog_bytes=10**6
            )

        back = await asyncio.to_thread(tear)
        found = await back.read(0, 10**6)
        got = b"".join(piece.data for piece in found.pieces)
        if not zeroes:
            assert back.fault
            assert bytes(model.data).startswith(got)
            assert back.end == len(got)

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(scenario(Path(name)))
