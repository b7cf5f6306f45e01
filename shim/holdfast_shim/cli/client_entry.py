"""The text of a client's file with holdfast in it, and everything else as it was.

Does no I/O. An entry that is there keeps what its owner added: only what must be right
is set.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from holdfast_shim.arguments import UsageError, parse
from holdfast_shim.cli.json_text import JsonText
from holdfast_shim.cli.mcp_clients import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_shim.cli.mcp_clients import Client, Entry

_PROGRAM = "holdfast-mcp"
_SOCKET = "--socket"


def with_entry(client: Client, text: str, program: str, args: list[str]) -> str:
    """Return `text` with the entry; the same text where nothing is to be done.

    Raises:
        ValueError: `text` is not what the client reads; the message says why.
    """
    must = client.entry(program, args)
    whole = client.whole(program, args)
    if client.form == "toml":
        return _in_toml(client.key, text, must, whole)
    return _in_json(client, text, must, whole)


def _in_json(client: Client, text: str, must: Entry, whole: Entry) -> str:
    file = JsonText(text, comments=client.form == "commented")
    found = file.get(client.key, NAME)
    if not _kept(found):
        file.put((client.key, NAME), whole)
        return file.text
    changed = False
    for key, value in _changes(found, must, whole).items():
        file.put((client.key, NAME, key), value)
        changed = True
    return file.text if changed else text


def _in_toml(key: str, text: str, must: Entry, whole: Entry) -> str:
    """Return `text` with the entry; what is new stands where it parts no comment."""
    before = tomllib.loads(text)
    servers = before.get(key, {})
    if not isinstance(servers, dict):
        message = f"{key} is not a table"
        raise ValueError(message)  # noqa: TRY004 - the file is wrong, not the caller
    found = cast("Entry", servers).get(NAME)
    changes = _changes(found, must, whole) if _kept(found) else whole
    if not changes:
        return text
    wanted = {**found, **changes} if _kept(found) else whole
    after = {**before, key: {**servers, NAME: wanted}}
    # Lines of Windows stay such ones; what is new would else end as ours do.
    windows = 0 < text.count("\r\n") == text.count("\n")
    plain = text.replace("\r\n", "\n") if windows else text
    for told in _written(key, plain, isinstance(found, dict), wanted):
        if _says(told, after):
            return told.replace("\n", "\r\n") if windows else told
    message = f"{key} is written in a way that cannot be changed safely"
    raise ValueError(message)


def _written(key: str, text: str, there: bool, wanted: Entry) -> Iterator[str]:
    """Yield texts that may say it, the one that changes least first.

    tomlkit counts a comment before the next table to this one, so it would put what is
    new between the two, and drop it with an entry that it replaces.
    """
    import tomlkit  # noqa: PLC0415 - only this needs it, and the start must be quick
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415
    from tomlkit.items import InlineTable, Table  # noqa: PLC0415

    if not there:
        gap = "" if text.endswith("\n") or not text else "\n"
        gap += "\n" if text.strip() and not text.endswith("\n\n") else ""
        yield f"{text}{gap}[{key}.{NAME}]\n{tomlkit.dumps(wanted)}"
    try:
        document: Any = tomlkit.parse(text)
        servers = document[key]
        table: Any = servers[NAME] if there else None
        if isinstance(table, Table) or (there and wanted.keys() >= table.keys()):
            for name in [name for name in table if name not in wanted]:
                del table[name]
            for name in [name for name in table if table[name] != wanted[name]]:
                table[name] = wanted[name]
            new = {n: value for n, value in wanted.items() if n not in table}
            head = re.compile(rf"^[ \t]*\[{key}\.{NAME}\][^\n]*\n", re.MULTILINE)
            if found := head.search(told := document.as_string()):
                at = found.end()
                yield told[:at] + tomlkit.dumps(new) + told[at:]
            table.update(new)
        else:
            # A table cannot stand inside an inline one.
            inline = isinstance(servers, InlineTable)
            servers[NAME] = tomlkit.inline_table() if inline else tomlkit.table()
            servers[NAME].update(wanted)
        yield document.as_string()
    except TOMLKitError as error:
        raise ValueError(str(error)) from error


def _says(text: str, wanted: Entry) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _kept(found: object) -> TypeGuard[Entry]:
    """Return whether an entry is there that starts a program, as ours does."""
    return isinstance(found, dict) and "command" in found


def _changes(found: Entry, must: Entry, whole: Entry) -> Entry:
    before, own = _words(found)
    wanted = {**whole, "args": _arguments(own, must["args"])}
    set_anew = {**must, "args": wanted["args"]}
    if named := _variables(before):
        there = found.get("env", wanted.get("env"))
        kept = cast("Entry", there) if isinstance(there, dict) else {}
        wanted["env"] = set_anew["env"] = {**kept, **named}
    return {
        key: value
        for key, value in wanted.items()
        if (key in set_anew and found.get(key) != value) or key not in found
    }


def _words(found: Entry) -> tuple[list[str], list[str]]:
    """Return what stands before our program, and its own arguments.

    It may stand behind another, as `uvx --from /src/holdfast-mcp` or `env A=b`, which
    goes, and may name a place that is called as ours is: ours has a command line that
    we would take.
    """
    old = found.get("args")
    rest = cast("list[object]", old) if isinstance(old, list) else []
    words = [str(word) for word in [found["command"], *rest]]
    ours = [at for at, one in enumerate(words) if PurePath(one).name == _PROGRAM]
    if not ours:
        return words, []
    at = next((at for at in ours if _taken(words[at + 1 :])), ours[-1])
    return words[:at], words[at + 1 :]


def _taken(words: list[str]) -> bool:
    try:
        parse(words)
    except UsageError:
        return False
    return True


def _variables(words: list[str]) -> dict[str, str]:
    """Return what `env` sets for our program: it may narrow that, too."""
    if not words or PurePath(words[0]).name != "env":
        return {}
    pairs = [word.partition("=") for word in words[1:]]
    return {
        name: value for name, is_set, value in pairs if is_set and name.isidentifier()
    }


def _arguments(own: list[str], args: list[str]) -> list[str]:
    """Return the arguments: those there were stay, as they may narrow the client."""
    if not args:
        return own
    kept = [
        word
        for before, word in zip(["", *own], own, strict=False)
        if _SOCKET not in (before, word) and not word.startswith(f"{_SOCKET}=")
    ]
    return [*kept, *args]
