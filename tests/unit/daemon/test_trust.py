from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncssh
import pytest

from fakes.sshd import fingerprint as real_fingerprint
from fakes.sshd import keygen
from holdfast_daemon.errors import Reason
from holdfast_daemon.hosts import known_file, known_hosts, update
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.hosts.known_hosts import hashed, written
from holdfast_daemon.hosts.public_key import fingerprint
from holdfast_daemon.hosts.refusal import refusal
from holdfast_daemon.hosts.trust import Trust, names
from holdfast_daemon.hosts.verdict import Status, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.hosts.host import HostKeyChecking

OURS = asyncssh.generate_private_key("ssh-ed25519")
OTHER = asyncssh.generate_private_key("ssh-ed25519")
ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")


def line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def host(path: Path, **changes: object) -> Host:
    base = Host(name="a", hostname="web1", user="u", user_known_hosts=(str(path),))
    return replace(base, **changes)  # type: ignore[arg-type]  # tests name any field


def judge(
    path: Path, text: str, key: asyncssh.SSHKey = OURS, **changes: object
) -> Verdict:
    path.write_text(text)
    return Trust.load(host(path, **changes)).judge(key.public_data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Status.UNKNOWN),
        ("# only a comment\n\n", Status.UNKNOWN),
        ("web1 {ours}\n", Status.KNOWN),
        ("WEB1 {ours}\n", Status.KNOWN),
        ("web1,192.0.2.1 {ours} a comment\n", Status.KNOWN),
        ("web? {ours}\n", Status.KNOWN),
        ("*,!web1 {ours}\n", Status.UNKNOWN),
        ("web2 {ours}\n", Status.UNKNOWN),
        ("web1 {other}\n", Status.CHANGED),
        ("web1 {other}\nweb1 {ours}\n", Status.KNOWN),
        ("web1 {ecdsa}\n", Status.CHANGED),
        ("{hashed} {ours}\n", Status.KNOWN),
        ("{hashed} {other}\n", Status.CHANGED),
        ("@revoked * {ours}\nweb1 {ours}\n", Status.REVOKED),
        ("@revoked * {other}\nweb1 {ours}\n", Status.KNOWN),
        ("@cert-authority * {ours}\n", Status.UNKNOWN),
        ("@unheard-of web1 {ours}\n", Status.UNKNOWN),
        ("web1 ssh-ed25519 !!!notbase64\n", Status.UNKNOWN),
        ("|1|broken {ours}\n", Status.UNKNOWN),
        ("[web1]:2222 {ours}\n", Status.UNKNOWN),
    ],
)
def test_a_plain_key_gets_the_verdict_ssh_gives(
    file: Path, text: str, wanted: Status
) -> None:
    """AU-09, A5 row 26: unknown, changed, revoked, hashed, wildcard, several keys."""
    text = text.format(
        ours=line(OURS), other=line(OTHER), ecdsa=line(ECDSA), hashed=hashed("web1")
    )
    assert judge(file, text).status is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[web1]:2222 {ours}\n", Status.KNOWN),
        ("[web1]:2222 {other}\n", Status.CHANGED),
        ("[web1]:22 {ours}\n", Status.UNKNOWN),
        ("web1 {ours}\n", Status.KNOWN),
        ("web1 {other}\n", Status.UNKNOWN),
        ("[web1]:2222 {other}\nweb1 {ours}\n", Status.CHANGED),
    ],
)
def test_another_port_is_another_host_that_the_bare_name_may_vouch_for(
    file: Path, text: str, wanted: Status
) -> None:
    """A5 row 26: non-default port."""
    text = text.format(ours=line(OURS), other=line(OTHER))
    assert judge(file, text, port=2222).status is wanted


def test_an_alias_stands_for_name_and_port(file: Path) -> None:
    """AU-06: HostKeyAlias."""
    text = f"box {line(OURS)}\nweb1 {line(OTHER)}\n"
    assert judge(file, text, host_key_alias="Box", port=99).status is Status.KNOWN


@pytest.mark.parametrize("checking", ["yes", "accept-new", "no"])
def test_no_setting_takes_a_changed_or_revoked_key(
    file: Path, checking: HostKeyChecking
) -> None:
    """A5 row 26: a changed key is never accepted by a flag."""
    file.write_text(f"web1 {line(OTHER)}\n@revoked * {line(ECDSA)}\n")
    trust = Trust.load(host(file, host_key_checking=checking))
    for key in (OURS, ECDSA):
        verdict = trust.judge(key.public_data)
        assert not trust.accepts(verdict)
        assert trust.learns(verdict) == []


def test_another_file_named_by_a_call_does_not_hide_a_changed_key(
    file: Path, tmp_path: Path
) -> None:
    """A5 row 26: nor by a known_hosts file of the caller's own."""
    file.write_text(f"web1 {line(OTHER)}\n")
    mine = tmp_path / "mine"
    mine.write_text(f"web1 {line(OURS)}\n")
    trust = Trust.load(host(mine, guard_known_hosts=(str(file),)))
    assert trust.judge(OURS.public_data).status is Status.CHANGED
    assert trust.judge(OTHER.public_data).status is Status.CHANGED


@pytest.mark.parametrize(
    ("checking", "accepted", "learned"),
    [("yes", False, False), ("accept-new", True, True), ("no", True, False)],
)
def test_an_unknown_key_is_taken_only_as_the_setting_says(
    file: Path, checking: HostKeyChecking, accepted: bool, learned: bool
) -> None:
    """AU-09: yes, accept-new, no."""
    trust = Trust.load(host(file, host_key_checking=checking))
    verdict = trust.judge(OURS.public_data)
    assert trust.accepts(verdict) is accepted
    assert trust.learns(verdict) == (["web1"] if learned else [])


def test_a_pinned_fingerprint_decides_alone(file: Path) -> None:
    """AU-10: key pinned per host."""
    pin = fingerprint(OURS.public_data)
    text = f"web1 {line(OTHER)}\n"
    assert judge(file, text, pinned_fingerprint=pin).status is Status.KNOWN
    verdict = judge(file, text, OTHER, pinned_fingerprint=pin)
    assert verdict.status is Status.CHANGED
    error = refusal(host(file, pinned_fingerprint=pin), verdict)
    assert error.metadata["known_fingerprint"] == pin


@pytest.mark.parametrize(
    ("text", "checking", "wanted", "learnt"),
    [
        ("{name} {ours}\n{ip} {ours}\n", "yes", Status.KNOWN, []),
        ("{name},{ip} {ours}\n", "yes", Status.KNOWN, []),
        ("{name} {ours}\n", "yes", Status.KNOWN, ["ip"]),
        ("{name} {ours}\n{ip} {other}\n", "yes", Status.CHANGED, []),
        ("{name} {ours}\n{ip} {other}\n", "no", Status.CHANGED, []),
        ("{name} {ours}\n@revoked {ip} {ours}\n", "yes", Status.REVOKED, []),
        ("{ip} {ours}\n", "yes", Status.UNKNOWN, []),
        ("{ip} {ours}\n", "accept-new", Status.UNKNOWN, ["name"]),
        ("{ip} {other}\n", "accept-new", Status.CHANGED, []),
        ("", "accept-new", Status.UNKNOWN, ["name", "ip"]),
        ("{name} {other}\n{ip} {ours}\n", "yes", Status.CHANGED, []),
    ],
)
@pytest.mark.parametrize("port", [22, 2222])
def test_an_address_has_a_say_where_that_is_asked_for(
    file: Path,
    text: str,
    *,
    checking: HostKeyChecking,
    wanted: Status,
    learnt: list[str],
    port: int,
) -> None:
    """AU-09: CheckHostIP, as ssh has it: an address' own key is to be the same."""
    told = {"name": "web1", "ip": "192.0.2.7"}
    if port != 22:
        told = {key: f"[{value}]:{port}" for key, value in told.items()}
    file.write_text(text.format(ours=line(OURS), other=line(OTHER), **told))
    asked = host(file, port=port, check_host_ip=True, host_key_checking=checking)
    trust = Trust.load(asked)
    verdict = trust.judge(OURS.public_data, "192.0.2.7")
    assert verdict.status is wanted
    assert trust.learns(verdict) == [told[each] for each in learnt]
    assert trust.accepts(verdict) is (
        wanted is Status.KNOWN or (wanted is Status.UNKNOWN and checking != "yes")
    )


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1"])
def test_loopback_and_proxies_have_no_address_to_check(
    file: Path, address: str
) -> None:
    file.write_text(f"web1 {line(OURS)}\n127.0.0.1,::1 {line(OTHER)}\n")
    trust = Trust.load(host(file, check_host_ip=True))
    verdict = trust.judge(OURS.public_data, address)
    assert verdict.status is Status.KNOWN
    assert trust.learns(verdict) == []


def test_further_keys_are_learnt_only_of_hosts_known_plainly(file: Path) -> None:
    """AU-09: UpdateHostKeys, where a line of the person's own names this host alone."""
    proved = [OURS.public_data, OTHER.public_data, ECDSA.public_data]
    for text, wanted in (
        ("web1 {ours}\n", 2),
        ("{hashed} {ours}\n", 2),
        ("web1,192.0.2.1 {ours}\n", 2),
        ("web1 {ours}\n@revoked web1 {other}\n", 1),
        ("web1 {ours}\nweb1 {other}\n", 1),
        ("web1 {ours}\nelsewhere {other}\n", 0),
        ("web* {ours}\n", None),
        ("web1,web2,web3 {ours}\n", None),
    ):
        known = {"ours": line(OURS), "other": line(OTHER), "hashed": hashed("web1")}
        file.write_text(before := text.format(**known))
        asked = host(file, update_host_keys="yes")
        verdict = Trust.load(asked).judge(OURS.public_data)
        assert update.is_wanted(asked)
        assert update.applies(asked, verdict) is (wanted is not None)
        if wanted is None:
            continue
        assert len(update.learn(asked, proved)) == wanted
        after = file.read_text()
        assert after.startswith(before)
        assert after.count("\n") == before.count("\n") + wanted
        assert update.learn(asked, proved) == []
    mine = (str(file),)
    for changes in (
        {"guard_known_hosts": mine},
        {"user_known_hosts": ()},
        {"update_host_keys": "ask"},
        {"pinned_fingerprint": "SHA256:x"},
    ):
        assert not update.is_wanted(
            host(file, **({"update_host_keys": "yes"} | changes))
        )
    system = host(file, update_host_keys="yes", global_known_hosts=mine)
    system = replace(system, user_known_hosts=(f"{file}.none",))
    assert not update.applies(system, Trust.load(system).judge(OURS.public_data))


def test_a_learned_key_is_known_to_us_and_to_openssh(file: Path) -> None:
    """AU-09: accept-new writes what ssh-keygen finds, plain or hashed, mode 0600."""
    file.parent.chmod(0o700)
    nested = file.parent / "new" / "known_hosts"
    for hash_names in (False, True):
        target = host(nested, port=2222, hash_known_hosts=hash_names)
        name = hashed("[web1]:2222") if hash_names else "[web1]:2222"
        known_file.append(str(nested), [written(name, OURS.public_data)])
        assert Trust.load(target).judge(OURS.public_data).status is Status.KNOWN
        found = subprocess.run(
            ["ssh-keygen", "-F", "[web1]:2222", "-f", str(nested)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "found: line" in found.stdout
        assert ("web1" in nested.read_text()) is not hash_names
        assert stat.S_IMODE(nested.stat().st_mode) == 0o600
        nested.unlink()


def test_learning_repairs_a_file_without_a_last_newline(file: Path) -> None:
    file.write_text(f"other {line(OTHER)}")
    known_file.append(str(file), [written("web1", OURS.public_data)])
    assert len(file.read_text().splitlines()) == 2
    assert Trust.load(host(file)).judge(OURS.public_data).status is Status.KNOWN


def test_a_refusal_shows_both_fingerprints_and_the_place(file: Path) -> None:
    """NF-13: structured old and new fingerprints, and the next step for a person."""
    verdict = judge(file, f"# first\nweb1 {line(OTHER)}\n")
    error = refusal(host(file), verdict)
    assert error.reason is Reason.HOST_KEY_CHANGED
    assert error.metadata["fingerprint"] == fingerprint(OURS.public_data)
    assert error.metadata["known_fingerprint"] == fingerprint(OTHER.public_data)
    assert error.metadata["known_in"] == f"{file}:2"
    assert (error.metadata["file"], error.metadata["line"]) == (str(file), "2")
    assert "`holdfast hosts trust a` in a terminal" in error.hint
    unknown = refusal(host(file), judge(file, ""))
    assert unknown.reason is Reason.HOST_KEY_UNKNOWN
    assert fingerprint(OURS.public_data) in unknown.message


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    path = keygen(tmp_path / "key")
    blob = asyncssh.read_public_key(f"{path}.pub").public_data
    assert fingerprint(blob) == real_fingerprint(path)


def test_known_types_come_first_in_file_order(file: Path) -> None:
    file.write_text(f"web1 {line(ECDSA)}\nweb1 {line(OURS)}\n")
    wanted = ["ecdsa-sha2-nistp256", "ssh-ed25519"]
    assert Trust.load(host(file)).key_types == wanted
    assert names(host(file, port=2200)) == ("[web1]:2200", "web1")


def test_a_missing_or_unreadable_file_says_nothing(tmp_path: Path) -> None:
    trust = Trust.load(host(tmp_path / "none"))
    assert trust.judge(OURS.public_data).status is Status.UNKNOWN
    trust = Trust.load(host(tmp_path))
    assert trust.judge(OURS.public_data).status is Status.UNKNOWN


def test_plain_names_need_no_expressions() -> None:
    """AU-09: one was made of each of thousands, anew at every login, for seconds."""
    blob = OURS.public_data
    lines = "".join(
        written(f"host{number},10.{number // 256}.{number % 256}.1", blob) + "\n"
        for number in range(3000)
    )
    more = written("*.example,!bad.example", blob)
    found = known_hosts.KnownHosts(known_hosts.parse("file", lines + more))
    made = known_hosts._glob.cache_info().misses  # pyright: ignore[reportPrivateUsage]
    assert [key.line for key in found.about("host2999")] == [3000]
    assert [key.line for key in found.about("10.1.0.1")] == [257]
    assert [key.line for key in found.about("any.example")] == [3001]
    assert found.about("bad.example") == []
    assert known_hosts._glob.cache_info().misses - made <= 1  # pyright: ignore[reportPrivateUsage]
