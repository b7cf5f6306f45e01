"""What the doctor makes of values: every verdict, without anything being broken."""

from __future__ import annotations

import base64
import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from holdfast_daemon.connection import diagnosis
from holdfast_daemon.connection.diagnosis import Step
from holdfast_daemon.connection.known import Known
from holdfast_daemon.connection.reach import Stride
from holdfast_daemon.connection.survey import AgentSeen, CertificateSeen, HeldKey
from holdfast_daemon.doctor import (
    agents,
    leftovers,
    machine,
    modes,
    person,
    places,
    records,
    resolution,
    service,
    way,
)
from holdfast_daemon.doctor.finding import Finding, Verdict
from holdfast_daemon.doctor.leftovers import Process
from holdfast_daemon.doctor.machine import Space
from holdfast_daemon.doctor.modes import Seen
from holdfast_daemon.doctor.records import Log
from holdfast_daemon.doctor.service import Manager
from holdfast_daemon.errors import LinkError, Reason
from holdfast_daemon.hosts.host import Host

MIB = 1024 * 1024
OK, WARN, FAIL, SKIP = Verdict


def box(**said: Any) -> Host:
    known: dict[str, Any] = {"name": "box", "hostname": "10.0.0.5", "user": "me"}
    return Host(**{**known, **said})


def well(finding: Finding) -> bool:
    """See that what is not well has a next step, and return whether it is well."""
    assert finding.told
    assert finding.hint or finding.verdict in (OK, SKIP)
    return finding.verdict is OK


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen("s", "socket", 0o600, 7), ""),
        (Seen("s", "socket", 0o660, 7), "open to others (mode 0660)"),
        (Seen("s", "socket", 0o600, 8), "belongs to user 8"),
        (Seen("s", "symbolic link", 0o777, 7), "no socket but a symbolic link"),
        (Seen("s", "missing"), "missing"),
        (Seen("s", "hidden", error="Permission denied"), "Permission denied"),
    ],
)
def test_a_socket_is_ours_alone_or_it_is_said(seen: Seen, told: str) -> None:
    """NF-19: socket path, mode, owner."""
    folder = Seen("d", "directory", 0o700, 7)
    finding = places.judge_socket(seen, folder, 7, ours=True)
    assert well(finding) is not bool(told)
    assert told in finding.told
    assert not well(places.judge_socket(Seen("s", "socket", 0o600, 7), folder, 7,
                                        ours=False))  # fmt: skip


def test_a_tree_is_told_by_its_first_faults() -> None:
    """NF-19: of a thousand wrong files three are named."""
    top = Seen("/s", "directory", 0o700, 7)
    wrong = [Seen(f"/s/{n}", "file", 0o644, 7) for n in range(1000)]
    gone = Seen("/s/gone", "missing")
    finding = places.judge_tree("state", top, [gone, *wrong], 7)
    assert not well(finding)
    assert "1000 of the files" in finding.told
    assert "and 997 more" in finding.told
    assert len(finding.told + finding.hint) < 600
    assert well(places.judge_tree("state", top, [gone], 7))


def test_what_is_below_a_directory_is_looked_at_in_bounds(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert len(list(modes.below(tmp_path, 4))) == 4


@pytest.mark.parametrize(
    ("space", "verdict"),
    [
        (Space(10_000 * MIB, 1), OK),
        (Space(1000 * MIB, 1), WARN),
        (Space(10 * MIB, 1), FAIL),
        (Space(10_000 * MIB, 0), FAIL),
    ],
)
def test_space_lasts_or_not(space: Space, verdict: Verdict) -> None:
    """NF-19: the disk of the state directory, files too."""
    finding = machine.judge_disk("/s", space, 2048 * MIB)
    well(finding)
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("soft", "used", "verdict"),
    [(65536, 20, OK), (256, 20, WARN), (1024, 1000, FAIL),
     (resource.RLIM_INFINITY, 9, OK)],
)  # fmt: skip
def test_descriptors_last_or_not(soft: int, used: int, verdict: Verdict) -> None:
    """NF-19: the descriptors limit."""
    finding = machine.judge_descriptors(soft, soft, used, 65536)
    well(finding)
    assert finding.verdict is verdict


def test_programs_that_are_missing() -> None:
    """NF-19: ssh, ssh-keygen, and their versions."""
    assert well(machine.judge_ssh("ssh", "/bin/ssh", "OpenSSH_9.2"))
    assert machine.judge_ssh("ssh", None, "").verdict is WARN
    assert machine.judge_ssh("odd-ssh", None, "").verdict is FAIL
    assert not well(machine.judge_keygen(None))


@pytest.mark.parametrize(
    ("log", "error", "verdict"),
    [
        (Log(10, 3, (), 1.0), "", OK),
        (Log(10, 3, ("record 2: odd",), 1.0), "", FAIL),
        (Log(10, 3, (), 1.0), "No space left", FAIL),
        (Log(10**9, 0, None, 1.0), "", SKIP),
    ],
)
def test_the_audit_log_is_whole_or_not(log: Log, error: str, verdict: Verdict) -> None:
    """NF-19, SE-16: writable, and intact to its end."""
    finding = records.audit("/a", error, log)
    well(finding)
    assert finding.verdict is verdict


def test_a_clock_that_went_back_is_seen() -> None:
    """NF-19: against the newest record."""
    assert well(records.clock(1000.0, 999.0))
    assert not well(records.clock(1000.0, 5000.0))


MANAGER = Manager(True, "/u/holdfast.service", True, True, lingers=True, wsl=False)


@pytest.mark.parametrize(
    ("change", "unit", "linger"),
    [
        ({}, OK, OK),
        ({"lingers": False}, OK, WARN),
        ({"lingers": False, "wsl": True}, OK, OK),
        ({"supervised": False}, WARN, OK),
        ({"unit": "", "supervised": False, "lingers": False}, OK, OK),
        ({"unit": "", "supervised": False, "booted": False}, OK, SKIP),
    ],
)
def test_lingering_matters_only_to_a_service(
    change: dict[str, Any], unit: Verdict, linger: Verdict
) -> None:
    """NF-19: that there is no service is a fact and no fault."""
    found = MANAGER._replace(**change)
    told = service.unit(found), service.linger(found, "me")
    assert [one.verdict for one in told] == [unit, linger]
    assert all(one.told for one in told)
    if linger is WARN:
        assert told[1].hint == "`loginctl enable-linger me` keeps it"


def test_the_unit_is_found_where_systemd_looks(tmp_path: Path) -> None:
    """NF-19: installed, and enabled, by the person's own files."""
    env = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/nowhere"}
    assert service.manager(env, tmp_path, "me").unit == ""
    folder = tmp_path / "systemd/user"
    folder.mkdir(parents=True)
    (folder / "holdfast.service").touch()
    found = service.manager(env, tmp_path, "me")
    assert (found.unit, found.enabled) == (str(folder / "holdfast.service"), False)
    wants = folder / "default.target.wants"
    wants.mkdir()
    (wants / "holdfast.service").symlink_to("../holdfast.service")
    assert service.manager(env, tmp_path, "me").enabled


def test_the_unit_is_found_where_only_the_shell_has_another_place(
    tmp_path: Path,
) -> None:
    """NF-19: a unit that install wrote where systemd looks was told as none."""
    folder = tmp_path / ".config/systemd/user"
    folder.mkdir(parents=True)
    (folder / "holdfast.service").touch()
    env = {"XDG_CONFIG_HOME": str(tmp_path / "cfg"), "XDG_RUNTIME_DIR": "/nowhere"}
    assert service.manager(env, tmp_path, "me").unit == str(folder / "holdfast.service")


def test_an_agent_of_launchd_is_a_service_too(tmp_path: Path) -> None:
    """NF-19, PK-04: and by whom this daemon was started."""
    plist = tmp_path / "Library/LaunchAgents/io.holdfast.holdfastd.plist"
    plist.parent.mkdir(parents=True)
    plist.touch()
    env = {"XDG_RUNTIME_DIR": "/nowhere", "XPC_SERVICE_NAME": "io.holdfast.holdfastd"}
    found = service.manager(env, tmp_path, "me")
    assert (found.unit, found.enabled, found.supervised) == (str(plist), True, True)
    env["XPC_SERVICE_NAME"] = "application.com.apple.Terminal.1"
    finding = service.unit(service.manager(env, tmp_path, "me"))
    assert finding.verdict is WARN
    assert finding.hint == "`holdfast service restart` has the service take over"


def test_what_can_t_be_looked_at_is_not_told_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-19: macOS has no /proc."""
    monkeypatch.setattr(leftovers, "_PROC", tmp_path / "none")
    assert leftovers.others(tmp_path).verdict is SKIP
    monkeypatch.setattr(machine, "_OPEN", (tmp_path / "none", Path("/dev/fd")))
    assert int(machine.descriptors(1024).details["used"]) > 0


def test_a_configuration_that_was_named_is_taken_by_ssh() -> None:
    """NF-19: `ssh -F` looks at no mode, and /dev/null is the usual word for none."""
    null = Seen("/dev/null", "device", 0o666, 0)
    assert well(person.judge_config(null, 1000, chosen=True))
    loose = Seen("/c", "file", 0o666, 1000)
    assert "refuses" not in person.judge_config(loose, 1000, chosen=True).told
    assert "refuses" in person.judge_config(loose, 1000, chosen=False).told


def test_a_daemon_that_just_starts_is_no_orphan() -> None:
    """NF-19: only what nobody reaches, and not what nobody reaches yet."""
    reached = Process(1, "/a", answers=True, age=100)
    young = Process(2, "/b", answers=False, age=0.1)
    lost = Process(3, "", answers=False, age=100)
    assert well(leftovers.judge_processes([]))
    assert well(leftovers.judge_processes([reached, young]))
    finding = leftovers.judge_processes([reached, young, lost])
    assert not well(finding)
    assert finding.hint.endswith("kill 3")


def blob(kind: str) -> str:
    data = len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0\1x"
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f"box ssh-ed25519 {blob('ssh-ed25519')} me", True),
        (f"@revoked * ssh-rsa {blob('ssh-rsa')}", True),
        (f"@unknown * ssh-rsa {blob('ssh-rsa')}", False),
        (f"box ssh-rsa {blob('ssh-ed25519')}", False),
        ("box ssh-rsa", False),
        ("@revoked", False),
        ("box ssh-rsa not!base64", False),
        ("box ssh-rsa AAAA", False),
    ],
)
def test_lines_of_known_hosts_are_read_as_the_check_does(line: str, good: bool) -> None:
    assert person.readable(line.split()) is good


def test_a_known_hosts_file_that_can_t_be_read(tmp_path: Path) -> None:
    """NF-19: a directory, say."""
    finding = person.judge_known_hosts([person.known_hosts(str(tmp_path))])
    assert finding.verdict is FAIL
    assert person.judge_known_hosts([]).verdict is SKIP


def test_a_known_hosts_that_is_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    """NF-19: whoever should write to it may never come; /dev/null says nothing."""
    pipe = tmp_path / "known_hosts"
    os.mkfifo(pipe)
    finding = person.judge_known_hosts([person.known_hosts(str(pipe))])
    assert finding.verdict is FAIL
    assert "pipe" in finding.told
    assert person.known_hosts(os.devnull) == person.Lines(os.devnull, there=True)


def test_files_others_can_write_are_told(tmp_path: Path) -> None:
    """NF-19: ~/.ssh and its configuration: readable by others, writable by none."""
    config = tmp_path / "config"
    config.touch()
    for mode, good in ((0o644, True), (0o664, False), (0o646, False)):
        config.chmod(mode)
        tmp_path.chmod(mode | 0o100)
        assert well(person.config(config, config.stat().st_uid, chosen=False)) is good
        assert well(person.folder(tmp_path, config.stat().st_uid)) is good
    assert person.config(tmp_path / "none", 0, chosen=False).verdict is SKIP


def test_an_agent_with_a_hundred_keys_is_told_in_short() -> None:
    """NF-19: the first eight and how many there are."""
    held = tuple(HeldKey("ssh-ed25519", f"SHA256:{n}", "me") for n in range(100))
    (finding,) = agents.judge([AgentSeen("/a", "one of the usual places", held)])
    assert well(finding)
    assert "100 keys" in finding.told
    assert "and 92 more" in finding.told


def test_a_certificate_that_can_t_be_read(tmp_path: Path) -> None:
    seen = CertificateSeen("/c", trouble="it is no certificate")
    assert seen.fault(0) == "it is no certificate"
    assert CertificateSeen("/c", since=0, until=None).span == "for ever"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"host_key_checking": "yes"}, WARN),
        ({"host_key_checking": "no"}, WARN),
        ({"host_key_checking": "accept-new"}, OK),
        ({"pinned_fingerprint": "SHA256:x"}, OK),
        ({"known_hosts_command": "/bin/x"}, OK),
    ],
)
def test_an_unknown_host_is_judged_by_its_rule(
    said: dict[str, Any], verdict: Verdict
) -> None:
    """NF-19: what will happen to the first key it shows."""
    finding = resolution.known(box(**said), Known(()))
    well(finding)
    assert finding.verdict is verdict


def test_options_that_are_not_done_are_told() -> None:
    """NF-19, AU-06: no option of ssh is passed over in silence."""
    found = resolution.judge(box(notes=tuple("abcd")), [], inventory=True)
    assert [one.verdict for one in found] == [OK, SKIP]
    assert "[hosts.box]" in found[0].told
    assert "and 1 more" in found[1].told


def test_a_failed_login_tells_what_was_behind_it() -> None:
    """NF-19: the step that failed, and those before it that did not."""
    error = LinkError(Reason.CONNECT_TIMEOUT, "slow", hint=diagnosis.advice(box(), "x"),
                      metadata={"step": "key exchange"})  # fmt: skip
    (only,) = way.refused(error, "way to box", box(), 1.0)
    assert (only.check, only.hint) == ("way to box: key exchange", "x")
    told = LinkError(Reason.PROTOCOL_ERROR, "odd")
    assert way.refused(told, "w", box(), 1.0)[-1].check == "w: key exchange"


def test_a_step_of_a_hidden_host_says_nothing_of_its_place() -> None:
    stride = Stride(Step.TCP, True, "10.0.0.5 takes it", 0.1, {"address": "10.0.0.5"})
    finding = way.told_of(stride, "way to box", box(show="purpose"))
    assert "10.0.0.5" not in str(finding)


# The same, shortened, in errors


def test_a_list_is_bounded_in_number_and_length() -> None:
    """NF-19: an agent reads it."""
    assert diagnosis.bounded(["a", "b"]) == "a; b"
    assert diagnosis.bounded("abcdefghij") == "a; b; c; d; e; f; and 4 more"
    long = diagnosis.bounded(["x" * 5000, "y"])
    assert len(long) < 700
    assert long.endswith("and 1 more")
    assert diagnosis.bounded([]) == ""


def test_addresses_are_read_from_what_the_loop_says() -> None:
    """NF-19: one failure, several, or none that names an address."""
    several = OSError(
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 9, 0, 0),"
        " [Errno 113] Connect call failed ('127.0.0.1', 9)"
    )
    named = box(hostname="two.example")
    assert diagnosis.addresses(named, several) == ("::1", "127.0.0.1")
    assert diagnosis.number(several) == errno.EHOSTUNREACH
    assert diagnosis.addresses(named, OSError("odd")) == ()
    assert diagnosis.addresses(box(), OSError("odd")) == ("10.0.0.5",)
    assert diagnosis.addresses(box(show="purpose"), several) == ()
    assert diagnosis.where(named, Step.TCP, ["::1"]) == " (step: TCP; tried ::1)"
    assert diagnosis.where(box(), Step.TCP, ["10.0.0.5"]) == " (step: TCP)"


@pytest.mark.parametrize(
    ("doing", "step"),
    [
        ("reaching it", "TCP"),
        ("a word from it", "banner"),
        ("the key exchange", "key exchange"),
        ("the login", "login"),
        ("a touch of the security key (x)", "login"),
        ("a keepalive's answer", None),
    ],
)
def test_what_a_login_waits_for_is_one_of_the_steps(
    doing: str, step: str | None
) -> None:
    """NF-19: which step a connection got stuck at."""
    assert diagnosis.step_of(doing) == step


def test_the_doctor_does_not_send_one_to_the_doctor() -> None:
    hint = diagnosis.advice(box(), "check the name")
    assert hint.endswith("`holdfast doctor box` checks each step")
    assert diagnosis.without_doctor(hint, "box") == "check the name"
