"""A stand-in for macOS's `launchctl`: it records what it was asked, and does it.

Works in the directory HF_LAUNCHD, whose file `asked` holds each call's words.
"""

from __future__ import annotations

import contextlib
import os
import plistlib
import signal
import subprocess
import sys
from pathlib import Path

NO_JOB = 113
# As macOS 15 prints it, a block inside the job's own with a state of its own included.
PRINTED = """\
gui/501/io.holdfast.holdfastd = {{
\tactive count = 1
\ttype = LaunchAgent
\tstate = {state}

\tdefault environment = {{
\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin
\t}}

\truns = 1
{pid}\tlast exit code = {code}

\tresource coalition = {{
\t\tID = 1348
\t\tstate = active
\t\tactive count = 1
\t}}

\tspawn type = adaptive (6)
}}
"""


def main(words: list[str]) -> int:
    """Do as launchctl does for the one agent that a test has."""
    place = Path(os.environ["HF_LAUNCHD"])
    with (place / "asked").open("a") as asked:
        asked.write(" ".join(words) + "\n")
    verb, *rest = words
    domain = f"gui/{os.getuid()}"
    if verb == "print" and rest == [domain]:
        return 0 if not (place / "no-session").exists() else _say(NO_JOB, "no domain")
    if verb == "bootstrap":
        return _bootstrap(place, Path(rest[1]))
    if verb == "bootout":
        return _bootout(place)
    if verb == "print":
        return _print(place)
    if verb == "kickstart":
        return 0 if _running(place) else _start(place)
    return 0 if verb == "enable" else _say(64, f"unrecognized subcommand: {verb}")


def _say(code: int, text: str) -> int:
    sys.stderr.write(text + "\n")
    return code


def _running(place: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int((place / "pid").read_text())
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return 0 if told in ("Z", "X") else pid
    return 0


def _bootstrap(place: Path, plist: Path) -> int:
    if (place / "plist").exists():
        return _say(5, "Bootstrap failed: 5: Input/output error")
    (place / "plist").write_bytes(plist.read_bytes())
    return _start(place)


def _start(place: Path) -> int:
    told = plistlib.loads((place / "plist").read_bytes())
    out = place / "started"
    with Path(told["StandardErrorPath"]).open("ab") as log, out.open("wb") as pid:
        # The shell ends at once, so that nobody here has to wait for the daemon.
        subprocess.run(
            ["sh", "-c", '"$@" >&2 & echo $!', "sh", *told["ProgramArguments"]],
            env={"HOME": os.environ["HOME"], **told["EnvironmentVariables"]},
            cwd=told["WorkingDirectory"],
            stdin=subprocess.DEVNULL,
            stdout=pid,
            stderr=log,
            umask=told["Umask"],
            start_new_session=True,
            check=True,
        )
    out.replace(place / "pid")
    return 0


def _bootout(place: Path) -> int:
    if not (place / "plist").exists():
        return _say(NO_JOB, "Could not find service")
    (place / "plist").unlink()
    if pid := _running(place):
        os.kill(pid, signal.SIGTERM)
    return 0


def _print(place: Path) -> int:
    if not (place / "plist").exists():
        return _say(NO_JOB, "Could not find service")
    pid = _running(place)
    code = place / "exited"
    sys.stdout.write(
        PRINTED.format(
            state="running" if pid else "not running",
            pid=f"\tpid = {pid}\n" if pid else "",
            code=code.read_text() if code.exists() else "(never exited)",
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
