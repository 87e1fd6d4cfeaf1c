"""The plan of a proposals run."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.planning.figures import (
    RUN_START_SECONDS,
    TASK_SECONDS,
    build_figures,
    compute_slowdown,
)
from pipeline.engine.planning.image_costs import ImageSample
from pipeline.engine.planning.sampled_run import (
    MeasuredRun,
    check_plannable,
    list_shards_to_plan,
    measure_sample,
    sample_images,
)
from pipeline.engine.planning.this_machine import choose_cluster
from pipeline.engine.propose.run import open_proposal_inputs
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.makespan import compute_tail_factor
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import PlanOptions
from pipeline.runs.run_plan import PlannedCluster, RunPlan

log = logging.getLogger(__name__)


def plan_proposals(
    manifest_uri: str,
    output_uri: str,
    settings: ProposalSettings,
    options: RunOptions,
    plan_options: PlanOptions,
) -> RunPlan:
    """Measure a sample of what `run_proposals` would do, and put plan.json into the output.

    Args:
        manifest_uri: Parquet file or folder.
        output_uri: folder for the parts; what an interrupted run left there is not planned again.
        settings: how the boxes are made.
        options: shard size and limits.
        plan_options: the sample and the planned cluster.

    Raises:
        PipelineError: the run would be rejected, or the sample cannot be measured.
    """
    check_plannable(options)
    inputs = open_proposal_inputs(manifest_uri, output_uri, settings, options)
    shards = list_shards_to_plan(inputs.output, inputs.record, inputs.cut)
    cluster = choose_cluster(plan_options)
    sampling = sample_images(inputs.manifest, shards, plan_options)
    log.info("measuring %d of %d images", len(sampling.pieces), sum(s.rows for s in shards))
    sample = ImageSample(
        inputs.build_plan(options), sampling.pieces, seconds=plan_options.plan_seconds
    )
    measured = measure_sample(sample, sampling.strata, shards, processes=cluster.cores)
    plan = RunPlan(
        "propose",
        inputs.record.fingerprint,
        sum(shard.rows for shard in shards),
        len(shards),
        cluster,
        len(measured.images),
        measured.failed,
        plan_options.plan_seed,
        build_figures(
            cluster,
            plan_options,
            parts=len(shards),
            core_seconds=measured.propose_cpu,
            wall_seconds=compute_wall_seconds(measured, cluster),
            bytes_read=measured.bytes_read,
            bytes_written=measured.bytes_written,
        ),
    )
    plan.write(inputs.output)
    return plan


def compute_wall_seconds(measured: MeasuredRun, cluster: PlannedCluster) -> NDArray[np.float64]:
    """Start, then all cores at work until the last shard ends."""
    start = RUN_START_SECONDS + measured.start.tasks
    work = measured.propose_wall + len(measured.shards) * TASK_SECONDS
    cores = cluster.all_cores
    factor = compute_tail_factor(measured.rows, cores) * compute_slowdown(cluster)
    return start + factor * work / cores
