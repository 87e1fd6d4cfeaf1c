"""Detection over a whole manifest: the run, from its options to its summary."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

import ray

from pipeline import uris
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine import cluster
from pipeline.engine.detect.detection_inputs import open_detection_inputs
from pipeline.engine.detect.launcher import ActorLauncher
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.resources import ActorOptions, choose_actor_resources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.node_versions import VersionCheck
from pipeline.engine.propose.warm_up import compare_nodes, warm_up_workers
from pipeline.engine.shards.runner import run_shards
from pipeline.errors import MismatchedOutput
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.stored_proposals import StoredProposals
from pipeline.runs.image_check import check_sampled_images
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.reuse import EarlierOutput, ReusePlan, open_earlier_output
from pipeline.runs.summary import Summary, WorkDone, complete_run

log = logging.getLogger(__name__)


def run_detection(
    manifest_uri: str,
    checkpoint_uri: str,
    output_uri: str,
    *,
    proposals: str | ProposalSettings,
    settings: DetectionSettings,
    actors: ActorOptions = ActorOptions(),
    options: RunOptions = RunOptions(),
) -> Summary:
    """Detect in the images of a manifest, or in those that are not done yet.

    Args:
        manifest_uri: Parquet file or folder.
        checkpoint_uri: folder with model.safetensors and model.json.
        output_uri: folder for the parts; a rerun into it does what is left.
        proposals: URI of stored proposals, whose shards this run uses too, or how to compute them.
        settings: everything else that decides the output.
        actors: how many detectors, and on what.
        options: shard size, limits, patience.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    cluster.check_ray_address()
    inputs = open_detection_inputs(
        manifest_uri,
        checkpoint_uri,
        output_uri,
        proposals=proposals,
        settings=settings,
        options=options,
    )
    manifest, cut, record = inputs.manifest, inputs.cut, inputs.record
    earlier = open_earlier_output(options, record, manifest)
    all_may_fail, own_disk = options.max_failed_fraction == 1, cluster.is_local()
    check_images = functools.partial(
        check_sampled_images, manifest, cut.images, all_may_fail=all_may_fail, own_disk=own_disk
    )
    ready = open_run(inputs.output, record, cut, options, check_images)
    precision = _choose_precision(settings, ready, earlier)
    reuse = None if earlier is None else earlier.locate(ready, manifest)
    with cluster.connect_to_cluster():
        resources = choose_actor_resources(cluster.get_capacity(), actors)
        plan = inputs.build_plan(settings, options, resources)
        detect = functools.partial(
            _detect, plan, inputs.stored, ready, reuse, precision, may_grow=not own_disk
        )
        return complete_run(ready, options, detect, is_labelled=manifest.classes is not None)


def _detect(
    plan: DetectionPlan,
    stored: StoredProposals | None,
    ready: RunOutput,
    reuse: ReusePlan | None,
    precision: str,
    *,
    may_grow: bool,
) -> WorkDone:
    """Start the detectors, settle their precision, and work through the shards."""
    options, resources = plan.options, plan.resources
    count = resources.count_all(cluster.get_capacity().hosts)
    if count:
        log.info("detecting with %d actors, %g GPUs each", count, resources.gpus)
    needs = [options.placement.build_need(CPU=1.0), resources.need]
    cluster.check_needs(needs, options.no_capacity_after, may_grow=may_grow)
    plan_reference = ray.put(plan)
    launcher = ActorLauncher(plan_reference, resources)
    pieces = len(ready.todo) + sum(len(rows) for rows in ready.retry.values())
    pool = DetectorPool(launcher, resources, options.no_capacity_after, precision, pieces=pieces)
    versions, placement = VersionCheck(), options.placement
    if plan.proposals is None:
        warm_up = functools.partial(compare_nodes, placement, versions)
    else:
        warm_up = functools.partial(warm_up_workers, plan.proposals, placement, versions)
    with DetectionWork(
        plan,
        plan_reference,
        pool,
        stored=stored,
        mean_size=ready.mean_image_bytes,
        placement=placement,
        reuse=reuse,
        warm_up=warm_up,
    ) as work:
        if plan.settings.precision == "auto":
            ready = ready.resolve({"precision": work.precision})
        log.info("the network computes in %s", work.precision)
        done = run_shards(work, "detect", ready, options, versions=versions)
        return replace(done, gpus_per_detector=resources.gpus)


def _choose_precision(
    settings: DetectionSettings, ready: RunOutput, earlier: EarlierOutput | None
) -> str:
    """What the actors compute in: what the run, or the rows that it takes over, were computed in.

    Raises:
        MismatchedOutput: these two differ.
    """
    own = ready.record.resolved.get("precision")
    if earlier is None:
        return str(own or settings.precision)
    reused = earlier.resolved.get("precision")
    if own is not None and reused is not None and own != reused:
        raise MismatchedOutput(
            f"--reuse {uris.redact_uri(earlier.parts.uri)} was computed with other settings "
            f"(precision: {reused} there, {own} now): its rows cannot be taken over"
        )
    return str(own or reused or settings.precision)
