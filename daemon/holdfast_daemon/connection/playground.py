"""A throw-away SSH server on loopback, for `holdfast demo`: own keys, a real shell.

    python -m holdfast_daemon.connection.playground DIRECTORY

Writes `ssh_config`, `known_hosts` and the keys into DIRECTORY, prints one line when it
listens, and ends with its standard input. Only the key in DIRECTORY may log in, as the
user who runs it.
"""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import os
import pwd
import struct
import sys
import termios
from functools import partial
from pathlib import Path

import asyncssh

ALIAS = "playground"
_LOOPBACK = "127.0.0.1"


def _shell() -> str:
    return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def _serve(
    clients: set[asyncssh.SSHServerConnection],
    process: asyncssh.SSHServerProcess[bytes],
) -> None:
    """Run one command, or a login shell, as sshd would."""
    clients.add(process.get_extra_info("connection"))
    try:
        await _run(process)
    finally:
        process.close()
        await process.wait_closed()


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    command = process.command
    arguments = [_shell(), "-c", command] if command else [_shell(), "-i"]
    if process.term_type:
        child = await _on_terminal(process, arguments)
    else:
        child = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        await process.redirect(
            stdin=child.stdin, stdout=child.stdout, stderr=child.stderr
        )
    code = await child.wait()
    await process.stdout.drain()
    if code < 0:
        process.exit_with_signal(_signal_name(-code))
    else:
        process.exit(code)


async def _on_terminal(
    process: asyncssh.SSHServerProcess[bytes], arguments: list[str]
) -> asyncio.subprocess.Process:
    ours, theirs = os.openpty()
    cols, rows = process.term_size[0] or 80, process.term_size[1] or 24
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
    child = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
        env={**os.environ, "TERM": process.term_type or "dumb"},
    )
    os.close(theirs)
    await process.redirect(stdin=os.dup(ours), stdout=ours)
    return child


def _signal_name(number: int) -> str:
    import signal  # noqa: PLC0415 - only on this rare path

    return signal.Signals(number).name.removeprefix("SIG")


async def _stdin_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    await reader.read()


async def serve(directory: Path) -> None:
    """Serve until standard input ends."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key.write_private_key(directory / "id_ed25519")
    (directory / "id_ed25519").chmod(0o600)
    authorized = directory / "authorized_keys"
    client_key.write_public_key(authorized)
    clients: set[asyncssh.SSHServerConnection] = set()
    server = await asyncssh.listen(
        _LOOPBACK,
        0,
        server_host_keys=[host_key],
        authorized_client_keys=str(authorized),
        process_factory=partial(_serve, clients),
        encoding=None,
        line_editor=False,
    )
    port = server.get_port()
    public = host_key.export_public_key().decode().strip()
    (directory / "known_hosts").write_text(f"[{_LOOPBACK}]:{port} {public}\n")
    (directory / "ssh_config").write_text(
        f"Host {ALIAS}\n"
        f"  HostName {_LOOPBACK}\n"
        f"  Port {port}\n"
        f"  User {getpass.getuser()}\n"
        f"  IdentityFile {directory}/id_ed25519\n"
        f"  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n"
    )
    sys.stdout.write(f"listening on {_LOOPBACK}:{port}\n")
    sys.stdout.flush()
    await _stdin_ends()
    server.close()
    for client in clients:
        client.abort()
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
