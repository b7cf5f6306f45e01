"""Tools that the contract plans for later releases; agents ask for them by habit."""

from __future__ import annotations

PLANNED = (
    "ssh_wait",
    "ssh_session_open",
    "ssh_session_run",
    "ssh_session_write",
    "ssh_session_read",
    "ssh_session_list",
    "ssh_session_close",
    "ssh_file_read",
    "ssh_file_write",
    "ssh_file_edit",
    "ssh_dir_list",
    "ssh_search",
    "ssh_find",
    "ssh_copy",
    "ssh_sync",
    "ssh_forward_open",
    "ssh_forward_list",
    "ssh_forward_close",
    "ssh_exec_many",
    "ssh_host_info",
    "ssh_service_status",
    "ssh_package_install",
)
