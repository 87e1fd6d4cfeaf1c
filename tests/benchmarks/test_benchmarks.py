"""The benchmarks stay runnable although nothing else imports them."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.analysis.evaluation import evaluate
from tests.benchmarks.analysis_inputs import DrawnDataset, write_inputs
from tests.benchmarks.proposal_figure import draw_figure
from tests.benchmarks.proposal_phases import measure_phases

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports(module: str) -> None:
    assert importlib.import_module(f"tests.benchmarks.{module}").__doc__


def test_the_phases_of_selective_search_add_up_to_its_time() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    milliseconds = measure_phases([image], "single", repeats=1)
    total = milliseconds.pop("all")
    assert len(milliseconds) == 14
    assert sum(milliseconds.values()) == pytest.approx(total)
    assert all(value > 0 for value in milliseconds.values())


def test_the_figure_of_proposals_has_every_method_and_is_reproducible(tmp_path: Path) -> None:
    names = ("ours, fast", "ours, fast, learned", "dlib")
    rows = {
        name: {"method": name, "cpu_seconds": seconds, "recall_50_of_500": 0.9, "mabo_of_500": 0.8}
        for name, seconds in zip(names, (0.05, 0.06, 0.2), strict=True)
    }
    for target in ("a.svg", "b.svg"):
        draw_figure(rows, 2, tmp_path / target)
    drawn = (tmp_path / "a.svg").read_text()
    assert (tmp_path / "b.svg").read_text() == drawn
    assert "ours, fast" in drawn
    assert "2  dlib" in drawn  # the learned order has no number of its own


def test_the_inputs_of_the_analysis_can_be_scored(tmp_path: Path) -> None:
    dataset = DrawnDataset(images=10, classes=3, detections_per_image=20, shard_size=4)
    manifest, detections = write_inputs(dataset, str(tmp_path))
    metrics = evaluate(detections, manifest)
    assert (metrics.images, metrics.detections, len(metrics.per_class)) == (10, 200, 3)
    assert 0 < (metrics.coco_ap or 0) < (metrics.coco_ap50 or 0) < 1
