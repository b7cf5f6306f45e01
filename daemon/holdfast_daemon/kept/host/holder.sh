# shellcheck shell=sh
# Keeps a shell on the host after the connection that started it is gone. POSIX sh, and
# nothing installed: a terminal comes from script, python3 or tmux, whichever works.
#
# A directory of its own (0700) below $hf_room holds, for session ID:
#   in (FIFO: keys to the shell)   out (all its terminal printed, see pump.sh)
#   live (FIFO: open as long as the pump runs)   kind, shell, shpid, pts, meta
#   boot, node, machine (when and where: others may have the same home directory)
#   pid (the holder), pump (who writes out), rc (how the shell ended, when it has)
# $hf_file is the script that all parts make, $hf_room where everything is kept.

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
  hf_here=$PWD hf_tmux=${TMUX-}
  # what a session that is gone had, where it is still there
  [ -z "$hf_restore" ] || recall "$hf_restore"
  hf_at=$(where_then)
  hf_at=${hf_at:-$hf_old}
  [ ! -s env.0 ] || anew "$hf_program"
  if [ -n "$hf_cwd" ] || [ -z "$hf_at" ] || ! into "$hf_at"; then
    into "$hf_cwd" || { echo cwd >"$hf_here/refused" && exit 126; }
  fi
  echo "$hf_program" >"$hf_here/shell"
  # $$ stays what it is when this becomes the shell
  # and nobody could end what is not written down
  note "$hf_here/leader" "$(stat_of "$$" 4 || echo "$$")" || exit 127
  write "$hf_here/shpid" "$$" || exit 127
  [ -n "${SHELL-}" ] || SHELL=$hf_program
  export SHELL
  # shellcheck disable=SC1091
  [ ! -s "$hf_here/env.0" ] || . "$hf_here/env.0"
  unset TMUX TMUX_PANE OLDPWD hf_here _hf_at
  environment
  # its history stays as it is
  HISTFILE='' fish_history=''
  export HISTFILE fish_history
  umask "$hf_umask"
  # shellcheck disable=SC2086
  exec "$hf_program" $hf_flag
}

# terminal KIND: run it there, to its end; stdin and stdout are the terminal's other side
terminal() {
  umask "$hf_umask"
  hf_words="SHELL='${SHELL:-/bin/sh}'; export SHELL; exec /bin/sh '$hf_file' run $hf_id"
  case $1 in
  script)
    if script --version 2>/dev/null | grep -q util-linux; then
      SHELL=/bin/sh script -qefc "$hf_words" /dev/null
    else
      # it tells a signal as a code, so one that waits for the shell writes that down
      true >code || return 1
      hf_words="trap : HUP INT QUIT TERM; exec 3>&2 2>/dev/null; (exec 2>&3 3>&-; $hf_words); echo \$? >code"
      script -q /dev/null /bin/sh -c "$hf_words"
    fi
    ;;
  python)
    # what the shell left in the background may hold its terminal open for days
    python3 -c 'import os, pty, select, signal, sys
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(wake)
shell, top = pty.fork()
if not shell:
    os.execv("/bin/sh", ["/bin/sh", "-c", sys.argv[1]])
os.set_blocking(top, False)
keys, status, left = b"", None, 1 << 20
try:
    while left > 0:
        heard = [top] if status is not None else [top, woken] if keys else [top, woken, 0]
        ready, room, _ = select.select(
            heard, [top] if keys else [], [], None if status is None else 0.1)
        if 0 in ready:
            keys = os.read(0, 4096)
        if room:
            keys = keys[os.write(top, keys):]
        if top in ready:
            data = os.read(top, 65536)
            left -= len(data) if status is not None else 0
            while data:
                data = data[os.write(1, data):]
        elif status is not None:
            break
        if woken in ready:
            os.read(woken, 64)
            gone, told = os.waitpid(shell, os.WNOHANG)
            if gone:
                keys, status = b"", told
except OSError:
    pass
os.close(top)
if status is None:
    status = os.waitpid(shell, 0)[1]
code = os.waitstatus_to_exitcode(status)
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
  note pid "$$" || exit 73
  # open both ways: a writer that goes away is no end of input
  exec 3<>in
  if [ "$hf_kind" = tmux ]; then
    in_tmux
  else
    (
      (terminal "$hf_kind") <&3 2>&1 3<&-
      ended "$(code_of "$?")"
    ) | pump_side 3<&-
  fi
}

# code_of CODE: how the shell ended, where it is written down; else what its terminal told
code_of() { if [ -e code ]; then cat code; else echo "$1"; fi; }

# in_tmux: tmux has the terminal; what its pane prints comes by a FIFO, keys go in chunks
in_tmux() {
  mkfifo pane
  # a server of its own: what one sets up there is nobody else's
  hf_tmux=holdfast-$hf_id-$$
  echo "$hf_tmux" >tmux
  # its server hands its umask on
  (umask "$hf_umask" && exec tmux -L "$hf_tmux" -f /dev/null start-server \; \
    set -g status off \; new-session -d -s "$hf_id" -x "$hf_cols" -y "$hf_rows" \
    "exec /bin/sh '$hf_file' pane $hf_id") 3<&- || exit 70
  tmux -L "$hf_tmux" pipe-pane -t "=$hf_id:" "exec cat >'$PWD/pane'" 3<&- && : >go
  # since 3.7 control characters are pasted as text, unless this is given; before that it
  # is refused
  hf_raw=
  tmux -L "$hf_tmux" list-commands 3<&- | grep -q '^paste-buffer .*\[-[a-zA-Z]*S' && hf_raw=-S
  while :; do
    dd bs=4096 count=1 <&3 >chunk 2>/dev/null
    tmux -L "$hf_tmux" load-buffer -b "b$hf_id" chunk 3<&- || break
    # shellcheck disable=SC2086 # an option, or none
    tmux -L "$hf_tmux" paste-buffer $hf_raw -r -d -b "b$hf_id" -t "=$hf_id:" 3<&- || break
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
  (umask "$hf_umask" && exec /bin/sh "$hf_file" run "$1")
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
  note pump "$(cat number)" || exit 73
  pump out "$hf_cap" "$hf_patience" .
}

op_start() {
  hf_id=$1
  umask 077
  hf_plan=$(cat)
  eval "$hf_plan"
  reap "$hf_abandoned"
  # it is a word of what is typed
  case $hf_room in *"'"* | *\\* | *"
"*)
    tidy
    echo refused=path
    exit 0
    ;;
  esac
  settle_in "$hf_id"
  cd "$hf_room/$hf_id" || exit 73
  hf_full=
  for hf_kind in $hf_kinds; do
    if begin "$hf_kind"; then
      tell_anew
      [ -z "$hf_restore" ] || (cd "$hf_room/$hf_restore" 2>/dev/null && forget)
      tell
      exit 0
    fi
    [ -s refused ] && break
    # it could not say so itself
    [ -n "$hf_full" ] || write room 1 || hf_full=disk
    (finish)
    [ -z "$hf_full" ] || break
  done
  hf_refused=$(cat refused 2>/dev/null)
  hf_refused=${hf_refused:-$hf_full}
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
  hf_full=disk
  identity >machine || :
  boot_id >boot && node_name >node && echo "$1" >kind && saw . && printf '%s\n' "$hf_meta" >meta &&
    printf '%s\n' "$hf_plan" >plan &&
    printf 'hf_nonce=%s hf_cap=%s hf_patience=%s hf_cols=%s hf_rows=%s\n' \
      "$hf_nonce" "$hf_cap" "$hf_patience" "$hf_cols" "$hf_rows" >secret || return 1
  hf_full=
  (unset hf_plan && launch /bin/sh "$hf_file" hold "$hf_id" "$1")
  # as long as a busy host may take, and no longer than its holder lives
  hf_rounds=400
  while [ ! -s shpid ] || [ ! -s pump ]; do
    [ ! -s rc ] && [ ! -s refused ] && [ "$hf_rounds" -gt 0 ] || return 1
    [ ! -s pid ] || living pid || return 1
    nap 0.025
    hf_rounds=$((hf_rounds - 1))
  done
}
