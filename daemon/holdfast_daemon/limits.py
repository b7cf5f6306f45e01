"""Every number of the daemon that shows outside, with its unit and its reason.

`[limits]` in the configuration overrides any of them within its bounds; `holdfast
status --limits` shows them all.
Sizes of buffers and the like that nobody can see stay beside their code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
HOUR = 3600.0
DAY = 24 * HOUR


class Bounds(NamedTuple):
    """What a limit may be set to, and why it is what it is."""

    unit: str
    low: float
    high: float
    reason: str


def _limit(value: float, unit: str, low: float, high: float, reason: str) -> Any:
    return field(default=value, metadata={"bounds": Bounds(unit, low, high, reason)})


def _at_start(value: float, unit: str, low: float, high: float, reason: str) -> Any:
    """Declare a limit that a running daemon does not change with its configuration."""
    return _limit(value, unit, low, high, f"{reason}; read at the start")


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits; the defaults are the contract's."""

    # file
    file_seconds: float = _limit(
        40.0, "s", 1, 300, "a call about files returns before clients give up at 60 s"
    )
    file_entries: int = _limit(
        1000, "entries", 10, 10_000, "a longer directory is cut, and said to be"
    )
    file_whole_bytes: int = _limit(
        256 * KIB,
        "bytes",
        4 * KIB,
        4 * MIB,
        "a file up to it is fetched whole, and cut here; of a larger one its part",
    )
    file_hash_bytes: int = _limit(
        256 * MIB,
        "bytes",
        0,
        100 * GIB,
        "a larger file is read, or added to, without its SHA-256",
    )
    file_edit_bytes: int = _limit(
        8 * MIB, "bytes", 4 * KIB, 64 * MIB, "the largest file that is edited"
    )
    file_answer_bytes: int = _limit(
        4 * MIB, "bytes", 64 * KIB, 64 * MIB, "a host's longer list is cut off there"
    )
    # sync
    sync_idle_seconds: float = _limit(
        120.0, "s", 5, DAY, "a sync that moves no byte for so long is ended"
    )
    sync_entries: int = _limit(
        500_000, "names", 100, 10_000_000, "without rsync each costs memory here"
    )
    sync_changes: int = _limit(
        200, "lines", 1, 5000, "a result a model can read; the job's output has all"
    )
    # copy
    copies_running: int = _at_start(
        4, "copies", 1, 100, "more wait for their turn: disks and links are shared"
    )
    copy_parallel: int = _limit(
        3, "channels", 1, 16, "files of one copy that move at once"
    )
    copy_bytes_per_second: int = _limit(
        0, "bytes", 0, 1024 * GIB, "of all copies together; 0: as fast as it goes"
    )
    copy_idle_seconds: float = _limit(
        60.0, "s", 1, DAY, "a channel that moves nothing for so long is tried again"
    )
    copy_patience_seconds: float = _limit(
        300.0, "s", 0, DAY, "a copy waits so long for a host that went away"
    )
    copy_resume_seconds: float = _limit(
        DAY,
        "s",
        0,
        30 * DAY,
        "the same for what a new daemon goes on with, syncs too",
    )
    copy_names: int = _limit(
        200_000, "names", 100, 5_000_000, "a tree with more is for ssh_sync"
    )
    # exec
    command_timeout_seconds: float = _limit(
        HOUR, "s", 0, 365 * DAY, "hard limit of a command that names none; 0 is none"
    )
    wait_seconds: float = _limit(
        45.0, "s", 0, 50, "a call returns before clients give up at 60 s"
    )
    wait_max_seconds: float = _limit(
        50.0, "s", 1, 300, "the longest a call may wait for a command"
    )
    held_output_seconds: float = _limit(
        2.0, "s", 0.1, 60, "silence after the exit status: others hold the output open"
    )
    marker_seconds: float = _limit(
        3.0, "s", 0.1, 60, "output is held back for the shell's mark at most so long"
    )
    start_seconds: float = _limit(
        15.0,
        "s",
        0.1,
        50,
        "a call that only starts a command waits for the host so long",
    )
    live_window_bytes: int = _limit(
        4 * MIB, "bytes", 64 * KIB, 32 * MIB, "a live caller may be behind by so much"
    )
    stop_grace_seconds: float = _limit(
        3.0, "s", 0.1, 60, "between INT, TERM and KILL, so that programs can tidy up"
    )
    progress_interval_seconds: float = _limit(
        1.0, "s", 0.1, 30, "clients show the last line; more often is noise"
    )
    quiet_seconds: float = _limit(
        1.0, "s", 0.05, 30, "a reader that waits gets output once it pauses this long"
    )
    request_id_seconds: float = _limit(
        600.0, "s", 10, DAY, "a retry comes within minutes or not at all"
    )
    jobs_running: int = _limit(
        1000, "jobs", 1, 100_000, "each holds a channel and a spool"
    )
    jobs_per_host: int = _limit(
        200, "jobs", 1, 100_000, "one person's share of a host, by all its accounts"
    )
    jobs_listed: int = _limit(200, "jobs", 1, 10_000, "an answer a model can read")
    job_keep_seconds: float = _limit(
        DAY, "s", 60, 365 * DAY, "a result outlives the night; the contract says 24 h"
    )
    job_write_seconds: float = _limit(
        0.05, "s", 0, 60, "results that end together are written together"
    )
    jobs_kept: int = _limit(
        5000, "jobs", 10, 1_000_000, "oldest ended jobs go first beyond it"
    )
    command_bytes: int = _limit(
        128 * KIB, "bytes", KIB, 2 * MIB, "Linux takes 128 KiB in one argument"
    )
    stdin_bytes: int = _limit(
        3 * MIB,
        "bytes",
        KIB,
        3 * MIB,
        "fits a gRPC message; files have their own tools",
    )
    # output
    answer_chars: int = _limit(
        30_000, "characters", 0, 1_000_000, "below what clients cut or put in a file"
    )
    spool_bytes: int = _limit(
        64 * MIB, "bytes", MIB, 64 * GIB, "output kept per job; the oldest goes first"
    )
    spool_total_bytes: int = _limit(
        2 * GIB,
        "bytes",
        64 * MIB,
        1024 * GIB,
        "output kept in all; ended jobs go first",
    )
    segment_bytes: int = _limit(
        MIB, "bytes", 64 * KIB, 64 * MIB, "what a discard frees and a seek scans"
    )
    backlog_bytes: int = _limit(
        2 * MIB, "bytes", 2 * MIB, 64 * MIB, "not yet on disk, then the host must wait"
    )
    flush_seconds: float = _limit(
        0.1, "s", 0.001, 5, "output that a killed daemon may lose"
    )
    chunk_bytes: int = _limit(
        64 * KIB, "bytes", KIB, MIB, "gRPC streams are fastest at 64 KiB"
    )
    recording_bytes: int = _limit(
        16 * MIB, "bytes", 256 * KIB, 16 * GIB, "of one session; the older half goes"
    )
    transcript_bytes: int = _limit(
        16 * MIB, "bytes", 256 * KIB, 16 * GIB, "of one session; the older half goes"
    )
    grep_seconds: float = _limit(
        5.0, "s", 0.1, 60, "a pattern may be exponential; it must not hold a thread"
    )
    # connections
    connect_timeout_seconds: float = _limit(
        10.0, "s", 0.1, 600, "reaching a host and logging in"
    )
    keepalive_seconds: float = _limit(
        5.0, "s", 1, 3600, "a frozen peer is noticed within 5 s x 4 = 20 s"
    )
    keepalive_misses: int = _limit(
        3, "misses", 1, 100, "detection is interval x (misses + 1)"
    )
    channels_per_connection: int = _limit(
        10, "channels", 1, 1000, "sshd's default MaxSessions"
    )
    connections_per_host: int = _limit(
        10, "connections", 1, 1000, "one person's share of a host"
    )
    connections_total: int = _limit(
        2000, "connections", 1, 100_000, "each takes a descriptor and about 75 KiB"
    )
    handshakes_per_host: int = _limit(
        5, "handshakes", 1, 100, "sshd's MaxStartups starts dropping at 10"
    )
    connection_idle_seconds: float = _limit(
        600.0, "s", 5, 30 * DAY, "long enough for the pauses of a working day"
    )
    resolve_seconds: float = _limit(
        15.0, "s", 1, 600, "`ssh -G` may ask a name service or run a `Match exec`"
    )
    resolve_cache_seconds: float = _limit(
        30.0, "s", 0, HOUR, "`Match exec` may change its mind; files are watched anyway"
    )
    resolve_check_seconds: float = _limit(
        0.2, "s", 0, HOUR, "how soon an edit of the ssh configuration takes effect"
    )
    agent_seconds: float = _limit(
        5.0, "s", 0.1, 600, "an agent lists its keys at once, or is stuck"
    )
    sudo_seconds: float = _limit(
        60.0, "s", 1, 600, "sudo may ask a directory or a telephone before it decides"
    )
    keyring_seconds: float = _limit(
        20.0, "s", 0.1, 600, "a locked keyring asks its owner to open it, or is stuck"
    )
    probe_seconds: float = _limit(
        10.0, "s", 0.5, 600, "finding out about a login shell; slower is taken as odd"
    )
    known_hosts_command_seconds: float = _limit(
        10.0, "s", 0.1, 300, "a KnownHostsCommand may ask a directory service"
    )
    trust_requests: int = _limit(
        100, "keys", 1, 10_000, "refused keys that wait for a person; oldest go first"
    )
    login_tries: int = _limit(
        3,
        "tries",
        1,
        20,
        "a busy sshd hangs up before its first word; nothing was sent",
    )
    login_pause_seconds: float = _limit(
        0.3, "s", 0.01, 60, "before the second try; it doubles each time, with jitter"
    )
    login_pause_max_seconds: float = _at_start(
        60.0, "s", 1, HOUR, "a host that hangs up before a word is left alone so long"
    )
    login_person_seconds: float = _limit(
        300.0, "s", 10, HOUR, "a person looks for a code; sshd itself waits 120 s"
    )
    login_keep_seconds: float = _limit(
        12 * HOUR, "s", 0, 30 * DAY, "idle, of a person's login: a day's work; 0: kept"
    )
    login_recall_seconds: float = _limit(
        600.0, "s", 0, DAY, "what a host asks of a person is taken as known so long"
    )
    channel_open_seconds: float = _limit(
        20.0, "s", 1, 600, "a server that accepts and never opens a channel"
    )
    channels_waiting: int = _limit(
        3, "channels", 0, 100, "opened ahead per connection in use; 0: none"
    )
    channels_waiting_seconds: float = _limit(
        60.0, "s", 1, HOUR, "an agent's next command comes within its turn, or later"
    )
    channels_prepared: int = _limit(
        2, "channels", 0, 100, "beside these, for what sessions run next; 0: none"
    )
    host_events: int = _limit(
        20, "events", 1, 1000, "what `status HOST` tells of the past: a bad afternoon"
    )
    wake_check_seconds: float = _at_start(
        3.0, "s", 0.1, HOUR, "how soon it is noticed that this machine has slept"
    )
    wake_gap_seconds: float = _limit(
        10.0, "s", 0.5, DAY, "missed by the clocks; a busy machine is late by less"
    )
    wake_probe_seconds: float = _limit(
        5.0, "s", 0.1, 600, "after it hosts must answer by then, or are let go of"
    )
    # sessions
    sessions_total: int = _limit(
        500, "sessions", 1, 10_000, "each keeps a screen and its last output in memory"
    )
    sessions_per_host: int = _limit(
        50, "sessions", 1, 10_000, "a client that opens one per task is stopped here"
    )
    session_idle_seconds: float = _limit(
        1800.0, "s", 0, 365 * DAY, "a session nobody uses is closed; 0: never"
    )
    session_keep_seconds: float = _limit(
        HOUR, "s", 0, 30 * DAY, "an ended session stays readable so long"
    )
    session_keep_closed_seconds: float = _limit(
        300.0, "s", 0, DAY, "the same with auto_close"
    )
    session_writer_seconds: float = _limit(
        1.5, "s", 0, 60, "a client keeps the keyboard so long after its last call"
    )
    session_turn_seconds: float = _limit(
        10.0, "s", 0, 50, "a command waits so long for the one before it"
    )
    session_start_seconds: float = _limit(
        20.0, "s", 1, 50, "a shell is there, slow start-up files and all"
    )
    session_write_seconds: float = _limit(
        1.0, "s", 0, 50, "what keys bring about is waited for so long"
    )
    wait_things: int = _limit(
        32, "things", 1, 1000, "that one call waits for; each keeps a task busy"
    )
    wait_poll_seconds: float = _limit(
        0.5, "s", 0.05, 30, "a port that is shut is tried again after so long"
    )
    # forwards
    forwards_total: int = _limit(
        200, "forwards", 1, 10_000, "each listens; a client that opens one per task"
    )
    forward_connections: int = _limit(
        1000, "connections", 1, 20_000, "through one forward; each takes a descriptor"
    )
    forward_idle_seconds: float = _limit(
        DAY, "s", 0, 365 * DAY, "unused, unless declared durable; 0: never closed"
    )
    forward_keep_seconds: float = _limit(
        HOUR, "s", 0, 30 * DAY, "a forward that has stopped stays listed so long"
    )
    forward_greeting_seconds: float = _limit(
        10.0, "s", 0.1, 600, "a SOCKS client says by then where it wants to go"
    )

    # gRPC
    message_bytes: int = _at_start(
        4 * MIB, "bytes", 64 * KIB, 4 * MIB, "gRPC's own default; more is a stream"
    )
    metadata_bytes: int = _at_start(
        64 * KIB, "bytes", 8 * KIB, MIB, "a private key travels in the client's context"
    )
    first_frame_seconds: float = _at_start(
        10.0, "s", 0.1, 60, "a stream that never says what it wants is ended"
    )
    pending_calls: int = _at_start(
        100_000, "calls", 1000, 10_000_000, "gRPC drops calls at random above ~1,000"
    )
    # the daemon
    descriptors: int = _at_start(
        65_536, "descriptors", 256, 1_048_576, "clients, links and spools need them"
    )
    stop_seconds: float = _limit(
        5.0, "s", 0.5, 300, "what a stop may take before it forces"
    )
    socket_check_seconds: float = _at_start(
        6.0, "s", 0.2, HOUR, "a deleted or replaced socket is put back by then"
    )
    config_check_seconds: float = _at_start(
        3.0, "s", 0.1, HOUR, "how soon an edit of the configuration takes effect"
    )
    reap_seconds: float = _at_start(
        30.0, "s", 0.1, HOUR, "how often what is past its time is looked for"
    )
    audit_file_bytes: int = _at_start(
        10_000_000, "bytes", 10_000, 1_000_000_000, "ten files of 10 MB are kept"
    )
    audit_files: int = _at_start(10, "files", 2, 1000, "see audit_file_bytes")
    audit_sync_seconds: float = _at_start(
        1.0, "s", 0, 60, "records reach the disk at latest then; 0: each at once"
    )
    audit_write_seconds: float = _at_start(
        5.0,
        "s",
        0.1,
        60,
        "a disk that takes longer counts as one that can't be written",
    )
    audit_backlog_records: int = _at_start(
        10_000, "records", 100, 1_000_000, "then new work is refused"
    )
    audit_retry_seconds: float = _at_start(
        1.0, "s", 0.1, 60, "how soon writing works again after an outage"
    )
    log_file_bytes: int = _at_start(
        10_000_000, "bytes", 10_000, 1_000_000_000, "five files of 10 MB are kept"
    )
    log_files: int = _at_start(5, "files", 1, 100, "see log_file_bytes")
    # kept on hosts
    kept_bytes: int = _limit(
        64 * MIB, "bytes", 256 * KIB, GIB, "output a host keeps until it is fetched"
    )
    kept_patience_seconds: float = _limit(
        120.0, "s", 0, HOUR, "output beyond kept_bytes waits so long for a reader"
    )
    kept_abandoned_seconds: float = _limit(
        14 * DAY, "s", 0, 365 * DAY, "what nobody looked at so long is ended; 0: never"
    )
    clients_listed: int = _at_start(
        200, "clients", 10, 10_000, "the longest idle are forgotten first"
    )


class Described(NamedTuple):
    """One limit as people see it."""

    name: str
    value: float
    bounds: Bounds


def bounds(name: str) -> Bounds | None:
    """Return what limit `name` may be, or None when there is no such limit."""
    for item in fields(Limits):
        if item.name == name:
            return cast("Bounds", item.metadata["bounds"])
    return None


def describe(limits: Limits) -> Iterator[Described]:
    """Yield every limit with its value, unit and reason, in the order of this file."""
    for item in fields(Limits):
        yield Described(
            item.name,
            getattr(limits, item.name),
            cast("Bounds", item.metadata["bounds"]),
        )
