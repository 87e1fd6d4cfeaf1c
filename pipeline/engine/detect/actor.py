"""The detector actor: loads the checkpoint, takes chunks of encoded images, commits the shard's part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import process_time

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.detect.chunk_detector import ChunkDetector
from pipeline.engine.detect.detector_loading import load_detector
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report
from pipeline.runs.reusable_rows import ReusedRows

Chunk = tuple[list[EncodedImage], Report] | ReusedRows
"""What a reading task yields for an actor: images to detect in, or rows that stand for images."""


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
        self._detector, precision = load_detector(self._plan, self._precision)
        return precision

    def detect(self, piece: Piece, chunks: Sequence[ObjectRef[Chunk]]) -> Report:
        """Detect in a piece's images; a whole shard is committed, a single image's row returned."""
        began = process_time()
        report = Report()
        tables = []
        reused = None
        for chunk in _fetch_ahead(chunks, report):
            if isinstance(chunk, ReusedRows):
                reused = chunk
                continue
            encoded_images, read_report = chunk
            report.add(read_report)
            tables.append(self._detect_chunk(encoded_images, report))
        count_on_node(report, "detect", sum(map(len, tables)))
        table = pa.concat_tables(tables)
        if reused is not None:
            table = reused.merge(table)
        commit_or_return(piece, self._plan.output, table, report)
        report.add_cpu_seconds("detect", process_time() - began)
        return report

    def _detect_chunk(self, encoded_images: list[EncodedImage], report: Report) -> pa.Table:
        assert self._detector is not None, "the pool hands out pieces after load has returned"
        detections = self._detector.detect(encoded_images, report)
        for encoded, image_detections in zip(encoded_images, detections, strict=True):
            encoded.data = None
            if encoded.failure is not None:
                report.fail(encoded.failure)
            elif image_detections is not None:
                report.counts["detections"] += len(image_detections.scores)
                if image_detections.num_scored is not None and encoded.boxes is not None:
                    report.counts["proposals"] += len(encoded.boxes)
                    report.counts["proposals_scored"] += image_detections.num_scored
        return self._plan.build_table(encoded_images, detections)


def _fetch_ahead(chunks: Sequence[ObjectRef[Chunk]], report: Report) -> Iterator[Chunk]:
    """Fetch one chunk ahead: it may have to come from another node."""
    with ThreadPoolExecutor(1) as fetching:
        pending = fetching.submit(ray.get, chunks[0])
        for number in range(len(chunks)):
            with report.time_stage("wait"):
                chunk = pending.result()
            if number + 1 < len(chunks):
                pending = fetching.submit(ray.get, chunks[number + 1])
            yield chunk
