"""Images of `--exclude` are not trained on, and count in the training's fingerprint."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.engine.train.training_output import make_run_record
from pipeline.excluded_images import read_excluded_images
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import RECIPE, write_dataset


def test_excluded_images_are_not_trained_on(tmp_path: Path) -> None:
    manifest, proposals, _ = write_dataset(tmp_path, images=5)
    pq.write_table(pa.table({"image_id": ["p1", "p4", "no image"]}), tmp_path / "list.parquet")
    opened = open_annotated_manifests([manifest])
    excluded = read_excluded_images(str(tmp_path / "list.parquet"))
    (plain,) = open_annotated_datasets(opened, [proposals])
    (without,) = open_annotated_datasets(opened, [proposals], excluded)
    both = [survey_datasets([dataset], RECIPE) for dataset in (plain, without)]
    assert [survey.images for survey in both] == [5, 3]
    rows = [(shard.shard, row) for shard in both[1].shards for row in shard.rows.tolist()]
    assert rows == [(0, 0), (0, 2), (1, 0)]  # three images per shard
    assert (plain.count_excluded(), without.count_excluded()) == (0, 2)
    records = [
        make_run_record(TrainingSpec(str(tmp_path), RECIPE, [dataset], survey))
        for dataset, survey in zip((plain, without), both, strict=True)
    ]
    assert "excluded" not in records[0].settings
    assert records[1].settings["excluded"] == excluded.digest
    assert records[1].inputs["exclude"].endswith("list.parquet")
    assert records[0].fingerprint != records[1].fingerprint
