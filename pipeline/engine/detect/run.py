"""Detection over a whole manifest: the run, from its options to its summary."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from pipeline import manifests, storage, uris
from pipeline.detector.checkpoint_record import CheckpointRecord, read_checkpoint_record
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.version import ALGORITHM_VERSION
from pipeline.engine import cluster
from pipeline.engine.detect.launcher import ActorLauncher
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.resources import ActorOptions, choose_actor_resources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.propose.warm_up import warm_up_workers
from pipeline.engine.shards.runner import run_shards
from pipeline.errors import InvalidCheckpoint
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.stored_proposals import StoredProposals, open_stored_proposals
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.image_check import check_sampled_images
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.summary import Summary, WorkDone, complete_run
from pipeline.shards import Cut

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
    manifest = manifests.open_manifest(manifest_uri)
    checkpoint = read_checkpoint_record(checkpoint_uri)
    check_classes(checkpoint.classes, manifest)
    settings.pyramid.build_levels(checkpoint.preprocessing)  # rejects a scale above the cap now
    target = uris.make_absolute(output_uri)
    inputs = _list_inputs(manifest, checkpoint_uri, proposals)
    check_apart(target, inputs, RUN_WRITES)
    storage.check_writable(target)
    stored = computed = None
    if isinstance(proposals, str):
        stored = open_stored_proposals(proposals, manifest, options.limit)
        provenance = stored.provenance
    else:
        computed, provenance = proposals, proposals.to_provenance()
    cut = plan_cut(manifest, target, options, stored.rows if stored else None)
    record = _build_record(inputs, cut, checkpoint, provenance, settings)
    all_may_fail, own_disk = options.max_failed_fraction == 1, cluster.is_local()
    check_images = functools.partial(
        check_sampled_images, manifest, cut.images, all_may_fail=all_may_fail, own_disk=own_disk
    )
    ready = open_run(target, record, cut, options, check_images)
    with cluster.connect_to_cluster():
        plan = DetectionPlan(
            manifest,
            target,
            record.fingerprint,
            uris.make_absolute(checkpoint_uri),
            checkpoint,
            settings,
            options,
            computed,
            choose_actor_resources(cluster.get_capacity(), actors),
        )
        detect = functools.partial(_detect, plan, stored, ready)
        return complete_run(ready, options, detect, is_labelled=manifest.classes is not None)


def _list_inputs(
    manifest: Manifest, checkpoint_uri: str, proposals: str | ProposalSettings
) -> dict[str, str | None]:
    """The URI of each input by the name of its option; None for proposals that the run computes."""
    return {
        "manifest": manifest.uri,
        "checkpoint": uris.make_absolute(checkpoint_uri),
        "proposals": uris.make_absolute(proposals) if isinstance(proposals, str) else None,
    }


def _build_record(
    inputs: Mapping[str, str | None],
    cut: Cut,
    checkpoint: CheckpointRecord,
    provenance: Any,
    settings: DetectionSettings,
) -> RunRecord:
    return RunRecord(
        "detect",
        {
            "dataset": cut.dataset,
            "images": cut.images,
            "detector": {"version": ALGORITHM_VERSION},
            "checkpoint": checkpoint.digest,
            "proposals": provenance,
            **settings.to_record(),
        },
        {name: uri and uris.redact_uri(uri) for name, uri in inputs.items()},
    )


def _detect(plan: DetectionPlan, stored: StoredProposals | None, ready: RunOutput) -> WorkDone:
    """Start the detectors, settle their precision, and work through the shards."""
    options, resources = plan.options, plan.resources
    count = resources.count_all(cluster.get_capacity())
    log.info("detecting with %d actors, %g GPUs each", count, resources.gpus)
    cluster.await_core(options.no_capacity_after)
    precision = ready.record.resolved.get("precision", plan.settings.precision)
    plan_reference = ray.put(plan)
    launcher = ActorLauncher(plan_reference, resources.gpus)
    pool = DetectorPool(launcher, resources, options.no_capacity_after, precision)
    mean_size = ready.mean_image_bytes
    with DetectionWork(plan, plan_reference, pool, stored=stored, mean_size=mean_size) as work:
        if plan.settings.precision == "auto":
            ready = ready.resolve({"precision": work.precision})
        log.info("the network computes in %s", work.precision)
        if plan.proposals is not None:
            warm_up_workers(plan.proposals)
        return run_shards(work, "detect", ready, options)


def check_classes(checkpoint_classes: Sequence[str], manifest: Manifest) -> None:
    """Reject a checkpoint that shares no class with a labelled manifest; log the classes that it lacks.

    Raises:
        InvalidCheckpoint: they have no class in common.
    """
    annotated = manifest.classes or ()
    missing = [name for name in annotated if name not in checkpoint_classes]
    if annotated and len(missing) == len(annotated):
        raise InvalidCheckpoint(
            f"the checkpoint has no class of {uris.redact_uri(manifest.uri)}: it detects "
            f"{', '.join(checkpoint_classes[:10])}, the images show {', '.join(annotated[:10])}; "
            "use another checkpoint, or a manifest without classes (prepare folder)"
        )
    if missing:
        log.warning(
            "the checkpoint lacks %d of the %d classes of %s and will not detect them: %s",
            len(missing),
            len(annotated),
            uris.redact_uri(manifest.uri),
            ", ".join(missing[:10]),
        )
