"""What every task and actor of a detection run needs: one object, put into Ray's object store once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline import store_options
from pipeline.detector.checkpoint_record import CheckpointRecord
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.resources import ActorResources
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.tables import build_detections_table
from pipeline.store_options import StoreOptions

if TYPE_CHECKING:
    from pipeline.detector.predictor import ImageDetections


@dataclass(frozen=True)
class DetectionPlan:
    """A detection run as its tasks and actors see it."""

    manifest: Manifest
    output: str
    fingerprint: str
    checkpoint_uri: str
    checkpoint: CheckpointRecord
    """The record when the run started: an actor rejects a checkpoint that has changed since."""
    settings: DetectionSettings
    options: RunOptions
    proposals: ProposalSettings | None
    """How to compute proposals; None if they are stored."""
    resources: ActorResources
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""

    def build_table(
        self,
        images: Sequence[EncodedImage],
        detections: Sequence[ImageDetections | None],
    ) -> pa.Table:
        """Rows of `schema.DETECTIONS` of this run, one per image; None stands for a failed image."""
        candidates = None
        if self.settings.postprocessing.has_run_thresholds:
            candidates = [
                None if of_image is None else of_image.candidate_scores for of_image in detections
            ]
        classes = self.checkpoint.classes
        return build_detections_table(images, detections, classes, self.fingerprint, candidates)
