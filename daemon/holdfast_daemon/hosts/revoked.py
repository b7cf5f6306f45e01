"""RevokedHostKeys: lists of keys that no host may show, plain or as a KRL. Blocks."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, Reason, StateError
from holdfast_daemon.hosts import key_list, known_hosts, public_key

if TYPE_CHECKING:
    from holdfast_daemon.hosts.host import Host

_MAGIC = b"SSHKRL\n\0"
_SECONDS = 10.0
_WORDS = 2


def revoked_by(host: Host, blob: bytes) -> str:
    """Return the file that revokes a key or certificate; empty: none does.

    Raises:
        DaemonError: One can't be read, so no key can be trusted, as with ssh.
    """
    for path in host.revoked_host_keys:
        try:
            data = key_list.read(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise _unreadable(host, path, f"it can't be read: {why}") from None
        if data.startswith(_MAGIC):
            found = _in_krl(host, path, blob)
        else:
            found = _in_list(host, path, data, blob)
        if found:
            return path
    return ""


def _in_list(host: Host, path: str, data: bytes, blob: bytes) -> bool:
    """Look for the key, or what signed it, among lines `type key comment`."""
    blobs = {blob}
    if (told := public_key.certificate(blob)) is not None:
        blobs |= {told.key, told.authority}
    text = data.decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        found = known_hosts.decode(words[1]) if len(words) >= _WORDS else None
        if found is None or public_key.key_type(found) != words[0]:
            raise _unreadable(host, path, f"line {number} is no public key")
        inner = public_key.certificate(found)
        if (inner.key if inner else found) in blobs:
            return True
    return False


def _in_krl(host: Host, path: str, blob: bytes) -> bool:
    """Ask ssh-keygen, which reads the format."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise _unreadable(
            host, path, "it is a key revocation list, and there is no ssh-keygen here"
        )
    data = base64.b64encode(blob).decode("ascii")
    with tempfile.TemporaryDirectory(prefix="holdfast-") as directory:
        key = Path(directory, "key.pub")
        key.write_text(f"{public_key.key_type(blob)} {data}\n")
        try:
            done = subprocess.run(
                [program, "-Q", "-f", path, str(key)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreadable(host, path, f"ssh-keygen failed: {error}") from None
    if done.returncode == 0:
        return False
    if "REVOKED" in done.stdout:
        return True
    said = " ".join((done.stderr or done.stdout).split())
    raise _unreadable(host, path, f"ssh-keygen says: {said}")


def _unreadable(host: Host, path: str, why: str) -> DaemonError:
    return StateError(
        Reason.BAD_CONFIGURATION,
        f"no key of {host.shown} can be trusted: RevokedHostKeys names {path}, and"
        f" {why}; no credential was sent",
        hint="a person mends that file, or the option in ssh config",
        metadata={"host": host.shown, "file": path},
    )
