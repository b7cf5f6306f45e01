"""What rsync runs in the place of ssh; a program of its own that imports none of ours.

It hands its standard input and output to the daemon through a socket that it inherited,
with the words of the command rsync wants to have run, and leaves with the exit code it
is told. Nothing flows through it. The socket has no name: nobody else can connect.
"""

from __future__ import annotations

import _socket
import array
import os
import sys

# What ssh returns where it lost the connection.
_LOST = 255


def main() -> int:
    """Hand over, wait, and return the exit code."""
    line = _socket.socket(fileno=int(sys.argv[1]))
    words = b"".join(os.fsencode(word) + b"\0" for word in sys.argv[2:])
    ends = array.array("i", [0, 1])
    line.sendmsg(
        [len(words).to_bytes(4, "big") + words],
        [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ends)],
    )
    # From here on the ends are the daemon's alone: should it die, rsync hears of it.
    null = os.open(os.devnull, os.O_RDWR)
    for end in range(3):
        os.dup2(null, end)
    told = line.recv(1)
    return told[0] if told else _LOST


if __name__ == "__main__":
    # Nothing is left to tidy, and the interpreter takes its time to do it.
    os._exit(main())
