"""Words of the command line that name a place on this machine or on a host, as scp."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click

_URL = "ssh://"


class End(NamedTuple):
    """One end of a transfer; `host` is empty on this machine."""

    host: str
    path: str


def end(word: str) -> End:
    """Return what a word names: `HOST:PATH`, or a path of this machine.

    `ssh://HOST:PORT/PATH` is read as git reads it: its path is absolute, or begins with
    `~`. A colon behind a slash is part of a path, and `[…]` may hold an address of
    IPv6. A host's path may be left out: it is the home directory then. A path of this
    machine is made absolute: the daemon has a working directory of its own.
    """
    if word.startswith(_URL):
        host, slash, path = word.removeprefix(_URL).partition("/")
        return End(_URL + host, path if path.startswith("~") else slash + path or "~")
    host, colon, path = word.partition(":")
    if (word.startswith("[") and "]:" in word) or ("@[" in host and "]:" in word):
        host, colon, path = word.partition("]:")
        host += "]"
    if not colon or "/" in host or not host:
        return End("", local(word))
    return End(host, path or "~")


def local(word: str) -> str:
    """Return an absolute path of this machine, with the slash at its end kept."""
    if not word:
        raise click.UsageError("a path is empty")
    slash = "/" if word.endswith("/") else ""
    found = str(absolute(word))
    return found if found.endswith("/") else found + slash


def absolute(word: str) -> Path:
    """Return what a word means on this machine, with `~` and from where we are.

    Raises:
        UsageError: It means nothing here.
    """
    try:
        return Path(word).expanduser().absolute()
    except RuntimeError as error:
        raise click.UsageError(f"{word}: there is no such home directory") from error
    except OSError as error:
        told = "the working directory is gone; name an absolute path"
        raise click.UsageError(f"{word}: {told}") from error


def one_host(sources: list[End], destination: End) -> tuple[str, bool]:
    """Return the host, and whether it is where things go to.

    Raises:
        UsageError: There is none, or there are several.
    """
    hosts = {one.host for one in sources}
    if destination.host and hosts == {""}:
        return destination.host, True
    if not destination.host and len(hosts) == 1 and "" not in hosts:
        return hosts.pop(), False
    raise click.UsageError(
        "name one host, as HOST:PATH, on one side: it is copied between this machine"
        " and a host"
    )
