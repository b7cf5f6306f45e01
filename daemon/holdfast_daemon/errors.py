"""Every failure the daemon tells a caller, as a tree with one root.

    DaemonError
    ├─ InputError      a value is wrong                       INVALID_ARGUMENT
    ├─ NotFoundError   no such job, session, forward, host    NOT_FOUND
    ├─ StateError      not possible as things stand           FAILED_PRECONDITION
    ├─ DeniedError     a rule or a host key forbids it        PERMISSION_DENIED
    ├─ NeedsError      a credential or a person is missing    UNAUTHENTICATED
    ├─ LimitError      a limit is reached                     RESOURCE_EXHAUSTED
    ├─ RangeError      the output asked for is gone           OUT_OF_RANGE
    └─ LinkError       the host can't be reached, or was lost UNAVAILABLE

Each says what was wrong, whether anything ran, and the next step. Anything else that
escapes is a fault of ours and reaches the caller as INTERNAL with an incident number
only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reason(StrEnum):
    """Why a call failed: `holdfast.v1.ErrorReason` without its prefix."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NO_TARGET = "NO_TARGET"
    HOST_NOT_FOUND = "HOST_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    FORWARD_NOT_FOUND = "FORWARD_NOT_FOUND"
    AUTH_FAILED = "AUTH_FAILED"
    PASSPHRASE_NEEDED = "PASSPHRASE_NEEDED"  # noqa: S105 - a name
    KEY_UNREADABLE = "KEY_UNREADABLE"
    HOST_KEY_UNKNOWN = "HOST_KEY_UNKNOWN"
    HOST_KEY_CHANGED = "HOST_KEY_CHANGED"
    HOST_KEY_REVOKED = "HOST_KEY_REVOKED"
    HOST_UNREACHABLE = "HOST_UNREACHABLE"
    CONNECT_TIMEOUT = "CONNECT_TIMEOUT"
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    CONNECTION_LOST = "CONNECTION_LOST"
    POLICY_DENIED = "POLICY_DENIED"
    HOST_NOT_ALLOWED = "HOST_NOT_ALLOWED"
    HOST_DISABLED = "HOST_DISABLED"
    READ_ONLY = "READ_ONLY"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    LIMIT_REACHED = "LIMIT_REACHED"
    OUTPUT_DISCARDED = "OUTPUT_DISCARDED"
    DRAINING = "DRAINING"
    DAEMON_LOST = "DAEMON_LOST"
    BAD_CONFIGURATION = "BAD_CONFIGURATION"
    UNSUPPORTED = "UNSUPPORTED"
    CWD_FAILED = "CWD_FAILED"
    SHELL_FAILED = "SHELL_FAILED"
    INTERNAL = "INTERNAL"
    IN_USE = "IN_USE"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    LOGIN_NEEDED = "LOGIN_NEEDED"
    SUDO_REFUSED = "SUDO_REFUSED"
    SESSION_BUSY = "SESSION_BUSY"
    SESSION_ENDED = "SESSION_ENDED"
    NOT_KEPT = "NOT_KEPT"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    FILE_EXISTS = "FILE_EXISTS"
    FILE_CHANGED = "FILE_CHANGED"
    EDIT_REFUSED = "EDIT_REFUSED"
    NOT_TEXT = "NOT_TEXT"
    SENSITIVE_PATH = "SENSITIVE_PATH"
    FILE_FAILED = "FILE_FAILED"
    FORWARD_REFUSED = "FORWARD_REFUSED"
    LOCAL_PATH_DENIED = "LOCAL_PATH_DENIED"


class Ran(StrEnum):
    """Whether anything may have been executed on the host."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


class DaemonError(Exception):
    """Root of the tree.

    Attributes:
        reason: Stable, machine-readable cause.
        message: What was wrong, in one sentence.
        hint: The next step for the caller; may be empty.
        ran: Whether anything may have been executed.
        metadata: Values named in the message, by name; never a secret.
        retry_after: Seconds after which trying again may help.
        recorded: What a record of it says, where the message quotes content of a file;
            empty: the message.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        hint: str = "",
        ran: Ran = Ran.NO,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint
        self.ran = ran
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        self.recorded = ""


class InputError(DaemonError):
    """A value is missing, malformed or out of range."""

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(
            Reason.INVALID_ARGUMENT, message, hint=hint, metadata={"field": field}
        )


class NotFoundError(DaemonError):
    """There is no such thing, or it is kept no longer."""


class StateError(DaemonError):
    """Not possible as things stand."""


class DeniedError(DaemonError):
    """A rule, or a host key that does not match, forbids it."""


class NeedsError(DaemonError):
    """A credential or a person's word is missing."""


class LimitError(DaemonError):
    """A limit is reached."""


class RangeError(DaemonError):
    """The output asked for was discarded."""


class LinkError(DaemonError):
    """The host can't be reached, or the connection was lost."""
