#!/bin/sh
# Boot this machine's own root file system, over an overlay that is thrown away, with
# systemd as PID 1 and logind; print "up", and end it all when standard input ends. For
# what needs real logins: lingering, logouts, a boot.
#
#   with_booted_systemd.sh USER DIRECTORY...
#
# USER is made there, without a password. Each DIRECTORY is shared as it is, writable;
# /tmp is empty but for them. The network is this machine's. Needs root, cgroup v2,
# overlayfs and systemd-nspawn. Exit status: 77 when that can't be had here.
set -eu

skip() {
  echo "skip: $*" >&2
  exit 77
}

if [ "${HF_STAGE:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || skip "needs root"
  for program in unshare systemd-nspawn dbus-daemon useradd; do
    command -v "$program" >/dev/null || skip "no $program"
  done
  [ -x /lib/systemd/systemd-logind ] || skip "no logind"
  find /lib /usr/lib -name pam_systemd.so 2>/dev/null | grep -q . || skip "no pam_systemd"
  HF_TOP=$(mktemp -d)
  mkdir "$HF_TOP/cgroup"
  mount -t cgroup2 cgroup2 "$HF_TOP/cgroup" 2>/dev/null || { rm -rf "$HF_TOP"; skip "no cgroup v2"; }
  group=$HF_TOP/cgroup/holdfast-boot.$$
  child=
  # shellcheck disable=SC2317 # the trap calls it
  clean() {
    trap - EXIT
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
  mkdir "$group" 2>/dev/null || skip "cgroup v2 is read-only"
  exec 3<&0 # what runs in the background would read /dev/null
  export HF_STAGE=inside HF_TOP
  sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" \
    unshare --mount --cgroup --fork --pid --kill-child=KILL --mount-proc \
    --propagation private "$0" "$@" <&3 3<&- &
  child=$!
  code=0
  wait "$child" || code=$?
  child=
  exit "$code"
fi

user=$1
shift
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup || skip "no cgroup v2 inside"
mount -t tmpfs -o mode=755 tmpfs /run/systemd
mkdir -p /run/systemd/system
layers=$HF_TOP/layers
mkdir "$layers"
mount -t tmpfs -o mode=755 tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
root=$layers/root
mount -t overlay overlay \
  -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$root" || skip "no overlayfs"

chroot "$root" useradd --create-home --shell /bin/sh --uid 4242 "$user" || skip "no useradd"
chmod 755 "$root/root" # a Python below it may be the one that runs the tests
rm -f "$root/var/lib/systemd/linger/"* "$root/etc/nologin"
mkdir -p "$root/etc/systemd/logind.conf.d" "$root/var/log/journal"
printf '[Login]\nUserStopDelaySec=1s\n' >"$root/etc/systemd/logind.conf.d/holdfast.conf"
cat >"$root/etc/systemd/system/holdfast-boot.target" <<'END'
[Unit]
Requires=basic.target dbus.socket
Wants=systemd-logind.service systemd-user-sessions.service
After=basic.target dbus.socket systemd-logind.service systemd-user-sessions.service
END
for shared in "$@"; do
  set -- "$@" "--bind=$shared"
  shift
done
# --register=no: there is no machined here. What ends is booted again: that is a reboot.
(
  while :; do
    systemd-nspawn --quiet --capability=all --register=no --keep-unit --link-journal=no \
      --console=pipe --resolv-conf=off --timezone=off "$@" -D "$root" \
      -b systemd.unit=holdfast-boot.target quiet >>"$HF_TOP/boot.log" 2>&1 </dev/null || true
    sleep 0.2
  done
) &
echo "up"
cat >/dev/null # with us everything ends that runs in our namespace
exit 0
