from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipeline import __version__, schema
from pipeline.errors import MismatchedOutput
from pipeline.run_record import RunRecord, describe_differences, read_record

SETTINGS = {"dataset": "abc", "strategy": {"k": [50, 100], "sigma": 0.8}}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = RunRecord("propose", SETTINGS)
    record.write(str(tmp_path))
    assert read_record(str(tmp_path)) == record
    stored = json.loads((tmp_path / "run.json").read_text())
    assert stored["fingerprint"] == record.fingerprint
    assert stored["schema_version"] == schema.VERSION
    assert stored["versions"]["fast-rcnn-pipeline"] == __version__
    assert "pyarrow" in stored["versions"]


def test_the_fingerprint_ignores_the_order_of_settings() -> None:
    reordered = {"strategy": {"sigma": 0.8, "k": [50, 100]}, "dataset": "abc"}
    assert RunRecord("propose", SETTINGS).fingerprint == RunRecord("propose", reordered).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        RunRecord("detect", SETTINGS),
        RunRecord("propose", {**SETTINGS, "dataset": "abd"}),
        RunRecord("propose", {**SETTINGS, "strategy": {"k": [100, 50], "sigma": 0.8}}),
        RunRecord("propose", {**SETTINGS, "more": None}),
        RunRecord("propose", SETTINGS, schema_version=schema.VERSION + 1),
    ],
)
def test_any_change_changes_the_fingerprint(other: RunRecord) -> None:
    assert other.fingerprint != RunRecord("propose", SETTINGS).fingerprint


def test_an_output_without_a_run_has_no_record(tmp_path: Path) -> None:
    assert read_record(str(tmp_path / "gone")) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"job": "x"}',
        "\xff",
        '"text"',
        "[" * 100_000,
        '{"job": 1, "settings": {}}',
        '{"job": "x", "settings": [1]}',
        '{"job": "x", "settings": {}, "inputs": [1]}',
        '{"job": "x", "settings": {}, "resolved": ["x"]}',
        '{"job": "x", "settings": {}, "schema_version": 1e400}',
        '{"job": "x", "settings": {}, "schema_version": "1"}',
    ],
)
def test_a_run_json_of_another_program_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MismatchedOutput, match=r"run\.json is not a run's record"):
        read_record(str(tmp_path))


def test_differences_name_both_values() -> None:
    now = RunRecord("propose", {"dataset": "abc", "strategy": {"k": [50], "sigma": 0.8}, "new": 1})
    assert describe_differences(RunRecord("propose", SETTINGS), now) == [
        "new: nothing there, 1 now",
        "strategy.k: [50, 100] there, [50] now",
    ]
    assert describe_differences(now, now) == []
    assert describe_differences(RunRecord("propose", {}), RunRecord("detect", {})) == [
        "job: propose there, detect now"
    ]


def test_a_digest_is_shown_with_the_place_of_its_input() -> None:
    before = RunRecord("detect", {"dataset": "a" * 64, "images": 3}, {"manifest": "s3://b/old"})
    now = RunRecord("detect", {"dataset": "b" * 64, "images": 4}, {"manifest": "s3://b/new"})
    assert describe_differences(before, now) == [
        "dataset: aaaaaaaa... of s3://b/old there, bbbbbbbb... of s3://b/new now",
        "images: 3 there, 4 now",
    ]


def test_whatever_changes_the_fingerprint_is_named() -> None:
    """A setting that is null differs from a missing one, and the message must say so."""
    before, now = RunRecord("propose", {"a": 1}), RunRecord("propose", {"a": 1, "b": None})
    assert before.fingerprint != now.fingerprint
    assert describe_differences(before, now)
    for left, right in (({"a": 1}, {"a": True}), ({"a": {}}, {}), ({"a": {}}, {"a": {"b": 1}})):
        assert describe_differences(RunRecord("x", left), RunRecord("x", right)), (left, right)


def test_a_record_from_before_schema_versions_is_read_and_differs(tmp_path: Path) -> None:
    stored = {"job": "propose", "settings": SETTINGS}
    (tmp_path / "run.json").write_text(json.dumps(stored))
    earlier, current = read_record(str(tmp_path)), RunRecord("propose", SETTINGS)
    assert earlier is not None
    assert earlier.schema_version == 0
    text = json.dumps(stored, sort_keys=True)
    assert earlier.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert earlier.fingerprint != current.fingerprint
    assert describe_differences(earlier, current) == [
        "schema version: none (an earlier release) there, 1 now"
    ]


def test_a_record_of_a_newer_schema_differs() -> None:
    newer = RunRecord("propose", SETTINGS, schema_version=2)
    assert describe_differences(newer, RunRecord("propose", SETTINGS)) == [
        "schema version: 2 there, 1 now"
    ]
