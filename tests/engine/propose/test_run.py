"""Proposals over a manifest: every image has a row, whatever it is, and reruns do what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import imaging, proposals, schema, shards
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import (
    InvalidConfiguration,
    MismatchedOutput,
    StorageError,
    TooManyFailedImages,
)
from pipeline.proposals.ranking_model import PACKAGED, digest_model
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import draw_images, write_damaged_manifest

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = ProposalSettings(strategy="single", max_boxes=50)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    return write_damaged_manifest(tmp_path)


def _parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def _all_rows(output: Path) -> list[dict[str, Any]]:
    return [
        row for table in shards.open_parts(str(output)).read_tables() for row in table.to_pylist()
    ]


def test_every_image_has_a_row_and_a_rerun_does_nothing(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    summary = run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    assert (summary.images, summary.shards, summary.images_failed) == (10, 3, 3)
    rows = _all_rows(output)
    assert [row["image_id"] for row in rows] == [f"{i:03d}" for i in range(10)]
    failed = {row["image_id"]: row["error_type"] for row in rows if row["status"] == "failed"}
    assert failed == {"003": "UnreadableImage", "004": "UnreadableImage", "005": "MissingObject"}
    assert all(row["boxes"] is None for row in rows if row["status"] == "failed")

    before = _parts(output)
    again = run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(max_failed_fraction=0.5)
    )
    assert _parts(output) == before
    assert (again.images, again.done_before, again.images_failed) == (10, 10, 3)


def test_boxes_are_those_of_selective_search(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    parts = shards.open_parts(str(output))
    first = next(parts.read_tables())
    data = (tmp_path / "images" / "001.png").read_bytes()
    expected = proposals.selective_search(
        imaging.decode_image(data),
        "single",
        seed=proposals.derive_image_seed(0, "001"),
        max_boxes=50,
    )
    np.testing.assert_array_equal(schema.split_box_column(first["boxes"])[1], expected)
    assert len(expected) > 0
    assert schema.read_metadata(parts.read_schema(), "provenance") == SETTINGS.to_provenance()


def test_a_learned_ranking_is_named_with_its_model_and_an_output_may_not_replace_it(
    manifest: str, tmp_path: Path
) -> None:
    model = tmp_path / "ranking.json"
    model.write_bytes(PACKAGED.read_bytes())
    settings = ProposalSettings(strategy="single", max_boxes=9, min_side=8, ranking=str(model))
    output = tmp_path / "proposals"
    run_proposals(manifest, str(output), settings, options=RunOptions(max_failed_fraction=0.5))
    parts = shards.open_parts(str(output))
    image = imaging.decode_image((tmp_path / "images" / "001.png").read_bytes())
    expected = proposals.selective_search(
        image, "single", max_boxes=9, min_side=8, ranking="learned"
    )
    boxes = schema.split_box_column(next(parts.read_tables())["boxes"])[1]
    np.testing.assert_array_equal(boxes, expected)
    named = schema.read_metadata(parts.read_schema(), "provenance")["ranking"]
    assert (named["name"], named["model"]) == ("trained", digest_model(model.read_bytes()))

    retrained = json.loads(model.read_bytes()) | {"base": 0.5}
    model.write_text(json.dumps(retrained))
    with pytest.raises(MismatchedOutput, match=r"ranking\.model: "):
        run_proposals(manifest, str(output), settings, options=RunOptions(max_failed_fraction=0.5))
    inside = ProposalSettings(ranking=str(output / "run.json"))
    with pytest.raises(InvalidConfiguration, match="no ranking model"):
        run_proposals(manifest, str(output), inside)


def test_a_removed_part_is_written_again_and_stray_parts_are_removed(
    manifest: str, tmp_path: Path
) -> None:
    output = tmp_path / "proposals"
    run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    before = _parts(output)
    lost = min(before)
    (output / lost).unlink()
    stray = output / f"part-000000-{'0' * 24}.parquet"
    stray.write_bytes(b"left by another run")
    users_file = output / "notes.parquet"
    users_file.write_bytes(b"not a part")
    run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=99, max_failed_fraction=0.5)
    )
    after = _parts(output)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {lost}
    assert users_file.exists()


def test_other_settings_are_rejected_by_name_unless_overwrite_is_set(
    manifest: str, tmp_path: Path
) -> None:
    output = tmp_path / "proposals"
    run_proposals(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    other = ProposalSettings(strategy="single", max_boxes=20)
    with pytest.raises(MismatchedOutput, match="max_boxes: 50 there, 20 now"):
        run_proposals(manifest, str(output), other, options=RunOptions(max_failed_fraction=0.5))
    with pytest.raises(MismatchedOutput, match="dataset"):
        run_proposals(
            manifest, str(output), SETTINGS, options=RunOptions(limit=5, max_failed_fraction=0.5)
        )
    before = _parts(output)
    run_proposals(
        manifest,
        str(output),
        other,
        options=RunOptions(shard_size=5, overwrite=True, max_failed_fraction=0.5),
    )
    after = _parts(output)
    assert len(after) == 2
    assert not after.keys() & before.keys()


def test_too_many_failures_fail_the_run_after_all_is_committed(
    manifest: str, tmp_path: Path
) -> None:
    output = tmp_path / "proposals"
    with pytest.raises(TooManyFailedImages, match="3 of 10 images failed"):
        run_proposals(manifest, str(output), SETTINGS, options=RunOptions(shard_size=4))
    assert shards.open_parts(str(output)).rows == 10


def test_an_output_that_cannot_be_written_is_an_error_before_work_starts(
    manifest: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/proposals"):
        run_proposals(manifest, str(tmp_path / "file" / "proposals"), SETTINGS)


def test_retry_failed_redoes_only_failed_images(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    options = RunOptions(shard_size=4, max_failed_fraction=0.5)
    run_proposals(manifest, str(output), SETTINGS, options)
    before, rows = _parts(output), _all_rows(output)
    draw_images(tmp_path / "repaired", 6)
    for name in ("003.png", "005.png"):
        (tmp_path / "repaired" / name).replace(tmp_path / "images" / name)
    again = run_proposals(
        manifest, str(output), SETTINGS, RunOptions(retry_failed=True, max_failed_fraction=0.5)
    )
    assert (again.done_before, again.images_failed) == (7, 1)
    assert again.report.images == 3
    after = _parts(output)
    touched = {name[:11] for name in before if after[name] != before[name]}
    assert touched == {"part-000000", "part-000001"}
    retried = _all_rows(output)
    assert [row["status"] for row in retried] == ["failed" if i == 4 else "ok" for i in range(10)]
    assert [r for i, r in enumerate(retried) if i not in (3, 5)] == [
        r for i, r in enumerate(rows) if i not in (3, 5)
    ]
    fresh = run_proposals(manifest, str(tmp_path / "fresh"), SETTINGS, options)
    assert fresh.images_failed == 1
    assert _all_rows(tmp_path / "fresh") == retried
