"""What the tasks of an inspection need: one object, put into Ray's object store once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import store_options
from pipeline.manifests import Manifest
from pipeline.runs.options import RunOptions
from pipeline.store_options import StoreOptions


@dataclass(frozen=True)
class InspectionPlan:
    """The inspection of one split as its tasks see it."""

    manifest: Manifest
    output: str
    """Folder of the signatures."""
    fingerprint: str
    options: RunOptions
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""
