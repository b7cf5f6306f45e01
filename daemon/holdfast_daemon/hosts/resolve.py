"""What the user's ssh configuration says about a name, by OpenSSH's own resolution.

`ssh -G` where there is an ssh, a reader of our own else. Answers are kept while the
files stay as they are, and never longer than the limit: `Match exec` may change its
mind.
The event loop only waits: files, programs and the user database are met in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LinkError,
    Reason,
    StateError,
)
from holdfast_daemon.hosts.files import Alias, ConfigFiles, Stamp
from holdfast_daemon.hosts.reader import Reader, UnreadableError
from holdfast_daemon.hosts.settings import Raw, Settings, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.limits import Limits

_KEPT = 2000
_SHOWN = 80
# Bytes of what ssh complains of.
_MOST_SAID = 64 * 1024
_PLAIN_NAME = "localhost"


class Question(NamedTuple):
    """A name and what is said on top of, and below, the configuration."""

    name: str
    over: tuple[tuple[str, str], ...] = ()
    under: tuple[tuple[str, str], ...] = ()


class _Answer(NamedTuple):
    settings: Settings
    signature: tuple[Stamp, ...]
    asked: float


class Resolver:
    """Asks ssh, once per question while the files stay the same."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        *,
        config_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        named = environ.get("HOLDFAST_SSH_CONFIG", "")
        self._config_file = config_file or (Path(named) if named else None)
        self._binary = environ.get("HOLDFAST_SSH_BIN", "") or "ssh"
        self._limits = limits
        self._clock = clock
        self._files = ConfigFiles(self._config_file)
        self._signature: tuple[Stamp, ...] = ()
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._answers: dict[Question, _Answer] = {}
        self._asking: dict[Question, asyncio.Task[_Answer]] = {}
        self._plain: Raw = {}
        # of the program that said so
        self._plain_of: Stamp | None = None

    async def settings(self, question: Question, *, kept: bool = False) -> Settings:
        """Return what applies to `question`; concurrent callers share one answer.

        With `kept` an answer of any age will do while the files stay as they are:
        nothing is run merely because time goes by.
        """
        signature = await self._look()
        answer = self._answers.get(question)
        if (
            answer is not None
            and answer.signature == signature
            and (kept or self._is_fresh(answer))
        ):
            return answer.settings
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._ask(question, signature))
            self._asking[question] = task
            task.add_done_callback(lambda done: self._asked(question, done))
        return (await asyncio.shield(task)).settings

    def _is_fresh(self, answer: _Answer) -> bool:
        age = self._clock.monotonic() - answer.asked
        return age < self._limits.resolve_cache_seconds

    async def _look(self) -> tuple[Stamp, ...]:
        """Return the state of the files, looked at anew when the last look is old."""
        now = self._clock.monotonic()
        if now - self._looked >= self._limits.resolve_check_seconds:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_anew(now))
            await asyncio.shield(self._looking)
        return self._signature

    async def _look_anew(self, now: float) -> None:
        self._signature = await asyncio.to_thread(self._files.signature)
        self._looked = now

    async def aliases(self) -> list[Alias]:
        """Return the concrete names of the configuration, in order."""
        return await asyncio.to_thread(self._files.aliases)

    async def troubles(self) -> list[str]:
        """Return which files of the configuration can't be read, and why."""
        return await asyncio.to_thread(self._files.troubles)

    def _asked(self, question: Question, task: asyncio.Task[_Answer]) -> None:
        self._asking.pop(question, None)
        if task.cancelled() or task.exception() is not None:
            return
        self._answers.pop(question, None)
        while len(self._answers) >= _KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[question] = task.result()

    async def _ask(self, question: Question, signature: tuple[Stamp, ...]) -> _Answer:
        asked = self._clock.monotonic()
        binary = await asyncio.to_thread(shutil.which, self._binary)
        if binary is None:
            if self._binary != "ssh":
                raise StateError(
                    Reason.BAD_CONFIGURATION,
                    f"HOLDFAST_SSH_BIN names {self._binary}, which is no program",
                )
            raw = await asyncio.to_thread(self._parsed, question)
            plain: Raw = {}
        else:
            raw = await self._run(binary, question, self._config_file)
            plain = await self._defaults(binary)
        return _Answer(Settings(raw, plain, question.name), signature, asked)

    async def _defaults(self, binary: str) -> Raw:
        """Return what this ssh uses where nobody says anything."""
        stamp = await asyncio.to_thread(_stamp, binary)
        if stamp != self._plain_of:
            # none was asked yet, or it was upgraded: it may have other defaults now
            question = Question(_PLAIN_NAME)
            self._plain = await self._run(binary, question, Path(os.devnull))
            self._plain_of = stamp
        return self._plain

    async def _run(self, binary: str, question: Question, config: Path | None) -> Raw:
        file = config
        if question.under:
            if config is None:
                # ssh looks at owner and mode of the person's file only when it opens
                # it unasked, and what it refuses then stays refused
                await self._ask_ssh(binary, question, None)
            file = await asyncio.to_thread(self._write_below, question, config)
        try:
            out = await self._ask_ssh(binary, question, file)
        finally:
            if file is not None and question.under:
                await asyncio.shield(asyncio.to_thread(file.unlink, missing_ok=True))
        return parse(out)

    async def _ask_ssh(self, binary: str, question: Question, file: Path | None) -> str:
        seconds = self._limits.resolve_seconds
        command = [binary, "-G"]
        if file is not None:
            command += ["-F", str(file)]
        for name, value in question.over:
            command += ["-o", f"{name}={_quoted(value)}"]
        # In a file, as what `Match exec` leaves behind may hold a pipe for ever.
        with await asyncio.to_thread(tempfile.TemporaryFile) as said:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--",
                question.name,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(seconds):
                    out, _ = await process.communicate()
            except TimeoutError:
                raise LinkError(
                    Reason.CONNECT_TIMEOUT,
                    f"`ssh -G {question.name}` did not answer in {seconds:g} s",
                    hint="a `Match exec` or the name service in ssh config is slow",
                ) from None
            finally:
                if process.returncode is None:
                    # What it runs would go on by itself.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
            if process.returncode:
                err = await asyncio.to_thread(_beginning, said)
                raise _refused(question, err.decode("utf-8", "replace"))
        return out.decode("utf-8", "replace")

    def _write_below(self, question: Question, config: Path | None) -> Path:
        """Write a file of our own, with what is said below the person's files."""
        roots = self._files.roots if config is None else [config]
        lines = [f'Include "{root}"' for root in roots]
        lines += ["Host *", *(f"  {name} {value}" for name, value in question.under)]
        with tempfile.NamedTemporaryFile(
            "w", prefix="holdfast-", suffix=".conf", delete=False
        ) as file:
            file.write("\n".join(lines) + "\n")
        return Path(file.name)

    def _parsed(self, question: Question) -> Raw:
        """Resolve without an ssh; what that can't do is refused."""
        reader = Reader(question.name)
        try:
            reader.say(question.over)
            reader.read(self._files.roots)
            reader.say(question.under)
        except UnreadableError as error:
            raise StateError(
                Reason.BAD_CONFIGURATION,
                f"{question.name} can't be resolved without an ssh program: {error}",
                hint="install the OpenSSH client, or name it by HOLDFAST_SSH_BIN for"
                " the holdfast service",
            ) from None
        raw = {name: list(values) for name, values in reader.raw.items()}
        raw["hostname"] = [reader.hostname]
        for name, values in _DEFAULTS.items():
            raw.setdefault(name, list(values))
        return raw


# What ssh says where nobody says anything, as far as it is not "nothing".
_DEFAULTS: Raw = {
    "identityfile": [
        f"~/.ssh/id_{kind}"
        for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk")
    ],
    "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
    "requiredrsasize": ["1024"],
}


def _stamp(path: str) -> Stamp:
    try:
        state = Path(path).stat()
    except OSError:
        return path, 0, 0, 0  # it goes just now
    return path, state.st_mtime_ns, state.st_size, state.st_ino


def _beginning(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MOST_SAID)


def _quoted(value: str) -> str:
    """Return `value` so that ssh reads it as one word."""
    blank = any(character.isspace() for character in value)
    return f'"{value}"' if blank and '"' not in value else value


def _refused(question: Question, said: str) -> DaemonError:
    lines = [line for line in said.splitlines() if "Pseudo-terminal" not in line]
    text = "; ".join(lines) or "it gave no reason"
    if "command-line" in said:
        given = ", ".join(f"{name} {value[:_SHOWN]}" for name, value in question.over)
        one = "" if len(question.over) == 1 else "one of "
        return InputError("connect.options", f"ssh refuses {one}{given}: {text}")
    return StateError(
        Reason.BAD_CONFIGURATION,
        f"ssh cannot resolve {question.name}: {text}",
        hint=f"try `ssh -G {question.name}` in a terminal",
    )
