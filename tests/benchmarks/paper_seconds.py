"""Seconds per image and per step that the jobs of the paper's tables measured.

A start of a job times the images that it does itself, so of a job that was interrupted only those of the last
start are timed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.paper_rows import DETECTION, DETECTION_CPU
from tests.benchmarks.paper_steps import read_json

WALL, CPU = "stage_seconds", "cpu_seconds"
"""Clocks of a summary: seconds of a stage by the clock and of the processor, summed over its workers."""


def read_summary(output: str) -> Mapping[str, Any]:
    """The summary.json of a job's output."""
    return read_json(Path(output) / "summary.json")


def measure_detection(detections: str) -> dict[str, float]:
    """Seconds per test image by both clocks, without those that were not timed.

    CPU seconds hardly change with other load on the machine.
    """
    seconds = {
        DETECTION: measure_image_seconds(detections),
        DETECTION_CPU: measure_image_seconds(detections, clock=CPU),
    }
    return {name: value for name, value in seconds.items() if value is not None}


def measure_image_seconds(output: str, stage: str = "detect", clock: str = WALL) -> float | None:
    """Seconds of a stage per image, summed over its workers; None if they were not timed.

    Args:
        output: of a run over images, such as detections.
        stage: of that run.
        clock: `WALL` or `CPU`.
    """
    measured = _find_measured(output, stage, clock)
    if measured is None:
        return None
    return float(measured[clock][stage]) / _count_images(measured)


def describe_sample(output: str, stage: str = "detect") -> str:
    """On which of the images a stage was timed; empty if on all of them."""
    measured = _find_measured(output, stage, WALL)
    if measured is None:
        return f"{stage}: not timed, because the last start had no image left to do"
    images, all_images = _count_images(measured), int(measured["images"])
    if images == all_images:
        return ""
    return f"{stage}: timed on {images} of {all_images} images, which the last start did"


def _find_measured(output: str, stage: str, clock: str) -> Mapping[str, Any] | None:
    """The summary of an output if it has a stage's seconds, and images that they are of."""
    if not (Path(output) / "summary.json").exists():  # of proposals that another program stored
        return None
    summary = read_summary(output)
    is_measured = stage in summary.get(clock, {}) and _count_images(summary) > 0
    return summary if is_measured else None


def _count_images(summary: Mapping[str, Any]) -> int:
    """Images that the start of a summary did itself."""
    others = int(summary.get("images_done_before", 0)) + int(summary.get("images_reused", 0))
    return int(summary["images"]) - others


def measure_step_seconds(checkpoint: str) -> float:
    """Median seconds per step of a training, from its log; its first record, of the warm-up, is left out."""
    lines = (Path(checkpoint) / "logs" / "train.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = np.diff([0, *(record["step"] for record in records)])
    seconds = [r["seconds"] / n for r, n in zip(records, steps, strict=True) if n > 0]
    return float(median(seconds[1:] or seconds))
