# shellcheck shell=sh
# The last part: does what it is told, `OP WORD...`.
# what people's files are made with, here and in all that is started from here
hf_umask=$(umask)
umask 077
hf_op=op_$1
shift
"$hf_op" "$@"
