"""Asks the person behind an MCP client to log in elsewhere; never for a secret itself.

A form without a field: who accepts it says that the login is done. In the era of the
handshake it is a request of ours; in the stateless era it is the call's result, and the
client makes the call again with the answer and our sealed state. A page to open would
need a web server, which the shim is not.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast_shim.errors import CallError
from holdfast_shim.protocol import INVALID_PARAMS, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_shim.protocol import Call

    # Sends a request of ours; its answer is the future's, and cancelling takes it back.
    Send = Callable[[dict[str, Any]], asyncio.Future[dict[str, Any]]]

KEY = "login"
METHOD = "elicitation/create"
_REASONS = ("LOGIN_NEEDED", "PASSPHRASE_NEEDED")
# A person who does not answer by then is not there; the state of a call ends with it.
SECONDS = 900.0
_MAC_BYTES = 32


class Resumed(NamedTuple):
    """A call that was made again, with what became of our form.

    Attributes:
        accepted: The person says that the login is done.
        error: What the call failed with, as it is told otherwise.
        request_id: The first call's own id.
    """

    accepted: bool
    error: CallError
    request_id: str


def wanted(error: CallError, call: Call) -> bool:
    """Return whether a person's login would help, and the client can ask for it."""
    return (
        call.elicits and error.reason in _REASONS and bool(error.metadata.get("name"))
    )


def params(error: CallError, *, stateless: bool) -> dict[str, Any]:
    """Return the form: words and two buttons."""
    name = error.metadata["name"]
    asks = error.metadata.get("asks") or "a login"
    told = {
        "message": f"{name} asks for: {asks}. Run `holdfast login {name}` in a"
        " terminal, then accept. Type no secret here.",
        "requestedSchema": {"type": "object", "properties": {}},
    }
    return {"mode": "form", **told} if stateless else told


class Forms:
    """The forms of one shim: one at a time for each host."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._waiting: Counter[asyncio.Future[dict[str, Any]]] = Counter()
        self._secret = os.urandom(_MAC_BYTES)

    async def accepted(self, error: CallError) -> bool:
        """Show the form and return whether it was accepted; calls share one.

        The last who stops waiting takes it back, so that the next call asks anew: a
        client that stopped its call may have put the form away.
        """
        name = error.metadata["name"]
        answer = self._open.get(name)
        if answer is None:
            answer = self._send(params(error, stateless=False))
            self._open[name] = answer
            answer.add_done_callback(lambda told: self._over(name, told))
        self._waiting[answer] += 1
        try:
            # Who no longer waits must not take the form from the others.
            async with asyncio.timeout(SECONDS):
                told = await asyncio.shield(answer)
        except TimeoutError:
            self._over(name, answer)
            return False
        finally:
            self._waiting[answer] -= 1
            if not self._waiting[answer]:
                del self._waiting[answer]
                # At once: whoever comes next must not wait for one that is gone.
                self._over(name, answer)
                answer.cancel()
        return told.get("action") == "accept"

    def _over(self, name: str, answer: asyncio.Future[dict[str, Any]]) -> None:
        """Forget a form that is over; a newer one of that host stays."""
        if self._open.get(name) is answer:
            del self._open[name]

    def required(self, error: CallError, call: Call, request_id: str) -> dict[str, Any]:
        """Return the result that asks, for a client of the stateless era."""
        state = {
            "until": time.time() + SECONDS,
            "call": _digest(call),
            "request_id": request_id,
            "error": [
                error.reason,
                error.message,
                error.hint,
                error.ran,
                error.metadata,
            ],
        }
        form = {"method": METHOD, "params": params(error, stateless=True)}
        return {
            "resultType": "input_required",
            "inputRequests": {KEY: form},
            "requestState": self._seal(json.dumps(state).encode()),
        }

    def resumed(self, call: Call) -> Resumed | None:
        """Return what a call that is made again says; None: it is a first call.

        Raises:
            ProtocolError: Its state is not ours, not of this call, or too old.
        """
        if call.state is None:
            return None
        state = json.loads(self._unseal(call.state))
        if state["call"] != _digest(call) or state["until"] < time.time():
            raise _invalid()
        reason, message, hint, ran, metadata = state["error"]
        error = CallError(reason, message, hint=hint, ran=ran, metadata=metadata)
        answer = call.responses.get(KEY)
        action = answer.get("action") if isinstance(answer, dict) else None
        return Resumed(action == "accept", error, state["request_id"])

    def _seal(self, data: bytes) -> str:
        mac = hmac.digest(self._secret, data, "sha256")
        return base64.urlsafe_b64encode(mac + data).decode()

    def _unseal(self, text: str) -> bytes:
        try:
            raw = base64.urlsafe_b64decode(text.encode())
        except (ValueError, binascii.Error):
            raise _invalid() from None
        mac, data = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, hmac.digest(self._secret, data, "sha256")):
            raise _invalid()
        return data


def _digest(call: Call) -> str:
    """Return what binds a state to one call: who made it, and what was asked."""
    said = [call.client.name, call.name, call.arguments]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _invalid() -> ProtocolError:
    return ProtocolError(
        INVALID_PARAMS,
        "Invalid or expired requestState",
        {"reason": "invalid_request_state"},
    )
