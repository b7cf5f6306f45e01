# shellcheck shell=sh
# What others ask of a shell or command that is kept. POSIX sh.

op_look() {
  enter "$1"
  tell
}

op_list() {
  reap "${1:-0}"
  for hf_dir in "$hf_room"/*/; do
    if [ -e "$hf_dir/kind" ]; then
      (cd "$hf_dir" && here && tell)
    elif older "$hf_dir" 1; then
      # who made it has gone, or only took its name
      hf_dir=${hf_dir%/}
      printf 'ident=%s\nstate=lost\nwhy=unfinished\nseen=%s\n\n' "${hf_dir##*/}" \
        "$(number "$hf_dir/seen")"
    fi
  done
  echo end
  # who only looked leaves nothing either
  [ -d "$hf_dir" ] || tidy
}

# end ID FORCE GRACE
op_end() {
  enter "$1"
  state
  if [ "$hf_state" = running ]; then
    hf_shell=$(number shpid)
    # before it has a shell there is nobody to hang up on; and 0 is us
    if [ "$2" = 1 ] || [ "$hf_shell" = 0 ]; then
      finish
    else
      # as a terminal that is hung up does
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

# signal ID NAME [NUMBER]: to what runs in the foreground; one that is for a command goes
# to nothing else
op_signal() {
  enter "$1"
  saw .
  state
  if [ "$(cat kind)" = job ]; then
    signal_job "$2"
    exit 0
  fi
  [ "$hf_state" = running ] || { tell && exit 0; }
  if [ -n "${3-}" ] && ! meant "$3" "$2"; then
    if [ -e "r/$3/never" ]; then echo "sent=never"; else echo "sent=nothing"; fi
    tell
    exit 0
  fi
  hf_shell=$(number shpid)
  # before it has a shell; and in a container session 0 is everybody who came from outside
  [ "$hf_shell" != 0 ] || { echo "sent=nothing" && tell && exit 0; }
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
  state
  if [ "$hf_state" = running ] && [ -s pts ]; then
    stty rows "$3" cols "$2" <"$(cat pts)" || exit 70
  fi
  tell
}

# ack ID FILE OFFSET
op_ack() {
  enter "$1"
  saw .
  # one that is not written down must be told again
  [ ! -e "$2" ] || [ "$(number "$2.ack")" -ge "$3" ] || write "$2.ack" "$3" || refuse 70 disk
  tell
}

op_wipe() {
  if cd "$hf_room/$1" 2>/dev/null; then stay && forget; fi
  tidy
  echo state=none
}

# attach ID NONCE OFFSET INPUT: a header, then bytes from there on; stdin to the shell
op_attach() {
  known "$1"
  stay
  saw .
  state
  enrol out
  reach out "$3"
  printf '%sholdfast-from:%s:%s:%s\n' "$hf_mark" "$2" "$hf_at" "$hf_low"
  if ! living pump; then
    # it may have gone since we looked
    state
    if [ "$hf_state" = running ]; then
      rm -f "out.readers/$$"
      exit 75
    fi
    # nothing will come any more; and what is lost had no end of its own
    hf_behind=0
    [ "$hf_state" != lost ] || [ ! -s rc ] || behind
    hf_end=$(($(size_of out) - hf_behind))
    [ "$hf_end" -le "$hf_at" ] || tail -c "+$hf_from" out | head -c "$((hf_end - hf_at))"
    rm -f "out.readers/$$"
    [ "$hf_state" = exited ] && exit 0
    echo "holdfast:$hf_why" >&2
    exit 70
  fi
  # it was looked at until now
  trap 'saw .; rm -f "out.readers/$$"' 0
  hf_tail='' hf_keys='' hf_watch=''
  # said to nobody: one word to a link that is gone would end us before the rest
  # shellcheck disable=SC2086
  trap 'exec 2>/dev/null; kill -s KILL ${hf_tail:-$!}; kill $hf_keys $hf_watch; exit 75' 1 2 15
  exec 4<&0
  tail -c "+$hf_from" -f out </dev/null 4<&- &
  hf_tail=$!
  # what is kept has an end when the pump does; whoever comes again reads up to it
  (
    trap 'kill -s KILL ${hf_live:-$!}; exit' 15
    # Of a pump that was just killed an open for reading alone would wait without an end.
    # So it is opened both ways before, until it is.
    # shellcheck disable=SC2094
    cat 5<>live <live 5>&- &
    hf_live=$!
    wait "$hf_live"
    # tail may look but once a second
    sleep 2 &
    hf_live=$!
    wait "$hf_live"
    kill "$$"
  ) </dev/null >/dev/null 2>&1 4<&- &
  hf_watch=$!
  # who asked for it is gone when its keys have an end
  (
    trap 'kill -s KILL ${hf_cat:-$!}; exit' 15
    if [ "$4" = 1 ]; then
      # both ways: for writing only it waits for ever where nobody reads
      cat <&4 4<&- 1<>in 2>/dev/null &
    else
      cat <&4 4<&- >/dev/null 2>&1 &
    fi
    hf_cat=$!
    exec 4<&- >/dev/null 2>&1
    wait "$hf_cat"
    kill "$$"
  ) &
  hf_keys=$!
  exec 4<&- </dev/null
  printf '%s\n' "$$" "$hf_tail" "$hf_keys" "$hf_watch" >"out.readers/$$"
  # it has no end of its own: whoever ended it, others come again
  wait "$hf_tail" 2>/dev/null
  kill "$hf_keys" 2>/dev/null
  kill "$hf_watch" 2>/dev/null
  exit 75
}
