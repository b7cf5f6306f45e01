from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.config import Config, ConfigError, ConfigHolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def write(file: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file.write_text(text)
        file.chmod(0o600)
        return file

    return write


def test_an_edit_takes_effect_and_a_bad_one_keeps_the_last_good(
    write: Callable[[str], Path], file: Path
) -> None:
    """IN-02: without a restart."""
    holder = ConfigHolder(write("log_level = 'error'"))
    told: list[tuple[str, str]] = []
    holder.subscribe(lambda old, new: told.append((old.log_level, new.log_level)))

    write("log_level = 'debug'")
    assert holder.reload()
    assert holder.current.log_level == "debug"

    write("log_level = 'debug'\nlog_levle = 1")
    assert not holder.reload()
    assert holder.current.log_level == "debug"
    assert "log_levle" in holder.error
    assert f"{file}:2" in holder.error
    assert "Did you mean log_level?" in holder.error

    write("log_level = 'info'")
    assert holder.reload()
    assert holder.error == ""
    assert told == [("error", "debug"), ("debug", "info")]


def test_nobody_is_told_when_nothing_changed(write: Callable[[str], Path]) -> None:
    holder = ConfigHolder(write("log_level = 'error'"))
    holder.subscribe(lambda _old, _new: pytest.fail("told"))
    write("# the same\nlog_level = 'error'")
    assert holder.reload()


def test_a_file_that_vanishes_does_not_open_the_door(
    write: Callable[[str], Path], file: Path
) -> None:
    """IN-02: a lost allow-list must not mean that all is allowed."""
    holder = ConfigHolder(write("allowed_hosts = ['web1']"))
    file.unlink()
    assert not holder.reload()
    assert holder.current.allowed_hosts == ("web1",)
    assert "is gone" in holder.error


async def test_a_file_that_is_only_begun_does_not_open_the_door(
    write: Callable[[str], Path],
) -> None:
    """SC-01: whoever writes it empties it first; who means that asks for it."""
    holder = ConfigHolder(write("allowed_hosts = ['web1']"))
    write("")
    assert not await holder.refresh(asked=False)
    assert holder.current.allowed_hosts == ("web1",)
    assert "is empty" in holder.error
    write("allowed_hosts = ['web2']")
    assert await holder.refresh(asked=False)
    assert (holder.current.allowed_hosts, holder.error) == (("web2",), "")
    write("")
    assert await holder.refresh()
    assert not holder.current.allowed_hosts
    # nothing changes by it
    assert await holder.refresh(asked=False)


def test_a_mistake_at_the_start_is_raised(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError):
        ConfigHolder(write("x = 1"))


def test_a_subscriber_that_fails_does_not_keep_the_news_from_others(
    write: Callable[[str], Path],
) -> None:
    holder = ConfigHolder(write(""))
    told: list[str] = []

    def broken(_old: Config, _new: Config) -> None:
        raise ValueError("broken")

    holder.subscribe(broken)
    end = holder.subscribe(lambda _old, new: told.append(new.log_level))
    write("log_level = 'error'")
    assert holder.reload()
    end()
    write("log_level = 'info'")
    assert holder.reload()
    assert told == ["error"]


class Edits(logging.Handler):
    """The next change of a holder that is watched, and its next complaint."""

    def __init__(self, holder: ConfigHolder) -> None:
        super().__init__(logging.ERROR)
        self.refused = asyncio.Event()
        self._seen = asyncio.Queue[Config]()
        holder.subscribe(lambda _old, new: self._seen.put_nowait(new))

    def emit(self, record: logging.LogRecord) -> None:
        if "not taken" in record.msg:
            self.refused.set()

    async def next(self) -> Config:
        async with asyncio.timeout(20):
            return await self._seen.get()


async def test_the_file_is_watched(
    write: Callable[[str], Path], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IN-02: appears, is edited in place, is replaced, breaks and comes right."""
    holder = ConfigHolder(file)
    edits = Edits(holder)
    monkeypatch.setattr(logging.getLogger("holdfast_daemon"), "handlers", [edits])
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(holder.watch(0.01))

        write("[hosts.a]\nport = 21")
        assert (await edits.next()).hosts["a"].port == 21

        new = file.with_name("new")
        new.write_text("[hosts.a]\nport = 41")
        new.chmod(0o600)
        new.replace(file)
        config = await edits.next()
        assert config.hosts["a"].port == 41

        write("[hosts.a]\nport = 0")
        async with asyncio.timeout(20):
            await edits.refused.wait()
        assert holder.current.hosts["a"].port == 41

        write("[hosts.a]\nport = 42")
        assert (await edits.next()).hosts["a"].port == 42
        assert holder.error == ""
        watching.cancel()


async def test_an_edit_within_one_tick_of_the_clock_is_noticed(
    write: Callable[[str], Path], file: Path
) -> None:
    """IN-02: same size, same inode, same time, another content."""

    def edit(port: int) -> None:
        write(f"[hosts.a]\nport = {port}")
        os.utime(file, ns=(soon, soon))

    soon = time.time_ns() + 10**11
    edit(21)
    holder = ConfigHolder(file)
    edits = Edits(holder)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(holder.watch(0.01))
        edit(22)
        assert (await edits.next()).hosts["a"].port == 22
        watching.cancel()


async def test_an_old_read_does_not_undo_a_new_one(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read in a thread may end after a later one; the later one counts."""
    holder = ConfigHolder(write("log_level = 'error'"))
    go = asyncio.Event()

    async def slow(read: Callable[[], object]) -> object:
        stale = read()
        await go.wait()
        return stale

    monkeypatch.setattr(asyncio, "to_thread", slow)
    late = asyncio.ensure_future(holder.refresh())
    await asyncio.sleep(0)  # it has read, and hangs
    write("log_level = 'debug'")
    assert holder.reload()
    go.set()
    assert await late
    assert holder.current.log_level == "debug"
