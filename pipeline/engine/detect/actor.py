"""The detector actor: loads the checkpoint, takes chunks of encoded images, commits the shard's part."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options, uris
from pipeline.engine.detect.chunk_detector import ChunkDetector
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.errors import InvalidCheckpoint, NoCapacity
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report

if TYPE_CHECKING:
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


@ray.remote(max_restarts=0, max_task_retries=0)
class DetectorActor:
    """One detector on one device; if it dies, the driver starts a new one."""

    def __init__(self, plan: DetectionPlan, precision: str) -> None:
        store_options.set_options(plan.stores)
        self._plan = plan
        self._precision = precision
        self._detector: ChunkDetector | None = None

    def load(self) -> str:
        """Load the checkpoint and detect once in a blank image; returns the precision, never auto.

        The first image compiles or loads kernels: without it, a run's first shards would wait for that.

        Raises:
            NoCapacity: torch is missing on this node, or the device does not work there or is full.
            InvalidCheckpoint: the checkpoint changed since the run started, or cannot be used.
        """
        check_torch()
        import torch  # noqa: PLC0415  (the driver imports this module and must not load torch)

        device, options = self._plan.resources.device, self._plan.options
        with _report_device_errors(device, RuntimeError, AssertionError):
            torch.zeros(1, device=device)
        with _report_device_errors(device, torch.AcceleratorError, torch.OutOfMemoryError):
            predictor = self._load_predictor()
            predictor([np.zeros((64, 64, 3), np.uint8)], [np.array([[0, 0, 64, 64]], np.float32)])
        self._detector = ChunkDetector(
            predictor,
            one_by_one=device == "cpu",
            image_seconds=options.image_seconds,
            threads=self._plan.resources.threads,
            decoding=self._plan.manifest.decoding,
        )
        return str(predictor.precision)

    def _load_predictor(self) -> Predictor:
        import torch  # noqa: PLC0415

        from pipeline.detector.checkpoint import load_checkpoint  # noqa: PLC0415
        from pipeline.detector.predictor import Predictor  # noqa: PLC0415

        plan = self._plan
        torch.set_num_threads(plan.resources.threads)
        loaded = load_checkpoint(plan.checkpoint_uri)
        if loaded.digest != plan.checkpoint.digest:
            raise InvalidCheckpoint(
                f"{uris.redact_uri(plan.checkpoint_uri)} has changed since the run started"
            )
        return Predictor(
            loaded,
            postprocessing=plan.settings.postprocessing,
            device=plan.resources.device,
            precision=self._precision,
            pyramid=plan.settings.pyramid,
        )

    def detect(
        self, piece: Piece, chunks: Sequence[ObjectRef[tuple[list[EncodedImage], Report]]]
    ) -> Report:
        """Detect in a piece's images; a whole shard is committed, a single image's row returned."""
        report = Report()
        tables = []
        for encoded_images, read_report in _fetch_ahead(chunks, report):
            report.add(read_report)
            tables.append(self._detect_chunk(encoded_images, report))
        return commit_or_return(piece, self._plan.output, pa.concat_tables(tables), report)

    def _detect_chunk(self, encoded_images: list[EncodedImage], report: Report) -> pa.Table:
        assert self._detector is not None, "the pool hands out pieces after load has returned"
        detections = self._detector.detect(encoded_images, report)
        for encoded, image_detections in zip(encoded_images, detections, strict=True):
            encoded.data = None
            if encoded.failure is not None:
                report.fail(encoded.failure)
            elif image_detections is not None:
                report.counts["detections"] += len(image_detections.scores)
        return self._plan.build_table(encoded_images, detections)


def _fetch_ahead(
    chunks: Sequence[ObjectRef[tuple[list[EncodedImage], Report]]], report: Report
) -> Iterator[tuple[list[EncodedImage], Report]]:
    """Fetch one chunk ahead: it may have to come from another node."""
    with ThreadPoolExecutor(1) as fetching:
        pending = fetching.submit(ray.get, chunks[0])
        for number in range(len(chunks)):
            with report.time_stage("wait"):
                chunk = pending.result()
            if number + 1 < len(chunks):
                pending = fetching.submit(ray.get, chunks[number + 1])
            yield chunk


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
