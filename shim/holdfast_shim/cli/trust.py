"""`holdfast hosts trust`: a person looks at a host's key and decides."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from holdfast.v1 import trust_pb2, trust_pb2_grpc
from holdfast_shim.cli import output
from holdfast_shim.cli.complete import complete_target
from holdfast_shim.cli.connect import connect_message, connect_options
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.desk import Desk
from holdfast_shim.cli.options import FAILED, OK, json_option, options
from holdfast_shim.errors import CallError, invalid
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.v1.common_pb2 import ConnectOptions
    from holdfast_shim.cli.options import Options
    from holdfast_shim.client import DaemonClient

    Done = trust_pb2.TrustHostKeyResponse | trust_pb2.ForgetHostKeysResponse

_ASK = "Trust this key (yes/no/[fingerprint])? "
_ASK_REMOVE = "Take these lines out (yes/no)? "
_AGAIN = "Please type yes, no or the fingerprint: "
_AGAIN_REMOVE = "Please type yes or no: "
_NO = "nothing was written"
_PICTURES = 3


@click.command("trust")
@click.argument("target", required=False, default="", shell_complete=complete_target)
@click.option(
    "--fingerprint",
    default="",
    metavar="SHA256:…",
    help="Trust the key if this is its fingerprint, without a question.",
)
@click.option("--remove", is_flag=True, help="Take the host's keys out instead.")
@connect_options
@json_option
def trust(target: str, *, fingerprint: str, remove: bool, **connect: Any) -> int:
    """Look at the key a host shows now, and decide whether to trust it.

    Without TARGET: list the keys that agents met and that wait for your word. The host
    is offered no credential. Compare the fingerprint or the picture with the host's
    own, as `ssh-keygen -lvf /etc/ssh/ssh_host_ed25519_key.pub` shows it there.
    """
    chosen = options()
    if not target:
        if fingerprint or remove:
            raise click.UsageError("name the host")
        return _list(chosen)
    if fingerprint and remove:
        raise click.UsageError("--fingerprint and --remove exclude each other")
    decision = _Decision(target, connect_message(**connect), fingerprint)
    work = decision.remove if remove else decision.trust
    done = ask(chosen, work)
    if done is None:
        if chosen.json:
            output.emit({"ok": False, "changed": False})
        output.note(f"you said no: {_NO}")
        return FAILED
    if chosen.json:
        output.emit(to_json(done))
    else:
        output.say(_told(done))
    return OK


def _list(chosen: Options) -> int:
    async def work(client: DaemonClient) -> trust_pb2.ListTrustRequestsResponse:
        stub = trust_pb2_grpc.TrustServiceStub(client.channel)
        return await stub.ListTrustRequests(
            trust_pb2.ListTrustRequestsRequest(),
            metadata=client.metadata(),
            timeout=QUICK_SECONDS,
        )

    answer = ask(chosen, work)
    if chosen.json:
        output.emit(to_json(answer))
        return OK
    if not answer.requests:
        output.note("no host key waits for a decision")
        return OK
    columns = ("host", "target", "key", "fingerprint", "asked", "by")
    output.table(columns, [_row(one) for one in answer.requests])
    print("\nDecide with: holdfast hosts trust HOST")
    return OK


def _row(one: trust_pb2.TrustRequest) -> list[str]:
    via = f" via {one.via}" if one.via else ""
    return [
        one.host,
        one.target + via,
        f"{one.key.short_type}, {one.status}",
        one.key.fingerprint,
        output.ago(one.last),
        ", ".join(one.clients),
    ]


class _Decision:
    """One host, and what the person said beforehand."""

    def __init__(
        self, target: str, connect: ConnectOptions | None, fingerprint: str
    ) -> None:
        self._target = target
        self._connect = connect
        self._fingerprint = fingerprint

    async def trust(
        self, client: DaemonClient
    ) -> trust_pb2.TrustHostKeyResponse | None:
        """Show the key, ask, and trust it; None: the person says no."""
        stub = trust_pb2_grpc.TrustServiceStub(client.channel)
        found = await stub.ExamineHostKey(
            trust_pb2.ExamineHostKeyRequest(target=self._target, connect=self._connect),
            metadata=client.metadata(),
        )
        presented = found.key.fingerprint
        with Desk() as desk:
            if found.status == "known":
                place = ", ".join(_place(line) for line in found.known)
                desk.say(f"{found.host} shows {presented}, as {place} says.")
            else:
                desk.say(_shown(found))
            if found.status == "revoked":
                raise CallError(
                    "HOST_KEY_REVOKED",
                    f"the key {presented} of {found.host} is revoked; {_NO}",
                    hint="find out why; only taking out the line that revokes it, by"
                    " hand, would make it trusted again",
                )
            if self._fingerprint:
                self._compare(found)
            if found.status == "known":
                return trust_pb2.TrustHostKeyResponse(
                    host=found.host, fingerprint=presented
                )
            if not self._fingerprint and not await _agrees(desk, presented):
                return None
        return await stub.TrustHostKey(
            trust_pb2.TrustHostKeyRequest(
                target=self._target,
                connect=self._connect,
                fingerprint=presented,
                plan=found.plan,
            ),
            metadata=client.metadata(),
        )

    async def remove(
        self, client: DaemonClient
    ) -> trust_pb2.ForgetHostKeysResponse | None:
        """Show what is known, ask, and forget it; None: the person says no."""
        stub = trust_pb2_grpc.TrustServiceStub(client.channel)
        found = await stub.ExamineHostKey(
            trust_pb2.ExamineHostKeyRequest(
                target=self._target, connect=self._connect, remove=True
            ),
            metadata=client.metadata(),
        )
        with Desk() as desk:
            if not found.edits:
                told = [f"No line of yours names a key of {found.host}.", *found.notes]
                desk.say("\n".join(told))
            else:
                desk.say("\n".join([*_edits(found, "goes"), *found.notes]))
                if not await _agrees(desk):
                    return None
        return await stub.ForgetHostKeys(
            trust_pb2.ForgetHostKeysRequest(
                target=self._target, connect=self._connect, plan=found.plan
            ),
            metadata=client.metadata(),
        )

    def _compare(self, found: trust_pb2.ExamineHostKeyResponse) -> None:
        if self._fingerprint == found.key.fingerprint:
            return
        raise CallError(
            "HOST_KEY_CHANGED",
            f"{found.host} shows {found.key.key_type} {found.key.fingerprint}, not"
            f" {self._fingerprint}; {_NO}",
            hint="the fingerprint may be of another kind of key: hosts have several;"
            " find out which key is the right one",
            metadata={"fingerprint": found.key.fingerprint},
        )


async def _agrees(desk: Desk, fingerprint: str = "") -> bool:
    """Ask until there is an answer, as ssh does."""
    if not desk.there:
        raise invalid(
            "fingerprint",
            f"there is no terminal to ask at; {_NO}",
            hint="run it in a terminal, or give --fingerprint SHA256:… as the host's"
            " own console shows it"
            if fingerprint
            else "run it in a terminal",
        )
    prompt, again = (_ASK, _AGAIN) if fingerprint else (_ASK_REMOVE, _AGAIN_REMOVE)
    while True:
        try:
            answer = (await desk.ask(prompt, echo=True)).strip()
        except CallError:
            return False  # the input ended
        if answer.lower() in ("yes", "no"):
            return answer.lower() == "yes"
        if fingerprint and answer == fingerprint:
            return True
        prompt = again


def _shown(found: trust_pb2.ExamineHostKeyResponse) -> str:
    place = f" ({found.target})" if found.target else ""
    if found.status == "unknown":
        head = [f"The key of {found.host}{place} is not known."]
    else:
        title = "REVOKED" if found.status == "revoked" else "NOT THE KNOWN ONE"
        head = [f"The key that {found.host}{place} shows is {title}."]
    if found.status == "changed":
        head += [
            "The host was reinstalled, or somebody stands in between and could read",
            "everything. Find out which before you say yes.",
        ]
    lines = [*head, "", "it shows now:", *_key(found.key)]
    old = _once(found)
    for line in old:
        marker = f"{line.marker} " if line.marker else ""
        lines += ["", f"{marker}{_place(line)} names:", *_key(line.key)]
    pictures = [found.key, *(line.key for line in old)]
    lines += ["", *_beside([key.randomart for key in pictures[:_PICTURES]]), ""]
    lines += _edits(found, "is replaced" if found.file else "goes")
    if found.file:
        known_as = f" for {found.known_as}" if found.known_as else ""
        lines.append(f"{found.file} gets a new line{known_as}")
    return "\n".join([*lines, *found.notes])


def _once(
    found: trust_pb2.ExamineHostKeyResponse,
) -> Sequence[trust_pb2.KnownHostsLine]:
    """Return the lines that decided and those that change, each key once."""
    lines = [*found.known, *(edit.line for edit in found.edits)]
    return list({line.key.fingerprint: line for line in reversed(lines)}.values())[::-1]


def _key(key: trust_pb2.PublicKey) -> list[str]:
    return [
        f"  {key.short_type}, {key.bits} bits",
        f"  {key.fingerprint}",
        f"  {key.md5}",
    ]


def _beside(pictures: Iterable[str]) -> list[str]:
    """Put pictures beside each other: the new key first."""
    rows = zip_longest(*(one.splitlines() for one in pictures), fillvalue="")
    return ["  " + "   ".join(row) for row in rows]


def _edits(found: trust_pb2.ExamineHostKeyResponse, verb: str) -> list[str]:
    return [
        f"{_place(edit.line)} is kept for others only: {edit.patterns}"
        if edit.patterns
        else f"{_place(edit.line)} {verb} ({edit.line.key.key_type})"
        for edit in found.edits
    ]


def _place(line: trust_pb2.KnownHostsLine) -> str:
    return f"{line.file} line {line.line}" if line.line else line.file


def _told(done: Done) -> str:
    if isinstance(done, trust_pb2.ForgetHostKeysResponse):
        count = len(done.removed)
        keys = "key is" if count == 1 else "keys are"
        told = f"{count} {keys} not trusted any more for {done.host}"
    elif done.changed:
        told = f"{done.host} is trusted with {done.fingerprint}"
        told += f", written to {done.file}" if done.file else ""
    else:
        told = f"{done.host} was trusted already with {done.fingerprint}"
    if done.connections_closed:
        told += f"; {done.connections_closed} connection(s) of an old key were closed"
    if done.connections_ending:
        told += (
            f"; {done.connections_ending} connection(s) of an old key close when what"
            " runs on them has ended, and take nothing new"
        )
    return told
