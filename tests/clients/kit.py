"""The real MCP clients, and Node for them: installed once, kept below ~/.cache.

`HOLDFAST_CLIENTS` names another directory. Whoever runs a client gets a home directory
of the test's own and no way to any network but loopback.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

WANTED = Path(__file__).with_name("package.json")
INSTALL_SECONDS = 900
PATIENCE = 60.0
NODE_AT_LEAST = 22
# Nobody listens there: what is no loopback is refused at once.
NOWHERE = "http://127.0.0.1:9"
QUIET = {
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "http_proxy": NOWHERE,
    "https_proxy": NOWHERE,
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "CI": "1",
    "NO_COLOR": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "GEMINI_TELEMETRY_ENABLED": "false",
}
# What would name the developer's own clients, accounts and agents.
_STRIPPED = ("CLAUDE", "ANTHROPIC", "OPENAI", "CODEX", "GEMINI", "GOOGLE", "AI_AGENT")


class NotHereError(Exception):
    """The clients can't be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a client ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs."""
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Kit:
    """One installation."""

    directory: Path

    @property
    def path(self) -> str:
        """What comes first in PATH."""
        modules = self.directory / "node_modules"
        own = [str(modules / ".bin")]
        own += [str(p.parent) for p in modules.glob("node-*/bin/node")]
        return os.pathsep.join([*own, os.environ["PATH"]])

    def environment(
        self, home: Path, base: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return what a client finds whose person lives at `home`."""
        kept = {
            key: value
            for key, value in (os.environ if base is None else base).items()
            if not key.startswith(_STRIPPED)
        }
        return kept | QUIET | {"HOME": str(home), "PATH": self.path}


def kit() -> Kit:
    """Return the installation, made now where there is none.

    Raises:
        NotHereError: No npm, no registry, or Node is too old.
    """
    wanted = WANTED.read_bytes()
    named = os.environ.get("HOLDFAST_CLIENTS")
    root = Path(named) if named else Path.home() / ".cache" / "holdfast-clients"
    root.mkdir(parents=True, exist_ok=True)
    directory = root / hashlib.sha256(wanted).hexdigest()[:12]
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            _install(directory, wanted)
    found = Kit(directory)
    version = run(["node", "--version"], environment=found.environment(root)).out
    if int(version.lstrip("v").partition(".")[0]) < NODE_AT_LEAST:
        message = f"Node {version.strip()} is here; the clients need {NODE_AT_LEAST}"
        raise NotHereError(message)
    return found


def _install(directory: Path, wanted: bytes) -> None:
    npm = shutil.which("npm")
    if npm is None:
        message = "no npm here"
        raise NotHereError(message)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "package.json").write_bytes(wanted)
    words = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        done = subprocess.run(
            [*words, "--loglevel=error"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"npm install took longer than {INSTALL_SECONDS} s"
        raise NotHereError(message) from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip())[-400:]
        message = f"npm install failed: {last}"
        raise NotHereError(message)
    (directory / "complete").touch()


@contextlib.contextmanager
def running(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Generator[subprocess.Popen[str]]:
    """Run a client until the block ends; then nothing of it is left."""
    search = environment["PATH"]
    program = shutil.which(words[0], path=search)
    assert program is not None, f"{words[0]} is not in {search}"
    process = subprocess.Popen(
        [program, *words[1:]],
        env=dict(environment),
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)
        process.communicate(timeout=PATIENCE)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a client and what it started, as a person's task manager does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    seconds: float = PATIENCE,
) -> Done:
    """Run a client to its end."""
    with running(words, environment=environment, cwd=cwd) as process:
        out, err = process.communicate(timeout=seconds)
        return Done(process.returncode, out, err)
