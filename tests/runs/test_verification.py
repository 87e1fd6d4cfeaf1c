"""Verification of outputs: a right one passes, and each kind of fault is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import shards
from pipeline.errors import UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.part_identity import name_shard
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.report import Failure
from pipeline.runs.tables import build_detections_table
from pipeline.runs.verification import Verification, verify_output
from pipeline.runs.verification_faults import CHECKS
from pipeline.shards import cut_manifest
from tests.runs.reuse_outputs import write_images, write_output

NAMES = [f"i{row}" for row in range(10)]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_images(tmp_path, NAMES)


@pytest.fixture
def ready(tmp_path: Path, manifest: Manifest) -> RunOutput:
    return write_output(str(tmp_path / "out"), manifest, failed=["i3"])


def _verify(ready: RunOutput, manifest: Manifest, **options: Any) -> Verification:
    return verify_output(ready.uri, manifest.uri, **options)


def _list_faults(verification: Verification) -> dict[str, int]:
    counts = verification.contents.faults.counts
    assert counts.total() == 0 or not verification.is_right
    return {name: count for name, count in counts.items() if count}


def _change_part(ready: RunOutput, number: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put a part again with other rows; its metadata says that it is right."""
    shard = ready.shards[number]
    table = shards.Parts(ready.uri, (shard,)).read(shard)
    changed = name_shard(change(table), shard.key, shard.rows)
    (Path(ready.uri) / shard.part_name).write_bytes(shards.encode_part(changed))


def _set_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = table.schema.field(name)
    index = table.schema.get_field_index(name)
    return table.set_column(index, field, pa.array(values, field.type))


def test_a_right_output_passes_all_checks(ready: RunOutput, manifest: Manifest) -> None:
    (Path(ready.uri) / "metrics.json").write_text("{}")  # an analysis of proposals writes it here
    verification = _verify(ready, manifest)
    assert verification.is_right
    assert _list_faults(verification) == {}
    assert verification.others == ("metrics.json",)
    assert (verification.contents.parts, verification.contents.rows) == (3, 10)
    content = verification.as_json()
    assert (content["images"], content["images_failed"], content["right"]) == (10, 1, True)
    assert content["checks"].keys() == CHECKS.keys()
    assert content["checks"]["thresholds"]["skipped"] == "the run's rule has none"


def test_processes_find_what_one_process_finds(ready: RunOutput, manifest: Manifest) -> None:
    _change_part(ready, 2, lambda t: _set_column(t, "image_key", ["0" * 32] * 2))
    one, two = (_verify(ready, manifest, processes=count).as_json() for count in (1, 2))
    assert one == two
    assert one["checks"]["images"]["faults"] == 2


def _edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


FAULTS: dict[str, tuple[Callable[[Path, list[Path]], object], dict[str, int], str]] = {
    "other settings": (
        lambda out, _: _edit_json(out / "run.json", settings={"dataset": "x"}),
        {"record": 1, "dataset": 1, "shards": 3, "identity": 3, "counts": 1},
        "its fingerprint is",
    ),
    "missing part": (
        lambda _, parts: parts[1].unlink(),
        {"parts": 1, "counts": 1},
        "shard 1 of 4 images has no part",
    ),
    "stray part": (
        lambda out, _: (out / f"part-000000-{'0' * 24}.parquet").write_bytes(b""),
        {"strays": 1},
        "it belongs to no shard of this run",
    ),
    "scratch file": (
        lambda out, _: (out / f".run.json.{'0' * 32}.partial").write_bytes(b""),
        {"strays": 1},
        "a writer is at work, or was killed and left it",
    ),
    "copy of another part": (
        lambda _, parts: parts[1].write_bytes(parts[0].read_bytes()),
        {"identity": 1, "counts": 1},
        "it is the part of another shard",
    ),
    "truncated part": (
        lambda _, parts: parts[1].write_bytes(parts[1].read_bytes()[:-9]),
        {"identity": 1, "counts": 1},
        "does not end as a Parquet file does",
    ),
    "damaged pages": (
        lambda _, parts: parts[1].write_bytes(b"PAR1" + bytes(60) + parts[1].read_bytes()[64:]),
        {"rows": 1, "counts": 1},
        "is not readable Parquet",
    ),
    "no summary": (
        lambda out, _: (out / "summary.json").unlink(),
        {"counts": 1},
        "the run has not finished",
    ),
    "summary of other counts": (
        lambda out, _: _edit_json(out / "summary.json", images_failed=2, counts={"proposals": 4}),
        {"counts": 2},
        "images_failed is 2, the parts have 1",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_the_files_is_named(
    name: str, ready: RunOutput, manifest: Manifest
) -> None:
    break_output, expected, text = FAULTS[name]
    out = Path(ready.uri)
    break_output(out, sorted(out.glob("part-*")))
    verification = _verify(ready, manifest)
    assert _list_faults(verification) == expected
    assert any(text in fault.text for fault in verification.contents.faults.kept)


ROW_FAULTS: dict[str, tuple[str, list[Any], str, str]] = {
    "order": ("image_id", ["i5", "i4", "i6", "i7"], "images", "row 0 has image 'i5'"),
    "key": ("image_key", ["0" * 32, None, None, None], "images", "image_key is not the image's"),
    "outside": ("boxes", [[[0, 0, 101, 9]], [], [], []], "rows", "a box (0, 0, 101, 9) is outside"),
    "failed with boxes": ("status", ["failed", "ok", "ok", "ok"], "rows", "but it has boxes"),
    "error": ("error_type", [None, "E", None, None], "rows", "status is ok, with an error_type"),
    "no size": ("width", [None, 100, 100, 100], "rows", "without width and height"),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_what_is_wrong_with_the_rows_is_named(
    name: str, ready: RunOutput, manifest: Manifest
) -> None:
    column, values, check, text = ROW_FAULTS[name]
    _change_part(ready, 1, lambda table: _set_column(table, column, values))
    verification = _verify(ready, manifest)
    assert verification.contents.faults.counts[check] > 0
    fault = next(f for f in verification.contents.faults.kept if f.check == check)
    assert text in fault.text
    assert fault.file == ready.shards[1].part_name
    assert fault.image in NAMES[4:8]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.append_column("more", pa.nulls(len(t))), "unknown column 'more'"),
        (lambda t: t.drop_columns(["error_message"]), "it has no column error_message"),
        (
            lambda t: t.set_column(1, "width", t["width"].cast(pa.int64())),
            "column width is int64, expected int32",
        ),
    ],
)
def test_other_columns_and_types_are_named(
    change: Callable[[pa.Table], pa.Table], text: str, ready: RunOutput, manifest: Manifest
) -> None:
    _change_part(ready, 0, change)
    faults = _verify(ready, manifest).contents.faults
    assert faults.counts["schema"] == 1
    assert text in next(fault.text for fault in faults.kept if fault.check == "schema")


def test_another_manifest_is_a_fault_not_an_error(
    tmp_path: Path, ready: RunOutput, manifest: Manifest
) -> None:
    other = write_images(tmp_path, [*NAMES[:4], "x", *NAMES[5:]], "other")
    verification = _verify(ready, other)
    assert _list_faults(verification) == {"dataset": 1, "shards": 1, "images": 1}
    shorter = write_images(tmp_path, NAMES[:5], "shorter")
    verification = _verify(ready, shorter)
    assert verification.skipped["shards"] == "the manifest has fewer images"
    assert (verification.contents.parts, verification.is_right) == (1, False)


def test_all_faults_are_counted_and_the_first_are_named(
    ready: RunOutput, manifest: Manifest
) -> None:
    for number in range(3):
        _change_part(ready, number, lambda t: _set_column(t, "image_key", ["0" * 32] * len(t)))
    faults = _verify(ready, manifest, most_faults=3).contents.faults
    assert faults.counts["images"] == 10
    assert [fault.image for fault in faults.kept] == ["i0", "i1", "i2"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "holds no files, and no run.json"),
        (("holiday.jpg",), "the first is holiday.jpg"),
    ],
)
def test_what_is_no_output_is_an_error(
    tmp_path: Path, manifest: Manifest, files: tuple[str, ...], message: str
) -> None:
    (tmp_path / "foreign").mkdir()
    for name in files:
        (tmp_path / "foreign" / name).write_bytes(b"")
    with pytest.raises(UnreadableDataset, match=message):
        verify_output(str(tmp_path / "foreign"), manifest.uri)


CLASSES = ("cat", "dog")


def _write_detections(
    folder: Path, scores: list[float], label_ids: list[int], **settings: Any
) -> tuple[str, str]:
    """An output of detect over one annotated image with two detections, and one failed image."""
    uri = str(folder / "annotated.parquet")
    rows = [ManifestRow("a", "/a?token=1", 100, 80, ()), ManifestRow("b", "/b", 100, 80, ())]
    write_manifest(uri, rows, CLASSES)
    manifest = open_manifest(uri)
    cut = cut_manifest(manifest, 2)
    record = RunRecord("detect", {"dataset": cut.dataset, "images": 2, **settings})
    ready = open_run(str(folder / "detections"), record, cut, RunOptions())
    boxes = np.array([[0, 0, 10, 10], [5, 5, 99, 79]], np.float32)
    detections: Any = SimpleNamespace(
        boxes=boxes,
        scores=np.array(scores, np.float32),
        labels=np.array(label_ids, np.int32),
    )
    candidates = [np.array([0.5, 0.4, 0.9, 0.3], np.float32), None] if settings else None
    images = [
        EncodedImage("a", "/a?token=1", 100, 80, boxes=boxes),
        EncodedImage("b", "/b", failure=Failure("read", "MissingObject", "gone")),
    ]
    table = build_detections_table(
        images, [detections, None], CLASSES, record.fingerprint, candidates
    )
    shards.put_part(ready.uri, ready.shards[0], table)
    failed = {"read: MissingObject": 1}
    summary = {"images": 2, "shards": 1, "images_failed": 1, "failed": failed}
    ready.finish({**summary, "counts": {"detections": 2}})
    return ready.uri, uri


def test_detections_are_verified_by_their_own_columns(tmp_path: Path) -> None:
    output, manifest = _write_detections(tmp_path, [0.9, 0.5], [1, 0])
    verification = verify_output(output, manifest)
    assert _list_faults(verification) == {}
    assert verification.contents.sums == {"detections": 2}
    assert verification.contents.failed == {"read: MissingObject": 1}


@pytest.mark.parametrize(
    ("scores", "text"),
    [([0.5, 0.9], "its detections are not best first"), ([1.5, 0.5], "a score is 1.5")],
)
def test_wrong_scores_are_named(tmp_path: Path, scores: list[float], text: str) -> None:
    verification = verify_output(*_write_detections(tmp_path, scores, [1, 0]))
    assert [(f.text, f.image) for f in verification.contents.faults.kept] == [(text, "a")]


def test_a_label_that_is_not_its_number_and_a_size_that_is_not_the_images_are_named(
    tmp_path: Path,
) -> None:
    output, manifest = _write_detections(tmp_path, [0.9, 0.5], [1, 0])
    shard = (shards.read_shard_table(output) or [])[0]
    table = shards.Parts(output, (shard,)).read(shard)
    rows = table["detections"].to_pylist()
    rows[0][0]["label"] = "cat"
    changed = _set_column(_set_column(table, "detections", rows), "width", [200, None])
    shards.put_part(output, shard, changed)
    texts = [fault.text for fault in verify_output(output, manifest).contents.faults.kept]
    assert texts == [
        "annotated as 100x80, stored as 200x80: resized or replaced?",
        "label 'cat' with label_id 1",
    ]


def test_the_thresholds_of_the_paper_are_selected_again(tmp_path: Path) -> None:
    output, manifest = _write_detections(tmp_path, [0.9, 0.5], [1, 0], keep={"mean_per_image": 1})
    verification = verify_output(output, manifest)
    assert (_list_faults(verification), verification.skipped) == ({}, {})
    path = Path(output) / "candidate_thresholds.json"
    _edit_json(path, thresholds={"cat": 0.25, "dog": None})
    kept = verify_output(output, manifest).contents.faults.kept
    assert [fault.text for fault in kept] == ["the parts give other thresholds"]
    path.unlink()
    kept = verify_output(output, manifest).contents.faults.kept
    assert [fault.text for fault in kept] == ["it is missing, or another run's"]
