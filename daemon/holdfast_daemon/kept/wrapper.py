r"""What a kept shell is told to do, in the words of each family of shells. No I/O.

A shell sources three files, made once for its session: `init` at its start, `command`
for each command, and `trailer` behind it, which tells how it ended. `@` stands for the
directory they are in. The trailer has a number nobody can guess in it; it goes to both
streams, behind all that the command printed there. It comes in these ways:

* `command` sources `trailer` itself, which is how it nearly always is;
* where the command was broken off (Ctrl-C), zsh does so still, and bash and fish do
  before their next prompt; dash and ash are told to by one more typed line;
* where the shell itself ended, its holder says so; of a command that another shell
  came to, as one begun within it, it can't say how that ended.

One that was told behind an unfinished quote is not begun, and its trailer says so.

Behind it the shell writes down what it exports and where it is, for the one that comes
after its host was restarted: see host/again.sh. It starts no process for that.

Whatever users redefine is evaded: `\` before a word means no alias, `builtin` or
`command` no function, and nothing depends on IFS, noclobber, nounset and the like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from holdfast_daemon.kept.standing import exit_code

Family = Literal["bash", "zsh", "sh", "fish", ""]

_FAMILIES: dict[str, Family] = {
    "bash": "bash",
    "rbash": "",
    "zsh": "zsh",
    "fish": "fish",
    **dict.fromkeys(("sh", "dash", "ash", "busybox"), "sh"),
    **dict.fromkeys(("ksh", "ksh93", "mksh", "yash"), "sh"),
}
MARK = b"\x1e"
# the longest path a shell may be in, and some
_LONGEST = 64 * 1024


class Words(NamedTuple):
    """What a shell sources."""

    init: str
    command: str
    trailer: str


_BASH = Words(
    r"""
: >|@/ready
\builtin declare HISTFILE= 2>/dev/null || \builtin set +o history
\builtin declare HISTCONTROL=ignoreboth 2>/dev/null || \builtin true
_hf=$(\builtin history 1 2>/dev/null)
case $_hf in
*@*)
_hf=${_hf#"${_hf%%[0-9]*}"}
\builtin history -d "${_hf%%[!0-9]*}"
;;
esac 2>/dev/null
""",
    r"""
_hf_s=$?
IFS= \builtin read -r _hf <@/now
\builtin echo "$$" 2>/dev/null >|@/"$_hf"/came || \builtin true
_hf_z="\builtin . "@"/z;"
\builtin declare PROMPT_COMMAND="$_hf_z${PROMPT_COMMAND-}" 2>/dev/null || \builtin true
if [[ ! -e @/"$_hf"/done && ! -e @/"$_hf"/off ]] &&
\builtin true >|@/"$_hf"/begun; then
[[ $_hf_s == 0 || $- == *e* ]] || (\builtin exit "$_hf_s")
\builtin . @/"$_hf"/x >|@/"$_hf"/fo 2>|@/"$_hf"/fe </dev/null
fi
\builtin . @/z
""",
    r"""
_hf=$?
{
_hf_z="\builtin . "@"/z;"
_hf_s=${PROMPT_COMMAND-}
_hf_s=${_hf_s//"$_hf_z"}
if [[ -n $_hf_s ]]; then \builtin declare PROMPT_COMMAND="$_hf_s"
else \builtin unset -v PROMPT_COMMAND
fi || \builtin true
IFS= \builtin read -r _hf_n <@/now
if [[ ! -e @/$_hf_n/done ]]; then
IFS= \builtin read -r _hf_z <@/"$_hf_n"/n
: >|@/"$_hf_n"/done
_hf_s=run
[[ -e @/$_hf_n/begun ]] || _hf_s=never
\builtin printf '\036%s:%s %s:%s:%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$PWD" "$_hf_z" >|@/"$_hf_n"/fo
\builtin printf '\036%s:%s %s::%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$_hf_z" >|@/"$_hf_n"/fe
\builtin unset -v _hf_z
\builtin export _hf_at="$PWD"
{
\builtin declare -px
\builtin printf '#%s\n' "$_hf_n"
} >|@/../env."$((_hf_n%2))"
\builtin unset -v _hf_at
\builtin printf '%s\n' "$((_hf_n+1))" >|@/next
fi
} 2>/dev/null
\builtin unset -v _hf_z _hf_n _hf_s
\builtin return "$_hf"
""",
)

_ZSH = Words(
    r"""
: >|@/ready
(HISTFILE=) 2>/dev/null && HISTFILE=
\builtin setopt histignorespace
\builtin unsetopt sharehistory incappendhistory incappendhistorytime
""",
    r"""
_hf_s=$?
IFS= \builtin read -r _hf <@/now
\builtin echo "$$" 2>/dev/null >|@/"$_hf"/came || \builtin true
{
if [[ ! -e @/"$_hf"/done && ! -e @/"$_hf"/off ]] &&
\builtin true >|@/"$_hf"/begun; then
[[ $_hf_s == 0 || -o errexit || -o errreturn ]] || (\builtin exit "$_hf_s")
\builtin . @/"$_hf"/x >|@/"$_hf"/fo 2>|@/"$_hf"/fe </dev/null
fi
} always {
\builtin . @/z
}
""",
    r"""
_hf=$?
{
IFS= \builtin read -r _hf_n <@/now
if [[ ! -e @/"$_hf_n"/done ]]; then
IFS= \builtin read -r _hf_z <@/"$_hf_n"/n
: >|@/"$_hf_n"/done
_hf_s=run
[[ -e @/$_hf_n/begun ]] || _hf_s=never
\builtin printf '\036%s:%s %s:%s:%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$PWD" "$_hf_z" >|@/"$_hf_n"/fo
\builtin printf '\036%s:%s %s::%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$_hf_z" >|@/"$_hf_n"/fe
\builtin unset _hf_z
\builtin export _hf_at="$PWD"
{
\builtin export -p
\builtin printf '#%s\n' "$_hf_n"
} >|@/../env."$((_hf_n%2))"
\builtin unset _hf_at
\builtin printf '%s\n' "$((_hf_n+1))" >|@/next
fi
} 2>/dev/null
\builtin unset _hf_z _hf_n _hf_s
\builtin return "$_hf"
""",
)

_SH = Words(
    r"""
: >|@/ready
(HISTFILE=) 2>/dev/null && HISTFILE=
""",
    r"""
_hf_s=$?
IFS= \command read -r _hf <@/now
\command echo "$$" 2>/dev/null >|@/"$_hf"/came || \command :
if \command [ ! -e @/"$_hf"/done ] && \command [ ! -e @/"$_hf"/off ] &&
\command : >|@/"$_hf"/begun; then
case $_hf_s:$- in 0:* | *e*) ;; *) (\exit "$_hf_s") ;; esac
\command . @/"$_hf"/x >|@/"$_hf"/fo 2>|@/"$_hf"/fe </dev/null
fi
\command . @/z
""",
    r"""
_hf=$?
{
IFS= \command read -r _hf_n <@/now
if \command [ ! -e @/"$_hf_n"/done ]; then
IFS= \command read -r _hf_z <@/"$_hf_n"/n
: >|@/"$_hf_n"/done
_hf_s=run
\command [ -e @/"$_hf_n"/begun ] || _hf_s=never
\command printf '\036%s:%s %s:%s:%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$PWD" "$_hf_z" >|@/"$_hf_n"/fo
\command printf '\036%s:%s %s::%s\036\n' \
"$_hf_z" "$_hf_s" "$_hf" "$_hf_z" >|@/"$_hf_n"/fe
\command unset -v _hf_z
\command export _hf_at="$PWD"
{
\command export -p
\command printf '#%s\n' "$_hf_n"
} >|@/../env."$((_hf_n%2))"
\command unset -v _hf_at
\command printf '%s\n' "$((_hf_n+1))" >|@/next
fi
} 2>/dev/null
\command unset -v _hf_z _hf_n _hf_s
\command return "$_hf"
""",
)

_FISH = Words(
    r"""
builtin echo -n >@/ready
set -g fish_history ''
""",
    r"""
set -g _hf_s $status
function _hf_prompt --on-event fish_prompt
builtin source @/z
end
builtin read _hf <@/now
builtin echo $fish_pid 2>/dev/null >@/$_hf/came
builtin test -e @/$_hf/done -o -e @/$_hf/off
or not builtin echo -n >@/$_hf/begun
or begin
builtin read -zl _hf_x <@/$_hf/x
builtin echo return $_hf_s | builtin source
builtin eval $_hf_x
set -g _hf_code $status
# what is wrong with its syntax went to the terminal
if builtin test $_hf_code = 123
command fish --no-execute @/$_hf/x
end
end >@/$_hf/fo 2>@/$_hf/fe </dev/null
builtin source @/z
""",
    r"""
set -g _hf $status
if set -q _hf_code
set _hf $_hf_code
set -e _hf_code
end
begin
functions -e _hf_prompt
builtin read -l _hf_n <@/now
if not builtin test -e @/$_hf_n/done
builtin read -l _hf_z <@/$_hf_n/n
builtin echo -n >@/$_hf_n/done
set -l _hf_w run
builtin test -e @/$_hf_n/begun; or set _hf_w never
builtin printf '\x1e%s:%s %s:%s:%s\x1e\n' \
$_hf_z $_hf_w $_hf "$PWD" $_hf_z >@/$_hf_n/fo
builtin printf '\x1e%s:%s %s::%s\x1e\n' $_hf_z $_hf_w $_hf $_hf_z >@/$_hf_n/fe
set -lx _hf_at $PWD
set -l _hf_v
begin
for _hf_v in (builtin set -nx)
if builtin count $$_hf_v >/dev/null
builtin echo -- set -gx $_hf_v (builtin string escape -- $$_hf_v)
else
builtin echo -- set -gx $_hf_v
end
end
builtin printf '#%s\n' $_hf_n
end >@/../env.(math $_hf_n % 2)
set -e _hf_at
builtin printf '%s\n' (math $_hf_n + 1) >@/next
end
end 2>/dev/null
builtin return $_hf
""",
)

_WORDS: dict[Family, Words] = {
    "bash": _BASH,
    "zsh": _ZSH,
    "sh": _SH,
    "fish": _FISH,
}


def family(program: str) -> Family:
    """Return the family of a shell's program; empty: no command can be framed there."""
    return _FAMILIES.get(program.rpartition("/")[2].lstrip("-"), "")


def words(kind: Family) -> Words | None:
    """Return what a shell of that family sources."""
    return _WORDS.get(kind)


@dataclass(frozen=True, slots=True)
class Trailer:
    """How a command ended.

    Attributes:
        exit_code: Its own, or the shell's where that ended.
        signal: What ended the shell.
        cwd: Where the shell is.
        shell_ended: The shell is gone.
        late: The host ended it when its time was over.
        not_begun: The shell never came to it, and never will.
    """

    exit_code: int | None = None
    signal: str | None = None
    cwd: str = ""
    shell_ended: bool = False
    late: bool = False
    not_begun: bool = False


class StreamReader:
    """Takes a header and a trailer out of one stream, at whatever bytes it is cut.

    Attributes:
        offset: The absolute offset on the host behind what was handed on; None before
            the header came.
        trailer: How the command ended, once that was told.
    """

    def __init__(self, header: str, nonce: str) -> None:
        """Begin behind a header with `header`; end with a trailer with `nonce`."""
        self._header = MARK + f"from:{header}:".encode()
        self._open = MARK + f"{nonce}:".encode()
        self._close = f":{nonce}".encode() + MARK + b"\n"
        self._held = b""
        self.offset: int | None = None
        self.trailer: Trailer | None = None

    def feed(self, data: bytes) -> bytes:
        """Take what came; return what the command printed."""
        if self.trailer is not None:
            # what runs on behind it is nobody's
            return b""
        self._held += data
        if self.offset is None and not self._begin():
            return b""
        before, found, rest = self._held.partition(self._open)
        if not found:
            keep = _overlap(before, self._open)
            return self._hand_on(
                before[: len(before) - keep], before[len(before) - keep :]
            )
        told, found, _ = rest.partition(self._close)
        if not found:
            if len(rest) > _LONGEST:
                return self._hand_on(before + self._open, rest)
            return self._hand_on(before, self._open + rest)
        # what only begins like one was printed
        printed, again, told = told.rpartition(self._open)
        if again:
            before += self._open + printed
        self.trailer = _trailer(told)
        return self._hand_on(before, b"")

    def _begin(self) -> bool:
        noise, found, rest = self._held.partition(self._header)
        line, ended, after = rest.partition(b"\n")
        if not (found and ended):
            self._held = (found + rest) if found else noise[-len(self._header) :]
            return False
        self.offset, self._held = int(line), after
        return True

    def _hand_on(self, data: bytes, held: bytes) -> bytes:
        assert self.offset is not None  # noqa: S101  the header came first
        self._held = held
        self.offset += len(data)
        return data


class RunReader:
    """Takes the trailers out of a command's two streams."""

    def __init__(self, header: str, nonce: str) -> None:
        """Read from a line with `header` to a trailer with `nonce`, each stream."""
        self.out = StreamReader(header, nonce)
        self.err = StreamReader(header, nonce)

    @property
    def begun(self) -> bool:
        """The host has answered."""
        return self.out.offset is not None

    @property
    def done(self) -> Trailer | None:
        """How the command ended, when all that it printed has come."""
        return self.out.trailer if self.err.trailer is not None else None


def _trailer(told: bytes) -> Trailer:
    how, _, cwd = told.decode("utf-8", "surrogateescape").partition(":")
    kind, _, value = how.partition(" ")
    if kind == "signal":
        return Trailer(signal=value, shell_ended=True)
    if kind == "never":
        return Trailer(cwd=cwd, not_begun=True)
    late = kind == "late"
    return Trailer(
        exit_code=exit_code(value), cwd=cwd, shell_ended=kind != "run", late=late
    )


def _overlap(data: bytes, mark: bytes) -> int:
    """Return how many bytes at the end of `data` may begin `mark`."""
    at = data.rfind(mark[:1], max(0, len(data) - len(mark) + 1))
    while at >= 0:
        if mark.startswith(data[at:]):
            return len(data) - at
        at = data.rfind(mark[:1], max(0, len(data) - len(mark) + 1), at)
    return 0
