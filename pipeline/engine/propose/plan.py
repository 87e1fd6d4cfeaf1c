"""What every task of a proposals run needs: one object, put into Ray's object store once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import store_options
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.store_options import StoreOptions


@dataclass(frozen=True)
class ProposalPlan:
    """A proposals run as its tasks see it."""

    manifest: Manifest
    output: str
    fingerprint: str
    settings: ProposalSettings
    provenance: Mapping[str, Any]
    """The settings as the parts' metadata holds them."""
    options: RunOptions
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""
