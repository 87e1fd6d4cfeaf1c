"""Detection over a whole manifest: the run, from its options to its summary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline import manifests, storage
from pipeline.detector import checkpoint_record
from pipeline.detector.keep import Keep
from pipeline.detector.pyramid import Pyramid
from pipeline.detector.version import ALGORITHM_VERSION
from pipeline.engine import cluster
from pipeline.engine.detect.actor import DetectionPlan
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.propose.warm_up import warm_up
from pipeline.engine.shards.runner import work_through
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.stored import matching
from pipeline.run_record import RunRecord
from pipeline.runs import output
from pipeline.runs.image_check import FirstLook
from pipeline.runs.options import RunOptions
from pipeline.runs.summary import Summary, summarise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectionSettings:
    """How images are detected in: what decides the output beside checkpoint and proposals."""

    keep: Keep = field(default_factory=Keep)
    """Which detections of an image are kept."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the network; auto takes bf16 where the first detector's device computes in it, and
    reruns and the other detectors keep to that; fp16 needs a device that has it."""
    pyramid: Pyramid = field(default_factory=Pyramid)
    """The scales at which images are looked at."""
    max_proposals: int | None = None
    """At most so many proposals of an image are scored, the best; None scores all."""

    def __post_init__(self) -> None:
        if self.max_proposals is not None and self.max_proposals < 1:
            raise InvalidConfiguration(
                f"--max-proposals is {self.max_proposals}, expected more than 0"
            )

    def recorded(self) -> dict[str, Any]:
        """The settings as run.json holds them; what is off is not mentioned."""
        told = asdict(self)
        if self.pyramid == Pyramid():
            del told["pyramid"]
        if self.max_proposals is None:
            del told["max_proposals"]
        return told


def run(
    manifest_uri: str,
    checkpoint_uri: str,
    output_uri: str,
    *,
    proposals: str | ProposalSettings,
    settings: DetectionSettings,
    options: RunOptions = RunOptions(),
    actors: int | None = None,
    gpus_per_actor: float | None = None,
) -> Summary:
    """Detect in the images of a manifest, or in those that are not done yet.

    Args:
        manifest_uri: Parquet file or folder.
        checkpoint_uri: folder with model.safetensors and model.json.
        output_uri: folder for the parts; a rerun into it does what is left.
        proposals: URI of stored proposals, whose cut is inherited, or how to compute them on the way.
        settings: what else decides the output.
        options: shard size, limits, patience.
        actors: detector actors; None takes one per GPU, or one per core where there is no GPU.
        gpus_per_actor: GPUs of one actor; None takes 1, or 0 where there is no GPU.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    opened = manifests.open_manifest(manifest_uri)
    checkpoint = checkpoint_record.peek(checkpoint_uri)
    _check_classes(checkpoint.classes, opened)
    settings.pyramid.levels(checkpoint.preprocessing)  # a scale above the cap is an error now
    target = storage.absolute(output_uri)
    inputs = {
        "manifest": opened.uri,
        "checkpoint": storage.absolute(checkpoint_uri),
        "proposals": storage.absolute(proposals) if isinstance(proposals, str) else None,
    }
    output.check_apart(target, **inputs)
    storage.check_writable(target)
    stored = matching(proposals, opened, options.limit) if isinstance(proposals, str) else None
    made = stored.provenance if stored else proposals.recorded()  # type: ignore[union-attr]
    cut = output.plan_cut(opened, target, options, stored.rows if stored else None)
    decisive = {
        "dataset": cut.dataset,
        "images": cut.images,
        "detector": {"version": ALGORITHM_VERSION},
        "checkpoint": checkpoint.digest,
        "proposals": made,
        **settings.recorded(),
    }
    places = {name: uri and storage.shown(uri) for name, uri in inputs.items()}
    record = RunRecord("detect", decisive, places)
    look = FirstLook(
        opened, cut.images, all_may_fail=options.max_failed_fraction == 1, own_disk=cluster.is_own()
    )
    ready = output.open_run(target, record, cut, options, look)
    with cluster.connected():
        resources = actor_resources(cluster.capacity(), actors, gpus_per_actor)
        plan = DetectionPlan(
            manifest=opened,
            output=target,
            fingerprint=record.fingerprint,
            checkpoint=storage.absolute(checkpoint_uri),
            checkpoint_digest=checkpoint.digest,
            classes=checkpoint.classes,
            keep=settings.keep,
            device="cuda" if resources.gpus else "cpu",
            pyramid=settings.pyramid,
            max_proposals=settings.max_proposals,
            proposals=None if isinstance(proposals, str) else proposals,
            image_seconds=options.image_seconds,
            threads=resources.threads,
        )
        precision = ready.record.resolved.get("precision", settings.precision)
        work = DetectionWork(
            plan,
            resources,
            options.no_capacity_after,
            precision,
            stored=stored,
            mean_size=look.mean_size,
        )
        with summarise(ready, options) as summary:
            summary.labelled = opened.classes is not None
            if ready.todo or ready.retry:
                _work(work, ready, summary, options)
        return summary


def _check_classes(detected: Sequence[str], manifest: Manifest) -> None:
    """A detector that knows none of a labelled dataset's classes is the wrong one; what it lacks is told.

    Raises:
        InvalidCheckpoint: they have no class in common.
    """
    annotated = manifest.classes
    if annotated and not set(annotated) & set(detected):
        raise InvalidCheckpoint(
            f"the checkpoint knows no class of {storage.shown(manifest.uri)}: it detects "
            f"{', '.join(detected[:10])}, the images show {', '.join(annotated[:10])}; "
            "take another checkpoint, or a manifest without classes (prepare folder)"
        )
    lacking = [name for name in annotated or () if name not in detected]
    if lacking:
        log.warning(
            "the checkpoint does not know %d of the %d classes of %s and will not find them: %s",
            len(lacking),
            len(annotated or ()),
            storage.shown(manifest.uri),
            ", ".join(lacking[:10]),
        )


def _work(
    work: DetectionWork, ready: output.RunOutput, summary: Summary, options: RunOptions
) -> None:
    count = work.resources.total(cluster.capacity())
    log.info("detecting with %d actors, %g GPUs each", count, work.resources.gpus)
    cluster.await_core(options.no_capacity_after)
    with work:
        if ready.record.settings["precision"] == "auto":
            ready.settle({"precision": work.precision})
        log.info("the network computes in %s", work.precision)
        if work.plan.proposals is not None:
            warm_up(work.plan.proposals)
        work_through(work, "detect", ready, summary, options)


def actor_resources(
    capacity: cluster.Capacity, actors: int | None, gpus_per_actor: float | None
) -> ActorResources:
    """Actors for the cluster at hand: on GPUs where it has any, else on cores.

    Without GPUs actors reserve no core, since actors that hold all cores starve the tasks that feed
    them; the kernel's scheduler shares the cores between the one-threaded actors and tasks.
    """
    gpus = gpus_per_actor if gpus_per_actor is not None else min(1.0, capacity.gpus)
    return ActorResources(gpus, threads=2 if gpus else 1, most=actors)
