"""Records of the audit log as lines for people, also those that somebody changed."""

from __future__ import annotations

import pytest

from holdfast_shim.cli.audit import line


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"event_type":"session","duration_ms":1500}', "session  1.5 s"),
        ('{"event_type":"session","duration_ms":"x"}', "session  x ms"),
        ('{"event_type":"session","duration_ms":[1]}', "session  [1] ms"),
        ('{"event_type":"session","duration_ms":NaN}', "session  nan ms"),
        ('{"event_type":"session","duration_ms":1e999}', "session  inf ms"),
        ('{"event_type":5,"metadata":[],"client":{}}', "5"),
        ("[" * 100_000, "[" * 100_000),
        ("what\x1b[2J", "what\\x1b[2J"),
    ],
)
def test_what_somebody_wrote_into_the_log_is_shown_all_the_same(
    record: str, told: str
) -> None:
    """OB-01: the log that was tampered with is the one that must be looked at."""
    assert line(record) == told
