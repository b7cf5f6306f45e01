# shellcheck shell=sh
# What is kept: its processes, how it stands, its end, and its place. POSIX sh.

hf_mark=$(printf '\036')

have() { command -v "$1" >/dev/null 2>&1; }

# a python3 that runs (a shim on the PATH may not) and knows how a process ended
py3() { python3 -c 'import os, pty; os.waitstatus_to_exitcode' >/dev/null 2>&1; }

# note FILE PID: write down which process it is
note() { write "$1" "$2 $(birth "$2")"; }

# members SID: all processes of a session of processes
members() {
  if [ -r /proc/self/stat ]; then
    for hf_proc in /proc/[0-9]*/stat; do
      hf_stat=
      { read -r hf_stat <"$hf_proc"; } 2>/dev/null || continue
      hf_proc=${hf_proc#/proc/}
      # state parent group session
      # shellcheck disable=SC2086
      set -- "$1" ${hf_stat##*) }
      [ "${5-}" = "$1" ] && [ "$2" != Z ] && echo "${hf_proc%/stat}"
    done
  else
    # no session ids to be had: it and what descends from it
    ps -A -o pid= -o ppid= | awk -v top="$1" '
      { parent[$1] = $2 }
      END { for (p in parent) for (q = p; q > 1; q = parent[q]) if (q == top) { print p; break } }'
  fi
}

# relayed: who brings the shell what is typed has nothing more to bring
relayed() {
  read -r hf_leader _ <pid
  for hf_member in $(members "$(stat_of "$hf_leader" 4 || echo "$hf_leader")"); do
    case $(stat_of "$hf_member" 1) in R | D | T) return 1 ;; esac
  done
}

# ended_at_logout: logind ends what a login leaves behind, but for what the user's own
# manager has: logind.conf(5), KillUserProcesses
ended_at_logout() {
  [ -d /run/systemd/system ] && have busctl && have systemd-run || return 1
  hf_logind=org.freedesktop.login1
  hf_kills=$(busctl --timeout=15 get-property "$hf_logind" /org/freedesktop/login1 \
    "$hf_logind.Manager" KillUserProcesses 2>/dev/null)
  # who does not answer may do so
  [ "$hf_kills" != 'b false' ] && hf_user=$(id -u) || return 1
  export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$hf_user}"
  systemd-run --user --scope --quiet true 2>/dev/null
}

# launch WORD...: away from this connection, in a session of its own, with the signals
# and the umask as a login has them: sh starts a plain `&` with SIGINT ignored for ever
# after.
launch() {
  umask "$hf_umask"
  if ended_at_logout; then set -- systemd-run --user --scope --quiet "$@"; fi
  if setsid -f true 2>/dev/null; then
    setsid -f "$@" </dev/null >/dev/null 2>&1
  elif perl -e 1 2>/dev/null; then
    perl -e 'use POSIX "setsid"; exit if fork; setsid; exec @ARGV' "$@" </dev/null >/dev/null 2>&1
  elif py3; then
    python3 -c 'import os, sys
os.fork() and os._exit(0); os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])' "$@" </dev/null >/dev/null 2>&1
  elif have setsid; then
    (trap - INT QUIT && exec setsid "$@" </dev/null >/dev/null 2>&1) &
  else
    (trap - INT QUIT && exec "$@" </dev/null >/dev/null 2>&1) &
  fi
}

# same PID BIRTH: no other process has got that number. One look, as one that has just
# ended may be there in a first look and gone in a second.
same() {
  hf_there=$(birth "$1")
  [ -z "$hf_there" ] || [ "$hf_there" = "$2" ]
}

# ours FILE: sets hf_pid and hf_birth; false where another process has got that number
ours() {
  hf_pid='' hf_birth=''
  [ "$(cat boot 2>/dev/null)" = "$(boot_id)" ] || return 1
  [ -r "$1" ] && read -r hf_pid hf_birth <"$1"
  [ "${hf_pid:-0}" -gt 1 ] && same "$hf_pid" "$hf_birth"
}

# enter ID: into its directory, or say that there is none
enter() {
  cd "$hf_room/$1" 2>/dev/null && [ -e kind ] && stay && return 0
  tidy
  echo state=none
  exit 0
}

# behind: sets hf_behind, how much of out tells its end
behind() {
  case $(tail -c "$hf_length" out 2>/dev/null) in
  "${hf_mark}holdfast-end:"*) hf_behind=$hf_length ;;
  esac
}

# tell: how it stands, in lines of NAME=VALUE
tell() {
  state
  hf_behind=0
  [ "$hf_state" != exited ] || behind
  echo "ident=${PWD##*/}"
  echo "state=$hf_state"
  echo "why=$hf_why"
  [ "$hf_state" != exited ] || echo "$hf_how=$hf_code"
  echo "kind=$(cat kind)"
  echo "shell=$(cat shell 2>/dev/null)"
  hf_log=out
  [ ! -e r/1/o ] || [ "$(cat kind)" != job ] || hf_log=r/1/o
  echo "size=$(($(size_of "$hf_log") - hf_behind))"
  echo "earliest=$(number "$hf_log.low")"
  echo "pid=$(number shpid)"
  echo "seen=$(number seen)"
  [ ! -s out.fault ] || echo "fault=$(cat out.fault)"
  cat meta 2>/dev/null
  echo
}

# quell SIGNAL FILE: to every process of the session that the one noted there leads
quell() {
  ours "$2" || return 0
  hf_leader=$hf_pid hf_began=$hf_birth
  hf_looks=20
  while :; do
    hf_all=$(members "$hf_leader")
    # looking took a while: where its number is another's now, so is what was found
    same "$hf_leader" "$hf_began" || return 0
    hf_found=
    for hf_member in $hf_all; do
      # tmux's pane is ours, and tells how the shell ended
      [ "$2:$hf_member" = "leader:$hf_leader" ] && [ -e go ] && continue
      kill -s "$1" "$hf_member" 2>/dev/null && hf_found=1
    done
    # a shell whose command was killed before it may have begun the next one, and on a
    # busy host it takes its time to die
    [ "$1:$hf_found" = KILL:1 ] && [ "$hf_looks" -gt 0 ] || return 0
    [ "$hf_looks" -gt 17 ] || nap 0.05
    hf_looks=$((hf_looks - 1))
  done
}

# await SECONDS TEST...: until that is true
await() {
  hf_rounds=$(($1 * 20))
  shift
  until "$@"; do
    [ "$hf_rounds" -gt 0 ] || return 1
    nap 0.05
    hf_rounds=$((hf_rounds - 1))
  done
}
stopped() { state && [ "$hf_state" != running ]; }
pumped() { ! living pump; }

# finish: end its shell and all that belongs to it, by force; the files stay
finish() {
  state
  if [ "$hf_state" != exited ]; then quell KILL leader; fi
  if [ "$hf_state" = running ]; then await 3 stopped; fi
  await 2 pumped
  [ ! -s tmux ] || no_tmux
  if living pump; then kill -s KILL "$hf_pid" 2>/dev/null; fi
  quell KILL pid
  # that a full disk let nobody note, perhaps
  [ ! -p r/next ] || echo end 1<>r/next
  quell KILL slots
}

# forget: it and its directory are gone
forget() {
  finish
  cut_readers out
  hf_gone=$PWD
  cd "$hf_room" || return
  # somebody who came just now may write there yet
  await 2 rm -rf "$hf_gone" 2>/dev/null
}

# bare: nothing is kept
bare() {
  for hf_dir in "$hf_room"/*/; do [ -d "$hf_dir" ] && return 1; done
  return 0
}

# tidy: where nothing is kept, nothing of ours is left
tidy() {
  cd / || return
  # who forgot something while another had the lock left this to that one
  while bare && mkdir "$hf_room.tidying" 2>/dev/null; do
    hf_empty=
    if bare; then
      hf_empty=1
      rm -f "$hf_room"/holder-*.sh
      rmdir "$hf_room" 2>/dev/null
    fi
    rmdir "$hf_room.tidying"
    [ -z "$hf_empty" ] || break
  done
  [ -d "$hf_room" ] || rmdir "${hf_room%/*}" 2>/dev/null
}

# settle_in ID: make its directory, which nobody tidies away from then on
settle_in() {
  hf_tries=0
  until mkdir -p "$hf_room" && mkdir "$hf_room/$1" 2>/dev/null; do
    [ ! -d "$hf_room/$1" ] || exit 75
    hf_tries=$((hf_tries + 1))
    [ "$hf_tries" -lt 20 ] || exit 73
  done
  hf_tries=0
  while [ -d "$hf_room.tidying" ] && [ "$hf_tries" -lt 40 ]; do
    nap 0.05
    hf_tries=$((hf_tries + 1))
  done
  # left by one that was killed
  rmdir "$hf_room.tidying" 2>/dev/null
  [ -r "$hf_file" ] && return
  rmdir "$hf_room/$1"
  exit 97
}

# older DIRECTORY MINUTES: it has not changed for so long
older() { [ -n "$(find "$1" -prune -mmin "+$2" 2>/dev/null)" ]; }

# reap SECONDS: end and forget what nobody has looked at for so long
reap() {
  [ "$1" -gt 0 ] || return 0
  for hf_dir in "$hf_room"/*/; do
    if [ ! -s "$hf_dir/seen" ]; then
      # whoever began to make it was killed
      [ -e "$hf_dir/kind" ] || ! older "$hf_dir" 60 || rm -rf "$hf_dir"
      continue
    fi
    # where nothing came to be kept, the name only was taken
    hf_least=$1
    [ -e "$hf_dir/kind" ] || [ "$1" -lt 3600 ] || hf_least=3600
    [ "$(seen_for "$hf_dir")" -ge "$hf_least" ] || continue
    (
      cd "$hf_dir" || exit
      # of another machine it can't be known; but those are few, and may be gone
      here || [ "$(seen_for .)" -ge $((hf_least * 8)) ] || exit
      for hf_reader in ./*.readers/* ./r/*/*.readers/*; do
        [ -e "$hf_reader" ] && kill -s 0 "${hf_reader##*/}" 2>/dev/null && exit
      done
      # who follows a command says so there
      for hf_run in ./r/*/; do
        [ ! -s "$hf_run/seen" ] || [ "$(seen_for "$hf_run")" -ge "$hf_least" ] || exit
      done
      forget
    )
  done
}

# into DIRECTORY: as people name it; empty: home, where names without / at their start
# begin as well
into() {
  # shellcheck disable=SC2088,SC2164 # it tells how cd went
  case $1 in
  '') cd || cd / ;;
  '~') cd ;;
  '~/'*) CDPATH='' cd -- "$HOME/${1#??}" ;;
  /*) cd -- "$1" ;;
  *) CDPATH='' cd -- "$HOME/$1" ;;
  esac 2>/dev/null
}
