"""Loading a run's detector into this process, and what can be wrong with the device or the checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from pipeline import uris
from pipeline.engine.detect.chunk_detector import ChunkDetector
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.errors import InvalidCheckpoint, NoCapacity

if TYPE_CHECKING:
    from pipeline.baselines.predictor import BaselinePredictor
    from pipeline.detector.predictor import Predictor


def check_torch() -> None:
    """Say in one line that this node cannot hold a detector.

    Raises:
        NoCapacity: torch is not installed here; other nodes may have it.
    """
    if find_spec("torch") is None:
        raise NoCapacity(
            "nodes without torch cannot hold detectors: install the extra, '.[torch]', on them, or send "
            "detectors to GPU nodes that have it with --gpus-per-actor 1 (cluster/README.md)"
        )


def load_detector(plan: DetectionPlan, precision: str) -> tuple[ChunkDetector, str]:
    """Load the checkpoint and detect once in a blank image.

    The first image compiles or loads kernels: without it, a run's first shards would wait for that.

    Returns:
        The detector, and the precision that it computes in, never auto.

    Raises:
        NoCapacity: torch is missing on this node, or the device does not work there or is full.
        InvalidCheckpoint: the checkpoint changed since the run started, or cannot be used.
    """
    check_torch()
    import torch  # noqa: PLC0415  (the driver imports this module and must not load torch)

    device, options = plan.resources.device, plan.options
    with _report_device_errors(device, RuntimeError, AssertionError):
        torch.zeros(1, device=device)
    if device == "cuda" and plan.resources.gpus < 1:
        from pipeline.detector.device_memory import limit_memory  # noqa: PLC0415

        limit_memory(torch.device(device), plan.resources.gpus)
    with _report_device_errors(device, torch.AcceleratorError, torch.OutOfMemoryError):
        predictor = _load_predictor(plan, precision)
        predictor([np.zeros((64, 64, 3), np.uint8)], [np.array([[0, 0, 64, 64]], np.float32)])
    detector = ChunkDetector(
        predictor,
        one_by_one=device == "cpu",
        image_seconds=options.image_seconds,
        threads=plan.resources.threads,
        decoding=plan.manifest.decoding,
    )
    return detector, str(predictor.precision)


def _load_predictor(plan: DetectionPlan, precision: str) -> Predictor | BaselinePredictor:
    """The predictor of the system that the checkpoint's record names."""
    import torch  # noqa: PLC0415

    from pipeline.baselines.checkpoint import load_baseline  # noqa: PLC0415
    from pipeline.baselines.predictor import BaselinePredictor  # noqa: PLC0415
    from pipeline.detector.checkpoint import load_checkpoint  # noqa: PLC0415
    from pipeline.detector.predictor import Predictor  # noqa: PLC0415

    torch.set_num_threads(plan.resources.threads)
    if plan.checkpoint.system is not None:
        baseline = load_baseline(plan.checkpoint_uri)
        _check_unchanged(plan, baseline.digest)
        return BaselinePredictor(
            baseline,
            postprocessing=plan.settings.postprocessing,
            device=plan.resources.device,
            precision=precision,
            pyramid=plan.settings.pyramid,
        )
    loaded = load_checkpoint(plan.checkpoint_uri)
    _check_unchanged(plan, loaded.digest)
    return Predictor(
        loaded,
        postprocessing=plan.settings.postprocessing,
        device=plan.resources.device,
        precision=precision,
        pyramid=plan.settings.pyramid,
        cascade=plan.settings.cascade,
    )


def _check_unchanged(plan: DetectionPlan, digest: str) -> None:
    if digest != plan.checkpoint.digest:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(plan.checkpoint_uri)} has changed since the run started"
        )


@contextmanager
def _report_device_errors(device: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn these errors into this node's trouble with its device.

    Raises:
        NoCapacity: instead of one of `errors`.
    """
    try:
        yield
    except errors as error:
        message = str(error).splitlines()[0]
        raise NoCapacity(f"{device} does not work on {platform.node()}: {message}") from error
