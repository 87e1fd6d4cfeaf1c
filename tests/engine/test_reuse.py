"""A grown manifest over the rows of an earlier output: the same output as without them, for less work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import shards
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.summary import Summary
from pipeline.runs.verification import verify_output
from tests.engine.drawn_images import draw_images, write_random_checkpoint

pytestmark = pytest.mark.usefixtures("ray_cluster")

BOXES = ProposalSettings(strategy="single", max_boxes=30, min_side=8)
SETTINGS = DetectionSettings(
    postprocessing=PostprocessingSettings(score_threshold=0.0, max_per_image=5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a manifest of some, and one of all; image 3 is damaged."""
    folder = tmp_path_factory.mktemp("reuse")
    paths = draw_images(folder / "images", 12)
    paths[3].write_bytes(b"")
    rows = [ManifestRow(path.stem, str(path), 80, 60, None) for path in paths]
    write_manifest(str(folder / "old.parquet"), rows[1:9], None)
    write_manifest(str(folder / "grown.parquet"), rows, None)
    return folder


def _read_rows(output: Path) -> list[dict[str, Any]]:
    tables = shards.open_parts(str(output)).read_tables()
    return [row for table in tables for row in table.to_pylist()]


def _compare(run: Callable[..., Summary], folder: Path, name: str) -> Summary:
    """Run over the old manifest, then over the grown one with and without its rows, and compare both."""
    run(folder / "old.parquet", folder / f"{name}-old", shard_size=3)
    old = str(folder / f"{name}-old")
    summary = run(folder / "grown.parquet", folder / f"{name}-reused", shard_size=4, reuse=old)
    run(folder / "grown.parquet", folder / f"{name}-plain", shard_size=4)
    assert _read_rows(folder / f"{name}-reused") == _read_rows(folder / f"{name}-plain")
    verification = verify_output(
        str(folder / f"{name}-reused"), str(folder / "grown.parquet"), processes=1
    )
    assert verification.is_right, verification.contents.faults.kept
    stored = json.loads((folder / f"{name}-reused" / "summary.json").read_text())
    assert stored["images_reused"] == summary.images_reused == 7  # 8 of them, but one had failed
    assert "7 rows were taken over from --reuse" in summary.format_lines()
    record = json.loads((folder / f"{name}-reused" / "run.json").read_text())
    assert record["inputs"]["reuse"] == old
    return summary


def test_proposals(folder: Path) -> None:
    def run(manifest: Path, output: Path, settings: Any = BOXES, **options: Any) -> Summary:
        chosen = RunOptions(max_failed_fraction=0.5, **options)
        return run_proposals(str(manifest), str(output), settings, chosen)

    summary = _compare(run, folder, "proposals")
    assert summary.images_failed == 1
    assert summary.report.counts["bytes_read"] == sum(
        (folder / "images" / f"{row:03d}.png").stat().st_size for row in (0, 3, 9, 10, 11)
    )
    old = str(folder / "proposals-old")
    other = ProposalSettings(strategy="single", max_boxes=30, min_side=9)
    with pytest.raises(MismatchedOutput, match="min_side: 8 there, 9 now"):
        run(folder / "grown.parquet", folder / "other", other, reuse=old)
    assert not (folder / "other").exists() or not list((folder / "other").iterdir())
    with pytest.raises(InvalidConfiguration, match="is the --reuse"):
        run(folder / "old.parquet", folder / "proposals-old", reuse=old)


def test_detections_over_stored_proposals(folder: Path, tmp_path: Path) -> None:
    """The proposals are of other runs, of other fingerprints: their settings decide."""
    checkpoint = write_random_checkpoint(tmp_path)

    def run(manifest: Path, output: Path, shard_size: int, **options: Any) -> Summary:
        boxes = RunOptions(shard_size=shard_size, max_failed_fraction=0.5)
        run_proposals(str(manifest), f"{output}-boxes", BOXES, boxes)
        return run_detection(
            str(manifest),
            checkpoint,
            str(output),
            proposals=f"{output}-boxes",
            settings=SETTINGS,
            actors=ActorOptions(1),
            options=RunOptions(max_failed_fraction=0.5, **options),
        )

    _compare(run, folder, "detections")
