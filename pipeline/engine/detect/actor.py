"""The detector actor: takes chunks of images with boxes, decodes, detects, commits the shard's part."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray import ObjectRef

from pipeline import imaging, schema, storage, store_options
from pipeline.detector.keep import Keep
from pipeline.detector.pyramid import Pyramid
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.watchdog import end_after, time_limit
from pipeline.errors import InvalidCheckpoint, NoCapacity, UnreadableImage
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report
from pipeline.store_options import StoreOptions

if TYPE_CHECKING:
    from pipeline.detector.predictor import Detections

log = logging.getLogger(__name__)

GROUP = 16
"""Images decoded together at most: the next group is decoded while one is detected in."""
GROUP_BYTES = 256_000_000
"""Decoded pixels of a group at most; an image that is larger goes alone."""


@dataclass(frozen=True)
class DetectionPlan:
    """What every task and actor of a run needs to know; it lies in the object store once."""

    manifest: Manifest
    output: str
    fingerprint: str
    checkpoint: str
    checkpoint_digest: str
    classes: tuple[str, ...]
    keep: Keep
    device: Literal["cuda", "cpu"]
    pyramid: Pyramid
    max_proposals: int | None
    proposals: ProposalSettings | None
    """How to compute them; None where they are stored."""
    image_seconds: float
    threads: int
    stores: StoreOptions = field(default_factory=store_options.used)
    """Options of the stores, for the workers."""


Decoded = NDArray[np.uint8] | None


@ray.remote(max_restarts=0, max_task_retries=0)
class DetectorActor:
    """One detector on one device; it dies rather than being restarted, the driver makes a new one."""

    def __init__(self, plan: DetectionPlan, precision: str) -> None:
        store_options.use(plan.stores)
        self.plan = plan
        self.precision = precision
        self._loaded: Any = None
        self._threads = ThreadPoolExecutor(max(1, plan.threads))

    def ready(self) -> str:
        """Load the checkpoint, detect once in a blank image; returns what precision auto came to.

        The first image compiles or loads kernels, which a run's first shards would wait for.

        Raises:
            NoCapacity: the device does not work here, or has no room.
        """
        import torch  # noqa: PLC0415

        with _told_of(self.plan.device, RuntimeError, AssertionError):
            torch.zeros(1, device=self.plan.device)
        with _told_of(self.plan.device, torch.AcceleratorError, torch.OutOfMemoryError):
            predictor = self._predictor()
            predictor([np.zeros((64, 64, 3), np.uint8)], [np.array([[0, 0, 64, 64]], np.float32)])
        return str(predictor.precision)

    def _predictor(self) -> Any:
        if self._loaded is None:
            import torch  # noqa: PLC0415  (the driver imports this module and must not load torch)

            from pipeline.detector import checkpoint  # noqa: PLC0415
            from pipeline.detector.predictor import Predictor  # noqa: PLC0415

            torch.set_num_threads(self.plan.threads)
            loaded = checkpoint.load(self.plan.checkpoint)
            if loaded.digest != self.plan.checkpoint_digest:
                raise InvalidCheckpoint(
                    f"{storage.shown(self.plan.checkpoint)} changed while the run was at work"
                )
            self._loaded = Predictor(
                loaded,
                keep=self.plan.keep,
                device=self.plan.device,
                precision=self.precision,
                pyramid=self.plan.pyramid,
            )
        return self._loaded

    def detect(
        self, piece: Piece, chunks: Sequence[ObjectRef[tuple[list[EncodedImage], Report]]]
    ) -> Report:
        """Detect in a piece's images; a whole shard is committed, a single image returned."""
        report = Report()
        tables = []
        for encoded_images, before in self._fetched(chunks, report):
            report.add(before)
            tables.append(self._detect_chunk(encoded_images, report))
        return commit_or_return(piece, self.plan.output, pa.concat_tables(tables), report)

    def _fetched(
        self, chunks: Sequence[ObjectRef[tuple[list[EncodedImage], Report]]], report: Report
    ) -> Iterator[tuple[list[EncodedImage], Report]]:
        """Fetch one chunk ahead: it may have to come from another node."""
        with ThreadPoolExecutor(1) as fetching:
            coming = fetching.submit(ray.get, chunks[0])
            for number in range(len(chunks)):
                with report.timed("wait"):
                    chunk = coming.result()
                if number + 1 < len(chunks):
                    coming = fetching.submit(ray.get, chunks[number + 1])
                yield chunk

    def _detect_chunk(self, encoded_images: list[EncodedImage], report: Report) -> pa.Table:
        found: list[Detections | None] = []
        # One limit over all of it that each step puts off: a decoder that holds the interpreter's lock may
        # stop this thread at any moment.
        with time_limit(self.plan.image_seconds):
            for group, decoded in self._decoded(cut_in_groups(encoded_images), report):
                end_after(self.plan.image_seconds)
                with report.timed("detect"):
                    found.extend(self._detect_group(group, decoded))
                end_after(self.plan.image_seconds)
        for encoded, detections in zip(encoded_images, found, strict=True):
            encoded.data = None
            if encoded.failure is not None:
                report.fail(encoded.failure)
            elif detections is not None:
                report.counts["detections"] += len(detections.scores)
        return detection_table(self.plan, encoded_images, found)

    def _decoded(
        self, groups: Iterable[list[EncodedImage]], report: Report
    ) -> Iterator[tuple[list[EncodedImage], list[Decoded]]]:
        """Decode one group ahead, so that the device does not wait for it."""
        pending = None
        for group in groups:
            following = (group, [self._threads.submit(_decode, encoded) for encoded in group])
            if pending is not None:
                yield pending[0], self._awaited(pending[1], report)
            pending = following
        if pending is not None:
            yield pending[0], self._awaited(pending[1], report)

    def _awaited(self, futures: list[Any], report: Report) -> list[Decoded]:
        end_after(self.plan.image_seconds)
        with report.timed("wait"):
            decoded = [future.result() for future in futures]
        report.add_seconds("decode", sum(seconds for _, seconds in decoded))
        return [image for image, _ in decoded]

    def _detect_group(
        self, group: list[EncodedImage], decoded: list[Decoded]
    ) -> list[Detections | None]:
        """Detect in a group; if that fails, image by image, so that only the culprit is failed.

        On a CPU, where nothing is gained together, image by image at once, each with its own time limit.
        """
        usable = [index for index, image in enumerate(decoded) if image is not None]
        found: list[Detections | None] = [None] * len(group)
        try:
            if self.plan.device == "cpu" or len(usable) == 1:
                results = [self._one(group[i], decoded[i]) for i in usable]
            else:
                results = self._detections([group[i] for i in usable], [decoded[i] for i in usable])
        except (RuntimeError, *IMAGE_ERRORS) as error:
            end_if_device_is_lost(error)
            results = [self._one(group[i], decoded[i]) for i in usable]
        for index, result in zip(usable, results, strict=True):
            found[index] = result
        return found

    def _one(self, encoded: EncodedImage, image: Decoded) -> Detections | None:
        end_after(self.plan.image_seconds)
        try:
            return self._detections([encoded], [image])[0]
        except (RuntimeError, *IMAGE_ERRORS) as error:
            end_if_device_is_lost(error)
            encoded.failure = Failure.of("detect", error)
            return None

    def _detections(
        self, encoded_images: list[EncodedImage], decoded: Sequence[Decoded]
    ) -> list[Detections | None]:
        if not encoded_images:
            return []
        results: list[Detections | None] = self._predictor()(
            decoded, [encoded.boxes for encoded in encoded_images]
        )
        return results


@contextmanager
def _told_of(device: str, *errors: type[Exception]) -> Iterator[None]:
    """Tell such errors as this node's trouble with its device."""
    try:
        yield
    except errors as error:
        told = str(error).splitlines()[0]
        raise NoCapacity(f"{device} does not work on {platform.node()}: {told}") from error


def cut_in_groups(encoded_images: Sequence[EncodedImage]) -> Iterator[list[EncodedImage]]:
    """Cut images into groups of at most `GROUP` and, as far as sizes are known, `GROUP_BYTES`."""
    group: list[EncodedImage] = []
    size = 0
    for encoded in encoded_images:
        decoded = 3 * (encoded.width or 0) * (encoded.height or 0)
        if group and (len(group) == GROUP or size + decoded > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(encoded)
        size += decoded
    if group:
        yield group


def end_if_device_is_lost(error: Exception) -> None:
    """End this process after an error that its GPU does not recover from.

    Each later image would fail as well. The driver sees the death, starts another detector, and finds
    the image that does it.
    """
    import torch  # noqa: PLC0415

    if isinstance(error, torch.AcceleratorError):
        log.critical("the detector ends: its device is lost: %s", str(error).splitlines()[0])
        logging.shutdown()
        os._exit(1)


def _decode(encoded: EncodedImage) -> tuple[Decoded, float]:
    """The decoded image, or None and its failure, and the seconds that it took."""
    start = perf_counter()
    image = None
    if encoded.failure is None and encoded.data is not None:
        try:
            image = imaging.decode(encoded.data)
            encoded.height, encoded.width = image.shape[:2]
        except UnreadableImage as error:
            encoded.failure = Failure.of("decode", error)
    return image, perf_counter() - start


def detection_table(
    plan: DetectionPlan, encoded_images: Sequence[EncodedImage], found: Sequence[Detections | None]
) -> pa.Table:
    """Rows of `schema.DETECTIONS`, one per image, with the detections nested."""
    failures = [encoded.failure for encoded in encoded_images]
    columns = {
        "image_id": [encoded.image_id for encoded in encoded_images],
        "uri": [storage.public(encoded.uri) for encoded in encoded_images],
        "width": pa.array([encoded.width for encoded in encoded_images], pa.int32()),
        "height": pa.array([encoded.height for encoded in encoded_images], pa.int32()),
        "status": ["failed" if failure else "ok" for failure in failures],
        "stage": pa.array([f.stage if f else None for f in failures], pa.string()),
        "error_type": pa.array([f.error_type if f else None for f in failures], pa.string()),
        "error_message": pa.array([f.message if f else None for f in failures], pa.string()),
        "num_proposals": pa.array(
            [None if p.boxes is None else len(p.boxes) for p in encoded_images], pa.int32()
        ),
        "detections": _nested(found, plan.classes),
    }
    kept = schema.with_metadata(
        schema.DETECTIONS, {"classes": list(plan.classes), "fingerprint": plan.fingerprint}
    )
    return pa.table(columns, schema=kept)


def _nested(found: Sequence[Detections | None], classes: tuple[str, ...]) -> pa.ListArray:
    present = [detections for detections in found if detections is not None]
    boxes = np.concatenate([np.empty((0, 4), np.float32), *(d.boxes for d in present)])
    label_ids = np.concatenate([np.empty(0, np.int32), *(d.labels for d in present)])
    scores = np.concatenate([np.empty(0, np.float32), *(d.scores for d in present)])
    labels = pa.array(classes, pa.string()).take(pa.array(label_ids, pa.int32()))
    corners = [pa.array(np.ascontiguousarray(boxes[:, i]), pa.float32()) for i in range(4)]
    values = pa.StructArray.from_arrays(
        [labels, pa.array(label_ids, pa.int32()), pa.array(scores, pa.float32()), *corners],
        fields=list(schema.DETECTION),
    )
    counts = [0 if detections is None else len(detections.scores) for detections in found]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, values, mask=pa.array([detections is None for detections in found], pa.bool_())
    )
