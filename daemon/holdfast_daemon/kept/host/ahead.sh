# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034 # the other parts set and use some of these
# Follows a command before its shell is told it, as starting what does so takes longer
# than most commands. POSIX sh.

# ahead ID NUMBER: a line of stdin then sets the words that `type` has, and it goes on as
# that
op_ahead() {
  known "$1"
  stay
  usable
  hf_n=$2 hf_run=r/$2
  # a slot is made once nobody needs the one before
  hf_before=$(number r/now)
  [ "$hf_before" -eq $((hf_n - 1)) ] && told "$hf_before" || refuse 82 early
  made
  hf_from_o=1
  hand_out
  # nobody may be there any more, and what hands on must not be left here
  trap 'over 82' 1 2 15
  trap '' PIPE
  IFS= read -r hf_line || over 82
  eval "$hf_line"
  tell_now "$@"
  [ -n "$hf_told" ] || { stay && its_turn && tell_it "$@"; }
  attend
}
