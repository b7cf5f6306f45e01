"""Tools that the contract plans for later releases; agents ask for them by habit."""

from __future__ import annotations

PLANNED = (
    "ssh_wait",
    "ssh_copy",
    "ssh_sync",
    "ssh_exec_many",
    "ssh_host_info",
    "ssh_service_status",
    "ssh_package_install",
)
