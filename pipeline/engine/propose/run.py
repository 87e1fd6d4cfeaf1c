"""Proposals for a whole manifest: the run, from its options to its summary."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import manifests, storage, uris
from pipeline.engine import cluster
from pipeline.engine.node_versions import VersionCheck
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.warm_up import warm_up_workers
from pipeline.engine.propose.work import make_proposal_work
from pipeline.engine.shards.runner import run_shards
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.image_check import check_sampled_images
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.reuse import list_reused_inputs, open_earlier_output
from pipeline.runs.summary import Summary, WorkDone, complete_run
from pipeline.shards import Cut


@dataclass(frozen=True)
class ProposalInputs:
    """A proposals run before it begins: its inputs, opened and checked, and what it will record."""

    manifest: Manifest
    output: str
    cut: Cut
    record: RunRecord
    settings: ProposalSettings
    """With the digest of the ranking's model."""
    provenance: Mapping[str, Any]
    """The settings as the parts' metadata holds them."""

    def build_plan(self, options: RunOptions) -> ProposalPlan:
        """The run as its tasks see it."""
        fingerprint, provenance = self.record.fingerprint, self.provenance
        return ProposalPlan(
            self.manifest, self.output, fingerprint, self.settings, provenance, options
        )


def open_proposal_inputs(
    manifest_uri: str, output_uri: str, settings: ProposalSettings, options: RunOptions
) -> ProposalInputs:
    """Open and check what `run_proposals` reads, and divide the manifest into shards; nothing is written.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    opened = manifests.open_manifest(manifest_uri)
    target = uris.make_absolute(output_uri)
    settings = settings.pin_ranking()
    places = {"manifest": manifest_uri, "reuse": options.reuse, "ranking": settings.ranking_uri}
    check_apart(target, places, RUN_WRITES)
    storage.check_writable(target)
    provenance = settings.to_provenance()
    cut = plan_cut(opened, target, options)
    record = RunRecord(
        "propose",
        {"dataset": cut.dataset, "images": cut.images, "proposals": provenance},
        {"manifest": uris.redact_uri(opened.uri), **list_reused_inputs(options)},
    )
    return ProposalInputs(opened, target, cut, record, settings, provenance)


def run_proposals(
    manifest_uri: str,
    output_uri: str,
    settings: ProposalSettings,
    options: RunOptions = RunOptions(),
) -> Summary:
    """Compute proposals for the images of a manifest, or for those that are not done yet.

    Args:
        manifest_uri: Parquet file or folder.
        output_uri: folder for the parts; a rerun into it does what is left.
        settings: how the boxes are made.
        options: shard size, limits, patience.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    cluster.check_ray_address()
    inputs = open_proposal_inputs(manifest_uri, output_uri, settings, options)
    opened, target, cut, record = inputs.manifest, inputs.output, inputs.cut, inputs.record
    earlier = open_earlier_output(options, record, opened)
    own_disk = cluster.is_local()
    check_images = functools.partial(
        check_sampled_images,
        opened,
        cut.images,
        all_may_fail=options.max_failed_fraction == 1,
        own_disk=own_disk,
    )
    ready = open_run(target, record, cut, options, check_images)
    reuse = None if earlier is None else earlier.locate(ready, opened)
    with cluster.connect_to_cluster():
        plan = inputs.build_plan(options)

        def compute_proposals() -> WorkDone:
            placement, patience = options.placement, options.no_capacity_after
            cluster.check_needs([placement.build_need(CPU=1.0)], patience, may_grow=not own_disk)
            cluster.await_core(patience, placement)
            versions = VersionCheck()
            warm_up_workers(inputs.settings, placement, versions)
            work = make_proposal_work(plan, reuse)
            return run_shards(work, "propose", ready, options, versions=versions)

        return complete_run(
            ready, options, compute_proposals, is_labelled=opened.classes is not None
        )
