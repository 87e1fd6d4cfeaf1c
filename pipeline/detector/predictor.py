"""Detection in images with given proposals, as a plain callable without Ray.

Apart from the device, it is fast because frozen norms are folded into the filters, ReLUs and shortcuts
are fused with the convolutions before them, memory is channels last, the processor computes in bf16 if
it can, RoIs that pool the same cells are computed once, and batches of RoIs are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import imaging
from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint
from pipeline.detector.device_selection import get_precision_name, select_device, select_dtype
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.postprocessing import list_candidate_scores, select_detections
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.pyramid import LevelRois, Pyramid, Size, split_by_level
from pipeline.detector.rois import RoiBatch, build_roi_batch, clip_proposals


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
        """
        boxes = [
            clip_proposals(rois, *image.shape[:2])
            for image, rois in zip(images, proposals, strict=True)
        ]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        outputs = [_ImageOutputs() for _ in images]
        with_candidates = self.postprocessing.has_run_thresholds
        detections = [ImageDetections.create_empty(with_candidates=with_candidates) for _ in images]
        for shape, batch in self._iterate_batches(split_by_level(boxes, sizes, self.levels)):
            rois = build_roi_batch(
                [boxes[at_level.image_index][at_level.rows] for at_level in batch],
                [sizes[at_level.image_index] for at_level in batch],
                shape,
                self.network.spatial_scale,
                self.preprocessing,
            )
            batch_images = [images[at_level.image_index] for at_level in batch]
            scores, deltas = self._compute_outputs(batch_images, shape, rois)
            for position, at_level in enumerate(batch):
                rows = torch.from_numpy(rois.unique_index[rois.image_index == position])
                rows = rows.to(self.device)
                index = at_level.image_index
                outputs[index].add(at_level.rows, scores[rows], deltas[rows])
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
    def _compute_outputs(
        self, images: Sequence[NDArray[np.uint8]], shape: Size, rois: RoiBatch
    ) -> tuple[Tensor, Tensor]:
        """Compute softmax scores `(U, K + 1)` and deltas `(U, K + 1, 4)` of the unique RoIs, in fp32."""
        features = self.network.extract_features(self._preprocess(images, shape))
        unique = torch.from_numpy(rois.unique).to(self.device)
        return self.network.score_rois(features, unique, self.max_rois_per_batch)

    def _preprocess(self, images: Sequence[NDArray[np.uint8]], shape: Size) -> Tensor:
        """Resize and normalise to float32 `(B, 3, h, w)` on the device."""
        resized = np.stack([imaging.resize(image, shape[1], shape[0]) for image in images])
        return self.preprocessing.normalise(torch.from_numpy(resized).to(self.device))

    @torch.inference_mode()
    def _postprocess(
        self, scores: Tensor, deltas: Tensor, rois: NDArray[np.float32], size: Size
    ) -> ImageDetections:
        on_device = torch.from_numpy(rois).to(self.device)
        boxes, box_scores, labels = select_detections(
            scores, deltas, on_device, size, self.postprocessing
        )
        candidates = None
        if self.postprocessing.has_run_thresholds:
            candidates = list_candidate_scores(scores, self.postprocessing).cpu().numpy()
        return ImageDetections(
            boxes.cpu().numpy(),
            box_scores.cpu().numpy(),
            labels.cpu().numpy().astype(np.int32),
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
