"""Secrets that the configuration names: whether they are there, never what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.doctor import finding
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.hosts import vault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.hosts.host import Host

_CHECK = "secret"
# Its owner might be asked to unlock it, merely because somebody looks.
_ASKS = "keyring:"


async def secrets(host: Host, environ: Mapping[str, str]) -> list[Finding]:
    """Say of each secret of a host whether it can be had."""
    named = {
        "password_from": host.password_from,
        "ssh_key_passphrase_from": host.passphrase_from,
        "sudo_password_from": host.sudo_password_from,
    }
    found: list[Finding] = []
    for key, reference in named.items():
        if not reference:
            continue
        details = {"key": key, "reference": reference}
        if reference.startswith(_ASKS):
            told = f"{key}: {reference} is asked for when it is needed"
            found.append(finding.skip(_CHECK, told, "", details))
            continue
        try:
            await vault.fetch(reference, environ)
        except DaemonError as error:
            told = f"{key}: {error.message}"
            found.append(finding.fail(_CHECK, told, error.hint, details))
        else:
            told = f"{key}: {reference} is there"
            found.append(finding.ok(_CHECK, told, details))
    return found
