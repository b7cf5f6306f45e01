"""Which paths hold secrets, as globs that a shell's `case` and we read alike. Sans-I/O.

A guard against accidents, not a wall: who may run commands may read them otherwise.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# A star matches slashes too, in `case` as in fnmatch.
SECRET = (
    "*/.ssh/id_*",
    "*/.ssh/identity",
    "*/ssh_host_*_key",
    "*/etc/shadow",
    "*/etc/shadow-",
    "*/etc/gshadow",
    "*/etc/gshadow-",
    "*/master.passwd",
    "*/.netrc",
    "*/.pgpass",
    "*/.my.cnf",
    "*/.git-credentials",
    "*/.aws/credentials",
    "*/.docker/config.json",
    "*/.kube/config",
    "*/.gnupg/private-keys-v1.d/*",
    "*/.gnupg/secring.gpg",
    "*/.vault-token",
    "/proc/*/environ",
    "/proc/*/mem",
    "/proc/kcore",
    "*/etc/krb5.keytab",
    "*/etc/ssl/private/*",
)
# These tell nothing secret, and let in whoever writes them.
LETS_IN = (
    "*/.ssh/authorized_keys",
    "*/.ssh/authorized_keys2",
    "*/etc/sudoers",
    "*/etc/sudoers.d/*",
    "*/etc/pam.d/*",
)
# The public half has the same name with .pub, and is not meant.
_PUBLIC = ".pub"
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")


_BELOW = "*/"


def _any(globs: Iterable[str]) -> Callable[[str], bool]:
    """Return what says whether one of `globs` matches; a copy asks it of every file."""
    below, whole = [], []
    for glob in globs:
        if glob.startswith(_BELOW):
            below.append(translate(glob.removeprefix(_BELOW)))
        else:
            whole.append(translate(glob))
    at_any = re.compile(f"/(?:{'|'.join(below)})")
    at_start = re.compile("|".join(whole) or r"(?!)")

    def matches(path: str) -> bool:
        return bool(at_any.search(path) or at_start.match(path))

    return matches


_is_secret, _is_door = _any(SECRET), _any(LETS_IN)


def case(variable: str, *, write: bool) -> str:
    """Return shell words that call `no sensitive` where $`variable` is such a path."""
    globs = "|".join(SECRET + LETS_IN if write else SECRET)
    return f'case ${variable} in *{_PUBLIC});;{globs}) no sensitive "${variable}";;esac'


def holds_secrets(path: str) -> bool:
    """Say whether a path (resolved) is one whose content is secret."""
    return not path.endswith(_PUBLIC) and _is_secret(path)


def lets_in(path: str) -> bool:
    """Say whether a path (resolved) is one that must not be written by accident."""
    return holds_secrets(path) or _is_door(path)


def is_key(data: bytes) -> bool:
    """Say whether a content is a private key, whatever its name."""
    return _KEY.search(data[:4096]) is not None


def refusal(path: str, *, write: bool) -> DeniedError:
    """Return the error for such a path."""
    hint = (
        "Set force to read it all the same: its content is then part of this"
        " conversation. To use a secret on the host, name its path in a command."
    )
    if write:
        hint = "If it is meant to be changed, a command can do it (ssh_exec)."
    what = "lets people in or holds secrets" if write else "holds secrets"
    return DeniedError(
        Reason.SENSITIVE_PATH,
        f"{path} {what}, and nothing was {'written' if write else 'read'}",
        hint=hint,
        metadata={"path": path},
    )
