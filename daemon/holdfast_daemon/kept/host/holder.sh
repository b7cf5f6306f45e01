# shellcheck shell=sh
# Keeps a shell on the host after the connection that started it is gone. POSIX sh, and
# nothing installed: a terminal comes from script, python3 or tmux, whichever works.
#
# A directory of its own (0700) below $hf_room holds, for session ID:
#   in (FIFO: keys to the shell)   out (all its terminal printed, see pump.sh)
#   live (FIFO: open as long as the pump runs)   kind, shell, shpid, pts, boot, meta
#   pid (the holder), pump (who writes out), rc (how the shell ended, when it has)
# $hf_file is the script that all parts make, $hf_room where everything is kept.

hf_mark=$(printf '\036')

have() { command -v "$1" >/dev/null 2>&1; }

# a python3 that runs (a shim on the PATH may not) and knows how a process ended
py3() { python3 -c 'import os, pty; os.waitstatus_to_exitcode' >/dev/null 2>&1; }

boot_id() {
  if [ -r /proc/sys/kernel/random/boot_id ]; then
    cat /proc/sys/kernel/random/boot_id
  else
    sysctl -n kern.boottime 2>/dev/null | tr -d ' ' | sed 's/^{sec=\([0-9]*\).*/\1/'
  fi
}

# stat_of PID N: the Nth word of what the kernel says of it after its name; see proc(5)
stat_of() {
  hf_stat=
  { read -r hf_stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  hf_stat=${hf_stat##*) }
  # shellcheck disable=SC2086
  set -- "$2" $hf_stat
  shift "$1"
  echo "$1"
}

# birth PID: something that another process of the same number would not have
birth() { stat_of "$1" 20 2>/dev/null || ps -o lstart= -p "$1" 2>/dev/null | tr -d ' '; }

# note FILE PID: write down which process it is
note() { write "$1" "$2 $(birth "$2")"; }

# living FILE: the process noted there is still the same one; sets hf_pid
living() {
  hf_pid=
  hf_birth=
  [ -r "$1" ] && read -r hf_pid hf_birth <"$1"
  [ -n "$hf_pid" ] && kill -s 0 "$hf_pid" 2>/dev/null || return 1
  case $(stat_of "$hf_pid" 1) in Z | X) return 1 ;; esac
  [ "$(birth "$hf_pid")" = "$hf_birth" ]
}

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

# launch WORD...: away from this connection, in a session of its own, with the signals
# as a login has them: sh starts a plain `&` with SIGINT ignored for ever after.
launch() {
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

# ours FILE: sets hf_pid; false where another process has got that number
ours() {
  hf_pid=0
  [ "$(cat boot 2>/dev/null)" = "$(boot_id)" ] || return 1
  living "$1" || { [ "${hf_pid:-0}" -gt 1 ] && ! kill -s 0 "$hf_pid" 2>/dev/null; }
}

# enter ID: into its directory, or say that there is none
enter() {
  cd "$hf_room/$1" 2>/dev/null && [ -e kind ] && return 0
  echo state=none
  exit 0
}

# state: sets hf_state and hf_why for the directory we are in
state() {
  hf_why=
  if [ -s rc ]; then
    hf_state=exited
    read -r hf_how hf_code hf_length <rc
    [ "$hf_how" != lost ] || hf_state=lost hf_why=killed
  elif [ "$(cat boot 2>/dev/null)" != "$(boot_id)" ]; then
    hf_state=lost hf_why=host_restarted
  elif living pump; then
    hf_state=running
  else
    hf_state=lost hf_why=killed
  fi
}

# tell: how it stands, in lines of NAME=VALUE
tell() {
  state
  hf_behind=0
  echo "ident=${PWD##*/}"
  echo "state=$hf_state"
  echo "why=$hf_why"
  if [ "$hf_state" = exited ]; then
    echo "$hf_how=$hf_code"
    case $(tail -c "$hf_length" out 2>/dev/null) in
    "${hf_mark}holdfast-end:"*) hf_behind=$hf_length ;;
    esac
  fi
  echo "kind=$(cat kind)"
  echo "shell=$(cat shell 2>/dev/null)"
  echo "size=$(($(size_of out) - hf_behind))"
  echo "earliest=$(number out.low)"
  echo "seen=$(number seen)"
  [ ! -s out.fault ] || echo "fault=$(cat out.fault)"
  cat meta 2>/dev/null
  echo
}

# quell SIGNAL FILE: to every process of the session that the one noted there leads
quell() {
  ours "$2" || return 0
  hf_leader=$hf_pid
  hf_all=$(members "$hf_leader")
  for hf_member in $(number shpid) ${hf_all:-"$hf_leader"}; do
    # tmux's pane is ours, and tells how the shell ended
    [ "$2:$hf_member" = "leader:$hf_leader" ] && [ -e go ] && continue
    kill -s "$1" "$hf_member" 2>/dev/null
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

# tidy: where nothing is kept, nothing of ours is left
tidy() {
  cd / || return
  mkdir "$hf_room.tidying" 2>/dev/null || return
  hf_empty=1
  for hf_dir in "$hf_room"/*/; do [ -d "$hf_dir" ] && hf_empty=; done
  if [ -n "$hf_empty" ]; then
    rm -f "$hf_room"/holder-*.sh
    rmdir "$hf_room" 2>/dev/null
  fi
  rmdir "$hf_room.tidying"
  [ -z "$hf_empty" ] || rmdir "${hf_room%/*}" 2>/dev/null
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

# reap SECONDS: end and forget what nobody has looked at for so long
reap() {
  [ "$1" -gt 0 ] || return 0
  for hf_dir in "$hf_room"/*/; do
    [ -s "$hf_dir/seen" ] || continue
    [ "$(seen_for "$hf_dir")" -ge "$1" ] || continue
    (
      cd "$hf_dir" || exit
      for hf_reader in ./*.readers/*; do
        [ -e "$hf_reader" ] && kill -s 0 "${hf_reader##*/}" 2>/dev/null && exit
      done
      forget
    )
  done
}

# ---------------------------------------------------------------- in the terminal

# run: becomes the shell, in its terminal; words are in ./plan, read once
op_run() {
  cd "$hf_room/$1" || exit 69
  # shellcheck disable=SC1091
  . ./plan
  rm -f plan
  if [ -t 0 ]; then
    stty rows "$hf_rows" cols "$hf_cols"
    tty >pts
  fi
  hf_program=${hf_shell:-${SHELL:-/bin/sh}}
  if ! hf_program=$(command -v -- "$hf_program") || [ ! -x "$hf_program" ]; then
    echo shell >refused
    exit 127
  fi
  hf_flag=
  case ${hf_program##*/} in
  zsh) hf_flag='-l -o histignorespace' ;;
  bash | dash | ash | sh | ksh | ksh93 | mksh | yash | fish | csh | tcsh) hf_flag=-l ;;
  esac
  hf_here=$PWD
  if [ -n "$hf_cwd" ]; then
    # shellcheck disable=SC2088
    case $hf_cwd in
    '~') hf_cwd=$HOME ;;
    '~/'*) hf_cwd=$HOME/${hf_cwd#??} ;;
    esac
    cd -- "$hf_cwd" 2>/dev/null || { echo cwd >"$hf_here/refused" && exit 126; }
  else
    cd || cd /
  fi
  # what a session that is gone had, where it is still there
  if [ -n "$hf_restore" ] && [ -r "$hf_room/$hf_restore/cwd" ]; then
    read -r hf_old <"$hf_room/$hf_restore/cwd"
    cd -- "$hf_old" 2>/dev/null || :
  fi
  if [ -n "$hf_restore" ] && [ -r "$hf_room/$hf_restore/env" ]; then
    # shellcheck disable=SC1090
    . "$hf_room/$hf_restore/env"
  fi
  echo "$hf_program" >"$hf_here/shell"
  # $$ stays what it is when this becomes the shell
  note "$hf_here/leader" "$(stat_of "$$" 4 || echo "$$")"
  write "$hf_here/shpid" "$$"
  [ -n "${SHELL-}" ] || SHELL=$hf_program
  export SHELL
  hf_tmux=${TMUX-}
  unset TMUX TMUX_PANE OLDPWD hf_here
  environment
  # its history stays as it is
  HISTFILE='' fish_history=''
  export HISTFILE fish_history
  # shellcheck disable=SC2086
  exec "$hf_program" $hf_flag
}

# terminal KIND: run it there, to its end; stdin and stdout are the terminal's other side
terminal() {
  hf_words="SHELL='${SHELL:-/bin/sh}'; export SHELL; exec /bin/sh '$hf_file' run $hf_id"
  case $1 in
  script)
    if script --version 2>/dev/null | grep -q util-linux; then
      SHELL=/bin/sh script -qefc "$hf_words" /dev/null
    else
      script -q /dev/null /bin/sh -c "$hf_words"
    fi
    ;;
  python)
    python3 -c 'import os, pty, sys
code = os.waitstatus_to_exitcode(pty.spawn(["/bin/sh", "-c", sys.argv[1]]))
if code < 0:
    open("signalled", "w").write(str(-code))
sys.exit(code & 255)' "$hf_words"
    ;;
  pipe)
    # a session of its own, where one can be had, so that all of it can be ended
    if have setsid; then exec setsid /bin/sh -c "$hf_words"; fi
    /bin/sh -c "$hf_words"
    ;;
  esac
}

# hold ID KIND: the process that stays
op_hold() {
  hf_id=$1 hf_kind=$2
  cd "$hf_room/$hf_id" || exit 69
  # shellcheck disable=SC1091
  . ./secret
  rm -f secret
  note pid "$$"
  # open both ways: a writer that goes away is no end of input
  exec 3<>in
  if [ "$hf_kind" = tmux ]; then
    in_tmux
  else
    (
      (terminal "$hf_kind") <&3 2>&1 3<&-
      ended $?
    ) | pump_side 3<&-
  fi
}

# in_tmux: tmux has the terminal; what its pane prints comes by a FIFO, keys go in chunks
in_tmux() {
  mkfifo pane
  # a server of its own: what one sets up there is nobody else's
  hf_tmux=holdfast-$hf_id-$$
  echo "$hf_tmux" >tmux
  tmux -L "$hf_tmux" -f /dev/null start-server \; set -g status off \; \
    new-session -d -s "$hf_id" -x "$hf_cols" -y "$hf_rows" \
    "exec /bin/sh '$hf_file' pane $hf_id" 3<&- || exit 70
  tmux -L "$hf_tmux" pipe-pane -t "=$hf_id:" "exec cat >'$PWD/pane'" 3<&- && : >go
  while :; do
    dd bs=4096 count=1 <&3 >chunk 2>/dev/null
    tmux -L "$hf_tmux" load-buffer -b "b$hf_id" chunk 3<&- || break
    tmux -L "$hf_tmux" paste-buffer -r -d -b "b$hf_id" -t "=$hf_id:" 3<&- || break
  done &
  (
    cat pane
    ended "$(cat code 2>/dev/null)"
  ) 3<&- | pump_side 3<&-
  no_tmux
  # the reader of keys still waits for some
  for hf_member in $(members "$$"); do
    [ "$hf_member" = "$$" ] || kill -s KILL "$hf_member" 2>/dev/null
  done
}

# no_tmux: its server is gone, and the socket it leaves
no_tmux() {
  read -r hf_tmux <tmux
  tmux -L "$hf_tmux" kill-server 2>/dev/null
  rm -f "${TMUX_TMPDIR:-/tmp}/tmux-$(id -u)/$hf_tmux"
}

# pane ID: what tmux runs
op_pane() {
  cd "$hf_room/$1" || exit 69
  await 10 test -e go || exit 70
  /bin/sh "$hf_file" run "$1"
  echo "$?" >code
  # what it printed last is on its way
  nap 0.2
}

# ended CODE: the shell is gone; say so behind all it printed
ended() {
  hf_code="exit $1"
  [ -n "$1" ] || hf_code='lost unknown'
  if [ -s signalled ]; then hf_code="signal $(kill -l "$(cat signalled)")"; fi
  hf_text=$(printf '%sholdfast-end:%s:%s' "$hf_mark" "$hf_nonce" "$hf_code")
  write rc "$hf_code $((${#hf_text} + 1))"
  runs_ended "$hf_code"
  printf '%s\n' "$hf_text"
}

# pump_side: keeps what comes, as long as anything does
pump_side() {
  exec 9<>live
  # its own number, as $$ is the holder's
  /bin/sh -c 'echo "$PPID"' >number 9<&-
  note pump "$(cat number)"
  pump out "$hf_cap" "$hf_patience" .
}

op_start() {
  hf_id=$1
  umask 077
  hf_plan=$(cat)
  eval "$hf_plan"
  reap "$hf_abandoned"
  settle_in "$hf_id"
  cd "$hf_room/$hf_id" || exit 73
  for hf_kind in $hf_kinds; do
    if begin "$hf_kind"; then
      tell
      exit 0
    fi
    [ -s refused ] && break
    (finish)
  done
  hf_refused=$(cat refused 2>/dev/null)
  forget
  tidy
  echo "refused=${hf_refused:-nothing}"
}

# begin KIND: true when the shell runs
begin() {
  case $1 in
  script) have script || return 1 ;;
  python) py3 || return 1 ;;
  tmux) have tmux || return 1 ;;
  esac
  rm -rf ./*
  mkfifo in live || return 1
  : >out
  boot_id >boot
  echo "$1" >kind
  saw .
  printf '%s\n' "$hf_meta" >meta
  printf '%s\n' "$hf_plan" >plan
  printf 'hf_nonce=%s hf_cap=%s hf_patience=%s hf_cols=%s hf_rows=%s\n' \
    "$hf_nonce" "$hf_cap" "$hf_patience" "$hf_cols" "$hf_rows" >secret
  (unset hf_plan && launch /bin/sh "$hf_file" hold "$hf_id" "$1")
  hf_rounds=200
  while [ ! -s shpid ] || [ ! -s pump ]; do
    [ ! -s rc ] && [ ! -s refused ] && [ "$hf_rounds" -gt 0 ] || return 1
    nap 0.025
    hf_rounds=$((hf_rounds - 1))
  done
}

# ---------------------------------------------------------------- from outside

op_look() {
  enter "$1"
  tell
}

op_list() {
  reap "${1:-0}"
  for hf_dir in "$hf_room"/*/; do
    [ -e "$hf_dir/kind" ] && (cd "$hf_dir" && tell)
  done
  echo end
}

# end ID FORCE GRACE
op_end() {
  enter "$1"
  state
  if [ "$hf_state" = running ]; then
    if [ "$2" = 1 ]; then
      finish
    else
      # as a terminal that is hung up does
      hf_shell=$(number shpid)
      hf_group=$(stat_of "$hf_shell" 6 || ps -o tpgid= -p "$hf_shell" | tr -d ' ')
      case $hf_group in '' | *[!0-9]* | 0) ;; *) kill -s HUP -- "-$hf_group" 2>/dev/null ;; esac
      kill -s HUP "$hf_shell" 2>/dev/null
      kill -s CONT "$hf_shell" 2>/dev/null
      await "$3" stopped
    fi
  fi
  state
  case $hf_state in
  lost) finish ;;
  exited) await 1 pumped ;;
  esac
  tell
}

# signal ID NAME: to what runs in the foreground
op_signal() {
  enter "$1"
  saw .
  state
  [ "$hf_state" = running ] || { tell && exit 0; }
  hf_shell=$(number shpid)
  hf_group=$(stat_of "$hf_shell" 6 || ps -o tpgid= -p "$hf_shell" | tr -d ' ')
  case $hf_group in
  '' | *[!0-9]* | 0)
    # no terminal: all the shell runs, and not the shell
    hf_sent=nothing
    for hf_member in $(members "$hf_shell"); do
      [ "$hf_member" = "$hf_shell" ] || { kill -s "$2" "$hf_member" && hf_sent=sent; } 2>/dev/null
    done
    ;;
  "$hf_shell")
    hf_sent=shell
    case $2 in INT | KILL | HUP) kill -s "$2" -- "-$hf_shell" ;; esac
    ;;
  *)
    hf_sent=sent
    kill -s "$2" -- "-$hf_group"
    ;;
  esac
  echo "sent=$hf_sent"
  tell
}

# resize ID COLS ROWS
op_resize() {
  enter "$1"
  saw .
  [ ! -s tmux ] || tmux -L "$(cat tmux)" resize-window -t "=$1:" -x "$2" -y "$3"
  if [ -s pts ]; then stty rows "$3" cols "$2" <"$(cat pts)"; fi
  tell
}

# ack ID FILE OFFSET
op_ack() {
  enter "$1"
  saw .
  [ ! -e "$2" ] || [ "$(number "$2.ack")" -ge "$3" ] || write "$2.ack" "$3"
  tell
}

op_wipe() {
  if cd "$hf_room/$1" 2>/dev/null; then forget; fi
  tidy
  echo state=none
}

# attach ID NONCE OFFSET INPUT: a header, then bytes from there on; stdin to the shell
op_attach() {
  cd "$hf_room/$1" 2>/dev/null && [ -e kind ] || exit 66
  saw .
  state
  enrol out
  reach out "$3"
  printf '%sholdfast-from:%s:%s:%s\n' "$hf_mark" "$2" "$hf_at" "$hf_low"
  if ! living pump; then
    # nothing will come any more
    tail -c "+$hf_from" out
    rm -f "out.readers/$$"
    [ "$hf_state" = exited ] && exit 0
    echo "holdfast:$hf_why" >&2
    exit 70
  fi
  trap 'rm -f "out.readers/$$"' 0
  exec 4<&0
  tail -c "+$hf_from" -f out </dev/null 4<&- &
  hf_tail=$!
  # what is kept has an end when the pump does; whoever comes again reads up to it
  (
    trap 'kill -s KILL $hf_live; exit' 15
    cat <live &
    hf_live=$!
    wait "$hf_live"
    # tail may look but once a second
    sleep 2 &
    hf_live=$!
    wait "$hf_live"
    kill "$$"
  ) </dev/null >/dev/null 2>&1 4<&- &
  hf_watch=$!
  if [ "$4" = 1 ]; then
    # both ways: for writing only it waits for ever where nobody reads
    cat <&4 4<&- 1<>in &
  else
    cat <&4 4<&- >/dev/null &
  fi
  hf_keys=$!
  exec 4<&- </dev/null
  trap 'kill -s KILL $hf_tail $hf_keys; kill $hf_watch; exit 75' 1 2 15
  printf '%s\n' "$$" "$hf_tail" "$hf_keys" "$hf_watch" >"out.readers/$$"
  wait "$hf_keys"
  kill -s KILL "$hf_tail" 2>/dev/null
  kill "$hf_watch" 2>/dev/null
  exit 75
}
