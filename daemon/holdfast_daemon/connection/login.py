"""One login: reach the host, judge its key, then and only then offer credentials."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import decode_ssh_public_key

from holdfast_daemon.connection import (
    credential,
    diagnosis,
    failure,
    hearing,
    lending,
    need,
    terms,
)
from holdfast_daemon.connection.dial import dial
from holdfast_daemon.connection.proxy import Proxy, run_local
from holdfast_daemon.connection.question import PROMPT_CHARS, TEXT_CHARS, cleaned
from holdfast_daemon.connection.visitor import Visitor
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts import known_file, update
from holdfast_daemon.hosts.known_hosts import hashed, written
from holdfast_daemon.hosts.refusal import refusal
from holdfast_daemon.hosts.trust import Trust, own_files
from holdfast_daemon.hosts.verdict import Status

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from asyncssh import SSHClientConnection, SSHKey

    from holdfast_daemon.connection.answers import Aid
    from holdfast_daemon.connection.credential import Credentials
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.verdict import Verdict
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor

_log = logging.getLogger(__name__)


class Login:
    """What a finished login hands over."""

    def __init__(
        self,
        connection: SSHClientConnection,
        visitor: Visitor,
        proxy: Proxy | None,
        *,
        lent_agent: str,
    ) -> None:
        self.connection = connection
        self.visitor = visitor
        self.proxy = proxy
        self.lent_agent = lent_agent

    async def abandon(self) -> None:
        """Let go of a connection that nobody will have."""
        self.connection.abort()
        if self.proxy is not None:
            await self.proxy.close()


async def log_in(
    host: Host, limits: Limits, aid: Aid, tunnel: SSHClientConnection | None = None
) -> Login:
    """Log in to `host`, over `tunnel` where it is behind a jump host.

    Raises:
        DaemonError: Typed, with what was wrong and the next step; nothing ran.
    """
    attended = aid.asker is not None
    trust = await asyncio.to_thread(
        Trust.load, host, limits.known_hosts_command_seconds
    )
    credentials = await credential.gather(host, os.environ, limits, attended=attended)
    for secret in credentials.secrets:
        # It stays where it was looked up, so it stays hidden too.
        aid.redactor.add(secret)
    seconds = host.connect_timeout or limits.connect_timeout_seconds
    clock = asyncio.timeout(seconds)

    def right_host() -> None:
        # From here on a person may have to look for a telephone.
        if attended:
            now = asyncio.get_running_loop().time()
            clock.reschedule(now + limits.login_person_seconds)

    attempt = _Attempt(
        host,
        limits,
        trust=trust,
        credentials=credentials,
        aid=aid,
        tunnel=tunnel,
        right_host=right_host,
    )
    login: Login | None = None
    try:
        async with clock:
            login = await attempt.run()
        return login
    except TimeoutError:
        if not clock.expired():
            raise
        raise attempt.too_slow(seconds) from None
    except DaemonError as error:
        # While it is known what to hide: a server may repeat what was typed.
        _hide(error, host, aid.redactor)
        raise
    finally:
        aid.forget()
        try:
            await credentials.close()
            await attempt.write_down()
        except BaseException:
            # Whoever wanted it is gone: nobody else would ever close it.
            if login is not None:
                await login.abandon()
            raise


def _hide(error: DaemonError, host: Host, redactor: Redactor) -> None:
    """Take out of an error what was typed, and where a hidden host is."""

    def clean(text: str) -> str:
        return diagnosis.veiled(host, redactor.clean(text))

    error.message, error.hint = clean(error.message), clean(error.hint)
    error.metadata = {name: clean(value) for name, value in error.metadata.items()}
    error.args = (error.message,)


def _updating(host: Host, trust: Trust, visitor: Visitor) -> dict[str, object]:
    """Return what has the library ask for proofs of keys that are not known yet."""
    if not update.is_wanted(host):
        return {}
    known: list[SSHKey] = []
    for line in trust.named:
        with contextlib.suppress(asyncssh.KeyImportError):
            known.append(decode_ssh_public_key(line.blob))
    return {
        "known_hosts": (known, [], []),
        "server_host_keys_handler": visitor.more_keys,
    }


class _Attempt:
    """The steps of one login."""

    def __init__(
        self,
        host: Host,
        limits: Limits,
        *,
        trust: Trust,
        credentials: Credentials,
        aid: Aid,
        tunnel: SSHClientConnection | None,
        right_host: Callable[[], None],
    ) -> None:
        self._host = host
        self._limits = limits
        self._trust = trust
        self._credentials = credentials
        self._aid = aid
        self._tunnel = tunnel
        self._seconds = host.connect_timeout or limits.connect_timeout_seconds
        self._right_host = right_host
        self._visitor: Visitor | None = None

    def too_slow(self, seconds: float) -> DaemonError:
        """Return the error for a login that was not done in time."""
        host, visitor = self._host, self._visitor
        if visitor is None:
            return failure.too_slow(host, seconds, "reaching it")
        if not visitor.logging_in:
            return failure.too_slow(host, seconds, visitor.waiting_for)
        if visitor.answers.attended:
            return need.took_too_long(host, self._limits.login_person_seconds)
        if visitor.touch:
            return self._needs_person([visitor.touch], visitor)
        return failure.too_slow(host, seconds, visitor.waiting_for)

    async def run(self) -> Login:
        """Connect; where another kind of host key may fit better, once more."""
        try:
            kinds = terms.offered_host_keys(self._host, self._trust)
        except ValueError as error:
            raise failure.unsupported(self._host, str(error)) from None
        first: DaemonError | None = None
        while True:
            kind = kinds.pop(0)
            visitor = Visitor(self._host, self._trust, self._credentials, self._aid)
            visitor.on_right_host = self._right_host
            self._visitor = visitor
            try:
                return await self._connect(visitor, kind)
            except asyncssh.HostKeyNotVerifiable as error:
                trouble = self._untrusted(visitor.verdict, str(error.reason))
                if not kinds or not self._may_differ(visitor.verdict):
                    unknown = trouble.reason is Reason.HOST_KEY_UNKNOWN
                    raise (first if first and unknown else trouble) from None
                first = first or trouble
            except (OSError, asyncssh.Error, DaemonError) as error:
                # A server without this kind of key hangs up in the key exchange.
                early = visitor.spoke and visitor.verdict is None
                if not (early and kinds):
                    raise (early and first) or self._failed(error, visitor) from None
            except ValueError as error:
                raise failure.unsupported(self._host, str(error)) from None

    async def write_down(self) -> None:
        """Learn a new key of a host that has proved to hold it."""
        visitor = self._visitor
        if visitor is None or visitor.verdict is None or not visitor.logging_in:
            return
        names = self._trust.learns(visitor.verdict)
        if not names:
            return
        host, blob = self._host, visitor.verdict.blob
        if host.hash_known_hosts:
            lines = [written(hashed(name), blob) for name in names]
        else:
            lines = [written(",".join(names), blob)]
        try:
            await asyncio.to_thread(known_file.append, own_files(host)[0], lines)
        except OSError as error:
            _log.warning("a new host key was not written down: %s", error)

    async def _connect(self, visitor: Visitor, host_keys: Sequence[str]) -> Login:
        host = self._host
        proxy: Proxy | None = None
        sock: socket.socket | None = None
        try:
            used = self._credentials.agent_path
            agent = await asyncio.to_thread(lending.agent, host, os.environ, used)
            said = terms.options(host, self._limits, visitor, host_keys)
            if host.proxy_command and self._tunnel is None:
                proxy, sock = await Proxy.start(host.proxy_command)
            elif self._tunnel is None:
                sock = await dial(host, self._seconds)
            connection = await asyncssh.connect(
                host.hostname,
                host.port,
                sock=sock,
                tunnel=self._tunnel or (),
                options=None,
                config=None,
                **{
                    **said,
                    "agent_forwarding": agent or False,
                    **_updating(host, self._trust, visitor),
                },
            )
            hearing.heed(connection)
            if host.local_command:
                try:
                    await run_local(host.local_command)
                except BaseException:
                    connection.abort()
                    raise
        except BaseException as error:
            if sock is not None:
                sock.close()
            if proxy is not None:
                await proxy.close()
                if failure.is_early_close(error, spoke=visitor.spoke):
                    # A program's words name the place.
                    told = proxy.said if host.show == "all" else ""
                    told = cleaned(told, TEXT_CHARS)
                    raise failure.proxy_ended(host, told) from None
            raise
        return Login(connection, visitor, proxy, lent_agent=agent)

    def _may_differ(self, verdict: Verdict | None) -> bool:
        """Whether the host may hold another key that is the right one."""
        if verdict is None or verdict.status is Status.REVOKED:
            return False
        uncertified = bool(verdict.why and self._trust.key_types)
        return uncertified or bool(self._host.pinned_fingerprint)

    def _untrusted(self, verdict: Verdict | None, why: str) -> DaemonError:
        trust, host = self._trust, self._host
        if verdict is not None and not trust.accepts(verdict):
            return refusal(host, verdict)
        return failure.unreachable(
            host, asyncssh.ProtocolError(why), spoke=True, hop=host.proxy_jump
        )

    def _failed(self, error: BaseException, visitor: Visitor) -> DaemonError:
        host, answers = self._host, visitor.answers
        if answers.gave_up:
            return need.gave_up(host, answers.gave_up)
        if failure.is_auth_refusal(error):
            return self._refused(error, visitor)
        cut = isinstance(error, (OSError, asyncssh.DisconnectError))
        if cut and answers.begun is not None:
            now = asyncio.get_running_loop().time()
            return need.cut_off(host, now - answers.begun)
        return failure.unreachable(
            host, error, spoke=visitor.spoke, hop=host.proxy_jump
        )

    def _refused(self, error: BaseException, visitor: Visitor) -> DaemonError:
        """Say of refused credentials what else would have let in."""
        host = self._host
        if visitor.locked is not None:
            visitor.locked.hint = "; ".join([visitor.locked.hint, *self._notes()])
            return visitor.locked
        if visitor.answers.needs:
            return self._needs_person(visitor.answers.needs, visitor)
        notes = self._notes()
        if not self._credentials.notes:
            notes.insert(0, "check user, key and agent; try `ssh` in a terminal")
        asks = {"password", "keyboard-interactive"} & visitor.methods.keys()
        if host.password is not None and not asks:
            notes.append("a password was given, which turns keys and agent off")
        elif asks and not visitor.answers.attended:
            notes.append(f"or {need.ask_a_person(host.name)}")
        denied = isinstance(error, asyncssh.PermissionDenied)
        why = "" if denied else cleaned(str(error), PROMPT_CHARS)
        return failure.auth_refused(
            host,
            methods=list(visitor.methods),
            tried=visitor.tried,
            notes=notes,
            why=why,
        )

    def _needs_person(self, asks: Sequence[str], visitor: Visitor) -> DaemonError:
        return need.login_needed(
            self._host,
            asks,
            methods=list(visitor.methods),
            tried=visitor.tried,
            # Where a key let in, agents are beside the point.
            notes=self._credentials.notes if visitor.accepted else self._notes(),
        )

    def _notes(self) -> list[str]:
        notes = [*self._credentials.notes, *self._credentials.agents]
        if lending.has_master(self._host):
            path = self._host.control_path
            place = f" at {path}" if self._host.show == "all" else ""
            notes.append(
                f"your own ssh holds a connection{place}"
                " (ControlPath), which holdfast can't use: it makes one of its own"
            )
        return notes
