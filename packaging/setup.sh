#!/bin/sh
# Make a virtual environment with holdfast, editable, and the extras that are named.
#   setup.sh PYTHON VENV [EXTRA]
set -eu
python=$1
venv=$2
extras=${3:-}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# systemd-python has no wheel: it needs a compiler and libsystemd's headers, or stays out.
if command -v cc >/dev/null && pkg-config --exists libsystemd 2>/dev/null; then
  extras="${extras:+$extras,}systemd"
elif [ -n "$extras" ]; then
  echo 'setup: no compiler or libsystemd headers: without systemd-python (holdfast has its own fallback)'
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --constraint constraints.txt --editable ".${extras:+[$extras]}"
# An editable install is never compiled by pip; without .pyc files the shim starts five times slower.
"$venv/bin/python" -m compileall -q proto/holdfast daemon/holdfast_daemon shim/holdfast_shim
