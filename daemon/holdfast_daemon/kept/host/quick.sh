# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034 # the other parts set and use some of these
# What tells a kept shell a command, and no more: it comes first, and is done before a
# shell has to read the rest. Its words are `OP WORD...`. POSIX sh.

# ---------------------------------------------------------------- telling it

# refuse CODE WORD: nothing was typed
refuse() {
  echo "holdfast:$2" >&2
  exit "$1"
}

# known ID: into its directory
known() {
  cd "$hf_room/$1" 2>/dev/null && [ -e kind ] && return
  # these words may have been brought here for this
  [ "$hf_op" = 'type' ] || tidy
  refuse 66 none
}

# near: most likely it is on this machine; `here` makes sure of it
near() {
  [ -s node ] && [ -r /proc/sys/kernel/hostname ] || return 0
  read -r hf_kept <node && read -r hf_node </proc/sys/kernel/hostname
  [ "$hf_kept" = "$hf_node" ]
}

# claim FILE: true for the first who does
claim() {
  # without a process for it; true, as a failure of : would end the shell
  set -C
  true 2>/dev/null >"$1"
  hf_claimed=$?
  set +C
  return "$hf_claimed"
}

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

# over CODE: follow no more
over() {
  # the last one begun may have no name yet
  # shellcheck disable=SC2086
  kill -s KILL $hf_out $hf_err $! 2>/dev/null
  rm -f "$hf_run/o.readers/$$" "$hf_run/e.readers/$$"
  exit "$1"
}

# hand_on: both logs of $hf_run, from here on; then `attend`
hand_on() {
  hf_out='' hf_err=''
  # first: one that was left by us alone would hand on, and nobody would be told of it
  trap 'over 75' 1 2 15
  tail -c "+$hf_from_o" -f "$hf_run/o" </dev/null 2>/dev/null &
  hf_out=$!
  tail -c "+$hf_from_e" -f "$hf_run/e" </dev/null >&2 2>/dev/null &
  hf_err=$!
}

# type ID NUMBER HEADER NONCE HALF SIZE [COMMAND]: tell the shell a command, and follow
# it; without the words, as many bytes come by stdin. HALF: see clear
op_type() {
  known "$1"
  tell_now "$@"
}

# tell_now: the same words; sets hf_told where nothing has to be waited for before, as
# that needs more than was read by now
tell_now() {
  [ ! -s rc ] || refuse 79 exited
  [ -e r/ready ] || refuse 77 start
  hf_n=$2 hf_run=r/$2
  hf_now=0
  [ ! -e r/now ] || read -r hf_now <r/now
  # a full disk may have left it so
  hf_now=${hf_now:-0}
  [ "$hf_now" -lt "$hf_n" ] || refuse 75 typed
  [ "$hf_now" = 0 ] || [ -e "r/$hf_now/done" ] || [ ! -d "r/$hf_now" ] || refuse 76 busy
  hf_told=
  if [ -e "$hf_run/set" ] && near && idle; then tell_it "$@"; fi
}

# clear HALF: what there is to type before a line, so that nobody's Enter is ours. HALF is
# `half` where one was begun there, `perhaps` where that is not known, or `none`.
clear() {
  hf_clear=
  [ "$1" != none ] || return 0
  # to its end, and away with it
  if [ -s pts ]; then
    hf_clear='\0005\0025'
  elif [ "$1" = half ]; then
    refuse 80 half
  fi
}

# tell_it: the same words; the shell has it, and is followed
tell_it() {
  clear "$5"
  if [ $# -gt 6 ]; then
    printf '%s\n' "$7" >"$hf_run/x" || refuse 70 disk
  else
    # all of it, or none
    head -c "$6" >"$hf_run/x"
    [ "$(($(wc -c <"$hf_run/x")))" -eq "$6" ] || refuse 74 cut
    echo >>"$hf_run/x" || refuse 70 disk
  fi
  echo "$4" >"$hf_run/n" || refuse 70 disk
  claim "$hf_run/typed" || refuse 71 stopped
  # from here to the typed line nothing is said that a lost link could break off
  # in its place, as a full disk takes no more
  echo "$hf_n" 1<>r/now || refuse 70 disk
  printf '%b . %s/c\n' "$hf_clear" "'$PWD/r'" 1<>in
  hf_told=1
  printf '\036from:%s:0\n' "$3"
  printf '\036from:%s:0\n' "$3" >&2
  hf_from_o=1 hf_from_e=1
  hand_on
}

: "${hf_file:=$0}"
hf_room=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kept
case ${1-} in
'' | *[!a-z]*) exit 64 ;;
type)
  umask 077
  shift
  hf_op='type'
  op_type "$@"
  ;;
*) hf_op= ;;
esac

# ---------------------------------------------------------------- what else it takes

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# number FILE: what stands in it, or 0
number() {
  hf_number=
  [ -r "$1" ] && read -r hf_number <"$1"
  case $hf_number in '' | *[!0-9]*) hf_number=0 ;; esac
  echo "$hf_number"
}

# write FILE TEXT: at once or not at all; stderr may be a command's
write() {
  { printf "%s\n" "$2" >"$1.$$" && mv -f "$1.$$" "$1"; } 2>/dev/null && return
  rm -f "$1.$$"
  return 1
}

# saw DIRECTORY: a reader is there
saw() { write "$1/seen" "$(date +%s)"; }

boot_id() {
  if [ -r /proc/sys/kernel/random/boot_id ]; then
    cat /proc/sys/kernel/random/boot_id
    return
  fi
  # of macOS, where the time it booted at is set anew with its clock
  hf_boot=$(sysctl -n kern.bootsessionuuid 2>/dev/null)
  if [ -n "$hf_boot" ]; then
    echo "$hf_boot"
  else
    sysctl -n kern.boottime 2>/dev/null | tr -d ' ' | sed 's/^{sec=\([0-9]*\).*/\1/'
  fi
}

# node_name: the machine's name, where it has one
node_name() { { cat /proc/sys/kernel/hostname || uname -n || :; } 2>/dev/null; }

# identity: what this machine has under any name, and no other one, or false. Nodes without
# a disk may share a machine-id, and docker gives containers everywhere the same addresses.
identity() {
  if [ -s /etc/machine-id ]; then
    cat /etc/machine-id &&
      cat /sys/class/net/e*/address | grep -v -e '^02:42:' -e '^00:00:00:00:00:00'
  else
    ioreg -rd1 -c IOPlatformExpertDevice | grep IOPlatformUUID
  fi
} 2>/dev/null

# here: where we are is kept on this machine, and not on another one that has the same
# home directory
here() {
  [ -s node ] || return 0
  read -r hf_kept <node
  hf_node=$(node_name)
  # a machine may be renamed while it runs, or as it is restarted
  [ "$hf_kept" = "$hf_node" ] || [ "$(cat boot 2>/dev/null)" = "$(boot_id)" ] ||
    { [ -s machine ] && hf_machine=$(identity) && [ "$(cat machine)" = "$hf_machine" ]; }
}

# stay: go no further where it is not
stay() { here || refuse 81 "elsewhere $hf_kept $hf_node"; }

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
birth() {
  # the same in whatever time zone and language it is asked for
  stat_of "$1" 20 2>/dev/null || TZ=UTC0 LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null | tr -d ' '
}

# living FILE: the process noted there is still the same one; sets hf_pid
living() {
  hf_pid=
  hf_birth=
  [ -r "$1" ] && read -r hf_pid hf_birth <"$1"
  [ -n "$hf_pid" ] && kill -s 0 "$hf_pid" 2>/dev/null || return 1
  case $(stat_of "$hf_pid" 1) in Z | X) return 1 ;; esac
  [ "$(birth "$hf_pid")" = "$hf_birth" ]
}

# state: sets hf_state and hf_why for the directory we are in
state() {
  hf_why=
  if [ -s rc ]; then
    hf_state=exited
    read -r hf_how hf_code hf_length <rc
    [ "$hf_how" != lost ] || hf_state=lost hf_why=killed
    case $hf_how$hf_code in
    # HUP, KILL, TERM: a host that goes down ends its shells so
    signal* | exit129 | exit137 | exit143)
      [ "$(cat boot 2>/dev/null)" = "$(boot_id)" ] || hf_state=lost hf_why=host_restarted
      ;;
    esac
  elif [ "$(cat boot 2>/dev/null)" != "$(boot_id)" ]; then
    hf_state=lost hf_why=host_restarted
  elif living pump; then
    hf_state=running
  elif [ -s rc ]; then
    # it ended between the two looks
    state
  elif [ ! -e pump ] && ! older . 1; then
    # it is being started
    hf_state=running
  else
    hf_state=lost hf_why=killed
  fi
}

# usable: the shell lives
usable() {
  [ ! -s rc ] && living pump && return 0
  state
  refuse 79 "$hf_state"
}

# its_turn: until a command can be told
its_turn() {
  if ! idle; then
    usable
    # what a prompt runs may be in the foreground yet
    hf_rounds=60
    until idle; do
      [ "$hf_rounds" -gt 0 ] || refuse 76 busy
      nap 0.05
      hf_rounds=$((hf_rounds - 1))
    done
  fi
  made
}

# made: the slot
made() {
  hf_rounds=3000
  until [ -e "$hf_run/set" ]; do
    [ "$hf_rounds" -gt 0 ] || refuse 70 slot
    # again and again: who makes it may be on its way, and a FIFO forgets what nobody
    # has open
    [ $((hf_rounds % 20)) -gt 0 ] || echo "$hf_n" 1<>r/next
    nap 0.005
    hf_rounds=$((hf_rounds - 1))
  done
}

# attend: go on until told otherwise
attend() {
  hf_before='' hf_still=0
  printf '%s\n' "$$" "$hf_out" "$hf_err" >"$hf_run/o.readers/$$"
  printf '%s\n' "$$" "$hf_out" "$hf_err" >"$hf_run/e.readers/$$"
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
    look | owed)
      # who can't take it for safe has it kept for as long as if nobody were there
      [ "$hf_word" = owed ] || saw "$hf_run"
      # who follows comes again
      hands_on "$hf_out" && hands_on "$hf_err" || over 75
      state
      if [ "$hf_state" != running ]; then
        # who was to write down how it ended may have been killed with the shell
        hf_size=$(ls -dln "$hf_run/o" "$hf_run/e" 2>/dev/null)
        [ "$hf_size" = "$hf_before" ] || hf_still=0
        hf_before=$hf_size
        hf_still=$((hf_still + 1))
        if cut_short || [ "$hf_still" -gt 3 ]; then
          # what was on its way
          nap 1
          over 70
        fi
      fi
      ;;
    esac
    untold || continue
    nap 1
    over 72
  done
  over 75
}

# cut_short: nobody will write down any more how it ended. Who does is there until it has.
cut_short() { ! living pump && [ ! -e "$hf_run/done" ]; }

# untold: it ended, and a full disk took what told how
untold() {
  [ -e "$hf_run/done" ] || return 1
  [ -e "$hf_run/o.holed" ] || [ -e "$hf_run/e.holed" ] || return 1
  read -r hf_nonce <"$hf_run/n"
  [ -n "$hf_nonce" ] || return 0
  for hf_log in o e; do
    case $(tail -c 512 "$hf_run/$hf_log" | tr -d '\000') in *"$hf_nonce"*) ;; *) return 0 ;; esac
  done
  return 1
}

# hands_on PID: it was not ended by anybody
hands_on() {
  kill -s 0 "$1" 2>/dev/null || return 1
  case $(stat_of "$1" 1) in Z | X) return 1 ;; esac
}

if [ "$hf_op" = type ]; then
  [ -n "$hf_told" ] || { stay && its_turn && tell_it "$@"; }
  attend
fi
