# shellcheck shell=sh
# shellcheck disable=SC2034 # the other parts use what these functions set
# Bounded logs that are read by absolute byte offset, on the host. POSIX sh.
#
# A log FILE has beside it, each a number where it is there:
#   FILE.base  the offset of the file's first byte     FILE.low  the earliest that is left
#   FILE.ack   what a reader has safely                FILE.moving/  offsets are changing
#   FILE.holed  some of what came is not in it; FILE.fault says why, where that could be
#   FILE.readers/PID  who reads it: the processes to end before bytes are dropped
# and in the directory it is in: seen, when a reader was last heard of (seconds).

# size_of FILE: the absolute offset of its end. Not by wc, which may read all of it.
size_of() {
  hf_base=$(number "$1.base")
  # shellcheck disable=SC2046,SC2012 # split on purpose, and the name is ours
  set -- $(ls -dln "$1" 2>/dev/null)
  echo $((hf_base + ${5:-0}))
}

# seen_for DIRECTORY: seconds since then
seen_for() { echo $(($(date +%s) - $(number "$1/seen"))); }

# enrol FILE: this process reads it from now on; then `reach` may be asked
enrol() {
  mkdir -p "$1.readers" && echo "$$" >"$1.readers/$$"
}

# reach FILE OFFSET: sets hf_at (the offset it is read from), hf_low and hf_from (for
# `tail -c +N`). Call it enrolled: what is dropped later ends this process first.
reach() {
  hf_tries=0
  while [ -d "$1.moving" ] && [ "$hf_tries" -lt 50 ]; do
    nap 0.1
    hf_tries=$((hf_tries + 1))
  done
  hf_low=$(number "$1.low")
  hf_at=$2
  [ "$hf_at" -ge "$hf_low" ] || hf_at=$hf_low
  hf_end=$(size_of "$1")
  [ "$hf_at" -le "$hf_end" ] || hf_at=$hf_end
  hf_from=$((hf_at - $(number "$1.base") + 1))
}

# reads_here PID: it is a reader of ours, and no other process that got its number
reads_here() {
  if [ -e /proc/self/cwd ]; then
    [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$(pwd -P)" ]
    return
  fi
  case $(ps -ww -o args= -p "$1" 2>/dev/null) in
  *holdfast* | 'tail -c +'*' -f '*) ;;
  *) return 1 ;;
  esac
}

# beyond READER FILE POSITION: one of its processes reads FILE, and is that far at least
# shellcheck disable=SC3013 # a shell that knows no -ef takes it for one that is not
beyond() {
  while read -r hf_pid; do
    for hf_open in 3 4 5 6 7 8 9; do
      [ "/proc/$hf_pid/fd/$hf_open" -ef "$2" ] || continue
      read -r hf_key hf_at <"/proc/$hf_pid/fdinfo/$hf_open" || return 1
      [ "$hf_key" = pos: ] && [ "$hf_at" -ge "$3" ]
      return
    done
  done <"$1"
  return 1
} 2>/dev/null

# cut FILE [POSITION]: end everybody who reads it, but who is that far already; they come
# again and are told where it begins
cut_readers() {
  # nobody reads what nobody wants any more, and who did may be another process by now
  [ ! -e "${1%/*}/dropped" ] || return 0
  for hf_reader in "$1.readers"/*; do
    [ -e "$hf_reader" ] || continue
    [ -z "${2-}" ] || ! beyond "$hf_reader" "$1" "$2" || continue
    read -r hf_pid <"$hf_reader" || continue
    reads_here "$hf_pid" && kill "$hf_pid" 2>/dev/null
  done
  hf_tries=0
  for hf_reader in "$1.readers"/*; do
    [ -e "$hf_reader" ] || continue
    [ -z "${2-}" ] || ! beyond "$hf_reader" "$1" "$2" || continue
    while [ -e "$hf_reader" ] && [ "$hf_tries" -lt 20 ]; do
      kill -s 0 "${hf_reader##*/}" 2>/dev/null || break
      nap 0.05
      hf_tries=$((hf_tries + 1))
    done
    [ -e "$hf_reader" ] || continue
    # its processes, each on a line
    while read -r hf_pid; do
      reads_here "$hf_pid" && kill -s KILL "$hf_pid" 2>/dev/null
    done <"$hf_reader"
    rm -f "$hf_reader"
  done
}

# drop FILE OFFSET: forget what is before it
drop() {
  hf_to=$(($2 / 4096 * 4096))
  hf_low=$(number "$1.low")
  hf_base=$(number "$1.base")
  [ "$hf_to" -gt "$hf_low" ] || return 0
  mkdir -p "$1.moving"
  write "$1.low" "$hf_to"
  # a hole keeps all positions; where there are none, what is left is copied
  cut_readers "$1" $((hf_to - hf_base))
  if ! fallocate -p -o $((hf_low - hf_base)) -l $((hf_to - hf_low)) "$1" 2>/dev/null; then
    cut_readers "$1"
    dd if="$1" of="$1.copy" bs=4096 skip=$(((hf_to - hf_base) / 4096)) 2>/dev/null &&
      write "$1.base" "$hf_to" && mv -f "$1.copy" "$1"
  fi
  rmdir "$1.moving"
}

# attended FILE: somebody reads it
attended() {
  for hf_reader in "$1.readers"/*; do
    [ -e "$hf_reader" ] || continue
    hf_pid=${hf_reader##*/}
    kill -s 0 "$hf_pid" 2>/dev/null && reads_here "$hf_pid" && return 0
  done
  return 1
}

# bound FILE CAP PATIENCE DIRECTORY: keep it within CAP, waiting for a reader that lives
bound() {
  hf_asked=
  while :; do
    hf_low=$(number "$1.low")
    hf_size=$(($(size_of "$1") - hf_low))
    [ "$hf_size" -ge $(($2 / 2)) ] || return 0
    hf_ack=$(number "$1.ack")
    if [ $((hf_ack - hf_low)) -ge $(($2 / 4)) ]; then
      drop "$1" "$hf_ack"
    elif [ "$hf_size" -lt "$2" ]; then
      return 0
    elif [ $((hf_ack - hf_low)) -ge 4096 ]; then
      drop "$1" "$hf_ack"
    elif [ "$(seen_for "$4")" -lt "$3" ]; then
      nap 0.1
    elif [ -z "$hf_asked" ] && attended "$1"; then
      # before it was too much there was nothing to say: its time begins now
      hf_asked=1
      saw "$4"
    else
      drop "$1" $((hf_low + $2 / 2))
    fi
  done
}

# pump FILE CAP PATIENCE [DIRECTORY]: stdin to the end of FILE, until stdin ends.
# Descriptor 9 is the caller's, and not handed on. DIRECTORY has `seen`; else FILE's.
pump() {
  hf_dir=${4:-.}
  [ -n "${4-}" ] || case $1 in */*) hf_dir=${1%/*} ;; esac
  hf_blocks=$(($2 / 8 / 65536))
  [ "$hf_blocks" -ge 1 ] || hf_blocks=1
  [ "$hf_blocks" -le 64 ] || hf_blocks=64
  hf_hole=
  while :; do
    # who reads it must not take it for all there was
    [ -z "$hf_hole" ] || { printf '%s' "$hf_hole" >>"$1"; } 2>/dev/null && hf_hole=
    if ! hf_said=$(LC_ALL=C dd bs=65536 count="$hf_blocks" 2>&1 >>"$1" 9>&-); then
      # a full disk, most likely: what dd had read is gone, and that is said
      true >"$1.holed"
      write "$1.fault" "bytes were lost: $(echo "$hf_said" | head -n 1)"
      hf_hole='
[holdfast: some output was lost here: the disk was full]
'
      nap 1
    fi
    case $hf_said in '0+0 records in'*) return 0 ;; esac
    bound "$1" "$2" "$3" "$hf_dir"
  done
}
