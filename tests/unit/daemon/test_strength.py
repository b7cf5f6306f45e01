from __future__ import annotations

import base64
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import RSA_BITS, keygen
from holdfast_daemon.connection import strength
from holdfast_daemon.errors import Reason
from holdfast_daemon.hosts.host import Algorithms, Host

if TYPE_CHECKING:
    from pathlib import Path

HOST = Host(name="box", hostname="box", user="me", required_rsa_size=1024)


def blob(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


def signed(key: Path, authority: Path, *more: str) -> bytes:
    """Return a host certificate for `key`."""
    command = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "box", "-n", "box"]
    command += [*more, str(key.with_name(key.name + ".pub"))]
    subprocess.run(command, check=True, capture_output=True)
    return blob(key.with_name(key.name + "-cert.pub"))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_and_certificates_are_taken_apart(tmp_path: Path, kind: str) -> None:
    """AU-06: RequiredRSASize and CASignatureAlgorithms see what ssh-keygen made."""
    key = keygen(tmp_path / "key", kind=kind)
    plain = blob(tmp_path / "key.pub")
    bits = RSA_BITS if kind == "rsa" else None
    assert strength.rsa_bits(plain) == bits
    assert strength.signed_with(plain) == ""
    authority = keygen(tmp_path / "authority", kind="ed25519")
    certificate = signed(key, authority)
    assert strength.rsa_bits(certificate) == bits
    assert strength.signed_with(certificate) == "ssh-ed25519"
    old = keygen(tmp_path / "old", kind="rsa")
    assert strength.signed_with(signed(key, old, "-t", "rsa-sha2-256")) == (
        "rsa-sha2-256"
    )


def test_what_is_too_weak_is_refused_by_name(tmp_path: Path) -> None:
    """AU-06: the option is named, and both figures."""
    key = keygen(tmp_path / "key", kind="rsa")
    plain = blob(tmp_path / "key.pub")
    strict = replace(HOST, required_rsa_size=4096)
    assert strength.refusal(HOST, plain) is None
    trouble = strength.refusal(strict, plain)
    assert trouble is not None
    assert trouble.reason is Reason.UNSUPPORTED
    assert "RequiredRSASize" in trouble.message
    assert str(RSA_BITS) in trouble.message
    assert "4096" in trouble.message
    assert strength.is_short(strict, plain)
    assert not strength.is_short(HOST, plain)
    certificate = signed(key, keygen(tmp_path / "authority"))
    modern = replace(HOST, algorithms=Algorithms(authorities=("rsa-sha2-512",)))
    trouble = strength.refusal(modern, certificate)
    assert trouble is not None
    assert "CASignatureAlgorithms" in trouble.message
    assert "ssh-ed25519" in trouble.message
    same = replace(HOST, algorithms=Algorithms(authorities=("ssh-ed25519",)))
    assert strength.refusal(same, certificate) is None


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\7ssh-rsa", b"\xff" * 40])
def test_a_broken_blob_is_left_to_others(data: bytes) -> None:
    assert strength.signed_with(data) == ""
    assert not strength.rsa_bits(data)
