"""What of an output fits an answer: head and tail within a budget; sans I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.output.text import Cleaner, binary_notice, is_binary

if TYPE_CHECKING:
    from collections.abc import Callable

NOTICE = "… [{left_out} left out] …"

# A cut goes to the line's edge when that costs at most this share of what fits.
_EDGE_SHARE = 0.5
# A hundredth of the budget less costs nobody anything and shortens the search.
_PRECISION = 100


class Window(NamedTuple):
    """Text for an answer, and what it leaves out.

    `lines` counts the lines shown, without the notice; `omitted_lines` is None when the
    number of all lines is not known.
    """

    text: str
    truncated: bool
    omitted_bytes: int
    lines: int
    omitted_lines: int | None = None


def window(
    head: bytes,
    tail: bytes | None,
    total_bytes: int,
    budget: int,
    *,
    notice: str = NOTICE,
    total_lines: int | None = None,
) -> Window:
    """Return at most `budget` characters of an output, and the notice beside them.

    `head` holds its first bytes and `tail` its last ones; together they may be all or
    overlap. `{left_out}` in `notice` becomes the exact numbers, as "12,345 lines,
    1,234,567 bytes".
    """
    tail = tail or b""
    total_bytes = max(total_bytes, len(head), len(tail))
    if budget <= 0 or total_bytes == 0:
        return Window("", total_bytes > 0, total_bytes, 0, total_lines)
    if len(head) + len(tail) >= total_bytes:
        head = tail = head + tail[len(head) + len(tail) - total_bytes :]
    if is_binary(head):
        return Window(binary_notice(total_bytes), True, total_bytes, 0, total_lines)
    if len(head) == total_bytes:
        text = _text(head)
        if len(text) <= budget:
            return Window(text, False, 0, _lines(head), 0)
    return _cut(head, tail, total_bytes, budget, notice=notice, total_lines=total_lines)


def _cut(
    head: bytes,
    tail: bytes,
    total_bytes: int,
    budget: int,
    *,
    notice: str,
    total_lines: int | None,
) -> Window:
    if tail and not is_binary(tail):
        first, used = _fit_head(head, budget // 2)
        room = budget - len(first)
        # The halves may not meet: then something would be shown twice, or all of it,
        # as broken characters may be less apart than together.
        rest = max(0, total_bytes - used - 1)
        last, kept = _fit_tail(tail[len(tail) - min(rest, len(tail)) :], room)
    else:
        first, used = _fit_head(head, budget)
        last, kept = "", 0
    begun, ended = head[:used], tail[len(tail) - kept :]
    omitted = total_bytes - used - kept
    shown = _lines(begun) + _lines(ended)
    left = None
    if total_lines is not None:
        breaks = begun.count(b"\n") + ended.count(b"\n")
        open_end = kept > 0 and not ended.endswith(b"\n")
        left = max(0, total_lines - breaks - open_end)
    said = notice.replace("{left_out}", _left_out(omitted, left))
    if first and not first.endswith("\n"):
        first += "\n"
    text = f"{first}{said}\n{last}"
    return Window(text, True, omitted, shown, left)


def _left_out(size: int, lines: int | None) -> str:
    counted = f"{size:,} byte" + ("" if size == 1 else "s")
    if not lines:
        return counted
    return f"{lines:,} line" + ("" if lines == 1 else "s") + f", {counted}"


def _lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def _text(data: bytes) -> str:
    cleaner = Cleaner(sniff=False)
    return cleaner.feed(data) + cleaner.finish()


def _fit(measure: Callable[[int], int], size: int, budget: int) -> int:
    """Return about how many of `size` bytes fit; as many do fit.

    `measure` gives the characters that so many bytes show.
    """
    low = shown = 0
    high = min(size, max(1, budget))
    while (over := measure(high)) <= budget:
        if high == size:
            return size
        low, shown, high = high, over, min(size, 2 * high)
    halve = False
    while high - low > 1 and shown < budget - budget // _PRECISION:
        # Even text is found by proportion, uneven text by halves.
        step = (high - low) * (budget - shown) // (over - shown)
        middle = (low + high) // 2 if halve else low + step
        middle = min(max(middle, low + 1), high - 1)
        halve = not halve
        length = measure(middle)
        if length <= budget:
            low, shown = middle, length
        else:
            high, over = middle, length
    return low


def _fit_head(data: bytes, budget: int) -> tuple[str, int]:
    """Return cleaned text of the first bytes that fit, and how many bytes these are."""
    size = _fit(lambda n: len(_text(data[:n])), len(data), budget)
    cut = size
    if cut < len(data):
        cut = data.rfind(b"\n", 0, size) + 1
        if cut < size * _EDGE_SHARE:
            cut = size
            while cut and _continues(data, cut):
                cut -= 1
    text = _text(data[:cut])
    # A control string over the edge shows more when it is cut; then the edge is no
    # place.
    return (text, cut) if len(text) <= budget else (_text(data[:size]), size)


def _fit_tail(data: bytes, budget: int) -> tuple[str, int]:
    """Return cleaned text of the last bytes that fit, and how many bytes these are."""
    end = len(data)
    size = _fit(lambda n: len(_text(data[end - n :])), end, budget)
    start = cut = end - size
    if start and data[start - 1 : start] != b"\n":
        cut = data.find(b"\n", start) + 1
        if not cut or end - cut < size * _EDGE_SHARE:
            cut = start
            while cut < end and _continues(data, cut):
                cut += 1
    text = _text(data[cut:])
    return (text, end - cut) if len(text) <= budget else (_text(data[start:]), size)


def _continues(data: bytes, place: int) -> bool:
    """Whether the byte at `place` belongs to the character before it."""
    return data[place : place + 1] != b"" and data[place] & 0xC0 == 0x80  # noqa: PLR2004


def share(budget: int, out_size: int, err_size: int) -> tuple[int, int]:
    """Split one budget between stdout and stderr.

    stderr gets what it needs, up to a quarter, and beyond that what stdout leaves.
    """
    err = min(err_size, max(budget // 4, budget - out_size))
    return budget - err, err
