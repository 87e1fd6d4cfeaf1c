"""A step whose gradient is not finite: its samples are kept for reproduction, and training stops."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from pipeline import storage
from pipeline.errors import TrainingFailed
from pipeline.training import logs
from pipeline.training.dataset import Sample
from pipeline.training.step import StepResult


def stop_at(
    output: str, step: int, rank: int, samples: Sequence[Sample], result: StepResult
) -> NoReturn:
    """Put this worker's samples of the step beside the logs and stop.

    Raises:
        TrainingFailed: always; it names the step, the images and where the samples are.
    """
    parts = float(result.classification), float(result.localisation)
    culprit = "gradient" if np.isfinite(sum(parts)) else "loss"
    where = storage.join(output, logs.FOLDER, f"not-finite-step-{step}-worker-{rank}.npz")
    arrays = {
        f"{name}_{index}": getattr(sample, name)
        for index, sample in enumerate(samples)
        for name in ("image", "rois", "labels", "targets")
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image_ids=[s.image_id for s in samples], **arrays)
    storage.put(where, buffer.getvalue())
    ids = ", ".join(repr(sample.image_id) for sample in samples)
    raise TrainingFailed(
        f"step {step}: the {culprit} is not finite (classification {parts[0]:.3g}, boxes "
        f"{parts[1]:.3g}) with images {ids}; they and their RoIs are in {storage.shown(where)}; "
        "try a lower learning rate or gradient-clip"
    )
