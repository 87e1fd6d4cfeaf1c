"""The plan of a detection run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.detection_inputs import DetectionInputs, open_detection_inputs
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.resources import ActorOptions, ActorResources, choose_actor_resources
from pipeline.engine.planning.figures import (
    RUN_START_SECONDS,
    TASK_SECONDS,
    build_figures,
    compute_slowdown,
)
from pipeline.engine.planning.image_costs import ImageSample
from pipeline.engine.planning.sampled_run import (
    ImageSampling,
    MeasuredRun,
    check_plannable,
    list_shards_to_plan,
    measure_sample,
    sample_images,
)
from pipeline.engine.planning.this_machine import build_capacity, choose_cluster, count_gpus
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.makespan import compute_tail_factor
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import DetectionPlanOptions
from pipeline.runs.run_plan import PlannedCluster, RunPlan
from pipeline.shards import Shard

log = logging.getLogger(__name__)


def plan_detection(
    manifest_uri: str,
    checkpoint_uri: str,
    output_uri: str,
    *,
    proposals: str | ProposalSettings,
    settings: DetectionSettings,
    actors: ActorOptions,
    options: RunOptions,
    plan_options: DetectionPlanOptions,
) -> RunPlan:
    """Measure a sample of what `run_detection` would do, and put plan.json into the output.

    Detectors are measured on a GPU if the planned cluster has GPUs, else on the cores.

    Args:
        manifest_uri: Parquet file or folder.
        checkpoint_uri: folder with model.safetensors and model.json.
        output_uri: folder for the parts; what an interrupted run left there is not planned again.
        proposals: URI of stored proposals, or how to compute them.
        settings: everything else that decides the output.
        actors: how many detectors, and on what.
        options: shard size and limits.
        plan_options: the sample and the planned cluster.

    Raises:
        InvalidConfiguration: GPU-hours can neither be measured nor computed.
        PipelineError: the run would be rejected, or the sample cannot be measured.
    """
    check_plannable(options)
    cluster = choose_cluster(plan_options)
    capacity = build_capacity(cluster)
    resources = choose_actor_resources(
        capacity, replace(actors, actor_resources=None, actor_label_selector=None)
    )
    _check_device(resources, cluster, plan_options)
    inputs = open_detection_inputs(
        manifest_uri,
        checkpoint_uri,
        output_uri,
        proposals=proposals,
        settings=settings,
        options=options,
    )
    shards = list_shards_to_plan(inputs.output, inputs.record, inputs.cut)
    sampling = sample_images(inputs.manifest, shards, plan_options)
    log.info("measuring %d of %d images", len(sampling.pieces), sum(s.rows for s in shards))
    plan = inputs.build_plan(settings, options, resources)
    sample = ImageSample(
        plan, sampling.pieces, inputs.stored, plan_options.plan_seconds, with_detection=True
    )
    measured = _measure(sample, sampling, shards, cluster, plan_options)
    slots = Slots(
        cores=cluster.all_cores - int(sum(map(resources.reserve_cpus, capacity.hosts))),
        slowdown=compute_slowdown(cluster),
        actors=max(1, resources.count_all(capacity.hosts)),
        gpus_per_actor=resources.gpus,
    )
    run_plan = _build_plan(inputs, measured, slots, cluster, plan_options)
    run_plan.write(inputs.output)
    return run_plan


@dataclass(frozen=True)
class Slots:
    """What works at once."""

    cores: int
    """That the detectors leave to the tasks."""
    slowdown: float
    """By what Ray takes of the cores, as a factor."""
    actors: int
    gpus_per_actor: float


def _check_device(
    resources: ActorResources, cluster: PlannedCluster, options: DetectionPlanOptions
) -> None:
    if resources.gpus and not cluster.gpus:
        raise InvalidConfiguration(
            "--gpus-per-actor needs nodes with GPUs: pass --gpus, the GPUs of each node"
        )
    if options.detector_seconds_per_image is not None and not resources.gpus:
        raise InvalidConfiguration(
            "--detector-seconds-per-image is for detectors on GPUs: pass --gpus, the GPUs of each node"
        )
    if resources.gpus and options.detector_seconds_per_image is None and not count_gpus():
        raise InvalidConfiguration(
            "GPU-hours need a GPU on this machine: plan on one that has it, or pass its "
            "detector_seconds_per_image from that plan.json as --detector-seconds-per-image"
        )


def _measure(
    sample: ImageSample,
    sampling: ImageSampling,
    shards: Sequence[Shard],
    cluster: PlannedCluster,
    options: DetectionPlanOptions,
) -> MeasuredRun:
    """The totals of both stages; tasks and detectors are measured apart if they have devices of their own."""
    assert isinstance(sample.plan, DetectionPlan)
    if not sample.plan.resources.gpus:
        return measure_sample(sample, sampling.strata, shards, processes=cluster.cores)
    tasks_alone = replace(sample, with_detection=False)
    tasks = measure_sample(tasks_alone, sampling.strata, shards, processes=cluster.cores)
    if options.detector_seconds_per_image is not None:
        seconds = np.full_like(
            tasks.propose_wall,
            options.detector_seconds_per_image * sum(shard.rows for shard in shards),
        )
        unknown = np.zeros_like(seconds)
        return replace(
            tasks,
            detect_cpu=unknown,
            detect_wall=seconds,
            device_seconds=seconds,
            bytes_written=unknown,
        )
    detector = measure_sample(sample, sampling.strata, shards, processes=1)
    return replace(detector, propose_cpu=tasks.propose_cpu, propose_wall=tasks.propose_wall)


def _build_plan(
    inputs: DetectionInputs,
    measured: MeasuredRun,
    slots: Slots,
    cluster: PlannedCluster,
    options: DetectionPlanOptions,
) -> RunPlan:
    images = sum(measured.rows)
    notes = []
    if options.detector_seconds_per_image is not None:
        notes.append(
            "the detector did not run here: core-hours lack its share, and bytes written are unknown"
        )
    gpu_seconds = None
    if slots.gpus_per_actor:
        gpu_seconds = measured.device_seconds * slots.gpus_per_actor
    figures = build_figures(
        cluster,
        options,
        parts=len(measured.shards),
        core_seconds=measured.propose_cpu + measured.detect_cpu,
        wall_seconds=compute_wall_seconds(measured, slots),
        bytes_read=measured.bytes_read,
        bytes_written=measured.bytes_written,
        gpu_seconds=gpu_seconds,
        detector_seconds_per_image=measured.device_seconds / images
        if slots.gpus_per_actor
        else None,
    )
    if options.detector_seconds_per_image is not None:
        del figures["bytes_written"], figures["bytes_per_part"]
    return RunPlan(
        "detect",
        inputs.record.fingerprint,
        images,
        len(measured.shards),
        cluster,
        len(measured.images),
        measured.failed,
        options.plan_seed,
        figures,
        notes,
    )


def compute_wall_seconds(measured: MeasuredRun, slots: Slots) -> NDArray[np.float64]:
    """Start, then both stages: one after the other on the same cores, or side by side on their devices.

    Side by side, the slower stage is at work all the time, except for the first shard before or the last
    shard after it, which only the other has. Detectors and the tasks' workers start side by side, too.
    """
    start = measured.start
    detectors = start.base + start.detector
    count = len(measured.shards)
    propose = measured.propose_wall + count * TASK_SECONDS
    detect = measured.detect_wall + count * TASK_SECONDS
    by_tasks = slots.slowdown * compute_tail_factor(measured.rows, slots.cores) / slots.cores
    if not slots.gpus_per_actor:
        begin = RUN_START_SECONDS + detectors + start.tasks
        return begin + by_tasks * (propose + detect)
    begin = RUN_START_SECONDS + max(detectors, start.tasks)
    by_actors = compute_tail_factor(measured.rows, slots.actors) / slots.actors
    return begin + np.maximum(
        by_tasks * propose + detect / count, propose / count + by_actors * detect
    )
