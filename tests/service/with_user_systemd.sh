#!/bin/sh
# Run COMMAND beside a real `systemd --user` manager where PID 1 is not systemd.
#
#   with_user_systemd.sh COMMAND [ARG...]
#
# Needs root and a mountable cgroup v2. Everything lives in mount, PID and cgroup
# namespaces of its own and ends with the command; outside only one cgroup directory is
# made, and removed. Exit status: the command's; 77 when such a manager can't be had here.
set -eu

skip() {
  echo "skip: $*" >&2
  exit 77
}

if [ "${HF_STAGE:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || skip "needs root"
  for program in unshare dbus-daemon systemctl; do
    command -v "$program" >/dev/null || skip "no $program"
  done
  manager=/usr/lib/systemd/systemd
  [ -x "$manager" ] || manager=/lib/systemd/systemd
  [ -x "$manager" ] || skip "no systemd: apt-get install systemd"
  HF_TOP=$(mktemp -d)
  mkdir "$HF_TOP/cgroup"
  mount -t cgroup2 cgroup2 "$HF_TOP/cgroup" 2>/dev/null || skip "no cgroup v2"
  group=$HF_TOP/cgroup/holdfast.$$
  mkdir "$group" 2>/dev/null || { umount "$HF_TOP/cgroup"; skip "cgroup v2 is read-only"; }
  child=
  # shellcheck disable=SC2317 # the trap calls it
  clean() {
    trap - EXIT
    # unshare ignores TERM; KILL ends it and, by --kill-child, all that is inside.
    [ -z "$child" ] || kill -KILL "$child" 2>/dev/null || true
    left=50
    while [ "$left" -gt 0 ]; do
      find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
      [ -d "$group" ] || ! umount "$HF_TOP/cgroup" 2>/dev/null || break
      sleep 0.05 # what was killed is still going
      left=$((left - 1))
    done
    rmdir "$HF_TOP/cgroup" && rm -rf "$HF_TOP"
  }
  trap clean EXIT
  trap 'exit 143' TERM INT HUP
  exec 3<&0 # what runs in the background would read /dev/null
  export HF_STAGE=inside HF_TOP HF_MANAGER="$manager"
  sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" \
    unshare --mount --cgroup --pid --fork --kill-child=KILL --mount-proc \
    --propagation private "$0" "$@" <&3 3<&- &
  child=$!
  code=0
  wait "$child" || code=$?
  child=
  exit "$code"
fi

# Inside: the layout that logind would have made, then the manager.
runtime=/run/user/0
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup || skip "no cgroup v2 inside"
service=/sys/fs/cgroup/user.slice/user-0.slice/user@0.service
mkdir -p "$service/init.scope" /sys/fs/cgroup/command
echo $$ >/sys/fs/cgroup/command/cgroup.procs
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir -p /run/systemd/system # sd_booted() looks for it
mount -t tmpfs -o mode=755 tmpfs /run/user
mkdir -m 700 "$runtime"
export XDG_RUNTIME_DIR="$runtime" DBUS_SESSION_BUS_ADDRESS="unix:path=$runtime/bus"
if [ -x "${HF_MANAGER%/*}/systemd-journald" ]; then # a journal of its own, gone with us
  mount -t tmpfs -o mode=755 tmpfs /var/log
  mount -t tmpfs -o mode=755 tmpfs /run/log 2>/dev/null || true
  mkdir -p "/var/log/journal/$(cat /etc/machine-id)" /run/systemd/journal /run/systemd/journald.conf.d
  printf '[Journal]\nStorage=persistent\nSplitMode=uid\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n' \
    >/run/systemd/journald.conf.d/holdfast.conf
  : >/run/systemd/journal/flushed
  "${HF_MANAGER%/*}/systemd-journald" >"$HF_TOP/journald.log" 2>&1 &
  left=100
  until [ -S /run/systemd/journal/stdout ] || [ "$left" = 0 ]; do
    left=$((left - 1))
    sleep 0.02
  done
fi
sh -c 'echo $$ >"$0/init.scope/cgroup.procs"; cd /; exec env -i HOME="$HOME" PATH="$PATH" \
  XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" SYSTEMD_LOG_TARGET=console "$HF_MANAGER" --user' \
  "$service" >"$HF_TOP/manager.log" 2>&1 &
manager=$!
left=1500
until [ -S "$runtime/bus" ] && [ -S "$runtime/systemd/private" ]; do
  left=$((left - 1))
  if [ "$left" = 0 ] || ! kill -0 "$manager" 2>/dev/null; then
    cat "$HF_TOP/manager.log" >&2
    skip "systemd --user did not start"
  fi
  sleep 0.02
done
systemctl --user is-system-running --wait >/dev/null 2>&1 || true
unset HF_STAGE
code=0
"$@" || code=$?
kill -TERM "$manager" 2>/dev/null || true # stops all units in order, as a logout would
wait "$manager" 2>/dev/null || true
exit "$code"
