from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import breaking

OLD = """\
enum Mode
enum Mode 0 MODE_UNSPECIFIED
enum Mode 1 MODE_FAST {"label": "fast"}
enum Soon
enum Soon 0 SOON_UNSPECIFIED
message DoRequest
message DoRequest 1 name string {"pattern": "[a-z]*", "required": true}
message DoRequest 2 size optional uint32 {"max": 10, "min": 1}
message DoRequest 3 mode Mode
message DoRequest 4 later bool {"planned": true}
message DoRequest 5 tags map<string,Tag>
message DoResponse
message DoResponse 1 text oneof:event string
message Note
message Note 1 text string
message PlanRequest
message PlanRequest 1 soon Soon
message PlanRequest 2 tag Tag
message PlanResponse
message Tag
message Tag 1 text string
rpc AService.Do DoRequest -> stream DoResponse {"rule": {"action": "ACTION_READ"}, \
"tool": {"name": "do_it", "title": "Do it: {now}", "toolset": "exec"}}
rpc AService.Plan PlanRequest -> PlanResponse {"tool": {"name": "p", "planned": true}}
service AService
"""

BREAKS = [
    # what is replaced, by what, and what is said about it
    ("message DoRequest 3 mode Mode\n", "", "field DoRequest.mode: removed"),
    (
        "message DoRequest 3 mode Mode\n",
        "message DoRequest 9 mode Mode\n",
        "field DoRequest.mode: was number 3, is 9",
    ),
    ("3 mode Mode", "3 kind Mode", "field DoRequest.mode: renamed to kind"),
    ("3 mode Mode", "3 mode string", "field DoRequest.mode: was Mode, is string"),
    (
        "2 size optional uint32",
        "2 size uint32",
        "field DoRequest.size: was optional uint32, is uint32",
    ),
    (
        "1 text oneof:event string",
        "1 text string",
        "field DoResponse.text: was oneof:event string, is string",
    ),
    (
        "map<string,Tag>",
        "map<string,string>",
        "field DoRequest.tags: was map<string,Tag>, is map<string,string>",
    ),
    ('"max": 10', '"max": 9', "field DoRequest.size: max was 10, is 9"),
    ('"min": 1', '"min": 2', "field DoRequest.size: min was 1, is 2"),
    (
        "3 mode Mode",
        '3 mode Mode {"min": 1}',
        "field DoRequest.mode: min was none, is 1",
    ),
    ("[a-z]*", "[a-z]", "field DoRequest.name: pattern was [a-z]*, is [a-z]"),
    (
        "3 mode Mode",
        '3 mode Mode {"required": true}',
        "field DoRequest.mode: became required",
    ),
    (
        "3 mode Mode",
        '3 mode Mode {"hidden": true}',
        "field DoRequest.mode: became hidden",
    ),
    (
        "3 mode Mode",
        '3 mode Mode {"planned": true}',
        "field DoRequest.mode: became planned",
    ),
    ("message Note\nmessage Note 1 text string\n", "", "message Note: removed"),
    ("message Tag 1 text string\n", "", "field Tag.text: removed"),
    ('enum Mode 1 MODE_FAST {"label": "fast"}\n', "", "value Mode.MODE_FAST: removed"),
    (
        "enum Mode 1 MODE_FAST",
        "enum Mode 2 MODE_FAST",
        "value Mode.MODE_FAST: was number 1, is 2",
    ),
    ("MODE_FAST", "MODE_QUICK", "value Mode.MODE_FAST: renamed to MODE_QUICK"),
    (
        '"label": "fast"',
        '"label": "quick"',
        "value Mode.MODE_FAST: label was fast, is quick",
    ),
    (
        "-> stream DoResponse",
        "-> DoResponse",
        (
            "rpc AService.Do: "
            "was DoRequest -> stream DoResponse, is DoRequest -> DoResponse"
        ),
    ),
    ('"name": "do_it"', '"name": "do"', "rpc AService.Do: tool name was do_it, is do"),
    (
        '"toolset": "exec"',
        '"toolset": "fleet"',
        "rpc AService.Do: tool toolset was exec, is fleet",
    ),
    (
        '"name": "do_it"',
        '"name": "do_it", "planned": true',
        "rpc AService.Do: tool do_it withdrawn",
    ),
    ("rpc AService.Do ", "rpc AService.DoIt ", "rpc AService.Do: removed"),
]

ADDITIONS = [
    ("message Note\n", "message New\nmessage Note\n"),
    (
        "message Note 1 text string\n",
        "message Note 1 text string\nmessage Note 2 n bool\n",
    ),
    ("enum Soon\n", "enum Mode 2 MODE_SLOW\nenum Soon\n"),
    (
        "service AService\n",
        "rpc AService.More PlanRequest -> PlanResponse\nservice A\n",
    ),
    ('"max": 10', '"max": 11'),
    ('"max": 10, ', ""),
    ('"pattern": "[a-z]*", ', ""),
    (', "required": true', ""),
    (' {"planned": true}\nmessage DoRequest 5', "\nmessage DoRequest 5"),
    ('"toolset": "exec"', '"toolset": "exec", "idempotent": true'),
    ('"name": "p", "planned": true', '"name": "p"'),
    ("Do it: {now}", "Do that"),
]

PLANS = [
    ("message PlanRequest 1 soon Soon\n", ""),
    ("PlanRequest -> PlanResponse", "PlanRequest -> stream PlanResponse"),
    ("enum Soon\nenum Soon 0 SOON_UNSPECIFIED\n", ""),
    ('"name": "p"', '"name": "q"'),
    ("rpc AService.Plan", "rpc BService.Plan"),
    ("4 later bool", "4 later string"),
]


def found(old: str, new: str) -> list[str]:
    return sorted(breaking.breaks(breaking.Dump.read(old), breaking.Dump.read(new)))


def changed(before: str, after: str) -> str:
    assert OLD.count(before) == 1 or before == "MODE_FAST", before
    return OLD.replace(before, after)


@pytest.mark.parametrize(
    ("before", "after", "said"), BREAKS, ids=[b[2] for b in BREAKS]
)
def test_a_break_is_named(before: str, after: str, said: str) -> None:
    assert found(OLD, changed(before, after)) == [said]


@pytest.mark.parametrize(("before", "after"), ADDITIONS)
def test_an_addition_passes(before: str, after: str) -> None:
    assert found(OLD, changed(before, after)) == []


@pytest.mark.parametrize(("before", "after"), PLANS)
def test_what_only_planned_calls_use_may_change(before: str, after: str) -> None:
    assert found(OLD, changed(before, after)) == []


def test_what_a_working_call_uses_too_may_not_change() -> None:
    new = OLD.replace("message Tag 1 text string", "message Tag 1 text bytes")
    assert found(OLD, new) == ["field Tag.text: was string, is bytes"]


def test_breaks_come_one_a_line_with_a_failing_exit(tmp_path: Path) -> None:
    new = OLD.replace("3 mode Mode", "3 kind Mode").replace("Note", "Remark")
    assert run(tmp_path, OLD, new) == (
        1,
        "field DoRequest.mode: renamed to kind\nmessage Note: removed\n",
    )


def test_equal_contracts_pass_with_exit_0(tmp_path: Path) -> None:
    assert run(tmp_path, OLD, OLD) == (0, "")


def test_the_contract_in_the_tree_can_be_read() -> None:
    text = Path(breaking.__file__).with_name("holdfast") / "contract.txt"
    dump = breaking.Dump.read(text.read_text("utf-8"))
    assert dump.rpcs["ExecService.Run"].shape == "RunRequest -> stream RunResponse"
    assert dump.messages["RunRequest"]["2"].name == "command"
    assert "SessionReadResult" in dump.unused() or not dump.rpcs[
        "SessionService.ReadSession"
    ].options["tool"].get("planned")
    assert not dump.unused() & {"RunRequest", "ExecResult", "ErrorReason"}


def test_a_break_against_the_last_commit_fails_the_check(tmp_path: Path) -> None:
    proto = tmp_path / "proto"
    shutil.copytree(
        Path(breaking.__file__).parent,
        proto,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    assert call(proto / "check.py") == (0, "")  # no commit, nothing to break
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*name, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert call(proto / "check.py") == (0, "")

    file = proto / "holdfast/v1/exec.proto"
    text = file.read_text("utf-8")
    file.write_text(text.replace(" bool running_only = 2;", " bool running = 2;"))
    status, said = call(proto / "check.py")
    assert status == 1
    assert "stale: proto/holdfast/v1/exec_pb2.py (make proto)\n" in said
    assert call(proto / "generate.py")[0] == 0
    assert call(proto / "check.py") == (
        1,
        "breaking: field ListJobsRequest.running_only: renamed to running\n",
    )


def call(script: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=script.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


def run(folder: Path, old: str, new: str) -> tuple[int, str]:
    (folder / "old.txt").write_text(old)
    (folder / "new.txt").write_text(new)
    done = subprocess.run(
        [sys.executable, breaking.__file__, "old.txt", "new.txt"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout
