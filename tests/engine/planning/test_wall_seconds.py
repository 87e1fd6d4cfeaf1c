"""Wall times of plans, by hand: starts, both stages, and what Ray takes of the cores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.engine.planning import plan_detection, plan_proposals
from pipeline.engine.planning.figures import (
    RAY_CORES,
    RUN_START_SECONDS,
    TASK_SECONDS,
    TRAIN_PROCESSES,
    compute_slowdown,
)
from pipeline.engine.planning.plan_detection import Slots
from pipeline.engine.planning.plan_training import MeasuredTraining
from pipeline.engine.planning.sampled_run import MeasuredRun, StartSeconds
from pipeline.engine.planning.time_spent import TimeSpent
from pipeline.engine.planning.training_costs import TrainingCosts
from pipeline.runs.run_plan import PlannedCluster
from pipeline.shards import Shard
from tests.training.training_records import make_record

NOTHING = np.zeros(1)
SHARDS = [Shard(0, "0" * 24, 0, 6), Shard(1, "1" * 24, 6, 4)]
TAIL = 6 / 5
"""Two slots take 6 and 4 images: as long as 6 each, where 5 each are an even division."""


def _measure(start: StartSeconds, propose: float, detect: float = 0.0) -> MeasuredRun:
    walls = (np.array([propose]), NOTHING, np.array([detect]), NOTHING, NOTHING, NOTHING)
    return MeasuredRun(start, [], SHARDS, NOTHING, *walls)


def test_ray_takes_the_same_cores_of_small_and_large_nodes() -> None:
    assert compute_slowdown(PlannedCluster(3, 2)) == pytest.approx(2 / (2 - RAY_CORES))
    assert compute_slowdown(PlannedCluster(1, 64)) < 1.01


def test_kernels_are_loaded_by_one_worker_of_a_node_and_then_by_all() -> None:
    assert StartSeconds(0.5, kernels=1.0, detector=9.0).tasks == 3.0
    assert StartSeconds(0.5, detector=9.0).tasks == 0.5


def test_a_run_of_proposals_starts_and_then_works_on_all_cores() -> None:
    cluster = PlannedCluster(1, 2)
    measured = _measure(StartSeconds(0.5, kernels=1.0), propose=100.0)
    work = TAIL * compute_slowdown(cluster) * (100.0 + 2 * TASK_SECONDS) / 2
    seconds = plan_proposals.compute_wall_seconds(measured, cluster)
    assert seconds == pytest.approx([RUN_START_SECONDS + 3.0 + work])


def test_stages_that_share_cores_take_turns_from_the_start_on() -> None:
    slots = Slots(cores=2, slowdown=1.1, actors=2, gpus_per_actor=0.0)
    measured = _measure(StartSeconds(0.5, kernels=1.0, detector=4.0), 100.0, 300.0)
    work = TAIL * 1.1 * (400.0 + 4 * TASK_SECONDS) / 2
    seconds = plan_detection.compute_wall_seconds(measured, slots)
    assert seconds == pytest.approx([RUN_START_SECONDS + 4.5 + 3.0 + work])


@pytest.mark.parametrize(
    ("propose", "detect"), [(300.0, 20.0), (40.0, 200.0)], ids=["tasks", "detectors"]
)
def test_stages_with_devices_of_their_own_go_side_by_side(propose: float, detect: float) -> None:
    slots = Slots(cores=2, slowdown=1.1, actors=1, gpus_per_actor=1.0)
    measured = _measure(StartSeconds(0.5, kernels=1.0, detector=4.0), propose, detect)
    tasks, detectors = propose + 2 * TASK_SECONDS, detect + 2 * TASK_SECONDS
    slower = (
        TAIL * 1.1 * tasks / 2 + detectors / 2  # the last shard's detection
        if propose > detect
        else tasks / 2 + detectors  # the first shard's proposals
    )
    seconds = plan_detection.compute_wall_seconds(measured, slots)
    assert seconds == pytest.approx([RUN_START_SECONDS + 4.5 + slower])


def test_first_steps_count_once_and_processes_of_a_training_start_in_turn() -> None:
    seconds = ((9.0, 5.0), (6.0, 3.0), (4.0, 2.0), (2.0, 1.0))
    records = [
        make_record(n, cpu_seconds=cpu, seconds=wall) for n, (cpu, wall) in enumerate(seconds)
    ]
    costs = TrainingCosts(TimeSpent(wall=3.0), records)
    measured = MeasuredTraining(costs, 2, 1.0, 0.5, worker_seconds=7.0, validated_images=0)
    # Two of 15 and 8 seconds together, where two later ones take 6 and 3.
    assert measured.compute_warm_up() == pytest.approx([9.0, 5.0])
    assert measured.start_seconds == pytest.approx(0.5 * TRAIN_PROCESSES + 3.5 + 7.0)
    quick = dataclasses.replace(measured, costs=TrainingCosts(TimeSpent(), records[::-1]))
    assert quick.compute_warm_up() == pytest.approx([0.0, 0.0])
