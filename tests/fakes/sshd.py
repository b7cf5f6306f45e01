"""A real OpenSSH server on loopback, as the current user, with its own keys and files.

Works in pytest fixtures and in plain scripts::

    with Sshd(Path("/tmp/somewhere")) as sshd:
        subprocess.run(["ssh", "-F", sshd.config, "box", "true"])
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PRIVILEGE_SEPARATION = Path("/run/sshd")
PATIENCE = 40.0
# RSA keys take long to make: so many are made, no larger than need be, and handed out
# in turn.
_RSA_KEYS = 6
RSA_BITS = 2048
# What ssh(1) would choose costs it three times the rest of a login; no daemon of ours
# knows it.
_CHEAP_EXCHANGE = "-sntrup761x25519-sha512*"
_rsa: list[tuple[bytes, bytes]] = []


def sshd_binary() -> str | None:
    """Return the path of the OpenSSH server; it must be an absolute one to run."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def keygen(
    path: Path, *, kind: str = "ed25519", passphrase: str = "", form: str = "RFC4716"
) -> Path:
    """Make a key pair at `path` and `path`.pub; `form` RFC4716 is OpenSSH's own."""
    public = path.with_name(path.name + ".pub")
    for old in (path, public):
        old.unlink(missing_ok=True)
    usual = kind == "rsa" and not passphrase and form == "RFC4716"
    if usual and len(_rsa) == _RSA_KEYS:
        _rsa.append(_rsa.pop(0))
        for file, data in zip((path, public), _rsa[-1], strict=True):
            file.write_bytes(data)
            file.chmod(0o600)
        return path
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-m", form, "-C"]
    command.append(path.name)
    if kind == "rsa":
        command += ["-b", str(RSA_BITS)]
    if passphrase:
        command += ["-a", "1"]  # one round: the point is not to be strong
    subprocess.run([*command, "-f", str(path)], check=True, stdin=subprocess.DEVNULL)
    if usual:
        _rsa.append((path.read_bytes(), public.read_bytes()))
    return path


def fingerprint(path: Path) -> str:
    """Return the SHA256:… of a key as ssh-keygen prints it."""
    command = ["ssh-keygen", "-l", "-f", str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return out.stdout.split()[1]


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port nobody listens on just now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def kill_kept(directory: Path) -> None:
    """Kill what shells kept below `directory` left: they outlive every connection."""
    marked = f"{directory}/".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            told = (entry / "cmdline").read_bytes()
            if marked in told and b"/kept/" in told:
                for pid in (*descendants(int(entry.name)), int(entry.name)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def kill_sessions(port: int) -> None:
    """Kill what logins at `port` left: it outlives a connection that is cut."""
    server = b" %d" % port
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            names = path.read_bytes().split(b"\0")
            told = next((x for x in names if x.startswith(b"SSH_CONNECTION=")), b"")
            if told.endswith(server):
                os.kill(int(path.parent.name), signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """Yield each process with its parent."""
    if sys.platform == "linux":  # a start of ps(1) costs several times as much
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                with contextlib.suppress(OSError):
                    told = (directory / "stat").read_bytes().rpartition(b")")[2]
                    yield int(directory.name), int(told.split(maxsplit=2)[1])
        return
    table = subprocess.run(
        ["ps", "-axo", "pid=,ppid="], check=True, capture_output=True, text=True
    )
    for line in table.stdout.splitlines():
        child, parent = map(int, line.split())
        yield child, parent


class Log:
    """The server's log, read as it comes."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._open = 0
        self._stream: IO[str] | None = None

    def follow(self, process: subprocess.Popen[str]) -> threading.Thread:
        """Read the standard error of `process` until it ends."""
        thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        with self._changed:
            self._open += 1
        thread.start()
        return thread

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            self._stream = stream
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\r\n"))
                    self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Let the reader take what was written by now, where it waits for its turn."""
        limit = time.monotonic() + 1
        with contextlib.suppress(ValueError):  # it is closed: all was read
            while (
                self._stream is not None
                and select.select([self._stream], [], [], 0)[0]
                and time.monotonic() < limit
            ):
                time.sleep(0.005)

    def count(self, text: str, *, after: int = 0) -> int:
        """Return how many lines contain `text`."""
        with self._changed:
            return sum(text in line for line in self._lines[after:])

    @property
    def position(self) -> int:
        """How many lines there are."""
        with self._changed:
            return len(self._lines)

    @property
    def text(self) -> str:
        """All of it."""
        with self._changed:
            return "\n".join(self._lines)

    def wait_for(
        self,
        text: str,
        *,
        count: int = 1,
        after: int = 0,
        timeout: float = PATIENCE,
    ) -> None:
        """Wait until `count` lines after position `after` contain `text`."""
        limit = time.monotonic() + timeout
        with self._changed:
            while sum(text in line for line in self._lines[after:]) < count:
                left = limit - time.monotonic()
                if left <= 0 or not self._open or not self._changed.wait(left):
                    raise TimeoutError(
                        f"sshd did not say {text!r}:\n" + "\n".join(self._lines)
                    )


class Sshd:
    """One sshd with its own host keys, authorized keys and client files.

    Attributes:
        port: Where it listens, on every address of `addresses`.
        config: An ssh configuration that knows it as `alias`.
        known_hosts: Its host keys, as a client learned them.
        key: The private key it lets in.
        home: A directory like a client's home, with `.ssh` in it.
        exchange: Its key exchanges; empty: all that it knows.
    """

    exchange: ClassVar = _CHEAP_EXCHANGE

    def __init__(
        self,
        directory: Path,
        *,
        alias: str = "box",
        options: Mapping[str, str] | None = None,
        addresses: Sequence[str] = ("127.0.0.1",),
        host_key_types: Sequence[str] = ("ed25519",),
        client_key: Path | None = None,
        port: int = 0,
    ) -> None:
        self.directory = directory
        self.alias = alias
        self.options: dict[str, str] = dict(options or {})
        self.addresses = tuple(addresses)
        self.host_key_types = tuple(host_key_types)
        self.user = getpass.getuser()
        self.port = port
        self.log = Log()
        self.home = directory / "home"
        self.ssh = self.home / ".ssh"
        self.config = self.ssh / "config"
        self.known_hosts = self.ssh / "known_hosts"
        self.key = client_key or self.ssh / "id_ed25519"
        self.authorized_keys = directory / "authorized_keys"
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._prepare()

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and everything under it, also what is kept for when it is gone."""
        self.stop()
        kill_kept(self.directory)
        kill_sessions(self.port)

    @property
    def address(self) -> str:
        """The first address it listens on."""
        return self.addresses[0]

    @property
    def target(self) -> str:
        """It as `user@host:port`."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}"

    @property
    def logins(self) -> int:
        """How many logins it accepted."""
        self.log.catch_up()
        return self.log.count("Accepted ") - self.log.count("Accepted key ")

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None
        return self._process.pid

    @property
    def login_shell(self) -> str:
        """What it runs commands with."""
        return pwd.getpwuid(os.getuid()).pw_shell

    def host_key(self, kind: str = "ed25519") -> Path:
        """Path of a private host key."""
        return self.directory / f"host_{kind}"

    def host_fingerprint(self, kind: str = "ed25519") -> str:
        """SHA256:… of a host key."""
        return fingerprint(self.host_key(kind))

    def authorize(self, *public: Path) -> None:
        """Let these keys in besides those that are."""
        with self.authorized_keys.open("a") as file:
            for path in public:
                file.write(path.read_text())

    def known_hosts_lines(self, names: Iterable[str] = ()) -> str:
        """Its host keys as known_hosts lines for `names`, or for its addresses."""
        given = list(names) or [
            host if self.port == 22 else f"[{host}]:{self.port}"
            for host in self.addresses
        ]
        lines: list[str] = []
        for kind in self.host_key_types:
            key = self.host_key(kind).with_suffix(".pub").read_text().split()[:2]
            lines.append(f"{','.join(given)} {' '.join(key)}\n")
        return "".join(lines)

    def client_config(self, alias: str = "", extra: str = "") -> str:
        """A `Host` block that reaches it."""
        return (
            f"Host {alias or self.alias}\n"
            f"  HostName {self.address}\n"
            f"  Port {self.port}\n"
            f"  User {self.user}\n"
            f"  IdentityFile {self.key}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile none\n" + extra
        )

    def write_client_files(self) -> None:
        """Write `config` and `known_hosts` anew."""
        self.config.write_text(self.client_config())
        self.known_hosts.write_text(self.known_hosts_lines())
        self.known_hosts.chmod(0o600)

    def start(self) -> None:
        """Start it; returns when it listens."""
        fixed = bool(self.port)
        for attempt in range(5):
            if not fixed:
                self.port = free_port(self.address)
            after = self.log.position
            self._spawn()
            try:
                for address in self.addresses:
                    self.log.wait_for(f"on {address} port {self.port}", after=after)
                break
            except TimeoutError:
                self.stop()
                if fixed or attempt == 4 or "in use" not in self.log.text:
                    raise
        # Never again: who logs in just then would find them half written.
        if not (fixed and self.known_hosts.exists()):
            self.write_client_files()

    def stop(self) -> None:
        """Kill the listener, its connections and what they run."""
        process, self._process = self._process, None
        if process is None:
            return
        pids = descendants(process.pid)
        process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)
        if self._reader is not None:
            self._reader.join(PATIENCE)

    def grants_terminals(self) -> bool:
        """Whether it can: without root that needs a /dev/pts mounted with gid=5."""
        told = subprocess.run(
            ["ssh", "-F", str(self.config), "-tt", self.alias, "test -t 0"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
        return told.returncode == 0

    def restart(self, *, new_host_keys: bool = False) -> None:
        """Stop and start it on the same port; the client's files stay as they are."""
        self.stop()
        if new_host_keys:
            for kind in self.host_key_types:
                keygen(self.host_key(kind), kind=kind)
        self.start()

    def replace_listener(self) -> None:
        """Put a listener with new host keys in its place; connections go on."""
        process = self._process
        assert process is not None
        process.kill()
        process.wait(PATIENCE)
        for kind in self.host_key_types:
            keygen(self.host_key(kind), kind=kind)
        self.start()

    def drop_connections(self) -> None:
        """Kill every connection; the listener goes on."""
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze_connections(self) -> list[int]:
        """Stop every connection's processes; returns them for `thaw`."""
        frozen: list[int] = []
        for pid in descendants(self.pid):
            # A login goes through short-lived processes: one may be gone by now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
        return frozen

    def thaw(self, pids: Iterable[int]) -> None:
        """Let frozen processes go on."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _prepare(self) -> None:
        for path in (self.directory, self.home, self.ssh):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for kind in self.host_key_types:
            if not self.host_key(kind).exists():
                keygen(self.host_key(kind), kind=kind)
        if not self.key.exists():
            keygen(self.key)
        self.authorized_keys.write_text(
            self.key.with_name(self.key.name + ".pub").read_text()
        )
        if os.getuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)

    def _spawn(self) -> None:
        binary = sshd_binary()
        if binary is None:
            raise FileNotFoundError("no OpenSSH server; install openssh-server")
        settings = {
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.authorized_keys),
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",
        }
        if self.exchange:
            settings["KexAlgorithms"] = self.exchange
        settings.update(self.options)
        lines = [f"Port {self.port}"]
        lines += [
            f"ListenAddress [{host}]:{self.port}"
            if ":" in host
            else f"ListenAddress {host}:{self.port}"
            for host in self.addresses
        ]
        lines += [f"HostKey {self.host_key(kind)}" for kind in self.host_key_types]
        lines += [f"{name} {value}" for name, value in settings.items()]
        file = self.directory / "sshd_config"
        file.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [binary, "-D", "-e", "-f", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = self.log.follow(self._process)


class Agent:
    """A real ssh-agent with a socket of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = directory / "agent.sock"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it; it prints its variables once it listens."""
        self._process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(self.socket)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()

    def add(self, key: Path) -> None:
        """Load a key without a passphrase."""
        subprocess.run(
            ["ssh-add", "-q", str(key)],
            check=True,
            env={**os.environ, "SSH_AUTH_SOCK": str(self.socket)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
