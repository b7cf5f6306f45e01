# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034 # the other parts set and use some of these
# Waits for a command, as starting what tells it takes as long as many of them. POSIX sh.

# ahead ID NUMBER: a line of stdin sets the words that `type` has, and it goes on as that.
# Nobody reads the logs ahead: there are tails that look once a second.
op_ahead() {
  known "$1"
  stay
  usable
  hf_n=$2 hf_run=r/$2
  # a slot is made once nobody needs the one before
  hf_before=$(number r/now)
  if [ "$hf_before" -ne $((hf_n - 1)) ] || ! told "$hf_before"; then refuse 82 early; fi
  made
  IFS= read -r hf_line || refuse 82 unheard
  eval "$hf_line"
  tell_now "$@"
  [ -n "$hf_told" ] || { stay && its_turn && tell_it "$@"; }
  attend
}
