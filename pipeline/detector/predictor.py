"""Detection in images with given proposals, as a plain callable without Ray.

Apart from the device, it is fast because frozen norms are folded into the filters, ReLUs and shortcuts
are fused with the convolutions before them, memory is channels last, the processor computes in bf16 if
it can, RoIs that pool the same cells are computed once, and batches of RoIs are bounded. While a GPU
computes, threads resize the images of the next batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.batch_preparation import BatchPreparation, PreparedBatch
from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint
from pipeline.detector.device_selection import get_precision_name, select_device, select_dtype
from pipeline.detector.host_transfer import move_array
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.postprocessing import list_candidate_scores, select_detections
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.pyramid import LevelRois, Pyramid, Size, split_by_level
from pipeline.detector.rois import clip_proposals
from pipeline.errors import NotFiniteOutput


class ImageDetections(NamedTuple):
    """The objects detected in one image, best first."""

    boxes: NDArray[np.float32]
    """`(D, 4)` in pixels of the original image, clipped to it."""
    scores: NDArray[np.float32]
    """`(D,)`, 0..1."""
    labels: NDArray[np.int32]
    """`(D,)`: classes counted from 0."""
    candidate_scores: NDArray[np.float32] | None = None
    """`(K * C,)`: scores of the C boxes of each class that entered NMS; only for settings whose thresholds
    depend on all images of a run."""

    @classmethod
    def create_empty(cls, *, with_candidates: bool = False) -> ImageDetections:
        """Return the detections of an image without any, and without candidates if these are listed."""
        scores = np.zeros(0, np.float32)
        candidates = scores if with_candidates else None
        return cls(np.zeros((0, 4), np.float32), scores, np.zeros(0, np.int32), candidates)

    def filter_by_score(self, min_score: float) -> ImageDetections:
        """Return the detections with a score of `min_score` or more."""
        is_good = self.scores >= min_score
        return ImageDetections(self.boxes[is_good], self.scores[is_good], self.labels[is_good])


class Predictor:
    """A trained network on one device: `Predictor(network)(images, proposals)`."""

    def __init__(
        self,
        network: str | TrainedNetwork,
        *,
        device: str = "auto",
        precision: str = "auto",
        postprocessing: PostprocessingSettings = PostprocessingSettings(),
        pyramid: Pyramid = Pyramid(),
        max_rois_per_batch: int | None = None,
        max_images_per_batch: int | None = None,
    ) -> None:
        """Prepare a network for inference.

        Args:
            network: the URI of a checkpoint's folder, or what `load_checkpoint` returned; it is copied.
            device: `auto` uses a GPU if there is one; otherwise a name that torch knows.
            precision: `fp32`, `bf16` or `fp16` for trunk and head; the last layers and the softmax stay
                fp32. `auto` uses bf16 if the device supports it.
            postprocessing: how boxes become detections.
            pyramid: scales to use in place of the checkpoint's own.
            max_rois_per_batch: RoIs that go through the head at once; None suits the device.
            max_images_per_batch: images that go through the trunk at once; None suits the device.

        Raises:
            InvalidCheckpoint: the checkpoint cannot be used.
            InvalidConfiguration: an unknown device or precision, fp16 on a processor without it, or a
                scale above the cap.
            StorageError: the store cannot be read.
        """
        trained = load_checkpoint(network) if isinstance(network, str) else network
        self.device = select_device(device)
        self.dtype = select_dtype(precision, self.device)
        self.precision = get_precision_name(self.dtype)
        self.postprocessing = postprocessing
        self.preprocessing = trained.preprocessing
        self.levels = pyramid.build_levels(trained.preprocessing)
        self.classes = trained.classes
        on_gpu = self.device.type == "cuda"
        # 256 RoIs fit the CPU's caches.
        self.max_rois_per_batch = max_rois_per_batch or (4096 if on_gpu else 256)
        self.max_images_per_batch = max_images_per_batch or (8 if on_gpu else 1)
        self.network = InferenceNetwork(trained.network, self.device, self.dtype)
        self.preparation = BatchPreparation(
            self.preprocessing, self.network.spatial_scale, self.device
        )

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], proposals: Sequence[NDArray[np.floating]]
    ) -> list[ImageDetections]:
        """Detect in each image.

        Args:
            images: uint8 RGB `(H, W, 3)`.
            proposals: per image `(N, 4)` in its pixels; parts outside the image are cut off.

        Images whose resized shapes are equal go through the trunk together, in the order of `images` and
        without padding. An image without proposals has no detections. With several scales, each proposal
        is pooled at one of them (`pyramid.assign_levels`).

        Raises:
            NotFiniteOutput: the network's output for an image is not finite, as happens in fp16.
            torch.OutOfMemoryError: a single image or RoI does not fit the device's memory.
        """
        boxes = [
            clip_proposals(rois, *image.shape[:2])
            for image, rois in zip(images, proposals, strict=True)
        ]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        outputs = [_ImageOutputs() for _ in images]
        with_candidates = self.postprocessing.has_run_thresholds
        detections = [ImageDetections.create_empty(with_candidates=with_candidates) for _ in images]
        batches = self._iterate_batches(split_by_level(boxes, sizes, self.levels))
        for batch in self.preparation.prepare_ahead(batches, images, boxes):
            counts = [len(at_level.rows) for at_level in batch.rois_by_image]
            scores, deltas = (
                torch.split(values, counts) for values in self._compute_outputs(batch)
            )
            for position, at_level in enumerate(batch.rois_by_image):
                index = at_level.image_index
                outputs[index].add(at_level.rows, scores[position], deltas[position])
                if outputs[index].count == len(boxes[index]):
                    detections[index] = self._postprocess(
                        *outputs[index].concatenate(), boxes[index], sizes[index]
                    )
                    outputs[index] = _ImageOutputs()  # frees the tensors
        return detections

    def _iterate_batches(
        self, rois_by_level: Sequence[LevelRois]
    ) -> Iterator[tuple[Size, list[LevelRois]]]:
        """Yield batches of one resized shape, with that shape."""
        by_shape: dict[Size, list[LevelRois]] = {}
        for at_level in rois_by_level:
            by_shape.setdefault(at_level.shape, []).append(at_level)
        for shape, with_shape in by_shape.items():
            for start in range(0, len(with_shape), self.max_images_per_batch):
                yield shape, with_shape[start : start + self.max_images_per_batch]

    @torch.inference_mode()
    def _compute_outputs(self, batch: PreparedBatch) -> tuple[Tensor, Tensor]:
        """Compute softmax scores `(R, K + 1)` and deltas `(R, K + 1, 4)` of all RoIs, in fp32.

        Raises:
            NotFiniteOutput: a value is not finite.
        """
        features = self.network.extract_features(self._normalise(batch.images))
        unique = batch.unique.to(self.device, non_blocking=True)
        scores, deltas = self.network.score_rois(features, unique, self.max_rois_per_batch)
        if not torch.isfinite(scores.sum() + deltas.sum()):
            hint = "; fp32 and bf16 have a larger range" if self.precision == "fp16" else ""
            raise NotFiniteOutput(f"the network's output in {self.precision} is not finite{hint}")
        rows = batch.unique_index.to(self.device, non_blocking=True)
        return scores[rows], deltas[rows]

    def _normalise(self, images: Tensor) -> Tensor:
        """Normalise to float32 `(B, 3, h, w)` on the device."""
        return self.preprocessing.normalise(images.to(self.device, non_blocking=True))

    @torch.inference_mode()
    def _postprocess(
        self, scores: Tensor, deltas: Tensor, rois: NDArray[np.float32], size: Size
    ) -> ImageDetections:
        boxes, box_scores, labels = select_detections(
            scores, deltas, move_array(rois, self.device), size, self.postprocessing
        )
        candidates = None
        if self.postprocessing.has_run_thresholds:
            candidates = list_candidate_scores(scores, self.postprocessing).cpu().numpy()
        # One transfer: the host waits for each. A label is exact in float32.
        columns = (boxes, box_scores[:, None], labels[:, None].to(boxes.dtype))
        selected = torch.cat(columns, dim=1).cpu().numpy()
        return ImageDetections(
            selected[:, :4].copy(),
            selected[:, 4].copy(),
            selected[:, 5].astype(np.int32),
            candidates,
        )


class _ImageOutputs:
    """The network's outputs for one image's RoIs, collected level by level."""

    def __init__(self) -> None:
        self.count = 0
        self._by_level: list[tuple[NDArray[np.intp], Tensor, Tensor]] = []

    def add(self, rows: NDArray[np.intp], scores: Tensor, deltas: Tensor) -> None:
        self.count += len(rows)
        self._by_level.append((rows, scores, deltas))

    def concatenate(self) -> tuple[Tensor, Tensor]:
        """Return scores `(R, K + 1)` and deltas `(R, K + 1, 4)` in the order of the proposals."""
        rows, scores, deltas = zip(*self._by_level, strict=True)
        if len(rows) == 1:
            return scores[0], deltas[0]
        order = torch.from_numpy(np.argsort(np.concatenate(rows))).to(scores[0].device)
        return torch.cat(scores)[order], torch.cat(deltas)[order]
