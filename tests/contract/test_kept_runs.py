"""Commands told to kept shells: real shells in real terminals behind a real sshd."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from fakes.links import Collector
from fakes.told_shell import session
from fakes.watch import contents, moment, soon
from holdfast_daemon.errors import StateError
from holdfast_daemon.kept import run_line
from holdfast_daemon.kept.runs import Program, Runs, new_nonce

if TYPE_CHECKING:
    from fakes.told_shell import Session

SHELLS = ("bash", "dash", "zsh", "fish", "ash")
POSIX = ("bash", "dash", "zsh", "ash")


def written(directory: Path, pattern: str, *words: str) -> list[Path]:
    """Return the files below `directory` with any of `words` in them."""
    return [
        path
        for path, text in contents(directory).items()
        if path.match(pattern) and any(word.encode() in text for word in words)
    ]


@pytest.mark.parametrize("shell", SHELLS)
async def test_just_its_output_and_code(tmp_path: Path, shell: str) -> None:
    """SE-02: that command's output, byte exact, both streams apart, its exit code."""
    async with session(tmp_path, shell) as one:
        assert await one.run("true") == await one.run("true")
        assert await one.code("false") == 1
        assert await one.code("sh -c 'exit 77'") == 77
        end, out, err = await one.run("echo out; echo err >&2; printf 'no newline'")
        assert (end.exit_code, out, err) == (0, b"out\nno newline", b"err\n")
        # every byte but NUL, a mebibyte of it, and what looks like a trailer
        raw = bytes(range(1, 256)) * 4112 + b"\x1e0123:run 0:/:0123\x1e\n\x1e"
        (tmp_path / "raw").write_bytes(raw)
        assert await one.out(f"cat {tmp_path}/raw") == raw
        # it has no input, and its terminal none of it
        assert await one.out("cat") == b""
        assert b"no newline" not in one.terminal()
        # quotes and lines of all kinds
        assert (
            await one.out("printf '%s\\n' 'a\tb' \"c'd\"\necho e") == b"a\tb\nc'd\ne\n"
        )
        # longer than anything typed or named in a command line
        long = "# " + "x" * 1_000_000 + "\necho after"
        assert await one.out(long) == b"after\n"
        assert await one.code("no_such_command_here") == 127


@pytest.mark.parametrize("shell", SHELLS)
async def test_its_directory_is_told(tmp_path: Path, shell: str) -> None:
    """SE-02: the directory it ends in, whatever its name."""
    odd = tmp_path / "a b'c\"d\\e:f\n\x1eg é"
    odd.mkdir()
    link = tmp_path / "link"
    link.symlink_to(odd)
    async with session(tmp_path, shell) as one:
        end, _, _ = await one.run(f"cd {link} && cd -P . || cd {link}/.")
        if shell == "fish":
            end, _, _ = await one.run(f"cd (realpath {link} | string collect)")
        assert end.cwd == str(odd)
        assert await one.out("printf x") == b"x"
        (tmp_path / "gone").mkdir()
        end, _, _ = await one.run(f"cd {tmp_path}/gone && rmdir ../gone")
        assert end.exit_code == 0
        assert await one.out("echo still") == b"still\n"
        end, _, _ = await one.run("cd /")
        assert end.cwd == "/"


@pytest.mark.parametrize("shell", POSIX)
async def test_state_carries_over(tmp_path: Path, shell: str) -> None:
    """SE-01: directory, variables, functions, umask, aliases, options, jobs."""
    async with session(tmp_path, shell) as one:
        await one.out(
            f'cd {tmp_path}; export E=1; v=2; f() {{ echo "f$1"; }}\n'
            "umask 027; alias al='echo aliased'; set -- p q; trap 'echo hup' HUP"
        )
        said = await one.out(
            "pwd; sh -c 'echo $E'; echo $v; f 3; umask; al; kill -HUP $$"
        )
        lines = said.decode().split()
        assert lines == [str(tmp_path), "1", "2", "f3", lines[4], "aliased", "hup"]
        assert int(lines[4], 8) == 0o027
        # a job of its own goes on, and is nobody's output any more
        end, out, _ = await one.run("sh -c 'sleep 60; echo late' & echo begun")
        assert (end.exit_code, out) == (0, b"begun\n")
        assert b"sleep" in await one.out("jobs")
        assert await one.code("kill %1") == 0


async def test_state_carries_over_in_fish(tmp_path: Path) -> None:
    """SE-01: the same in fish, in its own words."""
    async with session(tmp_path, "fish") as one:
        await one.out(
            f"cd {tmp_path}; set -gx E 1; set -g v 2; function f; echo f$argv; end\n"
            "umask 027; alias al 'echo aliased'"
        )
        said = await one.out("pwd; sh -c 'echo $E'; echo $v; f 3; umask; al")
        assert said.decode().split() == [
            str(tmp_path), "1", "2", "f3", "0027", "aliased",
        ]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
async def test_what_is_wrong_is_told(tmp_path: Path, shell: str) -> None:
    """SE-02: unfinished quotes, syntax errors, aborts: told, not hung; it goes on."""
    broken = ['echo "unfinished', "echo 'it", "x=$(", "if true"]
    if shell != "fish":
        broken += ["${x:?msg}", "set -u; echo $nope", ")"]
    async with session(tmp_path, shell) as one:
        for command in broken:
            end, _, err = await one.run(command)
            assert end.exit_code not in (None, 0), command
            assert err, command
            assert not end.shell_ended
            assert await one.out("echo on") == b"on\n"
        assert await one.code("return 5") == 5
        assert await one.out("echo on") == b"on\n"


@pytest.mark.parametrize("shell", POSIX)
@pytest.mark.parametrize(
    ("command", "code"),
    [("echo bye; exit 3", 3), ("set -e\necho bye\nfalse\necho never", 1),
     ("exec sh -c 'echo bye; exit 4'", 4)],
)  # fmt: skip
async def test_the_shell_may_end_in_it(
    tmp_path: Path, shell: str, command: str, code: int
) -> None:
    """SE-02: exit, set -e and exec end the shell: all it printed, and its own code."""
    async with session(tmp_path, shell) as one:
        end, out, _ = await one.run(command)
        assert (end.exit_code, end.shell_ended, out) == (code, True, b"bye\n")
        with pytest.raises(StateError, match="its shell has ended"):
            await one.start("echo never")


@pytest.mark.parametrize("shell", SHELLS)
async def test_an_interrupt_ends_it(tmp_path: Path, shell: str) -> None:
    """SE-14: Ctrl-C and signals end a command and not the shell; the next one runs."""
    async with session(tmp_path, shell) as one:
        loop = "while true; do sleep 1; done"
        if shell == "fish":
            loop = "while true; sleep 1; end"
        for command in ("sleep 100", loop, "sleep 100; echo never"):
            line, sink = await one.start(f"echo begun\n{command}")
            await sink.wait_for(b"begun")
            await soon(
                lambda: any("sleep 1" in p for p in one.kept.processes()), "it sleeps"
            )
            await one.kept.keeper.signal("sone", "INT")
            assert await one.runs.settle("sone", one.number)
            async with asyncio.timeout(40):
                end = await line.ended()
            assert (end.exit_code, sink.out) == (130, b"begun\n")
            assert await one.out("echo on") == b"on\n"
        # settling types nothing while something runs
        line, sink = await one.start("echo begun; sleep 3; echo done")
        await sink.wait_for(b"begun")
        await one.runs.settle("sone", one.number)
        async with asyncio.timeout(40):
            assert (await line.ended()).exit_code == 0
        assert sink.out == b"begun\ndone\n"


@pytest.mark.parametrize("shell", SHELLS)
async def test_keys_answer_it(tmp_path: Path, shell: str) -> None:
    """SE-02, SE-03: a command that asks at the terminal is answered by keys."""
    async with session(tmp_path, shell) as one:
        line, sink = await one.start("sh -c 'read x </dev/tty; echo \"got $x\"'")
        await soon(
            lambda: any("sh -c read x" in p for p in one.kept.processes()), "it asks"
        )
        with pytest.raises(StateError, match="something else runs"):
            await one.runs.start(
                "sone", one.number + 1, new_nonce(), one.family, "true", Collector()
            )
        keys, _ = await one.kept.attach("sone", new_nonce())
        await keys.write(b"yes\n")
        async with asyncio.timeout(40):
            assert (await line.ended()).exit_code == 0
        assert sink.out == b"got yes\n"
        keys.close()
        assert await one.out("echo on") == b"on\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
async def test_nothing_users_redefine_matters(tmp_path: Path, shell: str) -> None:
    """SE-02: functions, aliases and options that get in the way do not."""
    async with session(tmp_path, shell) as one:
        for odd in (
            "printf() { echo bad; }; eval() { echo bad; }; read() { echo bad; }",
            "test() { echo bad; }; return() { echo bad; }; unset() { echo bad; }",
            "alias eval='echo bad' read='echo bad' builtin='echo bad'",
            "set -C; set -f; set -o nounset; IFS=0123456789:/",
            "stty -echo; PS1='\\e[31m$(false)> '; PS2='more'",
            "PROMPT_COMMAND='echo prompted; false'; precmd() { echo prompted; }",
            "export BIG=" + "x" * 100_000,
        ):
            end, _, _ = await one.run(odd)
            assert end.exit_code == 0, odd
            assert await one.out("echo 'a 1' >&1") == b"a 1\n", odd
        end, out, err = await one.run("set -x\necho traced\nset +x")
        assert (end.exit_code, out) == (0, b"traced\n")
        assert one.nonce.encode() not in err
        assert await one.out("set -v; echo verbose 2>/dev/null") == b"verbose\n"


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("bash", {
            ".bash_profile": "PS1='\\[\\e[32m\\]slow \\w\\[\\e[0m\\]\\n$ '; sleep 2\n"
            "PROMPT_COMMAND='printf \"\\033]0;t\\007\"; history -a'\n"
            "HISTFILE=~/.bash_history; HISTCONTROL=; shopt -s histappend; echo hello\n",
        }),
        ("zsh", {
            ".zshrc": "setopt ksharrays shwordsplit noclobber ignorebraces sharehistory"
            " incappendhistory extendedglob nullglob; sleep 2\n"
            "HISTFILE=~/.zsh_history; SAVEHIST=1000; HISTSIZE=1000\n"
            "precmd() { print -P '%F{red}pre%f'; }; PROMPT='%F{blue}%~%f %# '\n",
        }),
        ("ash", {".profile": "sleep 1; PS1='\\w> '; echo colour\n"}),
    ],
)  # fmt: skip
async def test_start_up_files_do_not_matter(
    tmp_path: Path, shell: str, files: dict[str, str]
) -> None:
    """SE-02, SE-18: slow, loud and coloured ones; and no history is written."""
    async with session(tmp_path, shell, files) as one:
        assert await one.out("echo secret-word") == b"secret-word\n"
        assert await one.out("cd /usr; echo two") == b"two\n"
        assert (await one.run("echo fine; exit 0"))[1] == b"fine\n"
        assert written(tmp_path, "*hist*", "secret", "/r'") == []


async def test_fish_writes_no_history(tmp_path: Path) -> None:
    """SE-18: nothing of a command or of what was typed for it is in fish's history."""
    async with session(tmp_path, "fish") as one:
        assert await one.out("echo secret-word") == b"secret-word\n"
        await one.run("exec true")
        assert written(tmp_path, "*fish_history*", "secret", "kept") == []


async def test_a_number_is_told_once(tmp_path: Path) -> None:
    """NF-01: whatever happens, no command is told to the shell twice."""
    async with session(tmp_path, "bash") as one:
        count = tmp_path / "count"
        line, _ = await one.start(f"echo x >>{count}; sleep 1; echo end")
        line.close()
        again = Collector()
        with pytest.raises(StateError, match="with that number"):
            await one.runs.start(
                "sone", one.number, one.nonce, one.family, f"echo x >>{count}", again
            )
        more = await one.runs.follow("sone", one.number, one.nonce, (0, 0), again)
        async with asyncio.timeout(40):
            assert (await more.ended()).exit_code == 0
        assert (count.read_text(), again.out) == ("x\n", b"end\n")
        # what was not told by the time somebody asks for it never is
        never = await one.runs.follow("sone", 2, new_nonce(), (0, 0), Collector())
        assert (await never.ended()).not_begun
        with pytest.raises(StateError):
            await one.runs.start("sone", 2, new_nonce(), one.family, "true", again)
        one.number = 2
        assert await one.out("echo on") == b"on\n"
        # not even by whoever repeats what was typed
        keys, _ = await one.kept.attach("sone", new_nonce())
        read = tmp_path / "read"
        await keys.write(f" . '{one.kept.room}/sone/r'/c; : >{read}\n".encode())
        # or it would repeat what comes next, which has not been told by then
        await soon(read.exists, "the shell has read it")
        assert await one.out("echo on") == b"on\n"
        keys.close()
        assert count.read_text() == "x\n"
        latest = await one.runs.latest("sone")
        assert latest is not None
        assert (latest.number, latest.done) == (4, True)


async def test_it_goes_on_without_a_link(tmp_path: Path) -> None:
    """NF-01: a lost link ends nothing; another line goes on at the byte reached."""
    gate = tmp_path / "gate"
    async with session(tmp_path, "bash") as one:
        line, sink = await one.start(
            "for i in $(seq 1 30000); do echo line $i; done;"
            f" until [ -e {gate} ]; do sleep 0.02; done;"
            " for i in $(seq 30001 60000); do echo line $i; done;"
            " echo err >&2; ( exit 9 )"
        )
        await sink.wait_for(b"line 100\n")
        one.kept.sshd.drop_connections()
        end = await line.ended()
        assert end.gone
        gate.touch()
        while end.gone:
            line = await one.runs.follow(
                "sone", one.number, one.nonce, line.offsets, sink
            )
            end = await line.ended()
        assert end.exit_code == 9
        assert sink.out == b"".join(b"line %d\n" % i for i in range(1, 60001))
        assert sink.err == b"err\n"


async def test_whether_its_host_heard_that_all_is_safe_is_known(
    tmp_path: Path,
) -> None:
    """NF-10: who told it in vain tells it again; megabytes stayed there."""
    async with session(tmp_path, "bash") as one:
        line, _ = await one.start("true")
        await line.ended()
        (reader,) = (one.kept.room / "sone" / "r" / "1" / "o.readers").iterdir()
        os.kill(int(reader.name), signal.SIGKILL)
        assert line.forget()
        assert not await line.heeded()
        line, _ = await one.start("true")
        await line.ended()
        assert line.forget()
        assert await line.heeded()
        there = one.kept.room / "sone" / "r" / "2"
        await soon(lambda: not there.exists(), "it is forgotten")


async def test_its_output_is_bounded_there(tmp_path: Path) -> None:
    """NF-04: what is safe here is dropped there; nothing is missing or there twice."""
    async with session(tmp_path, "bash", kept_bytes=256 * 1024) as one:
        line, sink = await one.start("seq 1 150000; seq 1 150000 >&2")
        async with asyncio.timeout(60):
            end = await line.ended()
            while end.gone:
                line = await one.runs.follow(
                    "sone", one.number, one.nonce, line.offsets, sink
                )
                end = await line.ended()
        assert end.exit_code == 0
        expected = b"".join(b"%d\n" % i for i in range(1, 150001))
        assert sink.out == expected
        assert sink.err == expected
        there = one.kept.room / "sone" / "r" / "1" / "o"
        assert there.stat().st_blocks * 512 <= 512 * 1024
        # and cleared away once that is known to be safe
        line.forget()
        await soon(lambda: not there.parent.exists(), "it is forgotten")


async def test_a_killed_shell_is_no_success(tmp_path: Path) -> None:
    """SE-11: the shell is killed under a command: its code is never made up."""
    async with session(tmp_path, "bash") as one:
        line, sink = await one.start("echo begun; sleep 60")
        await sink.wait_for(b"begun")
        os.kill(one.kept.number("sone", "shpid"), 9)
        async with asyncio.timeout(40):
            end = await line.ended()
        assert end.shell_ended
        assert end.exit_code != 0


@pytest.mark.parametrize("shell", POSIX)
async def test_another_shell_in_its_place_is_not_spoken_for(
    tmp_path: Path, shell: str
) -> None:
    """SE-11: as with `exec tmux` in .bashrc: its end is not how a command ended."""
    async with session(tmp_path, shell) as one:
        program = shutil.which(shell) or str(tmp_path / shell)
        with (one.kept.room / "sone" / "in").open("r+b", buffering=0) as keys:
            keys.write(f"exec script -qc {program} /dev/null\n".encode())
            await soon(lambda: _runs(one, b"script"), "it is there")
            keys.write(b"echo ins''ide\n")
        await soon(lambda: b"inside" in one.terminal(), "it takes commands")
        assert await one.code("true") == 0
        end, out, _ = await one.run("echo bye; exit 3")
        assert (end.exit_code, end.signal, end.shell_ended) == (None, None, True)
        assert out == b"bye\n"


def _runs(one: Session, program: bytes) -> bool:
    """Say whether it is what the session's shell has become."""
    shell = one.kept.number("sone", "shpid")
    return Path(f"/proc/{shell}/cmdline").read_bytes().startswith(program)


async def test_what_a_killed_shell_began_ends(tmp_path: Path) -> None:
    """SE-08: also what it had not put into the foreground, killed before it could."""
    async with session(tmp_path, "bash") as one:
        line, sink = await one.start("sleep 60 & echo begun; wait")
        await sink.wait_for(b"begun")
        os.kill(one.kept.number("sone", "shpid"), 9)
        async with asyncio.timeout(40):
            assert (await line.ended()).shell_ended
        await soon(
            lambda: not any("sleep 60" in p for p in one.kept.processes()),
            "it is hung up on",
        )


@pytest.mark.timed
async def test_a_run_costs_little(tmp_path: Path) -> None:
    """SE-02: a run of `true` in a kept session takes milliseconds on a near host."""
    async with session(tmp_path, "bash") as one:
        await one.run("true")
        took: list[float] = []
        for _ in range(20):
            begun = time.perf_counter()
            await one.run("true")
            took.append(time.perf_counter() - begun)
        # a bar that load does not reach; the figure itself is a few ms
        assert sorted(took)[5] < 0.5, took


async def test_a_durable_command(tmp_path: Path) -> None:
    """NF-10: it needs no link and no session; its output and code are read later."""
    async with kept_on(tmp_path) as kept:
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        sink, nonce = Collector(), new_nonce()
        gate = tmp_path / "gate"
        program = Program(
            'cat; echo "$A $PWD"; echo e >&2;'
            f" until [ -e {gate} ]; do sleep 0.02; done; echo late; exit 5",
            cwd="/usr",
            env={"A": "it's"},
            stdin=b"input\n",
            meta="command=x",
        )
        await runs.begin("jone", nonce, program)
        line = await runs.follow("jone", 1, nonce, (0, 0), sink)
        await sink.wait_for(b"/usr")
        kept.sshd.drop_connections()
        end = await line.ended()
        assert end.gone
        gate.touch()
        line = await runs.follow("jone", 1, nonce, line.offsets, sink)
        async with asyncio.timeout(40):
            end = await line.ended()
        assert (end.exit_code, end.shell_ended) == (5, True)
        assert (sink.out, sink.err) == (b"input\nit's /usr\nlate\n", b"e\n")
        # its host writes down how it ended behind the word to who follows it
        async with asyncio.timeout(40):
            while (standing := await kept.keeper.look("jone")).state == "running":
                await moment()
        assert (standing.state, standing.exit_code, standing.command) == (
            "exited", 5, "x",
        )  # fmt: skip
        with pytest.raises(StateError, match="before"):
            await runs.begin("jone", nonce, program)
        # one that is killed leaves nothing
        await runs.begin("jtwo", nonce, Program("sleep 100 & sleep 100"))
        await kept.keeper.wipe("jtwo")
        await soon(
            lambda: not any("sleep 100" in p for p in kept.processes()), "all gone"
        )


async def test_a_follower_that_is_killed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09: somebody ends what hands its output on; following again tells the rest."""
    monkeypatch.setattr(run_line, "_LOOK_SECONDS", 0.3)
    async with session(tmp_path, "bash") as one:
        gate = tmp_path / "gate"
        line, sink = await one.start(
            f"echo begun; until [ -e {gate} ]; do sleep 0.1; done; echo late; exit 0"
        )
        await sink.wait_for(b"begun")
        readers = one.kept.room / "sone" / "r" / "1" / "o.readers"

        def reader() -> list[str]:
            words = [w for one in readers.iterdir() for w in one.read_text().split()]
            return words if len(words) == 3 else []  # itself, and a tail each

        told = await soon(reader, "it is written down who reads")
        os.kill(int(told[1]), signal.SIGKILL)
        async with asyncio.timeout(40):
            assert (await line.ended()).gone
        gate.touch()
        more = await one.runs.follow("sone", 1, one.nonce, line.offsets, sink)
        async with asyncio.timeout(40):
            end = await more.ended()
        assert (end.exit_code, sink.out) == (0, b"begun\nlate\n")
