"""The command line of `holdfast-mcp`, read by hand because argparse costs 10 ms."""

from __future__ import annotations

TOOLSETS = ("exec", "hosts", "sessions", "files", "forwards", "fleet")
_DEFAULT = tuple(name for name in TOOLSETS if name != "fleet")
_RESULTS = ("auto", "text", "structured")

USAGE = f"""\
usage: holdfast-mcp [options]

The MCP server that a client spawns. It speaks MCP on stdin and stdout and passes calls
on to the holdfast daemon, which it starts when nothing answers.

  --socket PATH      the daemon's socket
  --toolsets LIST    comma list of {", ".join(TOOLSETS)}, all
                     (default: all but fleet)
  --read-only        offer only tools that change nothing
  --results FORM     how terminal output is told: auto, text or structured
  --no-autostart     do not start the daemon
  --version          print the version
  --help             print this
"""


class UsageError(Exception):
    """The command line is wrong; the message names what is known."""


class Options:
    """What the command line says."""

    __slots__ = ("action", "autostart", "read_only", "results", "socket", "toolsets")

    def __init__(self) -> None:
        self.action = "serve"
        self.socket = ""
        self.toolsets: tuple[str, ...] = _DEFAULT
        self.read_only = False
        self.results = "auto"
        self.autostart = True


def parse(words: list[str]) -> Options:
    """Return the options in `words`, which leave out the program's name."""
    options = Options()
    rest = iter(words)
    for word in rest:
        name, joined, value = word.partition("=")
        if name in ("--socket", "--toolsets", "--results"):
            if not joined:
                value = next(rest, "")
            if not value:
                raise UsageError(f"{name} needs a value")
            _set(options, name, value)
        elif word == "--read-only":
            options.read_only = True
        elif word == "--no-autostart":
            options.autostart = False
        elif word in ("--version", "--help", "-h"):
            options.action = "version" if word == "--version" else "help"
            return options
        else:
            raise UsageError(
                f"unknown argument {word!r}; known: --socket, --toolsets, "
                "--read-only, --results, --no-autostart, --version, --help"
            )
    return options


def _set(options: Options, name: str, value: str) -> None:
    if name == "--socket":
        options.socket = value
    elif name == "--results":
        if value not in _RESULTS:
            raise UsageError(
                f"--results is one of {', '.join(_RESULTS)}, not {value!r}"
            )
        options.results = value
    else:
        named = [part.strip() for part in value.split(",") if part.strip()]
        for part in named:
            if part not in (*TOOLSETS, "all"):
                raise UsageError(
                    f"unknown toolset {part!r}; known: {', '.join(TOOLSETS)}, all"
                )
        if not named:
            raise UsageError(f"--toolsets names none; known: {', '.join(TOOLSETS)}")
        whole = "all" in named
        options.toolsets = tuple(n for n in TOOLSETS if whole or n in named)
