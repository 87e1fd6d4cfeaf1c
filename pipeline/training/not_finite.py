"""A step whose gradient is not finite: its samples are saved to reproduce it, and training stops."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from pipeline import storage, uris
from pipeline.errors import TrainingFailed
from pipeline.training import logs
from pipeline.training.sample_loader import Sample
from pipeline.training.step import StepResult


def stop_training(
    output: str, step: int, rank: int, samples: Sequence[Sample], result: StepResult
) -> NoReturn:
    """Put this worker's samples of the step beside the logs, and fail.

    Raises:
        TrainingFailed: always; it names the step, the images and the file that holds the samples.
    """
    losses = {name: float(loss) for name, loss in result.losses.items()}
    culprit = "gradient" if np.isfinite(list(losses.values())).all() else "loss"
    uri = uris.join(output, logs.FOLDER, f"not-finite-step-{step}-worker-{rank}.npz")
    arrays = {
        f"{name}_{index}": getattr(sample, name)
        for index, sample in enumerate(samples)
        for name in ("image", "rois", "labels", "targets")
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image_ids=[s.image_id for s in samples], **arrays)
    storage.put(uri, buffer.getvalue())
    ids = ", ".join(repr(sample.image_id) for sample in samples)
    values = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
    raise TrainingFailed(
        f"step {step}: the {culprit} is not finite ({values}) with images {ids}; the images and their RoIs "
        f"are saved in {uris.redact_uri(uri)}; try a lower learning rate or gradient-clip"
    )
