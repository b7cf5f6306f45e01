"""What in a new contract breaks clients of the old one.

`python proto/breaking.py OLD NEW` reads two dumps (`holdfast/contract.txt`), prints one
break a line and exits 1 when there is any. Additions pass; planned fields and what only
planned RPCs use may still change, because nothing uses them yet.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ARGUMENTS = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A field, an enum value or an RPC."""

    name: str
    shape: str
    options: Mapping[str, Any]


@dataclass(slots=True)
class Dump:
    """One contract, read from its dump."""

    rpcs: dict[str, Item] = field(default_factory=dict[str, Item])
    messages: dict[str, dict[str, Item]] = field(
        default_factory=dict[str, dict[str, Item]]
    )
    enums: dict[str, dict[str, Item]] = field(
        default_factory=dict[str, dict[str, Item]]
    )

    @classmethod
    def read(cls, text: str) -> Dump:
        """Read the lines of a dump."""
        found = cls()
        for line in text.splitlines():
            head, brace, tail = line.partition(" {")
            options = json.loads("{" + tail) if brace else {}
            kind, name, *rest = head.split(" ", 4)
            if kind == "rpc":
                found.rpcs[name] = Item(name, head.split(" ", 2)[2], options)
            elif kind in ("message", "enum"):
                group = found.enums if kind == "enum" else found.messages
                items = group.setdefault(name, {})
                if rest:
                    number, item, *shape = rest
                    items[number] = Item(item, " ".join(shape), options)
        return found

    def unused(self) -> set[str]:
        """Return messages and enums that only planned RPCs use."""
        planned, live = set[str](), set[str]()
        for rpc in self.rpcs.values():
            for word in rpc.shape.split():
                self._reach(word, planned if _planned(rpc) else live)
        return planned - live

    def _reach(self, name: str, into: set[str]) -> None:
        if name in into or (name not in self.messages and name not in self.enums):
            return
        into.add(name)
        for item in self.messages.get(name, {}).values():
            for word in item.shape.replace(",", " ").replace(">", " ").split():
                self._reach(word, into)


def breaks(old: Dump, new: Dump) -> Iterator[str]:
    """Yield what a client of `old` would trip over in `new`."""
    free = old.unused()
    for name, item in old.rpcs.items():
        if not _planned(item):
            yield from _rpc_breaks(item, new.rpcs.get(name))
    for name in old.messages.keys() - free:
        if name not in new.messages:
            yield f"message {name}: removed"
        else:
            yield from _field_breaks(name, old.messages[name], new.messages[name])
    for name in old.enums.keys() - free:
        if name not in new.enums:
            yield f"enum {name}: removed"
        else:
            yield from _value_breaks(name, old.enums[name], new.enums[name])


def _planned(rpc: Item) -> bool:
    return bool(rpc.options.get("tool", {}).get("planned"))


def _rpc_breaks(old: Item, new: Item | None) -> Iterator[str]:
    place = f"rpc {old.name}"
    if new is None:
        yield f"{place}: removed"
        return
    if old.shape != new.shape:
        yield f"{place}: was {old.shape}, is {new.shape}"
    was, now = old.options.get("tool"), new.options.get("tool")
    if was is None:
        return
    if now is None or now.get("planned"):
        yield f"{place}: tool {was['name']} withdrawn"
        return
    for key in ("name", "toolset"):
        if was.get(key) != now.get(key):
            yield f"{place}: tool {key} was {was.get(key)}, is {now.get(key)}"


def _whereabouts(number: str, was: Item, new: Mapping[str, Item]) -> str:
    """Say what became of an item that is not where it was."""
    for elsewhere, item in new.items():
        if item.name == was.name:
            return f"was number {number}, is {elsewhere}"
    return f"renamed to {new[number].name}" if number in new else "removed"


def _field_breaks(
    message: str, old: Mapping[str, Item], new: Mapping[str, Item]
) -> Iterator[str]:
    for number, was in old.items():
        if was.options.get("planned"):
            continue
        place = f"field {message}.{was.name}"
        now = new.get(number)
        if now is None or now.name != was.name:
            yield f"{place}: {_whereabouts(number, was, new)}"
            continue
        if was.shape != now.shape:
            yield f"{place}: was {was.shape}, is {now.shape}"
        yield from _narrower(place, was.options, now.options)


def _narrower(
    place: str, was: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[str]:
    for key in ("required", "hidden", "planned"):
        if now.get(key) and not was.get(key):
            yield f"{place}: became {key}"
    if "min" in now and ("min" not in was or now["min"] > was["min"]):
        yield f"{place}: min was {was.get('min', 'none')}, is {now['min']}"
    if "max" in now and ("max" not in was or now["max"] < was["max"]):
        yield f"{place}: max was {was.get('max', 'none')}, is {now['max']}"
    if "pattern" in now and now["pattern"] != was.get("pattern"):
        yield f"{place}: pattern was {was.get('pattern', 'none')}, is {now['pattern']}"


def _value_breaks(
    enum: str, old: Mapping[str, Item], new: Mapping[str, Item]
) -> Iterator[str]:
    for number, was in old.items():
        place = f"value {enum}.{was.name}"
        now = new.get(number)
        if now is None or now.name != was.name:
            yield f"{place}: {_whereabouts(number, was, new)}"
            continue
        label, relabelled = was.options.get("label"), now.options.get("label")
        if label and label != relabelled:
            yield f"{place}: label was {label}, is {relabelled or 'none'}"


def main(arguments: list[str]) -> int:
    """Compare two dumps; return the exit status."""
    if len(arguments) != ARGUMENTS:
        print("usage: python proto/breaking.py OLD NEW", file=sys.stderr)
        return 2
    old, new = (Dump.read(Path(name).read_text("utf-8")) for name in arguments[1:])
    found = sorted(breaks(old, new))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
