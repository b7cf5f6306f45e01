"""What the SSH library asks during one login, answered: host key, keys, passwords."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import asyncssh
from asyncssh.constants import MSG_USERAUTH_FAILURE
from asyncssh.packet import SSHPacket

from holdfast_daemon.connection import (
    credential,
    diagnosis,
    keyfile,
    presented,
    quiet,
    strength,
)
from holdfast_daemon.connection.answers import Answers
from holdfast_daemon.connection.key import Signer
from holdfast_daemon.connection.question import cleaned
from holdfast_daemon.hosts import update
from holdfast_daemon.hosts.public_key import fingerprint, key_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asyncssh import SSHClientConnection, SSHKey, SSHKeyPair

    from holdfast_daemon.connection.answers import Aid
    from holdfast_daemon.connection.credential import Credentials, Offer
    from holdfast_daemon.errors import NeedsError
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.trust import Trust
    from holdfast_daemon.hosts.verdict import Verdict

_log = logging.getLogger(__name__)

# Of ways to log in a server may name, and of steps one after another.
_MOST_METHODS = 16
_MOST_STEPS = 10
_METHOD_CHARS = 64
_WIDENED = re.compile(
    r'Forwarding listen address "([^"]*)" overridden by server GatewayPorts'
)
_MOST_WIDENED = 100
_TOUCH = "a touch of the security key"


class Visitor(asyncssh.SSHClient):
    """Answers the library's questions during one login, and remembers how it went.

    Attributes:
        methods: What the server allowed, in its order, at any time.
        tried: What it was offered, in words.
        accepted: What of that it took, when it wanted more.
        locked: The key it would have taken, had its passphrase been at hand.
        helped: A person answered, or touched a key.
        widened: Addresses that it was to listen on, and listens on all instead.
    """

    def __init__(
        self, host: Host, trust: Trust, credentials: Credentials, aid: Aid
    ) -> None:
        self._host = host
        self._trust = trust
        self._offers = list(credentials.offers)
        self._keys_last = credentials.password is not None and (
            not host.explicit_identity
        )
        self.answers = Answers(host, host.password or credentials.password, aid)
        self._connection: SSHClientConnection | None = None
        self.on_lost: Callable[[Exception | None], None] | None = None
        self.verdict: Verdict | None = None
        self._shown = b""
        self.methods: dict[str, None] = {}
        self._allowed_now: Sequence[str] = ()
        self.tried: list[str] = []
        self.accepted: list[str] = []
        self.locked: NeedsError | None = None
        self.helped = False
        self.widened: set[str] = set()
        self.on_right_host: Callable[[], None] | None = None
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

    @property
    def touch(self) -> str:
        """The touch that is waited for; empty: none."""
        return self.doing if self.doing.startswith(_TOUCH) else ""

    @property
    def logging_in(self) -> bool:
        """The host was found to be the right one, and is offered credentials."""
        return self.doing == "the login" or bool(self.touch)

    def connection_made(self, conn: SSHClientConnection) -> None:
        """Note that somebody is there."""
        self._connection = conn
        self.doing = "a word from it"
        # The library tells nobody that the server took one credential and wants
        # another (RFC 4252 5.1), so its answer is read on its way.
        handlers = conn._packet_handlers  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        handle = handlers[MSG_USERAUTH_FAILURE]

        def refused(
            connection: Any, kind: int, number: int, packet: SSHPacket
        ) -> Awaitable[None] | None:
            self._refused(SSHPacket(packet.get_remaining_payload()))
            return handle(connection, kind, number, packet)

        conn._packet_handlers = {**handlers, MSG_USERAUTH_FAILURE: refused}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        presented.attend(conn, self._judge)
        quiet.attend(conn)

    def debug_msg_received(
        self,
        msg: str,
        lang: str,  # noqa: ARG002
        always_display: bool,  # noqa: ARG002
    ) -> None:
        """Note what OpenSSH tells in no other way."""
        found = _WIDENED.fullmatch(msg)
        if found is not None and len(self.widened) < _MOST_WIDENED:
            self.widened.add(found[1])

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
        """Say yes to the key that was taken before the library asked."""
        verdict = self.verdict
        return verdict is not None and (
            verdict.blob == key.public_data and self._trust.accepts(verdict)
        )

    async def _judge(self, blob: bytes) -> bytes:
        """Judge a host's key as it was sent; return the key that was taken."""
        if self.verdict is not None and blob == self._shown:
            return self.verdict.blob  # the same again, when keys are changed
        if (trouble := strength.refusal(self._host, blob)) is not None:
            raise trouble
        address = self._address()
        if self._trust.blocks:
            verdict = await asyncio.to_thread(self._trust.judge, blob, address)
        else:
            verdict = self._trust.judge(blob, address)
        self.verdict = verdict
        if not self._trust.accepts(verdict):
            raise asyncssh.HostKeyNotVerifiable("the host's key is not trusted")
        self._shown = blob
        return verdict.blob

    async def more_keys(self, added: Sequence[SSHKey], *_: object) -> None:
        """Learn further keys of the host, which it has proved to hold."""
        host, verdict = self._host, self.verdict
        if verdict is None or not update.applies(host, verdict):
            return
        blobs = [key.public_data for key in added]
        try:
            fresh = await asyncio.to_thread(update.learn, host, blobs)
        except OSError as error:
            _log.warning("further host keys were not written down: %s", error)
            return
        for blob in fresh:
            told = f"{key_type(blob)} {fingerprint(blob)}"
            _log.info("learnt one more key of %s: %s", host.name, told)

    def _address(self) -> str:
        """Return where the host was met; nobody knows behind a proxy."""
        host, connection = self._host, self._connection
        if connection is None or host.proxy_jump is not None or host.proxy_command:
            return ""
        return str(connection.get_extra_info("peername", ("",))[0])

    def begin_auth(self, username: str) -> None:  # noqa: ARG002
        """Note that the host is the right one."""
        self.doing = "the login"
        if self.on_right_host is not None:
            self.on_right_host()

    def auth_banner_received(self, msg: str, lang: str) -> None:  # noqa: ARG002
        """Show a person what the server says to all."""
        self.answers.tell(msg, lines=True)

    def auth_completed(self) -> None:
        """Let go of the keys, unlocked ones too, and of the password."""
        if self.tried:
            self.accepted.append(self.tried[-1])
        self._offers.clear()
        self.answers.close()

    def _refused(self, packet: SSHPacket) -> None:
        """Note what the server allows now, and whether it took what it was given."""
        names = [
            cleaned(name.decode("ascii", "replace"), _METHOD_CHARS)
            for name in packet.get_namelist()[:_MOST_METHODS]
        ]
        self._allowed_now = names
        for name in names[: _MOST_METHODS - len(self.methods)]:
            self.methods.setdefault(name)
        # Beyond that nothing is given a second time, so it comes to an end.
        if packet.get_boolean() and len(self.accepted) < _MOST_STEPS:
            self.accepted.append(self.tried[-1] if self.tried else "none")
            self.locked = None
            self.answers.accepted()
            self.answers.tell(f"{self._host.name} took {self.accepted[-1]}")

    # Keys

    async def public_key_auth_requested(self) -> SSHKeyPair | None:
        """Offer the next key."""
        self.doing = "the login"
        if not self._allowed("publickey") or self._keys_wait():
            return None
        while self._offers and not self.answers.gave_up:
            offer = self._offers.pop(0)
            if offer.pair is None:
                # Not even its public half is known: as with ssh, asked for at once.
                offer.pair = await self._unlock(offer)
                offer.locked = None
            if offer.pair is not None:
                told = credential.describe(offer)
                self.tried.append(diagnosis.veiled(self._host, told))
                return Signer(offer.pair, partial(self._ready, offer))
        return None

    def _keys_wait(self) -> bool:
        """Whether a password of the configuration goes before the keys."""
        return self._keys_last and any(
            name in self._allowed_now for name in ("password", "keyboard-interactive")
        )

    async def _ready(self, offer: Offer) -> SSHKeyPair | None:
        """Make a key ready to sign; the server has said that it would take it."""
        pair = offer.pair
        if offer.locked is not None:
            pair = await self._unlock(offer)
        if pair is not None and offer.touch:
            self.helped = True
            self.doing = f"{_TOUCH} ({offer.label})"
            self.answers.tell(f"touch the security key, if it blinks ({offer.label})")
        return pair

    async def _unlock(self, offer: Offer) -> SSHKeyPair | None:
        if not self.answers.attended:
            self.locked = self.locked or offer.locked
            return None
        for tries in range(self.answers.tries):
            phrase = await self.answers.passphrase(offer.label, tries)
            if not phrase:
                return None
            pair = await asyncio.to_thread(
                keyfile.unlock, offer.label, phrase, offer.pair
            )
            if pair is not None:
                self.helped = True
                return pair
        return None

    # Passwords and questions

    async def password_auth_requested(self) -> str | None:
        """Give the password: the one at hand, or a person's."""
        self.doing = "the login"
        if not self._allowed("password") or self._only_own_refused():
            return None
        password = await self.answers.password()
        if password is not None:
            self._answered("password")
        return password

    async def password_change_requested(
        self,
        prompt: str,
        lang: str,  # noqa: ARG002
    ) -> tuple[str, str]:
        """Give a new password in place of one that has expired."""
        changed = await self.answers.new_password(prompt)
        if changed is None:
            # The library takes only this for a no, whatever its types say.
            return cast("tuple[str, str]", NotImplemented)
        self._answered("password, changed")
        return changed

    async def kbdint_auth_requested(self) -> str | None:
        """Let the server ask, where there is somebody or something to answer."""
        self.doing = "the login"
        if not self._allowed("keyboard-interactive"):
            return None
        plainly = "password" in self._allowed_now and self._allowed("password")
        refused = self._host.own_credentials and not self.accepted
        begins = self.answers.begins_interactive(plainly=plainly, refused=refused)
        return "" if begins else None

    async def kbdint_challenge_received(
        self,
        name: str,
        instructions: str,
        lang: str,  # noqa: ARG002
        prompts: Sequence[tuple[str, bool]],
    ) -> list[str] | None:
        """Answer one round of questions."""
        answers = await self.answers.interactive(name, instructions, prompts)
        if answers:
            self._answered("keyboard-interactive")
        return answers

    @property
    def method(self) -> str:
        """How the login was made."""
        return ", then ".join(self.accepted) or "none"

    def _answered(self, method: str) -> None:
        self.helped = self.helped or self.answers.typed
        told = f"{method} by a person" if self.answers.typed else method
        if method in self.tried[-1:]:
            # Several rounds of questions are one way to log in.
            self.tried.pop()
        elif f"{method} by a person" in self.tried[-1:]:
            return
        self.tried.append(told)

    def _only_own_refused(self) -> bool:
        """Whether a person is no help: what the caller named was turned down."""
        return (
            not self.answers.attended
            and not self.answers.at_hand
            and self._host.own_credentials
            and not self.accepted
        )

    def _allowed(self, method: str) -> bool:
        return not self._host.methods or method in self._host.methods
