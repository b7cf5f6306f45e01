"""What the SSH library asks during one login, answered: host key, keys, password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection import credential

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncssh import SSHClientConnection, SSHKey, SSHKeyPair

    from holdfast_daemon.connection.credential import Credentials
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.trust import Trust, Verdict


class Visitor(asyncssh.SSHClient):
    """Answers the library's questions during one login, and remembers how it went."""

    def __init__(self, host: Host, trust: Trust, credentials: Credentials) -> None:
        self._host = host
        self._trust = trust
        self._offers = list(credentials.offers)
        self._password_left = host.password is not None
        self._connection: SSHClientConnection | None = None
        self.on_lost: Callable[[Exception | None], None] | None = None
        self.verdict: Verdict | None = None
        self.methods: dict[str, None] = {}
        self.tried: list[str] = []
        self.doing = "reaching it"
        self.lost = False
        self.error: Exception | None = None

    @property
    def spoke(self) -> bool:
        """The server introduced itself."""
        if self._connection is None:
            return False
        return bool(self._connection.get_extra_info("server_version"))

    @property
    def waiting_for(self) -> str:
        """What a login that takes too long waits for."""
        if self.doing == "a word from it" and self.spoke:
            return "the key exchange"
        return self.doing

    def connection_made(self, conn: SSHClientConnection) -> None:
        """Note that somebody is there."""
        self._connection = conn
        self.doing = "a word from it"

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on to whoever holds the connection."""
        self.lost = True
        self.error = exc
        if self.on_lost is not None:
            self.on_lost(exc)

    def validate_host_public_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: SSHKey,
    ) -> bool:
        """Judge a plain host key."""
        self.verdict = self._trust.judge(key.public_data)
        return self._trust.accepts(self.verdict)

    def validate_host_ca_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: SSHKey,
    ) -> bool:
        """Judge who signed a host certificate."""
        self.verdict = self._trust.judge_authority(key.public_data)
        return self._trust.accepts(self.verdict)

    def begin_auth(self, username: str) -> None:  # noqa: ARG002
        """Note that the host is the right one."""
        self.doing = "the login"

    def public_key_auth_requested(self) -> SSHKeyPair | None:
        """Offer the next key."""
        self._note_methods()
        if not self._allowed("publickey") or not self._offers:
            return None
        offer = self._offers.pop(0)
        self.tried.append(credential.describe(offer))
        return offer.pair

    def password_auth_requested(self) -> str | None:
        """Give the password, once."""
        self._note_methods()
        if not self._allowed("password"):
            return None
        return self._password("password")

    def kbdint_auth_requested(self) -> str | None:
        """Take part only where the password can't be given plainly.

        Servers that offer both mean the same password, and would count it twice.
        """
        self._note_methods()
        plainly = "password" in self.methods and self._allowed("password")
        if plainly or not self._allowed("keyboard-interactive"):
            return None
        return "" if self._password_left else None

    def kbdint_challenge_received(
        self,
        name: str,  # noqa: ARG002
        instructions: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
        prompts: Sequence[object],
    ) -> list[str] | None:
        """Answer one question with the password; more than one is for a person."""
        if not prompts:
            return []
        if len(prompts) > 1:
            self.tried.append("keyboard-interactive (it asks for more than a password)")
            return None
        password = self._password("keyboard-interactive")
        return None if password is None else [password]

    @property
    def method(self) -> str:
        """How the login was made."""
        return self.tried[-1] if self.tried else "none"

    def _password(self, method: str) -> str | None:
        if not self._password_left or self._host.password is None:
            return None
        self._password_left = False
        self.tried.append(method)
        return self._host.password.reveal()

    def _allowed(self, method: str) -> bool:
        return not self._host.methods or method in self._host.methods

    def _note_methods(self) -> None:
        if self._connection is not None:
            for name in self._connection.get_server_auth_methods():
                self.methods.setdefault(name)
