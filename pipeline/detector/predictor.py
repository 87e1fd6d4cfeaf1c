"""Detection in images with given proposals: no Ray, no storage, a plain callable.

What makes it quick, apart from the device: frozen norms folded into the filters, ReLUs and shortcuts
fused with the convolutions before them, channels last, bf16 where the processor has it, RoIs that pool
the same cells computed once, bounded batches of RoIs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import imaging
from pipeline.detector import checkpoint as checkpoints
from pipeline.detector.inference import InferenceNetwork, device_named, dtype_named, precision_of
from pipeline.detector.keep import Keep
from pipeline.detector.keeping import kept
from pipeline.detector.pyramid import Part, Pyramid, Size, parts
from pipeline.detector.rois import Rois, gather, usable

__all__ = ["Detections", "Keep", "Predictor"]

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]


class Detections(NamedTuple):
    """The objects found in one image, best first."""

    boxes: NDArray[np.float32]
    """`(D, 4)` in pixels of the original image, clipped to it."""
    scores: NDArray[np.float32]
    """`(D,)`, 0..1."""
    labels: NDArray[np.int32]
    """`(D,)`: classes counted from 0."""

    def of_score(self, least: float) -> Detections:
        """Those that score `least` or better."""
        good = self.scores >= least
        return Detections(self.boxes[good], self.scores[good], self.labels[good])


class Predictor:
    """`Predictor(checkpoint)(images, proposals)`."""

    def __init__(
        self,
        checkpoint: str | checkpoints.Checkpoint,
        *,
        device: str = "auto",
        precision: str = "auto",
        keep: Keep = Keep(),
        pyramid: Pyramid = Pyramid(),
        max_rois_per_batch: int | None = None,
        max_images_per_batch: int | None = None,
    ) -> None:
        """Load a model and make it ready.

        Args:
            checkpoint: a folder's URI, or what `checkpoint.load` gave; its model is copied.
            device: `auto` takes a GPU if there is one; otherwise as torch names it.
            precision: `fp32`, `bf16` or `fp16` for trunk and head; the last layers and the softmax stay
                fp32. `auto` takes bf16 where the device computes in it.
            keep: which boxes become detections.
            pyramid: other scales than the checkpoint's own at which images are looked at.
            max_rois_per_batch: how many RoIs go through the head at once; None suits the device.
            max_images_per_batch: how many images go through the trunk at once; likewise.

        Raises:
            InvalidCheckpoint: the checkpoint cannot be used.
            InvalidConfiguration: an unknown device or precision, fp16 where the processor lacks it, a
                scale above the cap.
            StorageError: the store cannot be read.
        """
        if isinstance(checkpoint, str):
            checkpoint = checkpoints.load(checkpoint)
        self.device = device_named(device)
        self.dtype = dtype_named(precision, self.device)
        self.precision = precision_of(self.dtype)
        self.keep = keep
        self.preprocessing = checkpoint.preprocessing
        self.levels = pyramid.levels(checkpoint.preprocessing)
        self.classes = checkpoint.classes
        on_gpu = self.device.type == "cuda"
        self.max_rois_per_batch = max_rois_per_batch or (
            4096 if on_gpu else 256
        )  # 256 fit the CPU's caches
        self.max_images_per_batch = max_images_per_batch or (8 if on_gpu else 1)
        self.network = InferenceNetwork(checkpoint.model, self.device, self.dtype)

    def __call__(
        self, images: Sequence[Image], proposals: Sequence[NDArray[np.floating]]
    ) -> list[Detections]:
        """Detect in each image.

        Args:
            images: uint8 RGB `(H, W, 3)`.
            proposals: per image `(N, 4)` in its pixels; what lies outside is cut off.

        Images whose resized shapes are equal go through the trunk together, in the order given and
        never padded. An image without proposals has no detections. With several scales each proposal
        is looked at in one of them (`pyramid.nearest`).
        """
        found = [_nothing() for _ in images]
        boxes = [
            usable(ours, *image.shape[:2]) for image, ours in zip(images, proposals, strict=True)
        ]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        outputs = [_Outputs() for _ in images]
        for shape, batch in self._batches(parts(boxes, sizes, self.levels)):
            rois = gather(
                [boxes[part.image][part.rows] for part in batch],
                [sizes[part.image] for part in batch],
                shape,
                self.network.spatial_scale,
            )
            scores, deltas = self._computed([images[part.image] for part in batch], shape, rois)
            for position, part in enumerate(batch):
                mine = torch.from_numpy(rois.unique_index[rois.image == position])
                mine = mine.to(self.device)
                image = part.image
                outputs[image].add(part.rows, scores[mine], deltas[mine])
                if outputs[image].count == len(boxes[image]):
                    found[image] = self._detections(
                        *outputs[image].ordered(), boxes[image], sizes[image]
                    )
                    outputs[image] = _Outputs()
        return found

    def _batches(self, work: Sequence[Part]) -> Iterator[tuple[Size, list[Part]]]:
        """The parts of each batch, which are of one resized shape."""
        by_shape: dict[Size, list[Part]] = {}
        for part in work:
            by_shape.setdefault(part.shape, []).append(part)
        for shape, of_shape in by_shape.items():
            for start in range(0, len(of_shape), self.max_images_per_batch):
                yield shape, of_shape[start : start + self.max_images_per_batch]

    @torch.inference_mode()
    def _computed(self, images: Sequence[Image], shape: Size, rois: Rois) -> tuple[Tensor, Tensor]:
        """Softmax scores `(U, K + 1)` and deltas `(U, K + 1, 4)` of the unique RoIs, in fp32."""
        features = self.network.features(self._preprocessed(images, shape))
        rows = torch.from_numpy(rois.unique).to(self.device)
        return self.network.scores_and_deltas(features, rows, self.max_rois_per_batch)

    def _preprocessed(self, images: Sequence[Image], shape: Size) -> Tensor:
        """Float32 `(B, 3, h, w)` on the device."""
        resized = np.stack([imaging.resize(image, shape[1], shape[0]) for image in images])
        return self.preprocessing.normalised(torch.from_numpy(resized).to(self.device))

    @torch.inference_mode()
    def _detections(self, scores: Tensor, deltas: Tensor, rois: Boxes, size: Size) -> Detections:
        boxes = torch.from_numpy(rois).to(self.device)
        found, values, labels = kept(scores, deltas, boxes, size, self.keep)
        return Detections(
            found.cpu().numpy(), values.cpu().numpy(), labels.cpu().numpy().astype(np.int32)
        )


class _Outputs:
    """What the network said of one image's RoIs, scale by scale."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[tuple[NDArray[np.intp], Tensor, Tensor]] = []

    def add(self, rows: NDArray[np.intp], scores: Tensor, deltas: Tensor) -> None:
        self.count += len(rows)
        self._parts.append((rows, scores, deltas))

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Scores `(R, K + 1)` and deltas `(R, K + 1, 4)` in the order of the proposals."""
        rows, scores, deltas = zip(*self._parts, strict=True)
        if len(rows) == 1:
            return scores[0], deltas[0]
        order = torch.from_numpy(np.argsort(np.concatenate(rows))).to(scores[0].device)
        return torch.cat(scores)[order], torch.cat(deltas)[order]


def _nothing() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
