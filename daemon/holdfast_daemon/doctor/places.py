"""The daemon's own places: its socket, its directories and what lies in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.doctor import finding, modes
from holdfast_daemon.doctor.modes import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.paths import Places

# A state directory may hold thousands of jobs: what is wrong shows in the first ones.
_MOST_FILES = 5000
_NAMED = 3


def socket(places: Places, uid: int, *, ours: bool) -> Finding:
    """Look at the socket and its directory. Blocks."""
    return judge_socket(
        modes.look(places.socket), modes.look(places.socket.parent), uid, ours=ours
    )


def judge_socket(seen: Seen, folder: Seen, uid: int, *, ours: bool) -> Finding:
    """Say how the socket stands; `ours`: it leads to this daemon."""
    check, details = "socket", {"path": seen.path, "mode": f"{seen.mode:04o}"}
    for one, kind in ((folder, "directory"), (seen, "socket")):
        if trouble := modes.private(one, uid, kind):
            return finding.fail(
                check,
                f"{one.path}: {trouble}",
                f"{modes.remedy(one)}; the daemon puts a lost socket back by itself",
                details,
            )
    if not ours:
        return finding.fail(
            check,
            f"{seen.path} does not lead to this daemon: somebody replaced it",
            "the daemon puts it back within seconds; if it stays, stop the other"
            " daemon",
            details,
        )
    return finding.ok(check, f"{seen.path}, mode {seen.mode:04o}, ours", details)


def state(places: Places, uid: int) -> Finding:
    """Look at the state directory and all below it. Blocks."""
    top = modes.look(places.state)
    return judge_tree(
        "state directory", top, modes.below(places.state, _MOST_FILES), uid
    )


def judge_tree(check: str, top: Seen, inside: Iterable[Seen], uid: int) -> Finding:
    """Say how a directory stands that is to be ours alone, with all in it."""
    details = {"path": top.path}
    if trouble := modes.private(top, uid, "directory"):
        told = f"{top.path}: {trouble}"
        return finding.fail(check, told, modes.remedy(top), details)
    count, wrong = 0, list[tuple[Seen, str]]()
    for seen in inside:
        if not seen.there:
            continue  # it went while we looked: jobs come and go
        count += 1
        kind = seen.kind if seen.kind in ("directory", "file") else "file"
        if trouble := modes.private(seen, uid, kind):
            wrong.append((seen, trouble))
    if wrong:
        return finding.fail(
            check,
            f"{len(wrong)} of the files in {top.path} are not ours alone:"
            f" {_named(wrong)}",
            "; ".join(modes.remedy(seen) for seen, _ in wrong[:_NAMED]),
            details | {"wrong": str(len(wrong))},
        )
    told = f"{top.path}, mode {top.mode:04o}, ours, and so are {count} files in it"
    return finding.ok(check, told, details | {"files": str(count)})


def config(places: Places, uid: int) -> Finding:
    """Look at the configuration file and its directory. Blocks."""
    return judge_config(
        modes.look(places.config, follow=True),
        modes.look(places.config.parent, follow=True),
        uid,
    )


def judge_config(seen: Seen, folder: Seen, uid: int) -> Finding:
    """Say whether others could change what the configuration says."""
    check, details = "configuration file", {"path": seen.path}
    if not seen.there:
        return finding.ok(check, f"{seen.path} is not there, and need not be", details)
    for one in (folder, seen):
        if trouble := modes.safe(one, uid):
            told = f"{one.path}: {trouble}"
            return finding.fail(check, told, modes.remedy(one), details)
    told = f"{seen.path}, mode {seen.mode:04o}"
    return finding.ok(check, told, details | {"mode": f"{seen.mode:04o}"})


def _named(wrong: Sequence[tuple[Seen, str]]) -> str:
    text = "; ".join(f"{seen.path}: {trouble}" for seen, trouble in wrong[:_NAMED])
    return text + (f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else "")
