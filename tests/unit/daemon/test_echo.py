"""What shows that typed keys reached a shell, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_daemon.session.echo import Echo


def _waiting(echo: Echo) -> asyncio.Task[None]:
    return asyncio.create_task(echo.arrived())


async def _is_over(task: asyncio.Task[None]) -> bool:
    """Say whether it is, once everybody had a turn."""
    for _ in range(3):
        await asyncio.sleep(0)
    over = task.done()
    await task
    return over


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (b"echo 'ab\n", [b"echo 'ab\r\n> "]),
        (b"echo 'ab\n", [b"\x1b[32m$ \x1b[0mec", b"ho ", b"'ab"]),
        (b"\n", [b"\r\n"]),
        (b"y" * 500 + b"\n", [b"y" * 500]),
        (b"a\x1b[A", [b"[A"]),
    ],
)
async def test_an_echo_is_enough(keys: bytes, shown: list[bytes]) -> None:
    """SE-03: a command need not wait longer than until its keys are seen."""
    echo = Echo()
    echo.typed(keys)
    task = _waiting(echo)
    for piece in shown:
        echo.printed(piece)
    assert await _is_over(task)


async def test_a_prompt_that_was_due_is_no_echo() -> None:
    """SE-03: what else is printed says nothing of keys; they have a moment more."""
    echo = Echo()
    echo.typed(b"echo 'ab\n")
    task = _waiting(echo)
    echo.printed(b"$ ")
    assert not await _is_over(task)


async def test_nothing_that_was_typed_is_remembered() -> None:
    """SC-12: it may have been a password."""
    echo = Echo()
    echo.typed(b"canary\n")
    echo.printed(b"\r\n")
    await echo.arrived()
    assert "canary" not in repr(
        [getattr(echo, name) for name in ("_looked_for", "_seen")]
    )


async def test_nobody_waits_where_nothing_was_typed() -> None:
    """SE-03: commands alone cost nothing more."""
    echo = Echo()
    echo.printed(b"$ ")
    assert await _is_over(_waiting(echo))
