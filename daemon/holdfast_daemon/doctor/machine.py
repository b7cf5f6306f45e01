"""What the daemon gets of the machine: descriptors, disk, the programs it asks."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.doctor.finding import Finding

_FEW = 1024
_NEARLY = 0.8
# the second is macOS's
_OPEN = (Path("/proc/self/fd"), Path("/dev/fd"))
_MIB = 1024 * 1024
# An audit log and a few results need no more; below it, nothing is kept for long.
_FULL = 64 * _MIB
_PROGRAM_SECONDS = 5.0


def descriptors(wanted: int) -> Finding:
    """Look at how many files may be open, and are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    here = next((path for path in _OPEN if path.is_dir()), None)
    used = len(os.listdir(here)) if here is not None else 0  # noqa: PTH208  a count
    return judge_descriptors(soft, hard, used, wanted)


def judge_descriptors(soft: int, hard: int, used: int, wanted: int) -> Finding:
    """Say whether the limit of open files leaves room."""
    check = "descriptors"
    details = {"used": str(used), "limit": str(soft), "hard_limit": str(hard)}
    if soft == resource.RLIM_INFINITY:
        return finding.ok(check, f"{used} in use, without a limit", details)
    told = f"{used} of {soft} in use"
    hint = f"raise the hard limit (LimitNOFILE=, ulimit -Hn) towards {wanted}"
    if used > soft * _NEARLY:
        return finding.fail(check, told, f"end what is not needed, or {hint}", details)
    if soft < min(_FEW, wanted):
        return finding.warn(check, f"{told}: that is few", hint, details)
    return finding.ok(check, told, details)


class Space(NamedTuple):
    """What is left on a file system, in bytes and files."""

    free: int
    files: int


def disk(path: Path, kept: int) -> Finding:
    """Look at the space left for results. Blocks."""
    try:
        found = os.statvfs(path)
    except OSError as error:
        told = f"{path}: {error.strerror or error}"
        return finding.fail("disk", told, "see to the file system it is on")
    files = found.f_favail if found.f_files else 1
    return judge_disk(str(path), Space(found.f_bavail * found.f_frsize, files), kept)


def judge_disk(path: str, space: Space, kept: int) -> Finding:
    """Say whether the space lasts; `kept` is what results may take in all."""
    details = {"path": path, "free_bytes": str(space.free), "kept_bytes": str(kept)}
    told = f"{space.free // _MIB:,} MiB free for {path}"
    hint = f"make room there, or lower limits.spool_total_bytes ({kept // _MIB:,} MiB)"
    if not space.files:
        told = f"no more files can be made on the file system of {path}"
        return finding.fail("disk", told, "delete files there", details)
    if space.free < _FULL:
        return finding.fail("disk", told, hint, details)
    if space.free < kept:
        told += f"; output that is kept may take {kept // _MIB:,} MiB"
        return finding.warn("disk", told, hint, details)
    return finding.ok("disk", told, details)


async def programs(environ: Mapping[str, str]) -> list[Finding]:
    """Look for the programs that are asked, and their versions."""
    named = environ.get("HOLDFAST_SSH_BIN", "") or "ssh"
    ssh = await asyncio.to_thread(shutil.which, named)
    keygen = await asyncio.to_thread(shutil.which, "ssh-keygen")
    try:
        found = judge_ssh(named, ssh, await _version(ssh) if ssh else "")
    except OSError as error:
        told = f"{ssh} can't be run: {error.strerror or error}"
        hint = "correct HOLDFAST_SSH_BIN or the program, and restart the daemon"
        found = finding.fail("ssh", told, hint)
    return [found, judge_keygen(keygen)]


def judge_ssh(named: str, path: str | None, version: str) -> Finding:
    """Say whether there is an ssh to ask what its configuration means."""
    if path is None and named != "ssh":
        told = f"HOLDFAST_SSH_BIN names {named}, which is no program"
        return finding.fail("ssh", told, "correct it, and restart the daemon")
    if path is None:
        return finding.warn(
            "ssh",
            "there is none: its configuration is read without it, as far as that goes",
            "install OpenSSH's client; Match and the newer options need it",
        )
    told = f"{path}, {version or 'which does not tell its version'}"
    return finding.ok("ssh", told, {"path": path, "version": version})


def judge_keygen(path: str | None) -> Finding:
    """Say whether a person has what hints name."""
    if path is None:
        told = "there is none: hints name it to forget a host's key"
        return finding.warn("ssh-keygen", told, "install OpenSSH's client")
    return finding.ok("ssh-keygen", path, {"path": path})


async def _version(path: str) -> str:
    process = await asyncio.create_subprocess_exec(
        path,
        "-V",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PROGRAM_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = said.decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else ""
