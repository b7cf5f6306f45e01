"""The key files of a host: modes, passphrases, public halves, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from holdfast_daemon.connection.survey import CertificateSeen, KeySeen
    from holdfast_daemon.doctor.finding import Finding

_CHECK = "key"


def judge(
    found: Sequence[KeySeen], held: Collection[str], name: str, now: float
) -> list[Finding]:
    """Say of each key file how it stands.

    Args:
        found: The files; those that are not there and were not asked for are left out.
        held: Fingerprints of the keys that agents hold.
        name: The host's, for hints.
        now: Seconds since 1970.
    """
    if not found:
        told = "no key file: none of the configured ones is there"
        return [finding.skip(_CHECK, told, "`ssh-keygen` makes one, if one is needed")]
    findings: list[Finding] = []
    for seen in found:
        findings.append(_key(seen, held, name))
        if seen.certificate is not None:
            findings.append(certificate(seen.certificate, now))
    return findings


def _key(seen: KeySeen, held: Collection[str], name: str) -> Finding:
    check, path = _CHECK, seen.path
    in_agent = bool(seen.public) and seen.public in held
    details = {
        "path": path,
        "mode": f"{seen.mode:04o}",
        "type": seen.kind,
        "fingerprint": seen.public,
        "encrypted": str(seen.encrypted),
        "in_agent": str(in_agent),
    }
    if fault := _fault(seen, in_agent=in_agent):
        return finding.fail(check, *fault, details)
    if weak := _weakness(seen, name, in_agent=in_agent):
        return finding.warn(check, *weak, details)
    told = [f"{path}, mode {seen.mode:04o}", seen.trouble, seen.kind, seen.public]
    if in_agent:
        told.append("the agent holds it")
    return finding.ok(check, ", ".join(filter(None, told)), details)


def _fault(seen: KeySeen, *, in_agent: bool) -> tuple[str, str] | None:
    """Return why a file is of no use, and what to do; an agent may have its key."""
    path = seen.path
    if seen.trouble and in_agent:
        return None
    if not seen.there:
        return f"{path} is not there", "correct IdentityFile, or put the key there"
    if seen.open_to_others:
        told = f"{path} is open to others (mode {seen.mode:04o}): it is not used"
        return told, f"chmod 600 {path}"
    if seen.trouble:
        hint = "name another file, or load the key into the agent"
        return f"{path}: {seen.trouble}", hint
    return None


def _weakness(seen: KeySeen, name: str, *, in_agent: bool) -> tuple[str, str] | None:
    """Return why a key may be of no use, and what to do."""
    path = seen.path
    if seen.encrypted and not in_agent:
        return (
            f"{path} is encrypted, and no agent holds it",
            (
                f"`ssh-add {path}`, `holdfast login {name}` in a terminal, or name what"
                " holds its passphrase by ssh_key_passphrase_from"
            ),
        )
    if seen.beside and seen.public and seen.beside != seen.public:
        return (
            f"{path}.pub is the half of another key ({seen.beside})",
            f"ssh-keygen -y -f {path} > {path}.pub",
        )
    return None


def certificate(seen: CertificateSeen, now: float) -> Finding:
    """Say whether a certificate is of use now."""
    check = "certificate"
    details = {"path": seen.path, "principals": ", ".join(seen.principals)}
    if fault := seen.fault(now):
        hint = "have it signed anew; and look at the clock"
        return finding.warn(check, f"{seen.path}: {fault}", hint, details)
    told = f"{seen.path} is valid {seen.span}"
    if seen.principals:
        told += f" for {', '.join(seen.principals)}"
    return finding.ok(check, told, details)
