"""An analysis run: the same matches and numbers in this process and on Ray, resumed and partial ones too."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import shards
from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.diagnostics import DiagnosticOptions
from pipeline.analysis.executor import InProcess
from pipeline.engine.analyze import match_shard, run
from pipeline.engine.analyze.committed_analysis import CommittedAnalysis
from pipeline.engine.analyze.reduction import reduce_matches
from pipeline.engine.analyze.run import AnalysisOptions, analyze_detections
from pipeline.engine.shards import sequential
from pipeline.errors import MismatchedOutput, ShardFailed, StorageError, UnreadableDataset
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Twelve images with crowds, difficult objects and ties; one failed and one is unlabelled."""
    folder = tmp_path_factory.mktemp("inputs")
    generator = np.random.default_rng(0)
    objects, detections = {}, {}
    for index in range(12):
        corners = generator.integers(0, 60, (6, 2))
        boxes = [(x, y, x + 10 + 5 * i, y + 20) for i, (x, y) in enumerate(corners.tolist())]
        objects[f"i{index}"] = [
            make_object(CLASSES[i % 2], box, difficult=i == 4, crowd=i == 5)
            for i, box in enumerate(boxes)
        ]
        scores = np.round(generator.random(12), 1).tolist()
        detections[f"i{index}"] = [
            (CLASSES[i % 3], score, tuple(side + i % 4 for side in boxes[i % 6]))
            for i, score in enumerate(scores)
        ]
    objects["i7"] = None
    detections["i5"] = FailedImage()
    manifest = write_annotations(f"{folder}/m.parquet", objects, CLASSES[:2])
    return write_detections(f"{folder}/d", manifest, detections, CLASSES), manifest


def analyze(inputs: tuple[str, str], output: Path, **options: bool) -> DetectionMetrics:
    with analyze_detections(*inputs, str(output), options=AnalysisOptions(**options)) as analysis:
        return analysis.compute_metrics()


def read_parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "matches").glob("part-*")}


class PickledCalls(InProcess):
    """Does calls here, on copies of their arguments, as a cluster does."""

    def submit(self, function, *arguments, returns=1):
        function, arguments = pickle.loads(pickle.dumps((function, arguments)))
        return super().submit(function, *arguments, returns=returns)


def compute_all(analysis: CommittedAnalysis) -> tuple[DetectionMetrics, dict]:
    metrics = analysis.compute_metrics()
    diagnostics = analysis.compute_diagnostics(metrics, DiagnosticOptions(resamples=10))
    return metrics, diagnostics.to_json()


def test_a_detection_of_another_class_is_rejected(inputs, tmp_path):
    detections, manifest = inputs
    changed = tmp_path / "d"
    shutil.copytree(detections, changed)
    part = sorted(changed.glob("part-*"))[-1]
    table = pq.ParquetFile(part).read()
    index = table.schema.get_field_index("detections")
    rows = table["detections"].to_pylist()
    rows[0][0]["label"] = "zebra"
    pq.write_table(
        table.set_column(index, table.field(index), pa.array(rows, table.field(index).type)), part
    )
    with pytest.raises(UnreadableDataset, match=rf"{part.name} has a detection of class 'zebra'"):
        analyze((str(changed), manifest), tmp_path / "out")


@pytest.mark.usefixtures("ray_cluster")
def test_ray_tasks_give_the_same_parts_and_bits_as_this_process(inputs, tmp_path, monkeypatch):
    with analyze_detections(*inputs, str(tmp_path / "here")) as analysis:
        here = compute_all(analysis)
    assert here[0].coco_ap is not None
    assert here[1]["tide"] is not None
    monkeypatch.setattr(run, "MOST_LOCAL_IMAGES", 0)
    with analyze_detections(*inputs, str(tmp_path / "ray")) as analysis:
        assert type(analysis.executor).__name__ == "RayExecutor"
        assert compute_all(analysis) == here
        (counts,) = analysis.executor.collect(analysis.executor.submit(np.zeros, 100_000))
        counts += 1  # sums are added in place
    assert read_parts(tmp_path / "ray") == read_parts(tmp_path / "here")


@pytest.mark.parametrize("rows", [1, 30, 100])
def test_groups_of_parts_do_not_change_a_bit(inputs, tmp_path, rows):
    with analyze_detections(*inputs, str(tmp_path)) as analysis:
        whole, groups = analysis.group_matches(), analysis.group_matches(rows)
    assert len(groups) > len(whole) == 1
    expected = reduce_matches(whole, CLASSES[:2], InProcess(), limit=5)
    grouped = reduce_matches(groups, CLASSES[:2], PickledCalls(), limit=5)
    assert grouped.images == expected.images
    for one, other in zip(grouped.precision, expected.precision, strict=True):
        for name, values in vars(one).items():
            np.testing.assert_array_equal(values, getattr(other, name))


def test_every_object_of_an_annotated_image_stands_in_one_row(inputs, tmp_path):
    with analyze_detections(*inputs, str(tmp_path)) as analysis:
        metrics = analysis.compute_metrics()
    rows = [row for table in analysis.matches.read_tables() for row in table.to_pylist()]
    objects = [
        (row["row"], row["object_index"])
        for row in rows
        if row["kind"] != "detection" or (row["true_all"] or 0) & 1
    ]
    assert sorted(objects) == [(row, i) for row in range(12) if row != 7 for i in range(6)]
    assert (metrics.images, metrics.unlabelled, metrics.failed) == (12, 1, 1)
    assert metrics.detections == sum(row["kind"] == "detection" for row in rows) == 11 * 12


def test_a_stopped_run_does_the_rest(inputs, tmp_path, monkeypatch):
    whole = analyze(inputs, tmp_path / "whole")
    done = []

    def stop_at_the_third(plan, shard, source):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shard.ordinal)
        return match_shard.match_shard(plan, shard, source)

    with monkeypatch.context() as patch:
        patch.setattr(run, "match_shard", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            analyze(inputs, tmp_path / "out")
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/matches").glob("part-*")}
    assert len(first) == 2
    assert analyze(inputs, tmp_path / "out") == whole
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert read_parts(tmp_path / "out") == read_parts(tmp_path / "whole")


def test_an_unfinished_detection_run_is_scored_only_if_asked(inputs, tmp_path):
    detections, manifest = inputs
    shorter = tmp_path / "d"
    shorter.mkdir()
    for path in Path(detections).iterdir():
        (shorter / path.name).write_bytes(path.read_bytes())
    parts = sorted(shorter.glob("part-*"))
    kept = [path.read_bytes() for path in parts[4:]]
    for path in parts[4:]:
        path.unlink()
    unfinished = (str(shorter), manifest)
    with pytest.raises(UnreadableDataset, match="lacks 2 of 6 shards"):
        analyze(unfinished, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    partial = analyze(unfinished, tmp_path / "out", partial=True)
    assert partial.images == 8
    assert partial.partial
    assert partial.notes[1].startswith(
        "PARTIAL: the detection run is not finished and lacks 2 of 6"
    )
    assert partial.notes[2:] == ("1 images without annotations are left out",)
    for path, data in zip(parts[4:], kept, strict=True):
        path.write_bytes(data)
    assert analyze(unfinished, tmp_path / "out") == analyze(inputs, tmp_path / "whole")
    summary = json.loads((tmp_path / "out/matches/summary.json").read_text())
    assert (summary["images"], summary["images_done_before"]) == (12, 8)


def test_parts_whose_detections_changed_are_matched_again(inputs, tmp_path):
    detections, manifest = inputs
    copy = tmp_path / "d"
    copy.mkdir()
    for path in Path(detections).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before = analyze((str(copy), manifest), tmp_path / "out")
    changed = sorted(copy.glob("part-*"))[2]  # with the failed image
    table = pq.read_table(changed)
    rows = [dict(row, status="ok", detections=[]) for row in table.to_pylist()]
    changed.write_bytes(shards.encode_part(table.from_pylist(rows, schema=table.schema)))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/matches").glob("part-*")}
    after = analyze((str(copy), manifest), tmp_path / "out")
    assert (before.failed, after.failed) == (1, 0)
    redone = [path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert [name[:11] for name in redone] == ["part-000002"]


def test_matches_of_other_annotations_are_rejected(inputs, tmp_path):
    detections, manifest = inputs
    analyze(inputs, tmp_path / "out")
    table = pq.read_table(manifest)
    rows = table.to_pylist()
    rows[3]["objects"][0]["x2"] += 1
    pq.write_table(table.from_pylist(rows, schema=table.schema), tmp_path / "m.parquet")
    other = (detections, str(tmp_path / "m.parquet"))
    with pytest.raises(MismatchedOutput, match="annotations: "):
        analyze(other, tmp_path / "out")
    analyze(other, tmp_path / "out", overwrite=True)


def test_a_store_that_fails_is_asked_again_and_then_ends_the_run(inputs, tmp_path, monkeypatch):
    failures = []

    def fail_twice(plan, shard, source):
        if len(failures) < 2:
            failures.append(shard)
            raise StorageError("the store is away")
        return match_shard.match_shard(plan, shard, source)

    monkeypatch.setattr(sequential, "sleep", lambda seconds: None)
    with monkeypatch.context() as patch:
        patch.setattr(run, "match_shard", fail_twice)
        assert analyze(inputs, tmp_path / "out").images == 12

    def fail(plan, shard, source):
        raise StorageError("the store is away")

    monkeypatch.setattr(run, "match_shard", fail)
    with pytest.raises(ShardFailed, match="shard 0 could not be done: the store is away"):
        analyze(inputs, tmp_path / "other")
