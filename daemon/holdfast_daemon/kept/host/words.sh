# shellcheck shell=sh
# The last part: finds its place and does what it is told, `OP WORD...`.
: "${hf_file:=$0}"
hf_room=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast/kept
umask 077
case ${1-} in
'' | *[!a-z]*) exit 64 ;;
esac
hf_op=op_$1
shift
"$hf_op" "$@"
