"""Secrets by name: looked up where the configuration says they are, when needed.

Knows the places a name may stand for; not what a secret is for.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast_daemon import schema
from holdfast_daemon.errors import NeedsError, Reason
from holdfast_daemon.limits import Limits
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

SERVICE = "holdfast"
_LONGEST = 4096
_OTHERS = 0o077
# Each waits for an answer that may never come; more of them would wait no better.
_MOST_ASKING = 8
_asking = 0


def check(reference: str) -> None:
    """Refuse what is no name of a secret.

    Raises:
        ValueError: It is something else; the message does not quote it.
    """
    schema.reference(reference)


async def fetch(
    reference: str, environ: Mapping[str, str], seconds: float | None = None
) -> Secret:
    """Return the secret that `reference` names.

    `env:NAME` is a variable of `environ`, `keyring:NAME` the entry NAME of the service
    "holdfast", `file:/PATH` a file that only its owner can read.

    Raises:
        NeedsError: It is not there, or can't be had; what it is, is not told.
    """
    check(reference)
    place, _, name = reference.partition(":")
    if place == "env":
        text = environ.get(name, "")
        if not text:
            raise _missing(reference, "the daemon's environment has no such variable")
    elif place == "file":
        text = await asyncio.to_thread(_read, reference, name)
    else:
        limit = Limits().keyring_seconds if seconds is None else seconds
        text = await _aside(lambda: _ask(reference, name), reference, limit)
    return Secret(_one_line(reference, text))


def _one_line(reference: str, text: str) -> str:
    """Every use of it is a line; an editor or `echo` may have ended it as one."""
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        raise _missing(reference, "it is empty")
    if not {"\n", "\r", "\0"}.isdisjoint(line):
        raise _missing(reference, "it is more than one line")
    return line


def _missing(reference: str, why: str, hint: str = "") -> NeedsError:
    return NeedsError(
        Reason.BAD_CONFIGURATION,
        f"the secret {reference} can't be had: {why}",
        hint=hint or f"put it there, {_HOW[reference.partition(':')[0]]}",
        metadata={"secret": reference},
    )


_HOW = {
    "env": "and restart the daemon: it reads its environment once",
    "keyring": f"as the user of the daemon: keyring set {SERVICE} NAME",
    "file": "as one line of a file of mode 0600 that belongs to the daemon's user",
}


def _read(reference: str, name: str) -> str:
    """Return the content of a file that nobody else can read or swap."""
    path = Path(name).expanduser()
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise _missing(reference, str(why)) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _missing(reference, "it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise _missing(reference, f"it belongs to user {found.st_uid}")
        if found.st_mode & _OTHERS:
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            raise _missing(
                reference,
                f"it is open to others (mode {mode})",
                f"chmod 600 {path}, and change the secret if it was read",
            )
        content = os.read(descriptor, _LONGEST + 1)
    except OSError as error:
        raise _missing(reference, str(error.strerror)) from error
    finally:
        os.close(descriptor)
    if len(content) > _LONGEST:
        raise _missing(reference, f"it is longer than {_LONGEST} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _missing(reference, "it is not UTF-8 text") from None


def _ask(reference: str, name: str) -> str:
    """Return an entry of the keyring; blocks for as long as its owner is asked."""
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to import
        from keyring import errors  # noqa: PLC0415
    except ImportError as error:
        raise _missing(
            reference,
            "the library keyring is not installed",
            "install holdfast with its extra: pip install 'holdfast[keyring]'",
        ) from error
    try:
        found = keyring.get_password(SERVICE, name)
    except errors.NoKeyringError as error:
        raise _missing(
            reference,
            "this machine has no keyring that the daemon can use",
            "a service without a desktop often has none: use env:NAME or file:/PATH",
        ) from error
    except (errors.KeyringLocked, errors.InitError) as error:
        raise _missing(
            reference, "the keyring is locked", "unlock it, and try again"
        ) from error
    except Exception as error:
        # Each backend has its own; what one says may hold what it knows.
        raise _missing(
            reference,
            f"the keyring failed ({type(error).__name__})",
            "look whether `keyring get` works as the user of the daemon",
        ) from error
    if found is None:
        raise _missing(
            reference,
            f"the keyring has no entry {name} of the service {SERVICE}",
            f"as the user of the daemon: keyring set {SERVICE} {name}",
        )
    return found


async def _aside(work: Callable[[], T], reference: str, seconds: float) -> T:
    """Run `work` in a thread of its own, and wait for it at most `seconds`.

    One that never returns must neither use up the threads that files are read in, nor
    hold up the end of the daemon.
    """
    global _asking  # noqa: PLW0603 - a count of this process's threads
    if _asking >= _MOST_ASKING:
        raise _missing(reference, "the keyring does not answer", "look what blocks it")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        global _asking  # noqa: PLW0603 - see above
        _asking -= 1
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type] # T may be None itself

    def run() -> None:
        result: T | None = None
        trouble: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            trouble = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, trouble)

    _asking += 1
    threading.Thread(target=run, name="keyring", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise _missing(
            reference,
            f"the keyring did not answer within {seconds:g} s",
            "it may wait for its owner to unlock it",
        ) from None
