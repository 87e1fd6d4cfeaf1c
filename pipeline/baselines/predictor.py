"""Detection by R-CNN and SPPnet: features of each proposal, SVM scores, box regression, NMS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.baselines.checkpoint import TrainedBaseline
from pipeline.baselines.regions import build_region_features
from pipeline.detector.device_selection import get_precision_name, select_device, select_dtype
from pipeline.detector.postprocessing import list_candidate_scores, select_detections
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import ImageDetections
from pipeline.detector.pyramid import Pyramid
from pipeline.detector.rois import clip_proposals

SCORE_SLOPE = 2.0
"""A detection's score is 1 / (1 + exp(-2 z)) of its SVM's output z: in order of z, between 0 and 1. The
score threshold of 0.05 is z = -1.5, below the negatives' margin of -1."""


class BaselinePredictor:
    """A trained R-CNN or SPPnet on one device: `BaselinePredictor(trained)(images, proposals)`."""

    def __init__(
        self,
        trained: TrainedBaseline,
        *,
        device: str = "auto",
        precision: str = "auto",
        postprocessing: PostprocessingSettings = PostprocessingSettings(),
        pyramid: Pyramid = Pyramid(),
    ) -> None:
        """Prepare the network for inference; the arguments are those of `detector.predictor.Predictor`.

        Raises:
            InvalidConfiguration: an unknown device or precision.
        """
        self.device = select_device(device)
        self.dtype = select_dtype(precision, self.device)
        self.precision = get_precision_name(self.dtype)
        self.postprocessing = postprocessing
        self.classes = trained.classes
        self._regions = build_region_features(
            trained.network,
            trained.preprocessing,
            trained.settings,
            self.device,
            self.dtype,
            pyramid=pyramid,
        )
        layers = (trained.network.cls_score, trained.network.bbox_pred)
        self._score, self._delta = (
            (layer.weight.detach().to(self.device), layer.bias.detach().to(self.device))
            for layer in layers
        )

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], proposals: Sequence[NDArray[np.floating]]
    ) -> list[ImageDetections]:
        """Detect in each image, one after another.

        Args:
            images: uint8 RGB `(H, W, 3)`.
            proposals: per image `(N, 4)` in its pixels; parts outside the image are cut off.
        """
        return [
            self._detect(image, clip_proposals(boxes, *image.shape[:2]))
            for image, boxes in zip(images, proposals, strict=True)
        ]

    @torch.inference_mode()
    def _detect(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> ImageDetections:
        has_thresholds = self.postprocessing.has_run_thresholds
        if not len(boxes):
            return ImageDetections.create_empty(with_candidates=has_thresholds)
        vectors = self._regions.compute(image, boxes)
        scores = compute_scores(torch.nn.functional.linear(vectors, *self._score))
        deltas = torch.nn.functional.linear(vectors, *self._delta).reshape(len(boxes), -1, 4)
        selected, box_scores, labels = select_detections(
            scores,
            deltas,
            torch.from_numpy(boxes).to(self.device),
            (image.shape[0], image.shape[1]),
            self.postprocessing,
        )
        candidates = None
        if has_thresholds:
            candidates = list_candidate_scores(scores, self.postprocessing).cpu().numpy()
        return ImageDetections(
            selected.cpu().numpy(),
            box_scores.cpu().numpy(),
            labels.cpu().numpy().astype(np.int32),
            candidates,
        )


def compute_scores(outputs: Tensor) -> Tensor:
    """Scores between 0 and 1 of SVM outputs `(N, K + 1)`; background's column means nothing."""
    return torch.sigmoid(SCORE_SLOPE * outputs)
