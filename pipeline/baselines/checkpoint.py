"""Checkpoints of R-CNN and SPPnet, in the project's format: the record's `system` says which it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import uris
from pipeline.baselines.networks import BaselineNetwork, build_baseline_network
from pipeline.baselines.settings import RegionSettings, read_region_settings
from pipeline.detector.checkpoint import load_network, put_checkpoint
from pipeline.detector.checkpoint_record import CheckpointRecord, read_checkpoint_record
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidCheckpoint


@dataclass(frozen=True)
class TrainedBaseline:
    """A trained R-CNN or SPPnet."""

    network: BaselineNetwork
    """In evaluation mode; its output layers hold SVMs and box regressors."""
    preprocessing: Preprocessing
    settings: RegionSettings
    digest: str = ""
    """Digest of everything that decides detections."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; `label_id` of a detection is an index into them."""
        return self.network.architecture.classes


def save_baseline(
    checkpoint_uri: str,
    network: BaselineNetwork,
    preprocessing: Preprocessing,
    settings: RegionSettings,
    *,
    extra: Mapping[str, Any] | None = None,
) -> CheckpointRecord:
    """Put the weights, then the record, into a folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    return put_checkpoint(
        checkpoint_uri,
        network.state_dict(),
        network.architecture,
        preprocessing,
        extra=extra,
        system=settings.to_json(),
    )


def load_baseline(checkpoint_uri: str) -> TrainedBaseline:
    """Load a trained R-CNN or SPPnet from a folder, on the CPU and in float32.

    Raises:
        InvalidCheckpoint: a file is missing or damaged, or the checkpoint is of Fast R-CNN.
        StorageError: the store cannot be read.
    """
    record = read_checkpoint_record(checkpoint_uri)
    settings = read_region_settings(record.system, checkpoint_uri)
    if settings is None:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(checkpoint_uri)} is a checkpoint of Fast R-CNN, expected R-CNN or SPPnet"
        )
    network = load_network(
        checkpoint_uri, record, lambda: build_baseline_network(record.architecture, settings)
    )
    return TrainedBaseline(network, record.preprocessing, settings, record.digest, record.extra)
