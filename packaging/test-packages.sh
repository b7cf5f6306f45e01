#!/bin/sh
# Install the programs that the tests drive, by apt and as root; else name the one command.
# Tests whose program is missing are skipped with a reason, which fails under CI=true.
set -eu
wanted='openssh-server openssh-client tmux rsync systemd systemd-container libpam-systemd dbus-user-session libsystemd-dev pkg-config gcc shellcheck zsh fish busybox-static sudo tcsh vim less procps ripgrep redis-server netcat-openbsd'
missing=
for program in sshd:openssh-server ssh:openssh-client tmux:tmux rsync:rsync systemctl:systemd systemd-nspawn:systemd-container \
  dbus-daemon:dbus-user-session pkg-config:pkg-config cc:gcc shellcheck:shellcheck zsh:zsh fish:fish busybox:busybox-static sudo:sudo tcsh:tcsh vim:vim less:less top:procps rg:ripgrep redis-server:redis-server nc:netcat-openbsd; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "${program%%:*}" >/dev/null || missing="$missing ${program##*:}"
done
[ -n "$missing" ] || exit 0
command="apt-get install -y --no-install-recommends $wanted"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "packages: installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # The list is one of package names, so it must be split.
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $wanted >/dev/null
else
  echo "packages: missing$missing; their tests are skipped. To have them: sudo $command"
fi
