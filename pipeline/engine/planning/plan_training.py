"""The plan of a training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.planning.figures import (
    TRAIN_PROCESSES,
    TRAIN_START_SECONDS,
    build_figures,
    compute_slowdown,
)
from pipeline.engine.planning.processes import measure_together
from pipeline.engine.planning.this_machine import (
    choose_cluster,
    count_cores,
    count_gpus,
)
from pipeline.engine.planning.training_costs import TrainingCosts, TrainingSample
from pipeline.engine.train.fit import HUGE_PAGES
from pipeline.engine.train.training_inputs import TrainingInputs, open_training_inputs
from pipeline.engine.train.training_output import make_run_record
from pipeline.engine.train.training_request import TrainingRequest
from pipeline.engine.train.workers import Workers, find_fitting_workers
from pipeline.errors import InvalidConfiguration, MismatchedOutput, NoCapacity
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.plan_estimation import Estimate, MeasuredStratum, resample_totals
from pipeline.runs.plan_options import GpuPlanOptions
from pipeline.runs.resume import find_run_to_resume
from pipeline.runs.run_plan import PlannedCluster, RunPlan
from pipeline.training import state
from pipeline.training.logs import TrainingRecord
from pipeline.training.specification import TrainingSpec
from pipeline.training.training_files import list_training_files

log = logging.getLogger(__name__)

WARM_UP_STEPS = 2
"""First steps of each phase, which load kernels and allocate memory: what they take beyond others is not
multiplied by the number of steps."""
FEWEST_STEPS = 8
SLACK_SECONDS = 600.0
"""How long the measuring may take beyond `--plan-seconds`."""


def plan_training(request: TrainingRequest, plan_options: GpuPlanOptions) -> RunPlan:
    """Do the first steps of a training in a scratch folder, and put plan.json into the output.

    The plan is for the whole training, also if it is interrupted and resumed.

    Args:
        request: the training; its proposals are stored, and it does not overwrite.
        plan_options: how many images to measure, and the planned cluster.

    Raises:
        InvalidConfiguration: without stored proposals, with `overwrite`, or GPU-hours without a GPU here.
        PipelineError: the training would be rejected, or its steps fail.
    """
    _check_plannable(request)
    cluster = choose_cluster(plan_options)
    workers = _choose_workers(request, cluster)
    inputs = open_training_inputs(request)
    spec = workers.divide(inputs.build_spec())
    fingerprint = _check_output(spec)
    steps = _count_measured_steps(spec, plan_options.plan_images)
    measured = _measure(inputs, spec, workers, steps, plan_options.plan_seconds)
    figures = _build_figures(spec, workers, measured, cluster, plan_options)
    plan = RunPlan(
        "train",
        fingerprint,
        spec.steps * spec.images_per_step,
        _count_states(spec),
        cluster,
        len(measured.joint) + len(measured.boxes),
        seed=spec.seed,
        figures=figures,
    )
    plan.write(inputs.output)
    return plan


@dataclass(frozen=True)
class MeasuredTraining:
    """What the measured steps say."""

    costs: TrainingCosts
    steps: int
    """Measured of each phase, after those that warm up."""
    scale: float
    """Planned workers per measured one."""
    base_seconds: float
    """CPU seconds of a process that loads nothing of a training."""
    worker_seconds: float
    """Of a worker, until it trains: it loads Ray Train and torch, and builds the network."""
    validated_images: int
    """Of one validation."""

    @property
    def joint(self) -> list[TrainingRecord]:
        """Steps that train all layers."""
        return self.costs.records[WARM_UP_STEPS : WARM_UP_STEPS + self.steps]

    @property
    def boxes(self) -> list[TrainingRecord]:
        """Steps that train the box layer alone."""
        return self.costs.records[2 * WARM_UP_STEPS + self.steps :]

    @property
    def start_seconds(self) -> float:
        """Until the workers train, which the controller and other processes precede one by one."""
        controller = self.base_seconds + self.costs.ray_train.wall
        return TRAIN_PROCESSES * self.base_seconds + controller + self.worker_seconds

    def compute_warm_up(self) -> NDArray[np.float64]:
        """CPU and wall seconds that the first steps of all take beyond as many later ones."""
        first = _list_values(self.costs.records[:WARM_UP_STEPS])
        later = _list_values(self.joint).mean(axis=0)
        beyond: NDArray[np.float64] = np.maximum(0.0, first.sum(axis=0) - len(first) * later)
        return beyond[:2]


def _check_plannable(request: TrainingRequest) -> None:
    if request.overwrite:
        raise InvalidConfiguration(
            "--plan does not take --overwrite into account: leave it out, and plan with another --output"
        )
    if isinstance(request.proposals, ProposalSettings):
        raise InvalidConfiguration(
            "--plan of a training needs stored --proposals: plan and run jobs/propose.py first"
        )


def _choose_workers(request: TrainingRequest, cluster: PlannedCluster) -> Workers:
    """The workers that the planned cluster would get."""
    execution = request.execution
    nodes = [{"CPU": float(cluster.cores), "GPU": float(cluster.gpus)}] * cluster.nodes
    workers = find_fitting_workers(request.recipe, execution.workers, nodes, execution.gpu)
    if workers is None:
        raise NoCapacity(
            f"{execution.workers or 1} training workers do not fit on {cluster}: ask for fewer --workers"
        )
    if workers.gpu and not count_gpus():
        raise InvalidConfiguration(
            "GPU-hours of a training need a GPU on this machine: plan on one that has it, or pass --gpus 0"
        )
    return workers


def _check_output(spec: TrainingSpec) -> str:
    """The fingerprint of the training, if it could begin or go on in its output.

    Raises:
        MismatchedOutput: it could not, or has ended.
    """
    record = make_run_record(spec)
    find_run_to_resume(
        spec.output,
        record,
        overwrite=False,
        list_remains=lambda: list_training_files(spec.output),
    )
    latest = state.read_latest_state(spec.output, record.fingerprint)
    if latest is not None and latest.is_finished:
        raise MismatchedOutput(
            "the training in --output is finished, so nothing is left to plan: choose another --output"
        )
    return record.fingerprint


def _count_measured_steps(spec: TrainingSpec, images: int) -> int:
    """Steps of each phase to measure."""
    return min(max(FEWEST_STEPS, ceil(images / spec.images_per_step)), spec.joint_steps)


def _measure(
    inputs: TrainingInputs, spec: TrainingSpec, workers: Workers, steps: int, seconds: float
) -> MeasuredTraining:
    """Measure as many of the workers as this machine can hold."""
    own = count_gpus() if workers.gpu else count_cores() // workers.cpus
    count = max(1, min(workers.count, own))
    threads = min(workers.cpus, count_cores())
    if (count, threads) != (workers.count, workers.cpus):
        log.warning(
            "this machine holds %d of the %d planned workers, with %d of %d cores each: the time that the "
            "others add to each step is not measured",
            *(count, workers.count, threads, workers.cpus),
        )
    per_epoch = spec.survey.images / (spec.recipe.images_per_step * count)
    box_steps = steps + WARM_UP_STEPS if spec.steps > spec.joint_steps else 0
    recipe = replace(
        spec.recipe,
        iterations=steps + WARM_UP_STEPS,
        box_epochs=max(0.0, (box_steps - 0.5) / per_epoch),
    )
    with tempfile.TemporaryDirectory(prefix="fast-rcnn-plan-") as folder:
        shortened = replace(
            spec,
            output=folder,
            recipe=recipe,
            workers=count,
            checkpoint_every=10**9,
            log_every=1,
            validate_every=None,
        )
        log.info("measuring %d steps of %d workers", steps, count)
        tasks = [
            TrainingSample(shortened, rank, threads, workers.gpu, inputs.validator)
            for rank in range(count)
        ]
        answers = measure_together(tasks, seconds + SLACK_SECONDS, HUGE_PAGES)
    validator = inputs.validator
    first: TrainingCosts = answers[0].value
    worker = max(answer.base_seconds + answer.prepare_seconds for answer in answers)
    return MeasuredTraining(
        first,
        steps,
        workers.count / count,
        answers[0].base_seconds,
        worker,
        0 if validator is None else min(validator.images, sum(validator.dataset.shard_rows)),
    )


def _count_states(spec: TrainingSpec) -> int:
    return sum(map(spec.is_state_due, range(1, spec.steps + 1)))


def _build_figures(
    spec: TrainingSpec,
    workers: Workers,
    measured: MeasuredTraining,
    cluster: PlannedCluster,
    options: GpuPlanOptions,
) -> dict[str, Estimate]:
    costs, states = measured.costs, _count_states(spec)
    phases = (
        (spec.joint_steps, measured.joint),
        (spec.steps - spec.joint_steps, measured.boxes),
    )
    strata = [MeasuredStratum(count, _list_values(records)) for count, records in phases if count]
    cpu_seconds, step_seconds, bytes_read = resample_totals(strata).T
    warm_up_cpu, warm_up_seconds = measured.compute_warm_up()
    cpu_seconds, step_seconds = cpu_seconds + warm_up_cpu, step_seconds + warm_up_seconds
    step_seconds = step_seconds * (1 - min(costs.waiting_share, 0.99))
    if not workers.gpu:
        step_seconds = step_seconds * compute_slowdown(cluster)
    validations = sum(map(spec.is_validation_due, range(1, spec.steps + 1)))
    validated = validations * measured.validated_images
    fixed = TRAIN_START_SECONDS + measured.start_seconds + states * costs.state.wall
    return build_figures(
        cluster,
        options,
        parts=states,
        core_seconds=cpu_seconds * measured.scale + validated * costs.validation.cpu,
        wall_seconds=fixed + step_seconds + validated * costs.validation.wall,
        bytes_read=bytes_read * measured.scale,
        bytes_written=np.full_like(
            cpu_seconds, float(states * costs.state_bytes + costs.final_bytes)
        ),
        gpu_seconds=step_seconds * workers.count if workers.gpu else None,
    )


def _list_values(records: Sequence[TrainingRecord]) -> NDArray[np.float64]:
    return np.array([[r.cpu_seconds, r.seconds, float(r.bytes_read)] for r in records])
