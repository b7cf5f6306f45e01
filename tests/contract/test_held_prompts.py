"""Framed commands beside all else in a terminal: prompts, histories, keys, interrupts.

In the ways that `fakes.framed` tells of.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.framed import (
    POSIX,
    Hosts,
    Sessions,
    both_hosts,
    every_shell,
    every_way,
    held_ways,
    place,
    posix_shell,
    roomy_ways,
)
from fakes.tools import failure, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("terminals"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosts]:
    async with both_hosts(tmp_path_factory.mktemp("hosts")) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def sessions(
    request: pytest.FixtureRequest, hosts: Hosts
) -> AsyncIterator[Sessions]:
    async with hosts.reached(request.param) as one:
        yield one


PROMPTS = {
    "bash": (
        ".bashrc",
        r"""
PS1='\[\e[31m\]\u\[\e[0m\] \w\n$ '
PROMPT_COMMAND='sleep 0.2; last=$?'
HISTCONTROL=
alias echo='echo aliased'
set -o noclobber
set -o vi
""",
    ),
    "zsh": (
        ".zshrc",
        r"""
PS1=$'%{\e[31m%}%n%{\e[0m%} %~\n%# '
precmd() { sleep 0.2 }
preexec() { print -n '\e]0;title\a' }
setopt noclobber
""",
    ),
    "fish": (
        ".config/fish/config.fish",
        "function fish_prompt; sleep 0.2; set_color red; echo -n 'f> '; end\n",
    ),
}


@held_ways
@pytest.mark.parametrize("shell", PROMPTS)
async def test_whatever_its_prompt_is(sessions: Sessions, shell: str) -> None:
    """SE-02: slow, coloured, of two lines; PROMPT_COMMAND, aliases and options stay."""
    name, text = PROMPTS[shell]
    path = sessions.at.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    profile = sessions.at.home / ".bash_profile"
    profile.write_text(". ~/.bashrc\n")
    try:
        one = await sessions.open(shell)
        for word in ("one", "two"):
            told = await one.run(f"printf '%s\\n' {word}")
            assert (told["stdout"], told["stderr"]) == (f"{word}\n", "")
        if shell == "bash":
            said = await one.out('printf "%s\\n" "$PROMPT_COMMAND" "$HISTCONTROL"')
            assert said.splitlines()[0].endswith(";sleep 0.2; last=$?")
    finally:
        path.unlink()
        profile.unlink()


@every_way
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_its_history_stays_as_it_was(sessions: Sessions, shell: str) -> None:
    """SE-02: neither commands nor what starts them, in memory or on disk."""
    one = await sessions.open(shell)
    await one.out("echo secret-word")
    await one.out("echo secret-word")
    listing = {
        "bash": "history",
        "zsh": "fc -l -100 2>/dev/null; true",
        "fish": "history",
    }[shell]
    said = await one.out(listing)
    # zsh keeps the line before until the next one was typed, and no longer
    assert len(said.splitlines()) <= (shell == "zsh"), said
    await one.ssh.told("ssh_session_close", session=one.id)
    assert written_with("secret-word", "history", one.at.home) == []


def written_with(word: str, name: str, directory: Path) -> list[Path]:
    """Return the files called so that have it in them; others may go meanwhile."""
    found: list[Path] = []
    for top, _, names in os.walk(directory):
        for path in (Path(top) / one for one in names if name in one):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and word in path.read_text(errors="replace"):
                    found.append(path)
    return found


@roomy_ways
async def test_nothing_is_typed_into_something_else(sessions: Sessions) -> None:
    """SE-14: a program in the foreground is told of, and left alone."""
    one = await sessions.open("bash")
    await one.out("true")
    await one.ssh.told("ssh_session_write", session=one.id, input="cat\n")
    # the terminal shows it once, and cat, which has it by then, once more
    await one.ssh.told(
        "ssh_session_write", session=one.id, input="there\n", until=r"there\s+there"
    )
    error = await one.ssh.refused(
        "ssh_session_run", session=one.id, command="echo no", timeout_seconds=5
    )
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    await one.ssh.told("ssh_session_write", session=one.id, input="\x04")
    assert await one.out("echo on") == "on\n"


@held_ways
@every_shell
async def test_half_a_line_is_taken_away(sessions: Sessions, shell: str) -> None:
    """SE-02: what somebody typed and did not send becomes no part of a command."""
    one = await sessions.open(shell)
    for half in ("echo half-ty", "if true; then echo 'un"):
        await one.ssh.told(
            "ssh_session_write", session=one.id, input=half, wait_seconds=0
        )
        assert await one.out("echo whole") == "whole\n"
    await one.ssh.told(
        "ssh_session_write", session=one.id, input="echo my''own", wait_seconds=0
    )
    told = await one.ssh.told(
        "ssh_session_write", session=one.id, input="-line\n", until="myown-line"
    )
    assert told["running"] is True


# What administrators and scripts do to what bash does before its prompt.
PROMPTED = (
    "readonly PROMPT_COMMAND",
    "declare -rx PROMPT_COMMAND=true",
    "unset PROMPT_COMMAND; set -u",
    "readonly HISTFILE HISTCONTROL",
    "set -eu",
)


@every_way
@pytest.mark.parametrize("before", PROMPTED)
async def test_a_prompt_that_can_t_be_changed(sessions: Sessions, before: str) -> None:
    """SE-02: its end is told at once, also where it was broken off."""
    one = await sessions.open("bash")
    told = await one.run(before)
    assert (told["status"], told["exit_code"]) == ("exited", 0), told
    assert await one.out("echo on") == "on\n"
    if one.way != "inband" and "-e" not in before:
        late = await one.run("sleep 300", timeout_seconds=8)
        assert late["status"] == "timed_out"
        assert await one.out("echo still") == "still\n"


@pytest.mark.parametrize("at_start", PROMPTED[:2])
@every_way
async def test_a_prompt_that_could_never_be_changed(
    sessions: Sessions, at_start: str
) -> None:
    """SE-02: as on hosts whose start-up files say so."""
    profile = sessions.at.home / ".bash_profile"
    profile.write_text(f"{at_start}\n")
    try:
        one = await sessions.open("bash", env={"HOME": str(sessions.at.home)})
        assert await one.out("echo on; cd /") == "on\n"
        assert await one.out("pwd") == "/\n"
    finally:
        profile.unlink()


@every_way
@posix_shell
async def test_a_history_that_can_t_be_moved(sessions: Sessions, shell: str) -> None:
    """SE-02, SE-18: where start-up files see to that, commands run all the same."""
    home = sessions.at.home
    files = [home / name for name in (".bash_profile", ".profile", ".zshrc")]
    for file in files:
        file.write_text(f"readonly HISTFILE={home}/history\n")
    try:
        one = await sessions.open(shell, env={"HOME": str(home)})
        assert await one.out("echo on") == "on\n"
        assert await one.out("echo still") == "still\n"
        await sessions.ssh.told("ssh_session_close", session=one.id)
    finally:
        for file in files:
            file.unlink()
    history = home / "history"
    assert not history.exists() or "/r'/" not in history.read_text("utf-8", "replace")


@roomy_ways
@every_shell
async def test_one_behind_an_open_quote_has_no_code(
    sessions: Sessions, shell: str
) -> None:
    """SE-02, SE-11: it never ran, and is told so; where it is kept before its limit."""
    one = await sessions.open(shell)
    await one.out("true")
    mark = one.at.home / f"ran-{one.id}"
    write = {"session": one.id, "wait_seconds": 0}
    await one.ssh.told("ssh_session_write", input="echo 'ab\n", **write)
    seconds = 60 if one.way == "remote" else 4
    reply = await one.ssh.call(
        "ssh_session_run",
        session=one.id,
        command=f"touch {mark}",
        timeout_seconds=seconds,
        wait_seconds=30,
    )
    error = failure(reply)
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    assert "open quote" in error["message"]
    assert not mark.exists()
    await one.ssh.told("ssh_session_write", input="\x03", **write)
    assert await one.out("echo on") == "on\n"
    assert not mark.exists()


async def test_a_prompt_that_takes_its_time_is_no_open_quote(tmp_path: Path) -> None:
    """SE-02: a command waits for it, however often it is looked for meanwhile."""
    (tmp_path / ".bash_profile").write_text("PS1='$(sleep 4)$ '\n")
    with place(tmp_path) as at:
        async with tools(at.world) as ssh:
            one = await Sessions(ssh, at, "remote").open("bash")
            assert await one.out("echo one") == "one\n"
            assert await one.out("echo two") == "two\n"


@pytest.mark.parametrize("way", ["beside", "remote"])
async def test_what_a_prompt_runs_is_waited_for(tmp_path: Path, way: str) -> None:
    """SE-02: it has the terminal for a moment, and is nobody else's program."""
    (tmp_path / ".bash_profile").write_text("PROMPT_COMMAND='sleep 1.5'\n")
    with place(tmp_path) as at:
        async with tools(at.world) as ssh:
            one = await Sessions(ssh, at, way).open("bash")
            assert await one.out("echo one") == "one\n"
            assert await one.out("echo two") == "two\n"


@roomy_ways
@every_shell
@pytest.mark.parametrize("cols", [25, 80])
async def test_what_starts_it_is_not_shown(
    sessions: Sessions, shell: str, cols: int
) -> None:
    """SE-02, SE-22: on the screen and in text: prompts, and what others typed."""
    one = await sessions.open(shell, cols=cols, rows=40)
    await one.out("true")
    await one.out("true")
    typed = "echo some$((1+1))thing" if shell != "fish" else "echo some(math 1+1)thing"
    await one.ssh.told(
        "ssh_session_write", session=one.id, input=f"{typed}\n", until="some2thing"
    )
    for view in ("screen", "text"):
        told = await one.ssh.told(
            "ssh_session_read", session=one.id, offset=0, view=view
        )
        shown = told["output"].replace("\n", "")
        assert "some2thing" in shown
        assert typed in shown
        assert "/c" not in shown, told["output"]
        assert "holdfast" not in shown.replace(str(sessions.at.home), "")


@every_way
@every_shell
async def test_one_that_is_late_is_broken_off(sessions: Sessions, shell: str) -> None:
    """SE-14: interrupted at its limit, and the next one is its own."""
    one = await sessions.open(shell)
    loop = "while true; do :; done"
    if shell == "fish":
        loop = "while true; sleep 1; end"
    elif shell == "ash":
        # one that is interrupted while it allocates locks itself up now and then
        loop = "while true; do sleep 1; done"
    for command in ("sleep 100; echo never", loop):
        # a busy host may take its time until it has begun
        told = await one.run(f"echo begun\n{command}", timeout_seconds=6)
        assert (told["status"], told["timed_out"]) == ("timed_out", True)
        assert told["stdout"] == "begun\n", command
        assert await one.out("echo on") == "on\n"


@every_way
@pytest.mark.parametrize("shell", ["bash", "ash"])
async def test_an_answer_that_comes_late_is_no_output(
    sessions: Sessions, shell: str, tmp_path: Path
) -> None:
    """SE-02: the screen had much to draw before it came to what a program asked."""
    one = await sessions.open(shell)
    much = tmp_path / "much"
    much.write_text(f"{'much ' * 15}\n" * 20_000 + "\x1b[6n")
    wait = tmp_path / "wait"
    os.mkfifo(wait)
    await one.ssh.told(
        "ssh_session_write",
        session=one.id,
        input=f"cat {much}; echo do''ne\n",
        until="done",
    )
    told = await one.run(f"echo on; cat {wait}", wait_seconds=0)
    while told.get("stdout") != "on\n":
        told = await one.ssh.told(
            "ssh_job_read", job_id=told["job_id"], offset=0, wait_seconds=0.5
        )
        assert told["status"] == "running"
    # whoever looks at the screen has all of it drawn
    await one.ssh.told("ssh_session_read", session=one.id, view="screen")
    wait.write_text("still\n")
    told = await one.ssh.told(
        "ssh_job_read", job_id=told["job_id"], offset=0, wait_seconds=20
    )
    assert (told["status"], told["stdout"]) == ("exited", "on\nstill\n")
    assert await one.out("echo on") == "on\n"


@pytest.mark.parametrize(
    ("sessions", "shell"),
    [*(("beside", shell) for shell in POSIX), ("remote", "bash")],
    indirect=["sessions"],
)
async def test_one_that_minds_no_interrupt_is_ended(
    sessions: Sessions, shell: str
) -> None:
    """SE-14: TERM and KILL follow; the shell lives."""
    one = await sessions.open(shell)
    stubborn = "sh -c 'trap \"\" INT TERM; echo begun; while :; do sleep 1; done'"
    told = await one.run(stubborn, timeout_seconds=8)
    assert (told["status"], told["stdout"]) == ("timed_out", "begun\n")
    assert await one.out("echo on") == "on\n"
