"""What every task and actor of a detection run needs: one object, put into Ray's object store once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import store_options
from pipeline.detector.checkpoint_record import CheckpointRecord
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.resources import ActorResources
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.store_options import StoreOptions


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
