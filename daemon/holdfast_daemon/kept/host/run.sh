# shellcheck shell=sh
# shellcheck disable=SC2154 # hf_room and hf_file are the caller's
# Commands of a kept shell, and durable ones. POSIX sh.
#
# A kept shell is told a command by one short typed line, which sources r/c; below r:
#   i c z (init, a command, its trailer)   ready   now (the number of the last command)
#   next (FIFO: what the keeper of slots is to do)
#   N/: x (the command)  n (its nonce)  fo fe (FIFO)  o e (logs, see pump.sh)
#       typed (it was told, or never will be: then with never, as the answer that says
#       so may be lost)  done (its trailer was written)
#       came (which process has come to it)  begun  off (it is not to begin it any more)

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

# ---------------------------------------------------------------- slots

# mark FILE OTHER: have FILE be there, where a disk takes no more files in place of OTHER.
# True, as a failure of : would end the shell.
mark() { true 2>/dev/null >"$1" || mv -f "$2" "$1"; }

# drain DIRECTORY STREAM: keep what comes by stdin, its FIFO, to its end
drain() {
  pump "$1/$2" "$hf_cap" "$hf_patience" "$1"
  mark "$1/$2.over" "$1/f$2"
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
  # and x and n, as some disks take their time over a new file
  for hf_end in o e x n; do true >"$1/$hf_end" || return 1; done
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
  true >"$1/set"
}

# slots ID CAP PATIENCE: keeps a slot ahead; told what to do by r/next
op_slots() {
  cd "$hf_room/$1" || exit 69
  hf_cap=$2 hf_patience=$3
  umask 077
  # bash and ksh give up a read after so long, and this one waits for days
  unset TMOUT
  note slots "$$"
  exec 7<>r/next
  hf_n=0
  echo 1 >&7
  while read -r hf_word <&7; do
    case $hf_word in
    end) break ;;
    drop*)
      [ -d "r/${hf_word#drop}" ] || continue
      mark "r/${hf_word#drop}/dropped" "r/${hf_word#drop}/x"
      clear_away "r/${hf_word#drop}"
      ;;
    *)
      [ "$hf_word" -gt "$hf_n" ] || continue
      hf_n=$hf_word
      [ -d "r/$hf_n" ] || slot "r/$hf_n"
      hf_saved=env.$(((hf_n + 1) % 2))
      [ "$(size_of "$hf_saved")" -le "$hf_env_bytes" ] || true >"$hf_saved"
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
    true >"r/$hf_n/done"
    hf_how=$1
    hf_came=$(number "r/$hf_n/came")
    # how another shell ended that it was told to, as one begun within, is not known
    [ "$hf_came" = 0 ] || [ "$hf_came" = "$(number shpid)" ] || hf_how='lost unknown'
    printf '\036%s:%s::%s\036\n' "$hf_run" "$hf_how" "$hf_run" 1<>"r/$hf_n/fo"
    printf '\036%s:%s::%s\036\n' "$hf_run" "$hf_how" "$hf_run" 1<>"r/$hf_n/fe"
    case $1 in signal* | 'exit 129' | 'exit 137' | 'exit 143') hang_up ;; esac
  fi
  echo end 1<>r/next
}

# hang_up: on all that a killed shell's command began. Its terminal did so only on what
# the shell had come to put into the foreground.
hang_up() {
  read -r hf_leader _ <leader
  # where no session of its own could be had, that is this one
  [ "$hf_leader" = "$(stat_of "$$" 4)" ] || quell HUP leader
}

# prepare HALF CAP PATIENCE INIT COMMAND TRAILER: have the shell know its part
prepare() {
  case $PWD in *"'"* | *\\* | *"
"*) refuse 78 path ;; esac
  if [ -d r ]; then
    # it may have been taken for a part of what was typed before, and given up with that
    if [ -e r/z ] && [ ! -e r/ready ] && waits; then
      clear "$1"
      tell_part
    fi
    return 0
  fi
  clear "$1"
  shift
  mkdir r 2>/dev/null || return 0
  # whatever umask the shell has
  : >>env.0
  : >>env.1
  mkfifo r/next
  fill "$3" >r/i
  fill "$4" >r/c
  fill "$5" >r/z
  (launch /bin/sh "$hf_file" slots "${PWD##*/}" "$1" "$2")
  tell_part
}
tell_part() { printf '%b . %s/i\n' "$hf_clear" "'$PWD/r'" 1<>in; }

# ---------------------------------------------------------------- commands

# prime ID SECONDS HALF CAP PATIENCE INIT COMMAND TRAILER
op_prime() {
  known "$1"
  stay
  usable
  hf_seconds=$2
  shift 2
  prepare "$@"
  await "$hf_seconds" test -e r/ready || refuse 77 start
  echo ready
}

# up_since: the host did not go down since this was made. What was written before it did
# may never have come to its disk, and says nothing where it is not there.
up_since() { [ "$(cat boot 2>/dev/null)" = "$(boot_id)" ]; }

# follow ID NUMBER HEADER OFFSET OFFSET: where it was left
op_follow() {
  known "$1"
  stay
  hf_n=$2 hf_run=r/$2
  [ -e "$hf_run/typed" ] || up_since || refuse 70 restarted
  if [ ! -d "$hf_run" ]; then
    # it was, and is forgotten
    [ "$(number r/now)" -lt "$2" ] || refuse 66 none
    [ -d r ] && mkdir -p "$hf_run" || refuse 65 never
  fi
  # who comes first settles it: it was told, or it never will be
  if claim "$hf_run/typed"; then : >"$hf_run/never"; fi
  [ ! -e "$hf_run/never" ] || refuse 65 never
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
  if [ "$hf_state" != running ] && cut_short; then
    tail -c "+$hf_from_o" "$hf_run/o"
    tail -c "+$hf_from_e" "$hf_run/e" >&2
    rm -f "$hf_run/o.readers/$$" "$hf_run/e.readers/$$"
    exit 70
  fi
  hand_on
  attend
}

# settle ID NUMBER SECONDS: a shell that was interrupted tells how it ended
op_settle() {
  known "$1"
  stay
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

# waits: the shell does nothing but wait for keys; one that makes a prompt has processes
# in its group, or computes
waits() {
  idle || return 1
  case $(stat_of "$hf_shell" 1 || echo S) in S) ;; *) return 1 ;; esac
  read -r hf_leader _ <leader
  hf_own=$(group_of "$hf_shell")
  for hf_member in $(members "$hf_leader"); do
    [ "$hf_member" = "$hf_shell" ] || [ "$(group_of "$hf_member")" != "$hf_own" ] || return 1
  done
}
group_of() { stat_of "$1" 3 || ps -o pgid= -p "$1" | tr -d ' '; }

# unread ID NUMBER: whether the shell came to it; where it takes it for a part of what
# was typed before, as behind an open quote, it never will
op_unread() {
  known "$1"
  stay
  hf_run=r/$2
  # for a second: a busy host brings it what was typed late
  hf_brought=
  # shellcheck disable=SC2034
  for hf_round in 1 2 3 4 5 6 7 8 9 10; do
    if [ -e "$hf_run/came" ] || [ -e "$hf_run/done" ] || [ ! -d "$hf_run" ]; then
      echo seen
      exit 0
    fi
    ! relayed || hf_brought=1
    waits || { echo unseen && exit 0; }
    nap 0.1
  done
  [ -n "$hf_brought" ] || { echo unseen && exit 0; }
  # it looks for this behind `came`: one of both sees the other
  : >"$hf_run/off"
  if [ -e "$hf_run/came" ]; then
    echo seen
    exit 0
  fi
  tell_never
  echo unread
}

# tell_never: nobody will come to $hf_run
tell_never() {
  read -r hf_nonce <"$hf_run/n"
  : >"$hf_run/done"
  printf '\036%s:never::%s\036\n' "$hf_nonce" "$hf_nonce" 1<>"$hf_run/fo"
  printf '\036%s:never::%s\036\n' "$hf_nonce" "$hf_nonce" 1<>"$hf_run/fe"
}

# meant NUMBER SIGNAL: that command runs, and so the signal is for it. One that was to
# end it before it began has it never begin.
meant() {
  hf_run=r/$1
  [ ! -e "$hf_run/done" ] || return 1
  # the number was given away, and forgotten
  [ -d "$hf_run" ] || [ "$(number r/now)" -lt "$1" ] || return 1
  [ ! -e "$hf_run/came" ] || return 0
  case $2 in INT | TERM | KILL) ;; *) return 1 ;; esac
  [ -d r ] && mkdir -p "$hf_run" || return 1
  if claim "$hf_run/typed"; then
    : >"$hf_run/never"
    return 1
  fi
  [ ! -e "$hf_run/never" ] || return 1
  # it looks for this behind `came`: one of both sees the other
  : >"$hf_run/off"
  [ ! -e "$hf_run/came" ] || return 0
  tell_never
  return 1
}

# drop ID NUMBER: nobody wants its output any more
op_drop() {
  cd "$hf_room/$1" 2>/dev/null || exit 0
  [ ! -e r/next ] || echo "drop$2" 1<>r/next
}

# runs ID: what it was told last
op_runs() {
  enter "$1"
  hf_n=$(number r/now)
  # nothing will be told by a number that was given away
  while [ -e "r/$((hf_n + 1))/never" ]; do hf_n=$((hf_n + 1)); done
  echo "number=$hf_n"
  if [ "$hf_n" -gt 0 ]; then
    if told "$hf_n" || [ -e "r/$hf_n/never" ]; then echo done=1; else echo done=0; fi
    echo "out=$(size_of "r/$hf_n/o")"
    echo "err=$(size_of "r/$hf_n/e")"
  fi
  tell
}

# ---------------------------------------------------------------- durable commands

# job ID CAP PATIENCE NONCE META CWD SHELL LIMIT SIZE SIZE SIZE: by stdin come the
# command, the words that set its environment, and what it is to read, of such sizes.
# SHELL is quoted as for a shell; empty: the login shell. The name is taken but once, so
# it runs but once.
op_job() {
  (into "$6") || refuse 67 cwd
  (eval "set -- ${7:-/bin/sh}" && command -v -- "$1") >/dev/null 2>&1 || refuse 68 shell
  settle_in "$1"
  cd "$hf_room/$1" || exit 73
  saw .
  # no reader may take more than its part
  cat >all || give_back "$1" disk
  if [ "$(($(wc -c <all)))" -ne $(($9 + ${10} + ${11})) ]; then
    give_back "$1" cut
  fi
  identity >machine || :
  {
    head -c "$9" all >script && tail -c "+$(($9 + 1))" all | head -c "${10}" >settings &&
      tail -c "+$(($9 + ${10} + 1))" all >stdin && rm -f all &&
      printf '%s\n' "$5" >meta && boot_id >boot && node_name >node && : >out && mkdir r &&
      echo 1 >r/now && echo job >kind
  } || give_back "$1" disk
  (launch /bin/sh "$hf_file" jobhold "$1" "$2" "$3" "$4" "$6" "$7" "$8")
  await 10 begun
  if [ -e refused ] && mkdir -p r/1 && claim r/1/typed; then give_back "$1" disk; fi
  tell
}
begun() { [ -s shpid ] || [ -s rc ] || [ -e refused ]; }

# give_back ID WHY: nothing was begun, and nothing stays
give_back() {
  cd / && rm -rf "${hf_room:?}/$1"
  tidy
  case $2 in cut) refuse 74 cut ;; *) refuse 73 "its disk takes no more" ;; esac
}

# jobhold ID CAP PATIENCE NONCE CWD SHELL LIMIT: the process that stays
op_jobhold() {
  cd "$hf_room/$1" || exit 69
  hf_cap=$2 hf_patience=$3 hf_nonce=$4
  if ! { note pid "$$" && note pump "$$" && slot r/1 && echo "$hf_nonce" >r/1/n; }; then
    : >refused
    exit 73
  fi
  # unless somebody was told meanwhile that it never will be
  claim r/1/typed || exit 0
  hf_clock=
  if [ "$7" != 0 ]; then
    (bound_time "$7") </dev/null >/dev/null 2>&1 4<&- 5<&- &
    hf_clock=$!
  fi
  (
    hf_here=$PWD
    hf_id=$(/bin/sh -c 'echo "$PPID"')
    note leader "$hf_id"
    echo "$hf_id" >shpid
    umask "$hf_umask"
    into "$5" || exit 126
    if [ -n "$6" ]; then eval "set -- $6"; else set -- "${SHELL:-/bin/sh}"; fi
    set -- "$@" -c "$(cat "$hf_here/script")"
    hf_settings=$(cat "$hf_here/settings")
    rm -f "$hf_here/settings"
    # by the PATH it is found by here: the one that is set may not lead there
    case $hf_settings in
    *PATH=*) hf_program=$(command -v -- "$1") && shift && set -- "$hf_program" "$@" ;;
    esac
    # a session of its own, where one can be had, so that all of it can be ended
    ! hf_setsid=$(command -v setsid) || set -- "$hf_setsid" "$@"
    eval "$hf_settings"
    exec "$@"
  ) <stdin >r/1/fo 2>r/1/fe 4<&- 5<&-
  hf_code=$?
  hf_how='exit'
  [ ! -e late ] || hf_how=late
  true >r/1/done
  printf '\036%s:%s %s::%s\036\n' "$hf_nonce" "$hf_how" "$hf_code" "$hf_nonce" >&4
  printf '\036%s:%s %s::%s\036\n' "$hf_nonce" "$hf_how" "$hf_code" "$hf_nonce" >&5
  exec 4<&- 5<&-
  # behind the rest: who finds it finds that too
  write rc "exit $hf_code 0"
  [ -z "$hf_clock" ] || kill "$hf_clock" 2>/dev/null
  rm -f script stdin
  wait
}

# bound_time SECONDS: end it then, as nobody may be there to do so
bound_time() {
  trap 'kill -s KILL $hf_nap; exit' 15
  hf_nap=
  sleep "$1" &
  hf_nap=$!
  wait "$hf_nap"
  trap '' 15
  : >late
  for hf_word in INT TERM KILL; do
    [ ! -s rc ] || return
    each_of_job "$hf_word"
    await 3 test -s rc
  done
}

# each_of_job SIGNAL: to all of a durable command that is left
each_of_job() {
  # one that is slow to begin would go on for good
  await 15 begun
  ours leader || return
  hf_leader=$hf_pid
  hf_all=$(members "$hf_leader")
  for hf_member in ${hf_all:-"$hf_leader"}; do
    kill -s "$1" "$hf_member" 2>/dev/null && hf_sent=sent
  done
}

# signal_job SIGNAL: and tell where it went
signal_job() {
  hf_sent=nothing
  each_of_job "$1"
  echo "sent=$hf_sent"
  tell
}

# ever ID: whether a durable command began; one that has not by now never will
op_ever() {
  if mkdir -p "$hf_room" && mkdir "$hf_room/$1" 2>/dev/null; then
    saw "$hf_room/$1"
    echo never
    exit 0
  fi
  cd "$hf_room/$1" || exit 73
  stay
  [ ! -e boot ] || up_since || { echo begun && exit 0; }
  await 10 test -e r/1/typed
  if mkdir -p r/1 && claim r/1/typed; then : >r/1/never; fi
  if [ -e r/1/never ]; then echo never; else echo begun; fi
}
