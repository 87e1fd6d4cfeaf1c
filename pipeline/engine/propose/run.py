"""Proposals for a whole manifest: the run, from its options to its summary."""

from __future__ import annotations

import functools

from pipeline import manifests, storage, uris
from pipeline.engine import cluster
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.warm_up import warm_up_workers
from pipeline.engine.propose.work import ProposalWork
from pipeline.engine.shards.runner import run_shards
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.image_check import check_sampled_images
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.summary import Summary, WorkDone, complete_run


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
    opened = manifests.open_manifest(manifest_uri)
    target = uris.make_absolute(output_uri)
    check_apart(target, {"manifest": manifest_uri}, RUN_WRITES)
    storage.check_writable(target)
    provenance = settings.to_provenance()
    cut = plan_cut(opened, target, options)
    record = RunRecord(
        "propose",
        {"dataset": cut.dataset, "images": cut.images, "proposals": provenance},
        {"manifest": uris.redact_uri(opened.uri)},
    )
    check_images = functools.partial(
        check_sampled_images,
        opened,
        cut.images,
        all_may_fail=options.max_failed_fraction == 1,
        own_disk=cluster.is_local(),
    )
    ready = open_run(target, record, cut, options, check_images)
    with cluster.connect_to_cluster():
        plan = ProposalPlan(opened, target, record.fingerprint, settings, provenance, options)

        def compute_proposals() -> WorkDone:
            cluster.await_core(options.no_capacity_after)
            warm_up_workers(settings)
            return run_shards(ProposalWork(plan), "propose", ready, options)

        return complete_run(
            ready, options, compute_proposals, is_labelled=opened.classes is not None
        )
