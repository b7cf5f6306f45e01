"""A shell that waits for its command, run by real shells as sshd would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast_daemon.connection.shell import Probe, ShellFacts
from holdfast_daemon.connection.standby import LONGEST, Greeting, Script
from holdfast_daemon.streams import Stream

LOGIN_SHELLS = [
    path for path in ("/bin/bash", "/bin/dash", "/bin/sh") if Path(path).exists()
]
GUARDS = {
    "none": None,
    "empty": "",
    "comments only": "# ~/.bashrc\n\n   # umask 022\n",
    "Debian": "# x\ncase $- in\n    *i*) ;;\n      *) return;;\nesac\nexport A=1\n",
    "older Debian": '[ -z "$PS1" ] && return\nexport A=1\n',
    "system": '# x\n[ -z "${PS1-}" ] && return\nshopt -s checkwinsize\n',
    "Arch": "#\n[[ $- != *i* ]] && return\nalias ls=x\n",
}
DOING = {
    "an export": "export A=1\n",
    "a last line without its end": "# x\nexport A=1",
    "another file": "if [ -f /etc/bashrc ]; then\n. /etc/bashrc\nfi\n",
    "a guard too late": 'A=1\n[ -z "$PS1" ] && return\n',
    "half a guard": "case $- in\n    *i*) A=1 ;;\nesac\n",
}


class Waiter:
    """A login shell that sshd has told to wait."""

    def __init__(
        self, shell: str, home: Path, *, look: bool = True, probe: Probe | None = None
    ) -> None:
        self.greeting = Greeting(look=look, probe=probe)
        self.process = subprocess.Popen(
            [Path(shell).name, "-c", self.greeting.command],
            executable=shell,
            env=environment(shell, home),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        for _ in range(1 if probe is None else 2):
            self.greeting.received(Stream.OUT, self.process.stdout.readline())

    @property
    def waits(self) -> bool:
        """It says so."""
        return self.greeting.waits

    def tell(self, line: bytes, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        """Tell it its command; return what came of it."""
        out, err = self.process.communicate(line + stdin, timeout=20)
        return self.process.returncode, out, err


def environment(shell: str, home: Path) -> dict[str, str]:
    """What sshd sets."""
    return {
        "HOME": str(home),
        "SHELL": shell,
        "USER": "someone",
        "PATH": os.environ["PATH"],
        "SSH_CLIENT": "127.0.0.1 1 22",
        "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 22",
    }


def plainly(
    shell: str, home: Path, command: str, stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Run a command as sshd does."""
    run = subprocess.run(
        [Path(shell).name, "-c", command],
        executable=shell,
        env=environment(shell, home),
        cwd=home,
        check=False,
        capture_output=True,
        input=stdin,
    )
    return run.returncode, run.stdout, run.stderr


def script(command: str) -> Script:
    return Script(command, "", "", command)


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
@pytest.mark.parametrize(
    "command",
    [
        'echo "$0 $-"; env | grep -v "^_=" | sort; pwd; umask',
        "echo 'a\nb' \"c\\\nd\"; cat; exit 3",
        "nosuch; echo $?; echo $LINENO",
        "echo 'open",
        "kill -TERM $$",
        'echo "$_"; echo $SHLVL',
    ],
)
def test_it_becomes_what_sshd_would_have_started(
    shell: str, command: str, tmp_path: Path
) -> None:
    """EX-19: byte for byte, with the input that follows the command."""
    waiter = Waiter(shell, tmp_path)
    assert waiter.waits
    told = waiter.tell(script(command).waiting, b"input\n\xff\x00")
    assert told == plainly(shell, tmp_path, command, b"input\n\xff\x00")


@pytest.mark.parametrize("name", GUARDS)
def test_it_waits_where_start_up_files_stop_at_once(name: str, tmp_path: Path) -> None:
    text = GUARDS[name]
    if text is not None:
        (tmp_path / ".bashrc").write_text(text)
    waiter = Waiter("/bin/bash", tmp_path)
    assert waiter.waits
    assert waiter.tell(script('echo "[$A]"').waiting) == (0, b"[]\n", b"")


@pytest.mark.parametrize("name", DOING)
def test_it_ends_where_they_do_something(name: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(DOING[name])
    waiter = Waiter("/bin/bash", tmp_path)
    assert not waiter.waits
    assert waiter.tell(b"")[0] == 0


def test_what_was_looked_at_before_is_not_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(DOING["an export"])
    waiter = Waiter("/bin/bash", tmp_path, look=False)
    assert waiter.waits
    assert waiter.tell(b"")[0] == 0


@pytest.mark.parametrize("shell", ["/usr/bin/zsh", "/usr/bin/fish", "/bin/rbash"])
def test_other_shells_do_not_wait(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here: run packaging/test-packages.sh")
    waiter = Waiter(shell, tmp_path)
    assert not waiter.waits
    waiter.tell(b"")


def test_it_ends_with_its_input(tmp_path: Path) -> None:
    waiter = Waiter("/bin/bash", tmp_path)
    assert waiter.waits
    assert waiter.tell(b"") == (0, b"", b"")


def test_noise_before_it_is_no_word_of_it() -> None:
    noisy = Greeting(look=True)
    noisy.received(Stream.OUT, b"welcome\n" + noisy._answer + b"12\n")  # pyright: ignore[reportPrivateUsage]
    assert not noisy.waits


def test_a_long_one_is_not_told_to_it() -> None:
    """It reads a byte at a time."""
    assert script("x" * LONGEST).waiting == b""
    assert script("x" * (LONGEST // 2)).waiting.endswith(b"\n")


_TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60
)


@settings(max_examples=60, deadline=None)
@example(text="\x81\x82\x88 ā ă '\n\n'\"$x`\\\\\n", shell="/bin/dash")
@example(text="\n", shell="/bin/bash")
@given(text=_TEXT, shell=st.sampled_from(LOGIN_SHELLS))
def test_every_text_arrives_as_it_is(text: str, shell: str) -> None:
    """EX-19: bytes, quotes, newlines and what shells use for themselves."""
    quoted = "'" + text.replace("'", "'\\''") + "'"
    command = f"printf '%s' {quoted}"
    waiter = Waiter(shell, Path("/"), look=False)
    code, out, err = waiter.tell(script(command).waiting)
    assert (code, out, err) == (0, text.encode(), b"")


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_a_shell_that_is_found_out_about_waits_at_once(
    shell: str, tmp_path: Path
) -> None:
    """Issue 3 point 5: one channel tells what the shell is, and then has it wait."""
    probe = Probe()
    waiter = Waiter(shell, tmp_path, probe=probe)
    assert probe.facts("SSH-2.0-OpenSSH_9.2") == ShellFacts("posix")
    assert waiter.waits
    told = waiter.tell(script("cat; exit 3").waiting, b"input")
    assert told == (3, b"input", b"")


@pytest.mark.parametrize(
    ("shell", "facts"),
    [
        ("/bin/rbash", ShellFacts("posix", confined=True)),
        ("/usr/bin/zsh", ShellFacts("posix")),
        ("/usr/bin/fish", ShellFacts("fish")),
        ("/usr/bin/tcsh", ShellFacts("csh")),
    ],
)
def test_other_shells_are_found_out_about_and_end(
    shell: str, facts: ShellFacts, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here: run packaging/test-packages.sh")
    probe = Probe()
    greeting = Greeting(look=True, probe=probe)
    run = subprocess.run(
        [Path(shell).name, "-c", greeting.command],
        executable=shell,
        env=environment(shell, tmp_path),
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
    )
    greeting.received(Stream.OUT, run.stdout)
    greeting.received(Stream.ERR, run.stderr)
    assert probe.facts("SSH-2.0-OpenSSH_9.2") == facts
    assert not greeting.waits


def test_the_words_are_one_line() -> None:
    """A device with a command line of its own would take each for a command."""
    assert "\n" not in Greeting(look=True, probe=Probe()).command
