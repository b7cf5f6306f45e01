# shellcheck shell=sh
# shellcheck disable=SC2154 # hf_room, hf_file and what ./plan has are the caller's
# What a shell had, for the one that comes after its host was restarted. POSIX sh.
#
# After each command a kept shell writes down, in its own words, what it exports, and in
# _hf_at where it is: to env.0 and env.1 by turns, the last line of each being #NUMBER,
# so that one of them is always whole. All of it stays on this host, and is the user's.
#   env.0 of number 0 is what was taken over from another, in words of /bin/sh
#   again (what the new shell is to source, as its start-up files may undo the rest)

hf_env_bytes=262144

# saved_in DIRECTORY: NUMBER FILE of what is whole there, the newest first
saved_in() {
  for hf_one in "$1/env.0" "$1/env.1"; do
    [ -s "$hf_one" ] && [ "$(size_of "$hf_one")" -le "$hf_env_bytes" ] || continue
    hf_last=$(tail -n 1 "$hf_one")
    case $hf_last in
    '#' | '#'*[!0-9]*) ;;
    '#'*) echo "${hf_last#?} ${hf_one##*/}" ;;
    esac
  done | sort -rn
}

# remember KIND: what is exported here, as such a shell reads it: posix or fish; without
# what belongs to a login, a terminal or a connection, and not to who works there
remember() {
  # not what PATH has: that is the user's
  command -p awk -v kind="$1" -v only="${2-}" '
    function cut(text, by, instead, parts, n, i, out) {
      n = split(text, parts, by)
      out = parts[1]
      for (i = 2; i <= n; i++) out = out instead parts[i]
      return out
    }
    function quoted(text) {
      if (kind == "fish") {
        text = cut(text, "\\", "\\\\")
        return "\047" cut(text, "\047", "\\\047") "\047"
      }
      return "\047" cut(text, "\047", "\047\\\047\047") "\047"
    }
    function noise(name) {
      if (name ~ /^(SSH|XDG_SESSION|_?hf)_/) return 1
      return index(" _ SHLVL PWD OLDPWD TERM TERMCAP COLUMNS LINES TMUX TMUX_PANE STY " \
        "HOME USER LOGNAME SHELL MAIL HISTFILE fish_history XDG_RUNTIME_DIR XDG_VTNR " \
        "XDG_SEAT DBUS_SESSION_BUS_ADDRESS SHELLOPTS BASHOPTS EUID UID PPID ", " " name " ")
    }
    BEGIN {
      for (name in ENVIRON) {
        if (name !~ /^[A-Za-z_][A-Za-z0-9_]*$/ || noise(name)) continue
        if (kind == "fish") print "set -gx " name " " quoted(ENVIRON[name])
        else print "export " name "=" quoted(ENVIRON[name])
      }
      if (only == "") {
        print "export _hf_at=" quoted(ENVIRON["_hf_at"])
        print "#0"
      }
    }' </dev/null 2>/dev/null
}

op_remember() { remember posix; }

# recall ID: into ./env.0 what the shell that was kept there had
recall() {
  hf_lost=$hf_room/$1
  saved_in "$hf_lost" | while read -r hf_number hf_one; do
    hf_by=/bin/sh
    [ "$hf_number" = 0 ] || read -r hf_by <"$hf_lost/shell"
    recite "$hf_by" "$hf_lost/$hf_one" >env.new
    case $(tail -n 1 env.new) in
    '#0')
      mv -f env.new env.0
      break
      ;;
    esac
  done
  rm -f env.new
}

# recite PROGRAM FILE: have a shell of the kind that wrote it say it in words of /bin/sh
recite() {
  # shellcheck disable=SC2016 # for the other shell
  hf_words='. "$1"; exec /bin/sh "$2" remember'
  case ${1##*/} in
  fish)
    # shellcheck disable=SC2016
    "$1" -N -c 'source $argv[1]; exec /bin/sh $argv[2] remember' "$2" "$hf_file"
    ;;
  bash) "$1" --norc --noprofile -c "$hf_words" holdfast "$2" "$hf_file" ;;
  zsh) "$1" -f -c "$hf_words" holdfast "$2" "$hf_file" ;;
  *) "$1" -c "$hf_words" holdfast "$2" "$hf_file" ;;
  esac </dev/null 2>/dev/null
}

# where_then: the directory that ./env.0 tells
where_then() {
  # shellcheck disable=SC1091
  [ -s env.0 ] && (. ./env.0 && printf '%s' "$_hf_at")
}

# anew PROGRAM: have ./again for it, where it can be told after its start-up files
anew() {
  hf_words=posix
  case ${1##*/} in
  fish) hf_words=fish ;;
  bash | zsh | dash | ash | sh | ksh | ksh93 | mksh | yash) ;;
  *) return ;;
  esac
  case $PWD in *"'"* | *\\*) return ;; esac
  # shellcheck disable=SC1091
  (. ./env.0 && { environment; remember "$hf_words" only; }) >again
}

# tell_anew: the shell sources it before anything else is typed
tell_anew() { [ ! -s again ] || printf ' . %s\n' "'$PWD/again'" 1<>in; }

# strip ID: of what is lost there stays only what another shell may take over
op_strip() {
  enter "$1"
  finish
  if [ -n "$(saved_in .)" ]; then
    cut_readers out
    for hf_one in ./*; do
      case ${hf_one#./} in
      env.[01] | shell | kind | boot | node | machine | meta | seen | rc) ;;
      *) rm -rf "$hf_one" ;;
      esac
    done
  else
    forget
    tidy
  fi
  echo state=none
}
