# shellcheck shell=sh
# shellcheck disable=SC2034 # the other parts use what these functions set
# Bounded logs that are read by absolute byte offset, on the host. POSIX sh.
#
# A log FILE has beside it, each a number where it is there:
#   FILE.base  the offset of the file's first byte     FILE.low  the earliest that is left
#   FILE.ack   what a reader has safely                FILE.moving/  offsets are changing
#   FILE.readers/PID  who reads it: the processes to end before bytes are dropped
# and in the directory it is in: seen, when a reader was last heard of (seconds).

nap() { sleep "$1" 2>/dev/null || sleep 1; }

# number FILE: what stands in it, or 0
number() {
  hf_number=
  [ -r "$1" ] && read -r hf_number <"$1"
  case $hf_number in '' | *[!0-9]*) hf_number=0 ;; esac
  echo "$hf_number"
}

# write FILE TEXT: at once or not at all
write() { printf "%s\n" "$2" >"$1.$$" && mv -f "$1.$$" "$1"; }

# size_of FILE: the absolute offset of its end. Not by wc, which may read all of it.
size_of() {
  hf_base=$(number "$1.base")
  # shellcheck disable=SC2046,SC2012 # split on purpose, and the name is ours
  set -- $(ls -dln "$1" 2>/dev/null)
  echo $((hf_base + ${5:-0}))
}

# saw DIRECTORY: a reader is there
saw() { write "$1/seen" "$(date +%s)"; }

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

# cut FILE: end everybody who reads it; they come again and are told where it begins
cut_readers() {
  for hf_reader in "$1.readers"/*; do
    [ -e "$hf_reader" ] || continue
    read -r hf_pid <"$hf_reader" || continue
    kill "$hf_pid" 2>/dev/null
  done
  hf_tries=0
  for hf_reader in "$1.readers"/*; do
    while [ -e "$hf_reader" ] && [ "$hf_tries" -lt 20 ]; do
      kill -s 0 "${hf_reader##*/}" 2>/dev/null || break
      nap 0.05
      hf_tries=$((hf_tries + 1))
    done
    [ -e "$hf_reader" ] || continue
    # its processes, each on a line
    while read -r hf_pid; do kill -s KILL "$hf_pid" 2>/dev/null; done <"$hf_reader"
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
  cut_readers "$1"
  # a hole keeps all positions; where there are none, what is left is copied
  if ! fallocate -p -o $((hf_low - hf_base)) -l $((hf_to - hf_low)) "$1" 2>/dev/null; then
    dd if="$1" of="$1.copy" bs=4096 skip=$(((hf_to - hf_base) / 4096)) 2>/dev/null &&
      write "$1.base" "$hf_to" && mv -f "$1.copy" "$1"
  fi
  rmdir "$1.moving"
}

# bound FILE CAP PATIENCE DIRECTORY: keep it within CAP, waiting for a reader that lives
bound() {
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
  while :; do
    if ! hf_said=$(LC_ALL=C dd bs=65536 count="$hf_blocks" 2>&1 >>"$1" 9>&-); then
      # a full disk, most likely: what dd had read is gone, and that is said
      write "$1.fault" "bytes were lost: $(echo "$hf_said" | head -n 1)"
      nap 1
    fi
    case $hf_said in '0+0 records in'*) return 0 ;; esac
    bound "$1" "$2" "$3" "$hf_dir"
  done
}
