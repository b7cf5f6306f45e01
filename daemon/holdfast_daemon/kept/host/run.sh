# shellcheck shell=sh
# shellcheck disable=SC2154 # hf_room and hf_file are the caller's
# Commands of a kept shell, and durable ones. POSIX sh.
#
# A kept shell is told a command by one short typed line, which sources r/c; below r:
#   i c z (init, a command, its trailer)   ready   now (the number of the last command)
#   next (FIFO: what the keeper of slots is to do)
#   N/: x (the command)  n (its nonce)  fo fe (FIFO)  o e (logs, see pump.sh)
#       typed (it was told, or never will be)  done (its trailer was written)

# fill TEXT: with each @ as the directory r, quoted
fill() {
  hf_rest=$1
  while :; do
    case $hf_rest in
    *@*) printf '%s%s' "${hf_rest%%@*}" "'$PWD/r'" ;;
    *) break ;;
    esac
    hf_rest=${hf_rest#*@}
  done
  printf '%s\n' "$hf_rest"
}

# refuse CODE WORD: nothing was typed
refuse() {
  echo "holdfast:$2" >&2
  exit "$1"
}

# known ID: into its directory
known() {
  cd "$hf_room/$1" 2>/dev/null || refuse 66 none
  [ -e kind ] || refuse 66 none
}

# claim FILE: true for the first who does
claim() { (set -C && : >"$1") 2>/dev/null; }

# idle: the shell is what its terminal listens to
idle() {
  hf_stat=
  read -r hf_shell <shpid || return 1
  if { read -r hf_stat <"/proc/$hf_shell/stat"; } 2>/dev/null; then
    # shellcheck disable=SC2086
    set -- ${hf_stat##*) }
    [ "$5" = 0 ] || [ "$3" = "$6" ]
  elif [ -r /proc/self/stat ]; then
    return 1
  else
    # shellcheck disable=SC2046
    set -- $(ps -o pgid= -o tpgid= -p "$hf_shell")
    [ "$1" = "$2" ] || [ "${2:-0}" -le 0 ]
  fi
}

# ---------------------------------------------------------------- slots

# drain DIRECTORY STREAM: keep what comes by stdin, its FIFO, to its end
drain() {
  pump "$1/$2" "$hf_cap" "$hf_patience" "$1"
  : >"$1/$2.over"
  clear_away "$1"
}

# clear_away DIRECTORY: when nobody reads it or writes there any more
clear_away() {
  [ -e "$1/dropped" ] && [ -e "$1/o.over" ] && [ -e "$1/e.over" ] || return 0
  # all at once, as others look whether it is there
  mv "$1" "$1.gone" 2>/dev/null && rm -rf "$1.gone"
}

# slot DIRECTORY: make it; 4 and 5 are its FIFO, held open so that they have no end yet
slot() {
  exec 4<&- 5<&-
  mkdir -p "$1/o.readers" "$1/e.readers" && mkfifo "$1/fo" "$1/fe" || return 1
  : >"$1/o"
  : >"$1/e"
  # somebody will be there soon; without a process for it
  read -r hf_seen <seen
  echo "$hf_seen" >"$1/seen"
  exec 4<>"$1/fo" 5<>"$1/fe"
  # opened before anybody may write and go: what is in a FIFO nobody has open is gone
  for hf_end in o e; do
    exec 8<"$1/f$hf_end"
    (exec <&8 4<&- 5<&- 7<&- 8<&- && drain "$1" "$hf_end") &
  done
  exec 8<&-
  : >"$1/set"
}

# slots ID CAP PATIENCE: keeps a slot ahead; told what to do by r/next
op_slots() {
  cd "$hf_room/$1" || exit 69
  hf_cap=$2 hf_patience=$3
  note slots "$$"
  exec 7<>r/next
  hf_n=0
  echo 1 >&7
  while read -r hf_word <&7; do
    case $hf_word in
    end) break ;;
    drop*)
      [ -d "r/${hf_word#drop}" ] || continue
      : >"r/${hf_word#drop}/dropped"
      clear_away "r/${hf_word#drop}"
      ;;
    *)
      [ "$hf_word" -gt "$hf_n" ] || continue
      hf_n=$hf_word
      [ -d "r/$hf_n" ] || slot "r/$hf_n"
      ;;
    esac
  done
  exit 0
}

# runs_ended HOW: the shell is gone; so is what it was told
runs_ended() {
  [ -d r ] || return 0
  hf_n=$(number r/now)
  if [ "$hf_n" -gt 0 ] && [ ! -e "r/$hf_n/done" ] && [ -e "r/$hf_n/n" ]; then
    read -r hf_run <"r/$hf_n/n"
    : >"r/$hf_n/done"
    printf '\036%s:%s::%s\036\n' "$hf_run" "$1" "$hf_run" 1<>"r/$hf_n/fo"
    printf '\036%s:%s::%s\036\n' "$hf_run" "$1" "$hf_run" 1<>"r/$hf_n/fe"
  fi
  echo end 1<>r/next
}

# prepare CAP PATIENCE INIT COMMAND TRAILER: have the shell know its part, once
prepare() {
  case $PWD in *"'"* | *\\* | *"
"*) refuse 78 path ;; esac
  mkdir r 2>/dev/null || return 0
  mkfifo r/next
  fill "$3" >r/i
  fill "$4" >r/c
  fill "$5" >r/z
  (launch /bin/sh "$hf_file" slots "${PWD##*/}" "$1" "$2")
  printf ' . %s/i\n' "'$PWD/r'" 1<>in
}

# ---------------------------------------------------------------- commands

# usable: the shell lives
usable() {
  [ ! -s rc ] && living pump && return 0
  state
  refuse 79 "$hf_state"
}

# prime ID SECONDS CAP PATIENCE INIT COMMAND TRAILER
op_prime() {
  known "$1"
  usable
  hf_seconds=$2
  shift 2
  prepare "$@"
  await "$hf_seconds" test -e r/ready || refuse 77 start
  echo ready
}

# type ID NUMBER HEADER NONCE SIZE [COMMAND]: tell the shell a command, and follow it;
# without the words, as many bytes come by stdin
op_type() {
  known "$1"
  [ ! -s rc ] || refuse 79 exited
  [ -e r/ready ] || refuse 77 start
  hf_n=$2 hf_run=r/$2
  hf_now=0
  [ ! -e r/now ] || read -r hf_now <r/now
  [ "$hf_now" -lt "$hf_n" ] || refuse 75 typed
  [ "$hf_now" = 0 ] || [ -e "r/$hf_now/done" ] || [ ! -d "r/$hf_now" ] || refuse 76 busy
  idle || { usable && refuse 76 busy; }
  if [ ! -e "$hf_run/set" ]; then
    echo "$hf_n" 1<>r/next
    hf_rounds=1000
    until [ -e "$hf_run/set" ]; do
      [ "$hf_rounds" -gt 0 ] || refuse 70 slot
      nap 0.005
      hf_rounds=$((hf_rounds - 1))
    done
  fi
  if [ $# -gt 5 ]; then
    printf '%s\n' "$6" >"$hf_run/x" || refuse 70 disk
  else
    # all of it, or none
    head -c "$5" >"$hf_run/x"
    [ "$(($(wc -c <"$hf_run/x")))" -eq "$5" ] || refuse 74 cut
    echo >>"$hf_run/x" || refuse 70 disk
  fi
  echo "$4" >"$hf_run/n" || refuse 70 disk
  claim "$hf_run/typed" || refuse 75 typed
  # from here to the typed line nothing is said that a lost link could break off
  echo "$hf_n" >r/now || refuse 70 disk
  printf ' . %s/c\n' "'$PWD/r'" 1<>in
  printf '\036from:%s:0\n' "$3"
  printf '\036from:%s:0\n' "$3" >&2
  hf_from_o=1 hf_from_e=1
  stream
}

# stream: hand on both logs of $hf_run, until told otherwise
stream() {
  tail -c "+$hf_from_o" -f "$hf_run/o" </dev/null 2>/dev/null &
  hf_out=$!
  tail -c "+$hf_from_e" -f "$hf_run/e" </dev/null >&2 2>/dev/null &
  hf_err=$!
  printf '%s\n' "$$" "$hf_out" "$hf_err" >"$hf_run/o.readers/$$"
  printf '%s\n' "$$" "$hf_out" "$hf_err" >"$hf_run/e.readers/$$"
  trap 'over 75' 1 2 15
  while read -r hf_word hf_o hf_e; do
    case $hf_word in
    ok)
      # all of it is where it should be
      kill -s KILL "$hf_out" "$hf_err" 2>/dev/null
      [ ! -e r/next ] || echo "drop$hf_n" 1<>r/next
      exit 0
      ;;
    ack)
      saw "$hf_run"
      write "$hf_run/o.ack" "$hf_o"
      write "$hf_run/e.ack" "$hf_e"
      ;;
    look)
      saw "$hf_run"
      state
      if [ "$hf_state" != running ] && [ ! -e "$hf_run/done" ]; then
        # what was on its way
        nap 1
        over 70
      fi
      ;;
    esac
  done
  over 75
}

# over CODE: follow no more
over() {
  kill -s KILL "$hf_out" "$hf_err" 2>/dev/null
  rm -f "$hf_run/o.readers/$$" "$hf_run/e.readers/$$"
  exit "$1"
}

# follow ID NUMBER HEADER OFFSET OFFSET: where it was left
op_follow() {
  known "$1"
  hf_n=$2 hf_run=r/$2
  [ -d "$hf_run" ] || refuse 66 none
  # who comes first settles it: it was told, or it never will be
  if claim "$hf_run/typed"; then refuse 65 never; fi
  saw .
  saw "$hf_run"
  enrol "$hf_run/o"
  enrol "$hf_run/e"
  reach "$hf_run/o" "$4"
  hf_from_o=$hf_from
  printf '\036from:%s:%s\n' "$3" "$hf_at"
  reach "$hf_run/e" "$5"
  hf_from_e=$hf_from
  printf '\036from:%s:%s\n' "$3" "$hf_at" >&2
  state
  if [ "$hf_state" != running ] && [ ! -e "$hf_run/done" ]; then
    tail -c "+$hf_from_o" "$hf_run/o"
    tail -c "+$hf_from_e" "$hf_run/e" >&2
    rm -f "$hf_run/o.readers/$$" "$hf_run/e.readers/$$"
    exit 70
  fi
  stream
}

# settle ID NUMBER SECONDS: a shell that was interrupted tells how it ended
op_settle() {
  cd "$hf_room/$1" 2>/dev/null || refuse 66 none
  # most have done so by themselves
  # shellcheck disable=SC2034
  for hf_round in 1 2 3 4 5 6; do
    if told "$2"; then echo told && exit 0; fi
    nap 0.05
  done
  if [ -e "r/$2/typed" ] && idle; then printf ' . %s/z\n' "'$PWD/r'" 1<>in; fi
  if await "$3" told "$2"; then echo told; else echo running; fi
}

# told NUMBER: how it ended; who knows that may have had it cleared away
told() { [ -e "r/$1/done" ] || [ ! -d "r/$1" ]; }

# drop ID NUMBER: nobody wants its output any more
op_drop() {
  cd "$hf_room/$1" 2>/dev/null || exit 0
  [ ! -e r/next ] || echo "drop$2" 1<>r/next
}

# runs ID: what it was told last
op_runs() {
  enter "$1"
  hf_n=$(number r/now)
  echo "number=$hf_n"
  if [ "$hf_n" -gt 0 ]; then
    if [ -e "r/$hf_n/done" ] || [ ! -d "r/$hf_n" ]; then echo done=1; else echo done=0; fi
    echo "out=$(size_of "r/$hf_n/o")"
    echo "err=$(size_of "r/$hf_n/e")"
  fi
  tell
}

# ---------------------------------------------------------------- durable commands

# job ID CAP PATIENCE NONCE META CWD PROGRAM SIZE STDIN: by stdin come as many bytes of
# the command, and then of what it is to read
op_job() {
  hf_id=$1
  mkdir -p "$hf_room" || exit 73
  mkdir "$hf_room/$hf_id" || refuse 75 typed
  cd "$hf_room/$hf_id" || exit 73
  head -c "$8" >script
  cat >stdin
  if [ "$(($(wc -c <script)))" -ne "$8" ] || [ "$(($(wc -c <stdin)))" -ne "$9" ]; then
    cd / && rm -rf "${hf_room:?}/$hf_id"
    refuse 74 cut
  fi
  printf '%s\n' "$5" >meta
  boot_id >boot
  : >out
  echo job >kind
  saw .
  mkdir r
  echo 1 >r/now
  (launch /bin/sh "$hf_file" jobhold "$hf_id" "$2" "$3" "$4" "$6" "$7")
  await 10 test -s shpid
  tell
}

# jobhold ID CAP PATIENCE NONCE CWD PROGRAM: the process that stays
op_jobhold() {
  cd "$hf_room/$1" || exit 69
  hf_cap=$2 hf_patience=$3 hf_nonce=$4
  note pid "$$"
  note pump "$$"
  slot r/1 || exit 73
  echo "$hf_nonce" >r/1/n
  : >r/1/typed
  hf_program=${6:-${SHELL:-/bin/sh}}
  hf_here=$PWD
  (
    note leader "$(/bin/sh -c 'echo "$PPID"')"
    /bin/sh -c 'echo "$PPID"' >shpid
    if [ -n "$5" ]; then
      # shellcheck disable=SC2088
      case $5 in
      '~') cd ;;
      '~/'*) cd -- "$HOME/${5#??}" ;;
      *) cd -- "$5" ;;
      esac || exit 126
    else
      cd || cd /
    fi
    hf_command=$(cat "$hf_here/script")
    # a session of its own, where one can be had, so that all of it can be ended
    if have setsid; then exec setsid "$hf_program" -c "$hf_command"; fi
    exec "$hf_program" -c "$hf_command"
  ) <stdin >r/1/fo 2>r/1/fe 4<&- 5<&-
  hf_code="exit $?"
  write rc "$hf_code 0"
  : >r/1/done
  printf '\036%s:%s::%s\036\n' "$hf_nonce" "$hf_code" "$hf_nonce" >&4
  printf '\036%s:%s::%s\036\n' "$hf_nonce" "$hf_code" "$hf_nonce" >&5
  exec 4<&- 5<&-
  wait
}
