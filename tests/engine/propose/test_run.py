"""Proposals over a manifest: every image one row, whatever the images are, and reruns do the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import imaging, proposals, schema, shards
from pipeline.engine.propose import run as proposal_run
from pipeline.errors import MismatchedOutput, StorageError, TooManyFailedImages
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import damaged_manifest, draw_images

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = ProposalSettings(strategy="single", max_boxes=50)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    return damaged_manifest(tmp_path)


def _parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def _all_rows(output: Path) -> list[dict[str, Any]]:
    return [row for table in shards.open_parts(str(output)).tables() for row in table.to_pylist()]


def test_every_image_has_a_row_and_a_rerun_does_nothing(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    summary = proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    assert (summary.images, summary.shards, summary.images_failed) == (10, 3, 3)
    rows = _all_rows(output)
    assert [row["image_id"] for row in rows] == [f"{i:03d}" for i in range(10)]
    failed = {row["image_id"]: row["error_type"] for row in rows if row["status"] == "failed"}
    assert failed == {"003": "UnreadableImage", "004": "UnreadableImage", "005": "MissingObject"}
    assert all(row["boxes"] is None for row in rows if row["status"] == "failed")

    before = _parts(output)
    again = proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(max_failed_fraction=0.5)
    )
    assert _parts(output) == before
    assert (again.images, again.done_before, again.images_failed) == (10, 10, 3)


def test_boxes_are_those_of_the_function(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    parts = shards.open_parts(str(output))
    first = next(parts.tables())
    data = (tmp_path / "images" / "001.png").read_bytes()
    expected = proposals.selective_search(
        imaging.decode(data), "single", seed=proposals.image_seed(0, "001"), max_boxes=50
    )
    np.testing.assert_array_equal(schema.box_arrays(first["boxes"])[1], expected)
    assert len(expected) > 0
    assert schema.metadata_value(parts.schema(), "provenance") == SETTINGS.recorded()


def test_a_removed_part_is_made_again_and_strays_go(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    before = _parts(output)
    lost = min(before)
    (output / lost).unlink()
    stray = output / f"part-000000-{'0' * 24}.parquet"
    stray.write_bytes(b"left by another run")
    mine = output / "notes.parquet"
    mine.write_bytes(b"the user's own")
    proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=99, max_failed_fraction=0.5)
    )
    after = _parts(output)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {lost}
    assert mine.exists()


def test_other_settings_are_refused_by_name_unless_overwritten(
    manifest: str, tmp_path: Path
) -> None:
    output = tmp_path / "proposals"
    proposal_run.run(
        manifest, str(output), SETTINGS, options=RunOptions(shard_size=4, max_failed_fraction=0.5)
    )
    other = ProposalSettings(strategy="single", max_boxes=20)
    with pytest.raises(MismatchedOutput, match="max_boxes: 50 there, 20 now"):
        proposal_run.run(manifest, str(output), other, options=RunOptions(max_failed_fraction=0.5))
    with pytest.raises(MismatchedOutput, match="dataset"):
        proposal_run.run(
            manifest, str(output), SETTINGS, options=RunOptions(limit=5, max_failed_fraction=0.5)
        )
    before = _parts(output)
    proposal_run.run(
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
        proposal_run.run(manifest, str(output), SETTINGS, options=RunOptions(shard_size=4))
    assert shards.open_parts(str(output)).rows == 10


def test_an_output_that_cannot_be_written_is_said_before_work(
    manifest: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/proposals"):
        proposal_run.run(manifest, str(tmp_path / "file" / "proposals"), SETTINGS)


def test_failed_images_alone_are_retried(manifest: str, tmp_path: Path) -> None:
    output = tmp_path / "proposals"
    options = RunOptions(shard_size=4, max_failed_fraction=0.5)
    proposal_run.run(manifest, str(output), SETTINGS, options)
    before, rows = _parts(output), _all_rows(output)
    draw_images(tmp_path / "mended", 6)
    for name in ("003.png", "005.png"):
        (tmp_path / "mended" / name).replace(tmp_path / "images" / name)
    again = proposal_run.run(
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
    fresh = proposal_run.run(manifest, str(tmp_path / "fresh"), SETTINGS, options)
    assert fresh.images_failed == 1
    assert _all_rows(tmp_path / "fresh") == retried
