"""run.json with changed fields."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from pipeline.run_record import RunRecord, describe_differences, read_record
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.target import Target

_RECORD = RunRecord(
    "detect",
    {
        "dataset": "0" * 64,
        "checkpoint": "1" * 64,
        "max_proposals": 2000,
        "scales": [600],
        "limit": None,
    },
    {"manifest": "/data/m.parquet", "checkpoint": "s3://bucket/checkpoint"},
    {"precision": "fp32"},
)


def _write(folder: Path, random: Random) -> str:
    _RECORD.write(str(folder))
    path = folder / "run.json"
    changed, change = mutate_json(json.loads(path.read_bytes()), random)
    data, form = encode_json(changed, random)
    path.write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _read(folder: Path) -> tuple[RunRecord, list[str]]:
    record = read_record(str(folder))
    assert record is not None, "run.json is there"
    return record, describe_differences(record, _RECORD)


def _find_fault(folder: Path, answer: tuple[RunRecord, list[str]]) -> str | None:
    record, differences = answer
    stored = json.loads((folder / "run.json").read_bytes())
    if not isinstance(record.job, str) or record.job != stored["job"]:
        return f"the job is {record.job!r}"
    if not isinstance(record.schema_version, int) or isinstance(record.schema_version, bool):
        return f"the schema version is {record.schema_version!r}"
    texts = [json.dumps(value, sort_keys=True) for value in (stored["settings"], record.settings)]
    if texts[0] != texts[1]:
        return f"the settings are read as {texts[1][:200]}"
    is_same = record.fingerprint == _RECORD.fingerprint
    if is_same == bool(differences):
        return f"the fingerprints are {'equal' if is_same else 'different'}, the differences {differences}"
    return None


TARGETS = (Target("run_record", _write, _read, _find_fault),)
