"""The thresholds of `--rule paper`, against the released loop with its heaps, and what readers drop."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline import shards
from pipeline.candidate_thresholds import CANDIDATE_SCORES, THRESHOLDS_NAME, read_thresholds
from pipeline.errors import UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.report import Failure
from pipeline.runs.tables import build_detections_table
from pipeline.runs.threshold_selection import put_missing_thresholds, select_thresholds
from pipeline.shards import Parts, Shard

CLASSES = ("cat", "dog", "owl")
RECORD = RunRecord("detect", {"keep": {"rule": "paper", "mean_per_image": 2}})
MAX_PER_IMAGE = 5

Scores = NDArray[np.float32]


def _draw_images(seed: int, count: int, values: int) -> list[Scores | None]:
    """Scores `(K, R)` of each image; None is a failed one. Few different values make ties."""
    rng = np.random.default_rng(seed)
    images: list[Scores | None] = [
        (rng.integers(0, values, (len(CLASSES), rng.integers(0, 12))) / values).astype(np.float32)
        for _ in range(count)
    ]
    images[1] = None
    for scores in images[2:]:
        assert scores is not None
        scores[2, 1:] = 0  # a class whose best candidates are few
    return images


def _select_plainly(images: Sequence[Scores | None], mean: int) -> dict[str, float | None]:
    """The loop of `test_net` in the first release, without boxes."""
    done = [scores for scores in images if scores is not None]
    max_per_set = mean * len(done)
    thresholds = [-np.inf] * len(CLASSES)
    top_scores: list[list[float]] = [[] for _ in CLASSES]
    for scores in done:
        for j in range(len(CLASSES)):
            class_scores = scores[j][scores[j] > thresholds[j]]
            for value in -np.sort(-class_scores)[:MAX_PER_IMAGE]:
                heapq.heappush(top_scores[j], value)
            if len(top_scores[j]) > max_per_set:
                while len(top_scores[j]) > max_per_set:
                    heapq.heappop(top_scores[j])
                thresholds[j] = top_scores[j][0]
    return {
        label: None if limit == -np.inf else float(limit)
        for label, limit in zip(CLASSES, thresholds, strict=True)
    }


class _Detections:
    """Each class's candidates as detections, as if NMS dropped none."""

    def __init__(self, scores: Scores) -> None:
        best = -np.sort(-scores, axis=1)[:, :MAX_PER_IMAGE]
        self.candidate_scores = best.reshape(-1)
        labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), best.shape[1])
        order = np.argsort(-self.candidate_scores, kind="stable")
        self.scores, self.labels = self.candidate_scores[order], labels[order]
        self.boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (len(self.scores), 1))


def _put_part(folder: Path, shard: Shard, images: Sequence[Scores | None]) -> None:
    members = images[shard.first_row : shard.first_row + shard.rows]
    encoded = [
        EncodedImage(
            f"{shard.first_row + index}",
            f"/{shard.first_row + index}",
            failure=Failure("read", "Gone", "gone") if scores is None else None,
        )
        for index, scores in enumerate(members)
    ]
    detections = [None if scores is None else _Detections(scores) for scores in members]
    table = build_detections_table(
        encoded,
        detections,
        CLASSES,
        RECORD.fingerprint,
        [None if of_image is None else of_image.candidate_scores for of_image in detections],
    )
    shards.put_part(str(folder), shard, table)


def _put_parts(folder: Path, images: Sequence[Scores | None], size: int) -> Parts:
    planned = []
    for ordinal, first in enumerate(range(0, len(images), size)):
        planned.append(Shard(ordinal, f"{ordinal:024x}", first, min(size, len(images) - first)))
        _put_part(folder, planned[-1], images)
    shards.write_shard_table(str(folder), planned)
    RECORD.write(str(folder))
    return Parts(str(folder), tuple(planned), RECORD.fingerprint)


@pytest.mark.parametrize("values", [7, 1 << 20])
@pytest.mark.parametrize("mean", [1, 2, 4, 5])
def test_thresholds_equal_those_of_the_released_loop(
    tmp_path: Path, mean: int, values: int
) -> None:
    images = _draw_images(mean, 23, values)
    expected = _select_plainly(images, mean)
    for size in (4, 23):
        parts = _put_parts(tmp_path / str(size), images, size)
        selected = select_thresholds(parts, mean)
        assert selected.images == 22
        assert selected.thresholds == expected
    assert (expected["cat"] is None) == (mean == 5)  # five candidates at most: never more than 5 N


def test_readers_get_the_detections_above_the_thresholds(tmp_path: Path) -> None:
    images = _draw_images(0, 11, 50)
    parts = _put_parts(tmp_path, images, 4)
    with pytest.raises(UnreadableDataset, match=f"lacks {THRESHOLDS_NAME}"):
        shards.open_parts(str(tmp_path))
    put_missing_thresholds(parts.uri, RECORD, parts.shards)
    expected = _select_plainly(images, 2)
    total = 0
    for whole, read in zip(
        parts.read_tables(), shards.open_parts(str(tmp_path)).read_tables(), strict=True
    ):
        assert CANDIDATE_SCORES.name not in read.column_names
        for before, after in zip(whole.to_pylist(), read.to_pylist(), strict=True):
            if before["detections"] is None:
                assert after["detections"] is None
                continue
            stay = [
                d
                for d in before["detections"]
                if expected[d["label"]] is None or d["score"] > expected[d["label"]]
            ]
            assert after["detections"] == stay
            total += len(before["detections"]) - len(stay)
    assert total > 0
    table = next(shards.open_parts(str(tmp_path)).read_tables(["detections"]))
    assert table.column_names == ["detections"]


def test_stored_thresholds_stay_and_those_of_another_run_do_not(tmp_path: Path) -> None:
    parts = _put_parts(tmp_path, _draw_images(0, 11, 50), 4)
    put_missing_thresholds(parts.uri, RECORD, parts.shards)
    path = tmp_path / THRESHOLDS_NAME
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"images": 99}))
    put_missing_thresholds(parts.uri, RECORD, parts.shards)
    assert json.loads(path.read_text())["images"] == 99
    path.write_text(json.dumps(stored | {"fingerprint": "another"}))
    assert read_thresholds(parts.uri, RECORD) is None
    put_missing_thresholds(parts.uri, RECORD, parts.shards)
    assert json.loads(path.read_text()) == stored
    plain = RunRecord("detect", {"keep": {"rule": "default"}})
    put_missing_thresholds(str(tmp_path / "elsewhere"), plain, ())
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_puts_thresholds_at_its_end_and_has_none_while_it_works(tmp_path: Path) -> None:
    images = _draw_images(0, 11, 50)
    manifest, output = str(tmp_path / "manifest.parquet"), tmp_path / "output"
    write_manifest(manifest, (ManifestRow(f"{i}", f"/{i}", 1, 1, None) for i in range(11)), None)
    cut = shards.cut_manifest(open_manifest(manifest), 4)
    path = output / THRESHOLDS_NAME

    def run(**options: bool) -> None:
        ready = open_run(str(output), RECORD, cut, RunOptions(**options))
        assert path.exists() is not ready.has_work
        for shard in {*ready.todo, *ready.retry}:
            _put_part(output, shard, images)
        ready.finish({})

    def check(done: int) -> None:
        stored = json.loads(path.read_text())
        assert (stored["images"], stored["thresholds"]) == (done, _select_plainly(images, 2))

    run()
    check(10)
    run()
    images[1] = np.full((3, 5), 0.9, np.float32)
    run(retry_failed=True)
    check(11)
    images[5] = np.full((3, 5), 0.8, np.float32)
    run(overwrite=True)
    check(11)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ('{"thresholds": {"cat": "0.1"}, "fingerprint": "a"}', "the threshold of 'cat' is not a"),
        ('{"thresholds": {}, "fingerprint": 1}', "fingerprint is 1, expected a text"),
    ],
)
def test_damaged_thresholds_are_named(tmp_path: Path, text: str, message: str) -> None:
    parts = _put_parts(tmp_path, _draw_images(0, 11, 50), 4)
    (tmp_path / THRESHOLDS_NAME).write_text(text)
    with pytest.raises(UnreadableDataset, match=message):
        shards.open_parts(parts.uri)


def test_thresholds_without_a_class_of_the_detections_are_rejected(tmp_path: Path) -> None:
    parts = _put_parts(tmp_path, _draw_images(0, 11, 50), 4)
    put_missing_thresholds(parts.uri, RECORD, parts.shards)
    path = tmp_path / THRESHOLDS_NAME
    stored = json.loads(path.read_text())
    del stored["thresholds"]["dog"]
    path.write_text(json.dumps(stored))
    with pytest.raises(UnreadableDataset, match="no threshold for the class 'dog'"):
        list(shards.open_parts(parts.uri).read_tables())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (pa.array([[0.1, 0.2]], pa.list_(pa.float32())), "no multiple of the 3 classes"),
        (pa.array([[0.1, 0.2, 1.5]], pa.list_(pa.float32())), "no score from 0 to 1"),
        (pa.array([[0.1, 0.2, np.nan]], pa.list_(pa.float32())), "no score from 0 to 1"),
        (pa.array([[0.1, 0.2, None]], pa.list_(pa.float32())), "no score from 0 to 1"),
        (pa.array([None], pa.list_(pa.float32())), "null for an image with status ok"),
        (pa.array([[1, 2, 3]], pa.list_(pa.int32())), "expected list"),
        (None, "has no column candidate_scores"),
    ],
)
def test_faulty_candidate_scores_are_named(
    tmp_path: Path, scores: pa.Array | None, message: str
) -> None:
    parts = _put_parts(tmp_path, [np.full((3, 1), 0.5, np.float32)] * 2, 1)
    shard = parts.shards[0]
    table = parts.read(shard)
    index = table.schema.get_field_index(CANDIDATE_SCORES.name)
    table = table.remove_column(index)
    if scores is not None:
        table = table.append_column(CANDIDATE_SCORES.name, scores)
    shards.put_part(parts.uri, shard, table)
    with pytest.raises(UnreadableDataset, match=message):
        select_thresholds(parts, 1)
