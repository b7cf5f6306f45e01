"""Which encoding a text from a host is in, by its first bytes; sans I/O."""

from __future__ import annotations

_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_SHORTEST = 8
# Nearly every character of what programs print in UTF-16 is one of ASCII.
_ZEROS = 0.6
_BLANKS = b"\n\r "


def guess(sample: bytes) -> str:
    """Return "utf-8", or the kind of UTF-16 that Windows programs print.

    Words that end with a NUL (`find -print0`) may alternate as well, so there must be
    blanks or line ends in UTF-16 too. A sample that starts within a character reads as
    the other kind, rightly.
    """
    if marked := _MARKS.get(sample[:2]):
        # bytes that only begin like it have no zeros where ASCII would
        zeros = sample[3::2] if marked == "utf-16-le" else sample[2::2]
        return marked if zeros.count(0) >= _ZEROS * len(zeros) else "utf-8"
    if len(sample) < _SHORTEST:
        return "utf-8"
    even, odd = sample[::2], sample[1::2]
    for letters, zeros, name in ((even, odd, "utf-16-le"), (odd, even, "utf-16-be")):
        many = zeros.count(0) >= _ZEROS * len(zeros)
        if many and 0 not in letters and not set(_BLANKS).isdisjoint(letters):
            return name
    return "utf-8"
