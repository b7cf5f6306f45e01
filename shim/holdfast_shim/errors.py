"""What went wrong with a call, as the shim and the command line tell it.

Must not import grpc: the texts are also needed where no daemon was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class CallError(Exception):
    """A call that failed.

    Attributes:
        reason: `holdfast.v1.ErrorReason` without its prefix.
        message: What was wrong, in one sentence.
        hint: The next step; may be empty.
        ran: Whether anything may have been executed: "no", "yes" or "unknown".
        metadata: Values named in the message.
        code: Name of the gRPC status; empty when the daemon was not asked.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        hint: str = "",
        ran: str = "no",
        metadata: Mapping[str, str] | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint
        self.ran = ran
        self.metadata: dict[str, str] = dict(metadata or {})
        self.code = code


def invalid(field: str, message: str, *, hint: str = "") -> CallError:
    """Return the error for a wrong argument or setting; nothing ran."""
    return CallError("INVALID_ARGUMENT", message, hint=hint, metadata={"field": field})


_RAN = {
    "no": "Nothing ran.",
    "yes": "It ran.",
    "unknown": "Whether it ran is not known.",
}


def result(error: CallError) -> dict[str, Any]:
    """Return the MCP tool result for `error`: the same facts as text and as JSON."""
    details: dict[str, Any] = {
        "reason": error.reason,
        "message": error.message,
        "hint": error.hint,
        "ran": error.ran,
    }
    details |= {k: v for k, v in error.metadata.items() if k not in details}
    text = [f"{error.reason}: {error.message}", _RAN.get(error.ran, "")]
    text.append(f"Next: {error.hint}" if error.hint else "")
    return {
        "content": [{"type": "text", "text": "\n".join(filter(None, text))}],
        "structuredContent": {"ok": False, "error": details},
        "isError": True,
    }
