# shellcheck shell=sh
# One command of a shell whose terminal the daemon holds itself. Its two streams go by
# FIFO to the channel this runs on; all that is written is gone when that ends. It is
# not written to the host but told to it each time, as the last words of a command line.

# refuse CODE WORD: nothing was typed
refuse() {
  echo "holdfast:$2" >&2
  exit "$1"
}

# program PID: what runs there
program() {
  hf_is=
  { read -r hf_is <"/proc/$1/comm"; } 2>/dev/null || hf_is=$(ps -o comm= -p "$1" 2>/dev/null)
}

# becoming PID WORDS: it is to become the shell still, by a command line that has them
becoming() {
  hf_args=$({ tr '\000' ' ' <"/proc/$1/cmdline" || ps -ww -o args= -p "$1"; } 2>/dev/null)
  case $hf_args in *"$2"*) ;; *) return 1 ;; esac
}
become() { ! becoming "$1" "$2"; }

# front PID: sets hf_own and hf_front, its group and the one its terminal listens to; a
# login shell leads its session of processes, another one that has got its number may not
front() {
  hf_stat='' hf_own=0 hf_front=0
  if { read -r hf_stat <"/proc/$1/stat"; } 2>/dev/null; then
    # shellcheck disable=SC2086
    set -- "$1" ${hf_stat##*) }
    [ "$5" != "$1" ] || hf_own=$4 hf_front=$7
  else
    # shellcheck disable=SC2046
    set -- $(ps -o pgid= -o tpgid= -p "$1" 2>/dev/null)
    hf_own=${1:-0} hf_front=${2:-0}
  fi
}
idle() { front "$1" && [ "$hf_own" -gt 1 ] && [ "$hf_own" = "$hf_front" ]; }

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# await ROUNDS TEST...: until that is true
await() {
  hf_rounds=$1
  shift
  until "$@"; do
    [ "$hf_rounds" -gt 0 ] || return 1
    nap 0.05
    hf_rounds=$((hf_rounds - 1))
  done
}

# settle_in NONCE: into a directory of ours, in the first place where one can be
settle_in() {
  for hf_at in "${XDG_RUNTIME_DIR-}" "${TMPDIR-}" /tmp /dev/shm "${HOME-}"; do
    # as a word of what is typed
    case $hf_at in [!/]* | '' | *[!A-Za-z0-9/._+-]*) continue ;; esac
    hf_at=$hf_at/holdfast-$1
    mkdir "$hf_at" 2>/dev/null || continue
    cd "$hf_at" && echo "$$" >owner && mkdir 1 && mkfifo 1/fo 1/fe 2>/dev/null && return
    cd / && rm -rf "$hf_at"
  done
  return 1
}

# move_out: leave nothing, nor what one that was killed left
move_out() {
  # the shell may write its last word there now
  rm -rf "$hf_at" 2>/dev/null || { nap 0.2 && rm -rf "$hf_at"; }
  for hf_old in "${hf_at%/*}"/holdfast-????????????????/owner; do
    hf_owner=
    # what somebody else put there may have no end
    [ -O "$hf_old" ] && [ -f "$hf_old" ] || continue
    { read -r hf_owner <"$hf_old"; } 2>/dev/null
    [ -z "$hf_owner" ] || kill -s 0 "$hf_owner" 2>/dev/null || rm -rf "${hf_old%/*}" 2>/dev/null
  done
}

# fill TEXT: with each @ as where we are
fill() { printf '%s\n' "$1" | sed "s|@|'$hf_at'|g"; }

# hand_on: what comes, as long as anybody wants it, and then to nobody: what was left in
# the background may go on writing
hand_on() {
  trap '' HUP PIPE
  cat 2>/dev/null
  exec cat >/dev/null 2>&1
}

# run PID PROGRAM HEADER SIZE ROUNDS WORDS TRAILER BEFORE: by stdin come the nonce, as
# many bytes of the command, and then what has become of the shell; BEFORE: see becoming
op_run() {
  umask 077
  # what it is now it will not be when it reads what is typed
  [ -z "$8" ] || await "$5" become "$1" "$8" || refuse 76 busy
  program "$1"
  [ -n "$hf_is" ] || refuse 79 exited
  [ "$hf_is" = "$2" ] || refuse 71 "$hf_is"
  read -r hf_nonce
  await "$5" idle "$1" || refuse 76 busy
  settle_in "$3" || refuse 73 place
  trap 'cd / && move_out' 0
  trap 'exit 75' HUP INT PIPE TERM
  # all of it, or none
  head -c "$4" >1/x
  [ "$(($(wc -c <1/x)))" -eq "$4" ] || refuse 74 cut
  { echo >>1/x && echo "$hf_nonce" >1/n && echo 1 >now && fill "$6" >c && fill "$7" >z; } ||
    refuse 73 disk
  # open both ways: it has no end before we say so
  exec 4<>1/fo 5<>1/fe
  (hand_on) <1/fo 4<&- 5<&- &
  (exec >&2 && hand_on) <1/fe 4<&- 5<&- &
  # the daemon types once it has the second of these
  printf '\036from:%s:0\n' "$3" >&2
  printf '\036at:%s:%s\n\036from:%s:0\n' "$3" "$hf_at" "$3"
  while read -r hf_word hf_how; do
    case $hf_word in
    ok)
      # its last word
      await 20 test -e next
      break
      ;;
    over)
      # the shell is gone: behind all that was printed
      : >1/done
      printf '\036%s:%s::%s\036\n' "$hf_nonce" "$hf_how" "$hf_nonce" >&4
      printf '\036%s:%s::%s\036\n' "$hf_nonce" "$hf_how" "$hf_nonce" >&5
      ;;
    esac
  done
  exit 0
}

# signal PID NAME [DIRECTORY]: to what runs in the foreground; then whether the shell
# waits without having told how its command ended
op_signal() {
  # what has ended, or not begun, needs none, and its shell must not have it
  if [ -n "${3-}" ] && { settled "$3" || unbegun "$3" "$2"; }; then echo told && exit 0; fi
  front "$1"
  [ "$hf_own" -gt 1 ] || exit 0
  if [ "$hf_own" != "$hf_front" ] && [ "$hf_front" -gt 1 ]; then
    kill -s "$2" -- "-$hf_front"
  else
    # what the shell itself does; few signals end that and not the shell
    case $2 in INT | KILL | HUP) kill -s "$2" -- "-$hf_own" ;; esac
  fi
  [ -n "${3-}" ] || exit 0
  await 6 settled "$3"
  if settled "$3"; then echo told; elif idle "$1"; then echo idle; else echo running; fi
}
# unbegun DIRECTORY NAME: its shell has not come to it, and where that was to end it never
# will
unbegun() {
  [ ! -e "$1/1/came" ] || return 1
  case $2 in INT | TERM | KILL) ;; *) return 0 ;; esac
  # it looks for this behind `came`: one of both sees the other
  : >"$1/1/off"
  [ ! -e "$1/1/came" ] || return 1
  read -r hf_nonce <"$1/1/n"
  : >"$1/1/done"
  for hf_end in fo fe; do
    printf '\036%s:never::%s\036\n' "$hf_nonce" "$hf_nonce" 1<>"$1/1/$hf_end"
  done
}
settled() { [ -e "$1/1/done" ] || [ ! -d "$1" ]; }

hf_op=op_$1
shift
"$hf_op" "$@"
