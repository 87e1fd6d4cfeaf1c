"""Records of a training's log with made-up values."""

from __future__ import annotations

from typing import Any

from pipeline.training.logs import TrainingRecord


def make_record(step: int, **changed: Any) -> TrainingRecord:
    """A record of 40 images since the one before, in 10 seconds."""
    values: dict[str, Any] = {
        "step": step,
        "epoch": step / 100,
        "losses": {"total": 1.5, "class": 1.0, "box": 0.5},
        "learning_rate": 0.001,
        "gradient_norm": 2.0,
        "foreground": 16.0,
        "background": 48.0,
        "images": 40,
        "skipped": 0,
        "images_per_second": 4.0,
        "data_wait": 0.04,
        "seconds": 10.0,
    }
    return TrainingRecord(**values | changed)
