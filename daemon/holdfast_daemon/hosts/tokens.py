"""Who runs this, and what `%h`, `${NAME}` and `~` stand for in ssh's values.

The user database is asked, which may be slow: whoever fills in paths does so in a
thread.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import re
import socket
from typing import NamedTuple

from holdfast_daemon.errors import Reason, StateError

_TOKEN = re.compile(r"%(.)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHOWN = 120


class Me(NamedTuple):
    """Who runs this, as the user database and the system have it."""

    name: str
    home: str
    uid: int
    machine: str


@functools.cache
def me() -> Me:
    """Look up once who runs this: the database may be a slow directory service."""
    account = pwd.getpwuid(os.getuid())
    return Me(account.pw_name, account.pw_dir, account.pw_uid, socket.gethostname())


def home() -> str:
    """Return the home OpenSSH uses: that of the user database, not of $HOME."""
    return me().home


class Tokens(NamedTuple):
    """What the tokens of one host's values stand for."""

    hostname: str
    original: str
    port: str
    user: str
    alias: str
    jump: str

    def path(self, value: str) -> str:
        """Fill in tokens, variables and the home directory."""
        if value == "~" or value.startswith("~/"):
            value = home() + value[1:]
        else:
            value = os.path.expanduser(value)  # noqa: PTH111  ~user, and no Path needed
        return self.fill(value, files=True)

    def fill(
        self, value: str, *, files: bool, later: frozenset[str] = frozenset()
    ) -> str:
        """Fill in what ssh leaves to whoever uses the value.

        Args:
            value: As ssh printed it.
            files: All tokens and variables, not just those of proxies.
            later: Tokens that are left, and `%%` with them.

        Raises:
            StateError: A token or a variable means nothing; ssh ends there too.
        """
        known = self._known(files=files)

        def token(found: re.Match[str]) -> str:
            letter = found[1]
            if letter in later:
                return found[0]
            if letter not in known:
                raise self._meaningless(f"the token {found[0]}", value)
            # whoever fills in the rest later will meet this one again
            return known[letter].replace("%", "%%") if later else known[letter]

        def variable(found: re.Match[str]) -> str:
            if found[1] not in os.environ:
                raise self._meaningless(f"the variable ${{{found[1]}}}", value)
            return os.environ[found[1]]

        value = _TOKEN.sub(token, value)
        return _VARIABLE.sub(variable, value) if files else value

    def _known(self, *, files: bool) -> dict[str, str]:
        known = {
            "%": "%",
            "h": self.hostname,
            "n": self.original,
            "p": self.port,
            "r": self.user,
        }
        if not files:
            return known
        mine = me()
        local = mine.machine
        text = local + self.hostname + self.port + self.user
        return known | {
            "C": hashlib.sha1(text.encode()).hexdigest(),  # noqa: S324  ssh's own
            "d": mine.home,
            "i": str(mine.uid),
            "j": self.jump,
            "k": self.alias or self.original,
            "L": local.partition(".")[0],
            "l": local,
            "T": "NONE",
            "u": mine.name,
        }

    def _meaningless(self, what: str, value: str) -> StateError:
        return StateError(
            Reason.BAD_CONFIGURATION,
            f"{self.original} is not connected: {what} in {value[:_SHOWN]!r} of ssh"
            " config can't be filled in",
            hint="correct it there; variables are those the holdfast service sees",
            metadata={"host": self.original},
        )
