"""What the contract plans for later releases; agents and people ask for it by habit."""

from __future__ import annotations

PLANNED = (
    "ssh_exec_many",
    "ssh_host_info",
    "ssh_service_status",
    "ssh_package_install",
)

# Verbs of the command line, and what does it until then.
PLANNED_VERBS = {
    "holdfast approvals": "",
    "holdfast approve": "",
    "holdfast deny": "",
    "holdfast token": "",
    "holdfast hosts add": "a host goes into ~/.ssh/config, or as [hosts.NAME] into"
    " config.toml: see docs/configuration.md",
    "holdfast hosts remove": "take it out of ~/.ssh/config or config.toml; `holdfast"
    " hosts trust --remove NAME` forgets its key",
    "holdfast hosts import": "the hosts of ~/.ssh/config are used as they are",
}
