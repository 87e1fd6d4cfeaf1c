"""Outputs with another schema version: read if it is older, resumed only if it is the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import schema, shards
from pipeline.errors import MismatchedOutput, PipelineError, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.run_record import RunRecord, read_record
from pipeline.runs import output
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.tables import build_proposals_table

NO_BOXES = np.zeros((0, 4), np.float32)


def _open(folder: Path, *, overwrite: bool = False) -> RunOutput:
    options = RunOptions(shard_size=2, overwrite=overwrite)
    cut = plan_cut(open_manifest(f"{folder}/m.parquet"), f"{folder}/out", options)
    record = RunRecord("propose", {"dataset": cut.dataset})
    return output.open_run(f"{folder}/out", record, cut, options)


def _commit(ready: RunOutput, shard: shards.Shard) -> None:
    images = [EncodedImage(str(i), f"/{i}", 1, 1, boxes=NO_BOXES) for i in range(shard.rows)]
    shards.put_part(ready.uri, shard, build_proposals_table(images, {}, ready.record.fingerprint))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The manifest `m.parquet` and `out`, an output with one of two shards committed."""
    rows = [ManifestRow(str(i), f"/{i}", 1, 1, None) for i in range(4)]
    write_manifest(f"{tmp_path}/m.parquet", rows, None)
    ready = _open(tmp_path)
    _commit(ready, ready.todo[0])
    return tmp_path


def _set_version(folder: Path, version: int | None) -> None:
    """Make the output that of a release with this schema version, or of one before versions."""
    path = folder / "out" / "run.json"
    record = json.loads(path.read_text())
    del record["schema_version"]
    path.write_text(json.dumps(record | ({} if version is None else {"schema_version": version})))
    stored = read_record(f"{folder}/out")
    assert stored is not None
    for part in (folder / "out").glob("*.parquet"):
        table = pq.read_table(part)
        metadata = dict(table.schema.metadata)
        del metadata[b"schema_version"]
        if b"fingerprint" in metadata:
            metadata[b"fingerprint"] = json.dumps(stored.fingerprint).encode()
        if version is not None:
            metadata[b"schema_version"] = b"%d" % version
        pq.write_table(table.replace_schema_metadata(metadata), part)


def test_an_output_of_the_same_version_is_resumed(folder: Path) -> None:
    assert [shard.ordinal for shard in _open(folder).todo] == [1]


@pytest.mark.parametrize(
    ("version", "error_type", "reason"),
    [
        (None, MismatchedOutput, "schema version: none (an earlier release) there, 1 now"),
        (2, UnreadableDataset, "has schema version 2, and this release reads versions up to 1"),
    ],
)
def test_an_output_of_another_version_is_rejected_with_the_reason(
    folder: Path, version: int | None, error_type: type[PipelineError], reason: str
) -> None:
    _set_version(folder, version)
    files = {path: path.read_bytes() for path in (folder / "out").iterdir()}
    with pytest.raises(error_type) as caught:
        _open(folder)
    assert reason in str(caught.value)
    assert {path: path.read_bytes() for path in (folder / "out").iterdir()} == files


def test_overwriting_an_output_begun_before_versions_leaves_no_mixture(folder: Path) -> None:
    _set_version(folder, None)
    ready = _open(folder, overwrite=True)
    assert len(ready.todo) == 2
    for shard in ready.todo:
        _commit(ready, shard)
    parts = shards.open_parts(f"{folder}/out")
    versions = {
        schema.read_metadata(table.schema, "schema_version") for table in parts.read_tables()
    }
    assert versions == {schema.VERSION}


def test_a_complete_output_from_before_versions_is_still_read(folder: Path) -> None:
    ready = _open(folder)
    _commit(ready, ready.todo[0])
    _set_version(folder, None)
    parts = shards.open_parts(f"{folder}/out")
    assert parts.read_schema().equals(schema.PROPOSALS)
    assert sum(len(table) for table in parts.read_tables()) == 4
