"""Detection in images with given proposals, as a plain callable without Ray.

Apart from the device, it is fast because frozen norms are folded into the filters, ReLUs and shortcuts
are fused with the convolutions before them, memory is channels last, the processor computes in bf16 if
it can, RoIs that pool the same cells are computed once, and batches of RoIs are bounded. While a GPU
computes, a thread prepares the next batches, and the boxes of the batch before become detections. With
`CascadeSettings.stop_after`, an image's scoring stops when further proposals bring no detection.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.batch_preparation import BatchPreparation, PreparedBatch
from pipeline.detector.cascade import ScoredBatch, StepDetections, score_in_steps
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint
from pipeline.detector.device_memory import choose_rois_at_once, read_total_memory
from pipeline.detector.device_overlap import OverlappedWork
from pipeline.detector.device_selection import get_precision_name, select_device, select_dtype
from pipeline.detector.head_outputs import HeadOutputs, join_outputs
from pipeline.detector.host_transfer import move_array
from pipeline.detector.image_groups import form_batches, form_groups
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.postprocessing import list_candidate_scores, select_in_images
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
    num_scored: int | None = None
    """Number of proposals that were scored before `stop_after` batches brought nothing; None without it."""

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


class ScoredImages(NamedTuple):
    """Images all of whose proposals are scored."""

    indices: list[int]
    """Among the predictor's images."""
    outputs: list[tuple[Tensor, Tensor]]
    """Scores `(R, K + 1)` and deltas `(R, K + 1, 4)` of each."""
    is_finite: Tensor
    """Whether the batch's outputs are, on the device."""


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
        cascade: CascadeSettings = CascadeSettings(),
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
            cascade: when to stop scoring an image's proposals, which must then come best first.
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
        self.cascade = cascade
        self.preprocessing = trained.preprocessing
        self.levels = pyramid.build_levels(trained.preprocessing)
        self.classes = trained.classes
        on_gpu = self.device.type == "cuda"
        self.max_images_per_batch = max_images_per_batch or (8 if on_gpu else 1)
        self.network = InferenceNetwork(trained.network, self.device, self.dtype)
        rois_at_once = 256  # fit a CPU's caches
        if on_gpu:
            values = trained.network.backbone.channels * trained.network.roi_size**2
            rois_at_once = choose_rois_at_once(read_total_memory(self.device), values)
        self.max_rois_per_batch = max_rois_per_batch or rois_at_once
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
        rois_by_level = split_by_level(boxes, sizes, self.levels)
        if self.cascade.stop_after is not None:
            return self._detect_in_steps(rois_by_level, images, boxes, sizes)
        outputs: list[list[HeadOutputs]] = [[] for _ in images]
        detections = self._create_empty(len(images))

        def detect(scored: ScoredImages) -> None:
            self._check_finite(bool(scored.is_finite))
            indices = scored.indices
            by_image = self._postprocess(
                scored.outputs, [boxes[index] for index in indices], [sizes[i] for i in indices]
            )
            for index, (of_image, _) in zip(indices, by_image, strict=True):
                detections[index] = of_image

        work = OverlappedWork(self.device, detect)
        batches = form_batches(rois_by_level, self.max_images_per_batch)
        for batch in self.preparation.prepare_ahead(batches, images, boxes):
            scores, deltas, is_finite = self._compute_outputs(batch)
            scored = ScoredImages([], [], is_finite)
            counts = [len(at_level.rows) for at_level in batch.rois_by_image]
            for at_level, *of_image in zip(
                batch.rois_by_image,
                *(torch.split(v, counts) for v in (scores, deltas)),
                strict=True,
            ):
                parts = outputs[at_level.image_index]
                parts.append(HeadOutputs(at_level.rows, *of_image))
                if sum(len(part.rows) for part in parts) == len(boxes[at_level.image_index]):
                    scored.indices.append(at_level.image_index)
                    scored.outputs.append(join_outputs(parts))
                    outputs[at_level.image_index] = []  # frees the tensors
            work.add(scored)
        work.finish()
        return detections

    def _create_empty(self, count: int) -> list[ImageDetections]:
        with_candidates = self.postprocessing.has_run_thresholds
        return [ImageDetections.create_empty(with_candidates=with_candidates) for _ in range(count)]

    @torch.inference_mode()
    def _detect_in_steps(
        self,
        rois_by_level: Iterable[LevelRois],
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[NDArray[np.float32]],
        sizes: Sequence[Size],
    ) -> list[ImageDetections]:
        """Detect in images of equal shapes together; the device holds all their scales until then."""
        detections = self._create_empty(len(images))

        def detect(index: int, scores: Tensor, deltas: Tensor) -> StepDetections:
            ((detections[index], rows),) = self._postprocess(
                [(scores, deltas)], [boxes[index][: len(scores)]], [sizes[index]]
            )
            return StepDetections(detections[index].scores, rows)

        settings = self.cascade
        least_score = self.postprocessing.score_threshold
        if settings.stop_score is not None:
            least_score = settings.stop_score
        groups = list(form_groups(rois_by_level, self.max_images_per_batch))
        prepared = self.preparation.prepare_ahead(
            (batch for group in groups for batch in group), images, boxes
        )
        for group in groups:
            batches = []
            for batch in itertools.islice(prepared, len(group)):
                features = self.network.extract_features(self._normalise(batch))
                batches.append(ScoredBatch(batch, partial(self._score_checked, features)))
            counts = {
                at_level.image_index: len(boxes[at_level.image_index])
                for _, batch in group
                for at_level in batch
            }
            scored = score_in_steps(batches, counts, settings, least_score, detect)
            for index, number in scored.items():
                detections[index] = detections[index]._replace(num_scored=number)
        return detections

    @torch.inference_mode()
    def _compute_outputs(self, batch: PreparedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute softmax scores `(R, K + 1)` and deltas `(R, K + 1, 4)` of all RoIs, in fp32.

        The third value tells whether they are finite: on the device, as asking would wait for it.
        """
        features = self.network.extract_features(self._normalise(batch))
        scores, deltas, is_finite = self._score_rois(features, batch.unique)
        rows = batch.unique_index.to(self.device, non_blocking=True)
        return scores[rows], deltas[rows], is_finite

    def _score_rois(self, features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute scores and deltas of distinct RoIs `(U, 5)` in host memory, and whether they are finite."""
        on_device = rois.to(self.device, non_blocking=True)
        scores, deltas = self.network.score_rois(features, on_device, self.max_rois_per_batch)
        return scores, deltas, torch.isfinite(scores.sum() + deltas.sum())

    def _score_checked(self, features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Compute scores and deltas as `_score_rois` does.

        Raises:
            NotFiniteOutput: a value is not finite.
        """
        scores, deltas, is_finite = self._score_rois(features, rois)
        self._check_finite(bool(is_finite))
        return scores, deltas

    def _check_finite(self, is_finite: bool) -> None:
        if not is_finite:
            hint = "; fp32 and bf16 have a larger range" if self.precision == "fp16" else ""
            raise NotFiniteOutput(f"the network's output in {self.precision} is not finite{hint}")

    def _normalise(self, batch: PreparedBatch) -> Tensor:
        """Resize and normalise to float32 `(B, 3, h, w)` on the device."""
        return self.preprocessing.normalise(batch.resize(self.device))

    @torch.inference_mode()
    def _postprocess(
        self,
        outputs: Sequence[tuple[Tensor, Tensor]],
        rois: Sequence[NDArray[np.float32]],
        sizes: Sequence[Size],
    ) -> list[tuple[ImageDetections, NDArray[np.intp]]]:
        """Return each image's detections, and the RoI of each; `outputs` are scores and deltas per image."""
        if not outputs:
            return []
        scores, deltas = (torch.cat(values) for values in zip(*outputs, strict=True))
        counts = [len(of_image) for of_image in rois]
        on_device = move_array(np.concatenate(rois), self.device)
        selected = select_in_images(
            scores, deltas, on_device, counts, sizes, settings=self.postprocessing
        )
        # One transfer: the host waits for each.
        columns = [values[:, None].double() for values in selected[1:]]
        table = torch.cat([selected.boxes.double(), *columns], dim=1).cpu().numpy()
        images = table[:, 7].astype(np.intp)
        ends = np.searchsorted(images, np.arange(len(counts)), side="right")
        first_rows = np.cumsum([0, *counts])
        by_image = []
        for index, of_image in enumerate(np.split(table, ends[:-1])):
            kept = of_image[: self.postprocessing.most_detections]
            candidates = None
            if self.postprocessing.has_run_thresholds:
                listed = list_candidate_scores(outputs[index][0], self.postprocessing)
                candidates = listed.cpu().numpy()
            detections = ImageDetections(
                kept[:, :4].astype(np.float32),
                kept[:, 4].astype(np.float32),
                kept[:, 5].astype(np.int32),
                candidates,
            )
            by_image.append((detections, (kept[:, 6] - first_rows[index]).astype(np.intp)))
        return by_image
