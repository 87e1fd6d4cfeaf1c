"""What the tasks of an analysis run need."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import store_options
from pipeline.manifests import Manifest
from pipeline.proposals.stored_proposals import StoredRows
from pipeline.shards import Parts
from pipeline.store_options import StoreOptions


@dataclass(frozen=True)
class AnalysisPlan:
    """An analysis run as its tasks see it; one object, put into Ray's object store once."""

    manifest: Manifest
    output: str
    """Folder of the matches."""
    fingerprint: str
    classes: tuple[str, ...]
    """The manifest's, then those that only the detections have."""
    has_all_classes: bool = False
    """Whether a detection of another class shows that its part is damaged."""
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""


@dataclass(frozen=True)
class ShardSource:
    """What one shard is matched from."""

    detections: Parts
    """Only this shard's part."""
    digest: str
    """Of that part."""
    proposals: StoredRows | None
