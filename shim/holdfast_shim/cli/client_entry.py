"""The text of a client's file with holdfast in it, and everything else as it was.

Does no I/O. An entry that is there keeps what its owner added: only what must be right
is set.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from holdfast_shim.cli.json_text import JsonText
from holdfast_shim.cli.mcp_clients import NAME

if TYPE_CHECKING:
    from holdfast_shim.cli.mcp_clients import Client, Entry


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
    import tomlkit  # noqa: PLC0415 - only this needs it, and the start must be quick
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415
    from tomlkit.items import InlineTable  # noqa: PLC0415

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
    try:
        document: Any = tomlkit.parse(text)
        if key not in document:
            document.add(key, tomlkit.table(is_super_table=True))
        if _kept(found):
            for name, value in changes.items():
                document[key][NAME][name] = value
        else:
            # A table cannot stand inside an inline one.
            inline = isinstance(document[key], InlineTable)
            table: Any = tomlkit.inline_table() if inline else tomlkit.table()
            table.update(wanted)
            document[key][NAME] = table
        told: str = document.as_string()
    except TOMLKitError as error:
        raise ValueError(str(error)) from error
    after = {**before, key: {**servers, NAME: wanted}}
    if tomllib.loads(told) != after:
        message = f"{key} is written in a way that cannot be changed safely"
        raise ValueError(message)
    return told


def _kept(found: object) -> TypeGuard[Entry]:
    """Return whether an entry is there that starts a program, as ours does."""
    return isinstance(found, dict) and "command" in found


def _changes(found: Entry, must: Entry, whole: Entry) -> Entry:
    return {
        key: value
        for key, value in whole.items()
        if (key in must and found.get(key) != value) or key not in found
    }
