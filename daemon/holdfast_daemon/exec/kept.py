"""What must be known to go on with a command that its host keeps. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from holdfast_daemon import shape
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.output.spool import Spool

SHAPE = shape.fields(
    {
        "nonce": shape.text,
        "ident": shape.text,
        "number": shape.count,
        "principal": shape.text,
        "begun": shape.flag,
        "gaps": shape.several(shape.several(shape.count)),
    },
    {},
)


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of one stream that the host dropped: so many, behind so many others."""

    stream: Stream
    behind: int
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A command that goes on on its host without us.

    Attributes:
        nonce: Tells its end from what it prints; known to nobody else.
        ident: What it is kept under: the job's id, or its session's.
        number: The how manieth it is there.
        principal: Who asked, for the record of its end.
        begun: Its host said that it began it.
        gaps: What the host had to drop before it came here.
    """

    nonce: str
    ident: str
    number: int = 1
    principal: str = ""
    begun: bool = False
    gaps: tuple[Gap, ...] = ()

    def offsets(self, spool: Spool) -> tuple[int, int]:
        """Return where to go on in the host's logs of both streams."""
        return self._offset(Stream.OUT, spool), self._offset(Stream.ERR, spool)

    def _offset(self, stream: Stream, spool: Spool) -> int:
        here = spool.bytes_of(stream)
        return here + sum(
            gap.size for gap in self.gaps if gap.stream is stream and gap.behind <= here
        )

    def skipped(self, stream: Stream, offset: int, spool: Spool) -> Self:
        """Note that the host goes on at `offset`: what was before it is gone."""
        here = spool.bytes_of(stream)
        size = offset - self._offset(stream, spool)
        return replace(self, gaps=(*self.gaps, Gap(stream, here, size)))

    def sure(self) -> Self:
        """Note that it was begun."""
        return replace(self, begun=True)

    def record(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return {
            "nonce": self.nonce,
            "ident": self.ident,
            "number": self.number,
            "principal": self.principal,
            "begun": self.begun,
            "gaps": [[int(gap.stream), gap.behind, gap.size] for gap in self.gaps],
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return what `record` wrote.

        Raises:
            TypeError, ValueError: It is damaged.
        """
        SHAPE("kept", row)
        gaps = tuple(Gap(Stream(name), at, size) for name, at, size in row["gaps"])
        return cls(
            row["nonce"],
            row["ident"],
            row["number"],
            row["principal"],
            row["begun"],
            gaps,
        )
