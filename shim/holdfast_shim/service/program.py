"""Finds the daemon's program of this very installation: pip, pipx, uv, a package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_shim.errors import CallError
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROGRAM = "holdfastd"
_SECONDS = 20.0
# Tools that run a program once keep it where they tidy up.
_PASSING = ("/uv/archive-v", "/.cache/uv/", "/pipx/.cache/", "/.cache/pipx/")


def command(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line of the daemon that belongs to this client.

    Raises:
        CallError: None answers with our version, or it would not stay where it is.
    """
    if any(part in sys.prefix + "/" for part in _PASSING):
        raise CallError(
            "UNSUPPORTED",
            f"this is a passing installation: {sys.prefix} is tidied away one day",
            hint="install it to stay: `uv tool install holdfast` or "
            "`pipx install holdfast`, then run this again",
        )
    said: list[str] = []
    own = Path(sys.prefix, "bin", _PROGRAM)
    if sys.prefix != sys.base_prefix and os.access(own, os.X_OK):
        return (str(own),)  # an environment holds one installation
    for words in _candidates(env):
        told = _version(words, env)
        if told == VERSION:
            return words
        said.append(f"{words[0]}: {told}")
    raise CallError(
        "UNSUPPORTED",
        f"no program {_PROGRAM} of holdfast {VERSION} was found ({'; '.join(said)})",
        hint="install holdfast again, by pipx, uv or pip",
    )


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield command lines, the surest first; symbolic links stay: they are stable."""
    places = [Path(sys.executable).parent]
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places += [Path(sysconfig.get_path("scripts", scheme)) for scheme in schemes]
    if "/" in sys.argv[0]:
        places.append(Path(sys.argv[0]).absolute().parent)
    found = shutil.which(_PROGRAM, path=env.get("PATH"))
    if found is not None:
        places.append(Path(found).absolute().parent)
    for place in dict.fromkeys(places):
        if os.access(place / _PROGRAM, os.X_OK):
            yield (str(place / _PROGRAM),)
    # -P: nothing that lies in the working directory may be imported
    yield (sys.executable, "-P", "-m", "holdfast_daemon")


def _version(words: tuple[str, ...], env: Mapping[str, str]) -> str:
    """Return the version that a program tells, or what it says instead."""
    try:
        done = subprocess.run(
            [*words, "--version"],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            cwd="/",
            check=False,
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS:g} s"
    told = (done.stdout.strip() or done.stderr.strip()).splitlines()
    if not told:
        return f"exit code {done.returncode}"
    return told[-1].removeprefix(f"{_PROGRAM} ")
