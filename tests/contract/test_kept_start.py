"""Shells kept on a real host: every kind of terminal, input, signals and the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.kept import KINDS, kept_on
from fakes.links import run
from fakes.watch import alive, soon
from holdfast_daemon.errors import Reason, StateError

if TYPE_CHECKING:
    from holdfast_daemon.kept.line import Line, LineEnd
    from holdfast_daemon.kept.standing import Kind

BSD_SCRIPT = """#!/bin/sh
# takes what the script of BSD and macOS takes, and no more
if [ "$1" != -q ] || [ "$2" != /dev/null ]; then
  echo 'usage: script [-adeFkpqr] [-t time] [file [command ...]]' >&2
  exit 1
fi
shift 2
exec /usr/bin/python3 -c 'import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])) & 255)' "$@"
"""
# It takes what that of 3.7 takes: what is pasted is made visible, unless -S is given.
NEW_TMUX = r"""#!/usr/bin/python3
import os, re, subprocess, sys
ask = ["/usr/bin/tmux", *sys.argv[1:3]]
words = sys.argv[3:]
pasting = [*ask, "list-commands", "paste-buffer"]
told = subprocess.run(pasting, capture_output=True).stdout
if b"[-dpr]" in told and words[0] == "list-commands":
    every = subprocess.run([*ask, *words], capture_output=True, check=True).stdout
    sys.exit(os.write(1, every.replace(told, told.replace(b"[-dpr]", b"[-dprS]"))) < 0)
if b"[-dpr]" in told and words[0] == "paste-buffer":
    if "-S" in words:
        words.remove("-S")
    else:
        name = words[words.index("-b") + 1]
        data = subprocess.check_output([*ask, "save-buffer", "-b", name, "-"])
        data = re.sub(rb"[\0-\x08\x0b-\x1f]", lambda m: b"^%c" % (m[0][0] + 64), data)
        subprocess.run([*ask, "load-buffer", "-b", name, "-"], input=data, check=True)
os.execv(ask[0], [*ask, *words])
"""


def birth(pid: int) -> str:
    """Return when process `pid` began, as the kernel tells it."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[19]


async def over(line: Line) -> LineEnd:
    async with asyncio.timeout(40):
        return await line.ended()


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_keeps_a_shell(tmp_path: Path, kind: Kind) -> None:
    """SE-01, SE-03, SE-05, SE-08: state carries over, keys arrive, its end is known."""
    async with kept_on(tmp_path) as kept:
        standing, nonce = await kept.start(
            "sone", kind, cwd="/usr", env={"FOO": "b a'r"}
        )
        assert (standing.state, standing.kind) == ("running", kind)
        first, said = await kept.attach("sone", nonce)
        await first.write(b"x=41; cd lib; echo $FOO $((x+1)); shopt login_shell\n")
        await said.wait_for(b"login_shell    \ton")
        assert b"b a'r 42" in said.out
        first.close()
        # another attachment finds what the first one left, from its offset on
        line, more = await kept.attach("sone", nonce, first.offset)
        await line.write(b"echo $((x+2)) $PWD; ls -m /proc/$$/fd; echo all-$((x+3))\n")
        await more.wait_for(b"43 /usr/lib")
        await more.wait_for(b"all-44")
        listed = more.out.partition(b"43 /usr/lib")[2].partition(b"all-44")[0]
        strays = {"0", "1", "2", "255"}
        fds = [word.strip(", \r\n") for word in listed.decode().split()]
        assert set(fds) <= strays, fds
        # SIGINT is not ignored there, and hits what runs, not the shell
        await line.write(b"echo go; sleep 60; echo st=$?\n")
        await more.wait_for(b"go")
        await soon(lambda: any("sleep 60" in p for p in kept.processes()), "it sleeps")
        assert (await kept.keeper.signal("sone", "INT")).sent == "sent"
        await soon(
            lambda: not any("sleep 60" in p for p in kept.processes()), "it ended"
        )
        await line.write(b"echo still; exit 3\n")
        end = await over(line)
        assert (end.kind, end.exit_code) == ("exited", 3)
        assert b"still" in more.out
        assert b"holdfast-end" not in more.out
        standing = await kept.keeper.look("sone")
        assert (standing.state, standing.exit_code) == ("exited", 3)
        assert standing.size == line.offset
        # and whoever comes later is told the same
        late, all_of_it = await kept.attach("sone", nonce)
        assert (await over(late)).exit_code == 3
        assert all_of_it.out == said.out + more.out


@pytest.mark.parametrize("kind", ["script", "python", "tmux"])
async def test_the_terminal_has_a_size(tmp_path: Path, kind: Kind) -> None:
    """SE-03: rows and columns, and a new size."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", kind)
        line, said = await kept.attach("sone", nonce)
        await line.write(b"stty size\n")
        await said.wait_for(b"24 80")
        await kept.keeper.resize("sone", 101, 33)
        await line.write(b"stty size\n")
        await said.wait_for(b"33 101")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_it_makes_is_as_open_as_by_a_login(
    tmp_path: Path, kind: Kind
) -> None:
    """SE-05: in tmux nobody else could read what was made; ours stays private."""
    async with kept_on(tmp_path) as kept:
        async with await kept.pool.lease(kept.keeper.host) as lease:
            _, plain, _ = await run(lease, "umask")
        assert plain.strip() != b"0077", "these tests were started with that"
        _, nonce = await kept.start("sone", kind, shell="/bin/sh")
        line, said = await kept.attach("sone", nonce)
        await line.write(b"echo um''ask: $(umask) be''hind\n")
        await said.wait_for(b"behind")
        assert b"umask: " + plain.strip() + b" behind" in said.out
        place = kept.room / "sone"
        ours = [place, *place.rglob("*")]
        if kind == "tmux":
            # what it makes there is as tmux has it
            ours.append(Path(f"/tmp/tmux-{os.getuid()}"))
        found: dict[Path, int] = {}
        for path in ours:
            with contextlib.suppress(FileNotFoundError):  # some come and go
                found[path] = path.stat().st_mode & 0o077
        assert place in found
        assert not any(found.values()), found


async def test_keys_arrive_as_they_were_typed_in_a_newer_tmux(tmp_path: Path) -> None:
    """SE-03: ^C came as two letters, and nothing could be interrupted."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "tmux").write_text(NEW_TMUX)
    (directory / "tmux").chmod(0o755)
    path = f"{directory}:/usr/bin:/bin"
    async with kept_on(tmp_path, path=path) as kept:
        _, nonce = await kept.start("sone", "tmux")
        line, said = await kept.attach("sone", nonce)
        await line.write(b"echo be''gun; sleep 60\n")
        await said.wait_for(b"begun")
        await soon(lambda: any("sleep 60" in p for p in kept.processes()), "it sleeps")
        await line.write(b"\x03")
        await soon(
            lambda: not any("sleep 60" in p for p in kept.processes()), "it ended"
        )
        await line.write(b"echo o''k\n")
        await said.wait_for(b"ok")


async def test_a_host_that_is_slow_to_start_a_terminal_is_waited_for(
    tmp_path: Path,
) -> None:
    """SE-06: a busy one was told to have no terminal at all."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "tmux").write_text(
        '#!/bin/sh\ncase "$*" in *new-session*) sleep 8 ;; esac\n'
        'exec /usr/bin/tmux "$@"\n'
    )
    (directory / "tmux").chmod(0o755)
    async with kept_on(tmp_path, path=f"{directory}:/usr/bin:/bin") as kept:
        standing, _ = await kept.start("sone", "tmux")
        assert (standing.kind, standing.state) == ("tmux", "running")


async def test_bsd_script_will_do(tmp_path: Path) -> None:
    """SE-06: the script of BSD and macOS takes other words."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "script").write_text(BSD_SCRIPT)
    (directory / "script").chmod(0o755)
    path = f"{directory}:/usr/bin:/bin"
    async with kept_on(tmp_path, path=path) as kept:
        standing, nonce = await kept.start("sone")
        assert standing.kind == "script"
        line, _ = await kept.attach("sone", nonce)
        await line.write(b"tty; exit 5\n")
        assert (await over(line)).exit_code == 5


async def test_busybox_alone_will_do(tmp_path: Path) -> None:
    """SE-06: nothing but busybox's tools are needed."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox here")
    directory = tmp_path / "bin"
    directory.mkdir()
    wanted = (
        "awk cat cut date dd grep head kill ls mkdir mkfifo mv ps rm rmdir sed setsid"
        " sleep stty tail test tr tty wc"
    )
    for name in wanted.split():
        (directory / name).symlink_to(busybox)
    async with kept_on(tmp_path, path=str(directory)) as kept:
        standing, nonce = await kept.start("sone", shell="/bin/sh")
        assert standing.kind == "pipe"
        line, said = await kept.attach("sone", nonce)
        await line.write(b"x=41\necho $((x+1))\n")
        await said.wait_for(b"42")
        line.close()
        line, said = await kept.attach("sone", nonce, line.offset)
        await line.write(b"echo $((x+2))\nexit 4\n")
        assert (await over(line)).exit_code == 4
        assert said.out == b"43\n"


async def test_all_bytes_are_exact_and_look_alikes_are_bytes(tmp_path: Path) -> None:
    """SE-03: a raw terminal carries all 256 bytes, and nobody can fake the end."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        line, said = await kept.attach("sone", nonce)
        await line.write(b"stty raw -echo; echo rea''dy; head -c 25600 | od -An -c\n")
        await said.wait_for(b"ready")
        before = bytes(range(256)) * 4
        await line.write(b"x" * 25600)
        at = len(said.out)
        file = tmp_path / "bytes"
        file.write_bytes(before + b"\x1eholdfast-end:00:exit 0\n" + before)
        await line.write(f"\ncat {file}; echo done\n".encode())
        await said.wait_for(b"done\n")
        assert file.read_bytes() in said.out[at:]
        await line.write(b"exit 7\n")
        assert (await over(line)).exit_code == 7


async def test_two_read_at_once_and_one_only_looks(tmp_path: Path) -> None:
    """SE-06: what one types both read; who only looks types nothing."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        line, said = await kept.attach("sone", nonce)
        looking, seen = await kept.attach("sone", nonce, looking=True)
        await looking.write(b"echo wrong-$((1+1))\n")
        await line.write(b"echo right-$((1+1)); exit 0\n")
        ends = await over(line), await over(looking)
        assert [end.exit_code for end in ends] == [0, 0]
        assert said.out == seen.out
        assert b"right-2" in seen.out
        assert b"wrong" not in seen.out


@pytest.mark.parametrize("kind", KINDS)
async def test_end_hangs_up_first_and_force_kills_all(
    tmp_path: Path, kind: Kind
) -> None:
    """SE-08: graceful first; what minds no hang-up goes on until it is forced."""
    async with kept_on(tmp_path, stop_grace_seconds=8) as kept:
        await kept.start("sone", kind)
        assert (await kept.keeper.end("sone", force=False)).state == "exited"
        _, nonce = await kept.start("stwo", kind)
        line, said = await kept.attach("stwo", nonce)
        await line.write(b"trap '' HUP; echo stub''born; sleep 1000; sleep 1000\n")
        await said.wait_for(b"stubborn")
        assert (await kept.keeper.end("stwo", force=False)).state == "running"
        standing = await kept.keeper.end("stwo", force=True)
        assert standing.state in ("exited", "lost")
        assert standing.exit_code != 0
        await soon(lambda: not any("sleep 1000" in p for p in kept.processes()), "gone")


async def test_a_wrong_shell_or_directory_is_named(tmp_path: Path) -> None:
    """SE-05: nothing is left where it could not start."""
    async with kept_on(tmp_path) as kept:
        with pytest.raises(StateError) as wrong:
            await kept.start("sone", cwd="/no/where")
        assert (wrong.value.reason, wrong.value.ran) == (Reason.CWD_FAILED, "no")
        with pytest.raises(StateError) as wrong:
            await kept.start("sone", shell="nosuchshell")
        assert wrong.value.reason == Reason.SHELL_FAILED
        assert not kept.room.exists()
        await kept.start("sone")
        with pytest.raises(StateError) as wrong:
            await kept.start("sone")
        assert wrong.value.reason == Reason.IN_USE
        assert [one.name for one in await kept.keeper.list()] == ["box"]


async def test_a_host_without_a_place_keeps_nothing(tmp_path: Path) -> None:
    """SE-06: a home that can't be written to is told, and what to do."""
    async with kept_on(tmp_path) as kept:
        (tmp_path / ".cache").write_text("a file")
        with pytest.raises(StateError) as wrong:
            await kept.start("sone")
        assert wrong.value.reason == Reason.NOT_KEPT
        assert "held" in wrong.value.hint
        (tmp_path / ".cache").unlink()


async def test_a_restarted_host_has_lost_it(tmp_path: Path) -> None:
    """SE-06: another boot id means lost, with the last output, and never an exit."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        line, said = await kept.attach("sone", nonce)
        await line.write(b"echo la''st\n")
        await said.wait_for(b"last")
        line.close()
        await kept.keeper.end("sone", force=True)
        directory = kept.room / "sone"
        (directory / "rc").unlink()
        (directory / "boot").write_text("another\n")
        standing = await kept.keeper.look("sone")
        assert (standing.state, standing.why) == ("lost", "host_restarted")
        assert standing.exit_code is None


@pytest.mark.parametrize("victim", ["pid", "leader", "pump"])
async def test_whatever_is_killed_no_success_is_told(
    tmp_path: Path, victim: str
) -> None:
    """SE-08: SIGKILL of the holder, the shell, or what keeps its output."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        line, said = await kept.attach("sone", nonce)
        await line.write(b"echo he''re\n")
        await said.wait_for(b"here")
        shell = kept.number("sone", "leader")
        os.kill(kept.number("sone", victim), 9)
        if victim == "pid":
            # its output is still kept, and its end will still be known
            await line.write(b"echo ali''ve; exit 6\n")
            assert (await over(line)).exit_code == 6
            return
        end = await over(line)
        standing = await kept.keeper.look("sone")
        assert end.kind != "exited" or end.exit_code == 128 + 9
        assert standing.state != "running"
        assert standing.exit_code != 0
        await kept.keeper.end("sone", force=True)
        await soon(lambda: not alive(shell), "its shell is gone")


async def test_who_comes_as_what_keeps_its_output_is_killed_is_told(
    tmp_path: Path,
) -> None:
    """SE-08: it was there when looked for, and gone when its end was waited for."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", "script")
        pump = kept.number("sone", "pump")
        os.kill(pump, signal.SIGKILL)
        await soon(lambda: not alive(pump), "it is gone")
        other = await asyncio.create_subprocess_exec("sleep", "60")
        (kept.room / "sone" / "pump").write_text(f"{other.pid} {birth(other.pid)}\n")
        line, _ = await kept.attach("sone", nonce)
        end = await over(line)
        assert (end.kind, end.exit_code) != ("exited", 0)
        other.kill()
        await other.wait()


async def test_what_is_abandoned_is_ended_by_the_next_who_comes(
    tmp_path: Path,
) -> None:
    """SE-06: after kept_abandoned_seconds, unless somebody is attached."""
    async with kept_on(tmp_path, kept_abandoned_seconds=1000) as kept:
        await kept.start("sold")
        _, nonce = await kept.start("sread")
        line, _ = await kept.attach("sread", nonce)
        for ident in ("sold", "sread"):
            (kept.room / ident / "seen").write_text("1000\n")
        assert [one.ident for one in await kept.keeper.list()] == ["sread"]
        line.close()
