"""What giving and taking trust does to known_hosts files."""

from __future__ import annotations

import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import asyncssh
import pytest

from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts import known_change, known_file
from holdfast_daemon.hosts.known_hosts import KnownHosts, hashed, matches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast_daemon.hosts.known_change import Change

NEW = asyncssh.generate_private_key("ssh-ed25519")
OLD = asyncssh.generate_private_key("ssh-ed25519")
RSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")


def text_of(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


WORDS = {
    "new": text_of(NEW),
    "old": text_of(OLD),
    "rsa": text_of(RSA),
    "hashed": hashed("web1"),
    "others": hashed("web2"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "ssh").mkdir()
    return tmp_path / "ssh" / "known_hosts"


def change(file: Path, names: Sequence[str] = ("web1",), *more: Path) -> Change:
    files = [str(file), *map(str, more)]
    lines = KnownHosts.read(files).keys
    return known_change.trusting(lines, names, NEW.public_data, [str(file)])


def trust(file: Path, *names: str, hash_names: bool = False) -> str:
    made = change(file, names or ("web1",))
    known_file.apply(made, hash_names=hash_names)
    return file.read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "web1 {new}\n"),
        ("web1 {old}\n", "web1 {new}\n"),
        ("web1 {old}", "web1 {new}\n"),
        ("# one\nweb1 {old} me\n\nweb3 {old}\n", "# one\n\nweb3 {old}\nweb1 {new}\n"),
        ("web1 {old}\nweb1 {rsa}\n", "web1 {new}\n"),
        ("web1,web2 {old} two\n", "web2 {old} two\nweb1 {new}\n"),
        ("WEB1,192.0.2.1 {old}\n", "192.0.2.1 {old}\nweb1 {new}\n"),
        ("web* {old}\n", "web*,!web1 {old}\nweb1 {new}\n"),
        ("web1,web* {old}\n", "web*,!web1 {old}\nweb1 {new}\n"),
        ("web1,!web9 {old}\n", "web1 {new}\n"),
        ("{hashed} {old}\n{others} {old}\n", "{others} {old}\nweb1 {new}\n"),
        ("@revoked web1 {old}\n", "@revoked web1 {old}\nweb1 {new}\n"),
        ("@cert-authority * {old}\n", "@cert-authority * {old}\nweb1 {new}\n"),
        ("[web1]:2222 {old}\n", "[web1]:2222 {old}\nweb1 {new}\n"),
        ("web1 broken line\n", "web1 broken line\nweb1 {new}\n"),
        ("web2 {new}\n", "web2 {new}\nweb1 {new}\n"),
        ("web1 {new}\n", "web1 {new}\n"),
        ("web1 {new}\nweb1 {old}\n", "web1 {new}\n"),
        ("a {old}\r\nweb1 {old}\r\n", "a {old}\r\nweb1 {new}\n"),
    ],
)
def test_only_what_speaks_of_the_host_changes(
    file: Path, before: str, after: str
) -> None:
    """NF-13: as ssh-keygen -R and a yes, and other hosts' lines stay as they are."""
    file.write_bytes(before.format(**WORDS).encode())
    trust(file)
    assert file.read_bytes().decode() == after.format(**WORDS)
    known = KnownHosts.read([str(file)]).about("web1")
    assert [k.blob for k in known if not k.marker] == [NEW.public_data]


def test_other_names_of_a_line_stay_known(file: Path) -> None:
    """NF-13: a wildcard goes on for the others."""
    file.write_text("*.example,web1 {old}\n".format(**WORDS))
    made = known_change.trusting(
        KnownHosts.read([str(file)]).keys,
        ["web1", "a.example"],
        NEW.public_data,
        [str(file)],
    )
    known_file.apply(made, hash_names=False)
    patterns = file.read_text().split()[0]
    assert matches(patterns, "b.example")
    assert not matches(patterns, "a.example")
    assert not matches(patterns, "web1")


def test_a_file_of_the_system_s_is_not_touched(file: Path, tmp_path: Path) -> None:
    """NF-13: what is left is told."""
    system = tmp_path / "system"
    system.write_text("web1 {old}\n".format(**WORDS))
    made = change(file, ("web1",), system)
    assert [key.file for key in made.left] == [str(system)]
    known_file.apply(made, hash_names=False)
    assert system.read_text() == "web1 {old}\n".format(**WORDS)
    assert file.read_text() == "web1 {new}\n".format(**WORDS)


def test_every_own_file_is_cleared(file: Path, tmp_path: Path) -> None:
    second = tmp_path / "known_hosts2"
    second.write_text("web1 {old}\nweb2 {old}\n".format(**WORDS))
    files = [str(file), str(second)]
    lines = KnownHosts.read(files).keys
    made = known_change.trusting(lines, ["web1"], NEW.public_data, files)
    known_file.apply(made, hash_names=False)
    assert second.read_text() == "web2 {old}\n".format(**WORDS)
    assert file.read_text() == "web1 {new}\n".format(**WORDS)


def test_names_are_hashed_where_that_is_asked_for(file: Path) -> None:
    """NF-13: HashKnownHosts; ssh-keygen finds it again."""
    file.write_text("web1 {old}\n".format(**WORDS))
    assert "web1" not in trust(file, "web1", hash_names=True)
    command = ["ssh-keygen", "-F", "web1", "-f", str(file)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "found: line 1" in found.stdout


def test_forgetting_takes_the_keys_and_leaves_the_rest(file: Path) -> None:
    """NF-13: --remove; a revoked key stays revoked."""
    rest = "@revoked * {old}\nweb2 {old}\n@cert-authority web1 {rsa}\n"
    file.write_text(("web1 {old}\n" + rest + "web1 {rsa}\n").format(**WORDS))
    lines = KnownHosts.read([str(file)]).keys
    made = known_change.forgetting(lines, ["web1"], [str(file)])
    known_file.apply(made, hash_names=False)
    assert file.read_text() == rest.format(**WORDS)


def test_mode_link_and_the_file_before_are_kept(file: Path) -> None:
    """NF-13: 0600, a symbolic link stays one, known_hosts.old as with ssh-keygen -R."""
    real = file.with_name("real")
    before = "web1 {old}\nweb2 {old}\n".format(**WORDS)
    real.write_text(before)
    real.chmod(0o640)
    file.symlink_to(real)
    trust(file)
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert file.with_name("real.old").read_text() == before
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "known_hosts",
        "real",
        "real.old",
    ]
    real.chmod(0o600)
    real.write_text(before)
    trust(file)
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_a_new_file_is_private(file: Path) -> None:
    nested = file.parent / "new" / "known_hosts"
    made = known_change.trusting([], ["web1"], NEW.public_data, [str(nested)])
    known_file.apply(made, hash_names=False)
    assert stat.S_IMODE(nested.stat().st_mode) == 0o600
    assert stat.S_IMODE(nested.parent.stat().st_mode) == 0o700


def test_a_file_that_was_changed_meanwhile_is_left_alone(file: Path) -> None:
    """NF-13: nobody's line goes that was not shown."""
    file.write_text("web1 {old}\n".format(**WORDS))
    made = change(file)
    meanwhile = "web2 {old}\nweb1 {old}\n".format(**WORDS)
    file.write_text(meanwhile)
    with pytest.raises(DaemonError) as caught:
        known_file.apply(made, hash_names=False)
    assert caught.value.reason is Reason.IN_USE
    assert file.read_text() == meanwhile
    assert [path.name for path in file.parent.iterdir()] == ["known_hosts"]


def test_many_writers_lose_nothing(file: Path) -> None:
    """NF-13: two of ours at once; each line is whole and there once."""
    file.write_text("".join(f"web{n} {WORDS['old']}\n" for n in range(8)))
    faults: list[BaseException] = []

    def rewrite(number: int) -> None:
        for _ in range(50):
            try:
                known_file.apply(change(file, (f"web{number}",)), hash_names=False)
            except DaemonError:
                continue  # another one was faster: look again
            return
        faults.append(AssertionError(number))

    def append(number: int) -> None:
        known_file.append(str(file), [f"new{number} {WORDS['rsa']}"])

    threads = [threading.Thread(target=rewrite, args=(n,)) for n in range(8)]
    threads += [threading.Thread(target=append, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not faults
    lines = sorted(file.read_text().splitlines())
    wanted = [f"web{n} {WORDS['new']}" for n in range(8)]
    assert lines == sorted([*wanted, *(f"new{n} {WORDS['rsa']}" for n in range(8))])
