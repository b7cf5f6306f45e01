"""How a host's shell puts what is whole in its place, by renaming. Sans-I/O."""

from __future__ import annotations

# How what is whole takes its place. $w: what is there may be replaced.
PUT = r"""tell_of(){ printf '%s\0' "$@";}
# What is moved is told into which directory, never under which name: where that is a
# link to a directory it would go there. All keep the last part of their names.
# What is gone from here was put by whom a cut link or a dead daemon left at it.
mv_of(){ e=$(mv -f -- "$1" "${2%/*}/" 2>&1)&&return
[ -e "$1" ]||[ -L "$1" ]||return 0
tell_of "$2" "$e";}
# What replaces a file is whose that was, as far as that may be.
own(){ [ -f "$2" ]&&[ ! -L "$1" ]&&[ ! -L "$2" ]||return 0
[ -O "$2" ]&&[ -G "$2" ]&&return
set -- "$1" $(ls -ldn -- "$2")
chown "$4:$5" "$1" 2>/dev/null||chgrp "$5" "$1" 2>/dev/null||:;}
# The same for many, which mostly are of one.
give(){ b=$1;shift
for o;do shift;q=$b/${o##*/}
[ -f "$o" ]&&[ -f "$q" ]&&[ ! -L "$q" ]||continue
[ -O "$q" ]&&[ -G "$q" ]||set -- "$@" "$o";done
[ $# = 0 ]&&return
u=$(for o;do printf '%s\0' "$b/${o##*/}";done|xargs -0 stat -c %u:%g 2>/dev/null|
sort -u)
case $u in ''|*[!0-9:]*) for o;do own "$o" "$b/${o##*/}";done;;
*) chown "$u" "$@" 2>/dev/null||chgrp "${u#*:}" "$@" 2>/dev/null||:;;esac;}
# Many files at once, into a directory that is there. A hard link is never made over
# what is there; where none can be made, and for what is left, each goes by itself.
heap(){ b=$1;shift
if [ $w = 1 ];then (give "$b" "$@");mv -f -- "$@" "$b/" 2>/dev/null
else ln -- "$@" "$b/" 2>/dev/null;fi
for o;do [ -e "$o" ]||continue
[ $w = 0 ]&&[ "$o" -ef "$b/${o##*/}" ]&&continue
put "$o" "$b/${o##*/}";done;}
# Whether a move to there copies: to another disk, or by another way to this one.
away(){ x=.holdfast-probe-$c
(set -C;: >"$1/$x") 2>/dev/null||return 1
k=1;if ln -- "$1/$x" "$2/" 2>/dev/null;then rm -f -- "$2/$x"
elif ln -- "$1/$x" "$1/$x-" 2>/dev/null;then k=0
elif [ "$(df -P -- "$1"|tail -n 1)" != "$(df -P -- "$2"|tail -n 1)" ];then k=0;fi
rm -f -- "$1/$x" "$1/$x-";return $k;}
# A copy is half there for a while: it is made beside its place, and moved when whole.
bring(){ (n=$2/.holdfast-near-$c;trap 'rm -rf -- "$n"' EXIT
trap 'exit 1' HUP INT TERM PIPE
e=$( { mkdir -m 700 -- "$n"&&cp -RPp -- "$1/." "$n/";} 2>&1)&&{ merge "$n" "$2";exit;}
[ -d "$1" ]||exit 0
e=$(printf '%s\n' "$e"|head -n 1)
find "$1" ! -type d -exec sh -c 'e=$1;a=$2;d=$3;shift 3
for f;do printf "%s\0%s\0" "$d${f#"$a"}" "$e";done' sh "$e" "$1" "$2" {} +);}
merge(){ if [ "$apart" ]&&away "$1" "$2";then bring "$1" "$2";return;fi
(a=$1;d=$2;set --
for o in "$a"/* "$a"/.[!.]* "$a"/..?*;do
q=$d/${o##*/}
if [ $w = 1 ]&&[ -d "$o" ]&&[ ! -L "$o" ]&&[ ! -e "$q" ]&&[ ! -L "$q" ]
then set -- "$@" "$o"
elif [ -L "$o" ]||[ -d "$o" ];then (put "$o" "$q")
elif [ -f "$o" ];then
if [ -d "$q" ];then (put "$o" "$q")
elif [ $w = 0 ]&&[ -L "$q" ];then tell_of "$q" "it is there by now"
else set -- "$@" "$o";fi;fi
[ $# -lt 200 ]||{ (heap "$d" "$@");set --;};done
[ $# = 0 ]||(heap "$d" "$@"));}
put(){ # FROM TO: a name that must not be there, or may be replaced
# Others may make the same directory meanwhile: then what is in it is moved.
if [ -d "$1" ]&&[ ! -L "$1" ];then
if [ -L "$2" ];then tell_of "$2" "a link is in the way"
elif [ ! -e "$2" ]&&mv -f -- "$1" "${2%/*}/" 2>/dev/null;then :
elif [ ! -e "$2" ];then mv_of "$1" "$2"
elif [ ! -d "$2" ];then tell_of "$2" "a file is in the way"
else merge "$1" "$2";fi;return;fi
if [ -d "$2" ]&&[ ! -L "$2" ];then
printf '%s\0' "$2" "a directory is in the way";return;fi
if [ $w = 1 ];then own "$1" "$2";mv_of "$1" "$2"
elif [ -L "$1" ];then
if [ ! -e "$2" ]&&[ ! -L "$2" ];then mv_of "$1" "$2"
elif [ -L "$2" ]&&[ "$(readlink -- "$1")" = "$(readlink -- "$2")" ];then :
else tell_of "$2" "it is there by now";fi
elif [ "$1" -ef "$2" ]&&[ ! -L "$2" ];then rm -f -- "$1"
elif [ -e "$2" ]||[ -L "$2" ];then tell_of "$2" "it is there by now"
elif ln -- "$1" "${2%/*}/" 2>/dev/null;then rm -f -- "$1"
elif [ ! -e "$1" ];then :
elif [ -e "$2" ]||[ -L "$2" ];then tell_of "$2" "it is there by now"
else mv_of "$1" "$2";fi;}
"""
