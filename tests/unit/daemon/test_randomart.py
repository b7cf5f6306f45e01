"""Keys as people compare them: what ssh-keygen shows, to the character."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import keygen
from holdfast_daemon.hosts import public_key
from holdfast_daemon.hosts.randomart import randomart

if TYPE_CHECKING:
    from pathlib import Path


def shown(path: Path, *more: str) -> list[str]:
    """Return what ssh-keygen shows of a key, line by line."""
    command = ["ssh-keygen", "-lv", *more, "-f", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.rstrip("\n").split("\n")


def blob_of(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_key_looks_as_ssh_keygen_shows_it(
    tmp_path: Path, kind: str, number: int
) -> None:
    """NF-13: type, bits, both fingerprints and the picture."""
    path = keygen(tmp_path / f"key{number}", kind=kind).with_suffix(".pub")
    blob = blob_of(path)
    head, *picture = shown(path)
    words = head.split()
    assert int(words[0]) == public_key.bits(blob)
    assert words[1] == public_key.fingerprint(blob)
    assert words[-1] == f"({public_key.short_type(blob)})"
    assert randomart(blob).split("\n") == picture
    assert shown(path, "-E", "md5")[0].split()[1] == public_key.md5(blob)


def test_larger_curves_and_security_keys_are_named(tmp_path: Path) -> None:
    for bits in (384, 521):
        path = tmp_path / f"key{bits}"
        command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", str(bits), "-N", ""]
        subprocess.run([*command, "-f", str(path)], check=True)
        public = path.with_suffix(".pub")
        assert public_key.bits(blob_of(public)) == bits
        assert randomart(blob_of(public)).split("\n") == shown(public)[1:]
    kind = b"sk-ssh-ed25519@openssh.com"
    parts = (kind, b"k" * 32, b"ssh:")
    blob = b"".join(map(public_key.string, parts))
    path = tmp_path / "sk.pub"
    path.write_text(f"{kind.decode()} {base64.b64encode(blob).decode()} touch\n")
    assert shown(path)[0].endswith("(ED25519-SK)")
    assert randomart(blob).split("\n") == shown(path)[1:]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\7ssh-rsa", b"\xff" * 40])
def test_a_broken_blob_is_no_certificate(data: bytes) -> None:
    assert public_key.certificate(data) is None
    assert public_key.bits(data) == 0
    assert randomart(data).count("\n") == 10


def test_a_certificate_is_taken_apart(tmp_path: Path) -> None:
    """AU-14: the key inside is the key; a cut one is none."""
    authority = keygen(tmp_path / "ca")
    for kind in ("ed25519", "ecdsa", "rsa"):
        key = keygen(tmp_path / kind, kind=kind)
        command = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "me"]
        subprocess.run([*command, "-n", "a,b", f"{key}.pub"], check=True)
        blob = blob_of(tmp_path / f"{kind}-cert.pub")
        told = public_key.certificate(blob)
        assert told is not None
        assert told.key == blob_of(key.with_suffix(".pub"))
        assert told.authority == blob_of(authority.with_suffix(".pub"))
        assert told.principals == ("a", "b")
        assert told.for_host
        assert told.signed_with == "ssh-ed25519"
        assert public_key.certificate(blob[:-1]) is None
        assert public_key.certificate(told.key) is None
