"""Output made for people and models: cleaned text of terminal bytes; sans I/O."""

from __future__ import annotations

import codecs
import re

from holdfast_daemon.output.charset import guess
from holdfast_daemon.output.escape import strip
from holdfast_daemon.output.line import Lines
from holdfast_daemon.output.rows import Rows

_SAMPLE_BYTES = 512
_BINARY_SHARE = 0.3
_BINARY_BYTES = 8
_LAST_LINE_CHARS = 200

_PRINTABLE = bytes(range(0x20, 0x7F))
_PLAIN = _PRINTABLE + b"\t\n"
# BEL, BS, FF, CR and ESC are common in text for terminals.
_TEXTUAL = _PLAIN + b"\a\b\f\r\x1b" + bytes(range(0x80, 0x100))
# Bytes that are no UTF-8: escapes where they are C1 controls, else no text.
_BROKEN = {
    **dict.fromkeys(range(0xDCA0, 0xDD00), 0xFFFD),
    **{0xDC00 + control: control for control in range(0x80, 0xA0)},
    # Shown, because it separates words where it is used at all (`find -print0`, /proc).
    0: 0x2400,
}
_ODD = re.compile("[\0\udc80-\udcff]")


def is_binary(data: bytes) -> bool:
    """Whether `data` starts like something that is no text."""
    sample = data[:_SAMPLE_BYTES]
    if guess(sample) != "utf-8":
        return False
    strange = len(sample.translate(None, _TEXTUAL))
    if not sample.isascii():
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        text = decoder.decode(sample)
        strange += sum("\udc80" <= character <= "\udcff" for character in text)
    return strange >= _BINARY_BYTES and strange > _BINARY_SHARE * len(sample)


def binary_notice(size: int) -> str:
    """Return what stands in place of bytes that are no text."""
    return f"[binary data, {size} bytes]"


class Cleaner:
    """Cleans a stream in pieces: UTF-8 and escapes are never split.

    All pieces and `finish` together give what `clean` gives for the whole. The
    unfinished line is held back, since a progress bar may yet replace it; a stream that
    starts like binary data is told as such at the end, unless `sniff` is off. With
    `cols` it is what a terminal of that width got, and what moves on the line counts.
    """

    def __init__(self, *, sniff: bool = True, cols: int | None = None) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._lines = Lines() if cols is None else Rows(cols)
        self._held = ""
        self._sample: bytes | None = b"" if sniff else None
        self._binary = 0

    def feed(self, data: bytes) -> str:
        """Return what can be said for sure after `data`."""
        if self._binary:
            self._binary += len(data)
            return ""
        if self._sample is not None:
            data = self._sample + data
            if len(data) < _SAMPLE_BYTES:
                self._sample = data
                return ""
            self._sample = None
            if is_binary(data):
                self._binary = len(data)
                return ""
        return self._clean(data, final=False)

    def finish(self) -> str:
        """Return the rest."""
        if self._binary:
            return binary_notice(self._binary)
        sample = self._sample or b""
        self._sample = None
        if is_binary(sample):
            return binary_notice(len(sample))
        return self._clean(sample, final=True) + self._lines.finish()

    @property
    def unfinished(self) -> str:
        """The line without an end, as it stands; what comes may yet change it."""
        return self._lines.unfinished

    def resize(self, cols: int) -> None:
        """Take another width from here on."""
        if isinstance(self._lines, Rows):
            self._lines.cols = max(cols, 2)

    def _clean(self, data: bytes, *, final: bool) -> str:
        if self._decoder is None:
            self._decoder = _decoder(data)
        text = self._held + self._decoder.decode(data, final)
        # The text, not the bytes: a broken character may have begun in the last piece.
        if self._held or not text.isascii() or data.translate(None, _PLAIN) or final:
            if _ODD.search(text):
                text = text.translate(_BROKEN)
            moves = isinstance(self._lines, Rows)
            text, self._held = strip(text, final=final, moves=moves)
        return self._lines.feed(text)


def _decoder(data: bytes) -> codecs.IncrementalDecoder:
    name = guess(data[:_SAMPLE_BYTES])
    broken = "surrogateescape" if name == "utf-8" else "replace"
    return codecs.getincrementaldecoder(name)(broken)


def clean_terminal(data: bytes, cols: int) -> str:
    """Return as text what a terminal of `cols` columns got; see `clean`."""
    cleaner = Cleaner(sniff=False, cols=cols)
    return cleaner.feed(data) + cleaner.finish()


def clean(data: bytes) -> str:
    """Return `data` as text: no escapes, no controls but newline and tab.

    UTF-8 (or UTF-16, told by its zeros) with replacement, CR LF as LF, progress bars in
    their last state, backspaces applied, characters that hide or reorder others
    dropped, binary data only told.
    """
    cleaner = Cleaner()
    return cleaner.feed(data) + cleaner.finish()


def last_line(data: bytes) -> str:
    """Return the last line in `data` that is not blank, shortened; for progress."""
    if is_binary(data):
        return ""
    cleaner = Cleaner(sniff=False)
    lines = (cleaner.feed(data) + cleaner.finish()).split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= _LAST_LINE_CHARS else line[: _LAST_LINE_CHARS - 1] + "…"
