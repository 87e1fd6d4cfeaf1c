"""The training step against a plain loop of torchvision's parts, and one worker against several.

python -m tests.benchmarks.train_step --network mobilenet_v2 --steps 20 --json result.json
python -m tests.benchmarks.train_step --log OUTPUT_OF_A_TRAINING

Four loops take turns, a step each, over the same two images and 128 RoIs: the plain one with all cores
as threads and with one thread, ours with all cores as threads of one worker, and ours divided among
workers with a share of the cores each, as the train job does it. The plain loop is torchvision's trunk,
`roi_pool`, head, `FastRCNNPredictor` and `fastrcnn_loss`, contiguous and fp32, with the same layers
frozen; ours computes in bf16 where the processor does, unless --precision says otherwise. Images and
RoIs are random: no loop's time depends on what they show. CPU seconds per image stand beside images/s,
since those of one thread suffer least from what else runs on the machine.

With --log: images/s and the share of the time that a real run waited for images, from its records.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
import torch
from torch import distributed, multiprocessing

from pipeline import storage
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.inference import dtype_named
from pipeline.detector.network import build
from pipeline.engine.train.fit import HUGE_PAGES
from pipeline.training import logs
from pipeline.training.dataset import Sample
from pipeline.training.optimisation import optimiser
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import named
from pipeline.training.step import TrainingStep
from tests.benchmarks.plain_training import NETWORKS, plain_step

CLASSES = tuple(f"class{index}" for index in range(20))
SIZES = ((480, 640), (640, 480), (480, 720), (500, 480))
"""Height and width of the images, as VOC's become at short side 480."""
WARM_UP = 2
Seconds = dict[str, list[float]]
"""Of each step, by loop."""
Step = Callable[[int], object]


@dataclass(frozen=True)
class Turns:
    """What the processes that take turns are told."""

    recipe: Recipe
    steps: int
    cores: int
    workers: int
    folder: str
    """Where they find each other."""


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=sorted(NETWORKS), default="mobilenet_v2")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="ours"
    )
    parser.add_argument("--log", help="output of a training; nothing else is measured")
    parser.add_argument("--json")
    options = parser.parse_args()
    result = (
        waiting(options.log)
        if options.log
        else in_turns(options.network, options.steps, options.precision)
    )
    for name, value in result.items():
        print(f"{name:28} {value:.3f}" if isinstance(value, float) else f"{name:28} {value}")
    if options.json:
        storage.put(storage.absolute(options.json), json.dumps(result, indent=2).encode())


def waiting(output: str) -> dict[str, Any]:
    """Images/s and share of time waited over all records of a training's log."""
    records = logs.read(storage.absolute(output))
    seconds = [record.images / record.images_per_second for record in records]
    return {
        "steps": records[-1].step,
        "images_per_second": sum(record.images for record in records) / sum(seconds),
        "share_waiting": sum(
            record.data_wait * spent for record, spent in zip(records, seconds, strict=True)
        )
        / sum(seconds),
    }


def in_turns(
    network: str, steps: int, precision: Literal["auto", "fp32", "bf16"]
) -> dict[str, Any]:
    """Images per second of each loop, from the median step, and their ratios."""
    cores = len(os.sched_getaffinity(0))
    recipe = replace(
        named("mobilenet_v2"), network=network, short_sides=(480,), precision=precision
    )
    _, workers = recipe.divided(cores)
    os.environ |= HUGE_PAGES  # for the plain loop too
    told = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(recipe, steps, cores, workers, folder)
        multiprocessing.spawn(_worker, (turns, told), nprocs=workers)
    wall, busy = told.get()
    images = recipe.images_per_step
    rate = {name: images / median(taken) for name, taken in wall.items()}
    ours = f"ours_{workers}_workers"
    busy[ours] = [workers * taken for taken in busy[ours]]  # the first worker's stand for all
    cost = {name: median(taken) / images for name, taken in busy.items()}
    return {
        "network": network,
        "precision": str(dtype_named(precision, torch.device("cpu"))).removeprefix("torch."),
        "cores": cores,
        "steps": steps,
        **{f"{name}_images_per_second": value for name, value in rate.items()},
        **{f"{name}_cpu_seconds": value for name, value in cost.items()},
        "one_worker_over_plain": rate["ours_1_worker"] / rate["plain"],
        "workers_over_one_worker": rate[ours] / rate["ours_1_worker"],
        "ratio": rate[ours] / rate["plain"],
        "cpu_ratio": cost["plain_1_thread"] / cost[ours],
    }


def _worker(rank: int, turns: Turns, told: Any) -> None:
    recipe, workers = turns.recipe, turns.workers
    distributed.init_process_group(
        "gloo", init_method=f"file://{turns.folder}/meeting", rank=rank, world_size=workers
    )
    batches = [_batch(recipe, seed) for seed in range(2)]
    share = [batch[rank::workers] for batch in batches]
    divided = _ours(recipe.divided(workers)[0], share, workers=workers)
    whole: list[tuple[str, Step, int]] = []
    if rank == 0:
        plain = _plain(recipe, batches)
        whole = [
            ("plain", plain, turns.cores),
            ("plain_1_thread", plain, 1),
            ("ours_1_worker", _ours(recipe, batches), turns.cores),
        ]
    seconds: tuple[Seconds, Seconds] = ({}, {})
    for number in range(WARM_UP + turns.steps):
        for name, step, threads in whole:
            _timed(name, step, threads, number, seconds)
        distributed.barrier()
        _timed(f"ours_{workers}_workers", divided, turns.cores // workers, number, seconds)
        distributed.barrier()
    if rank == 0:
        told.put([{name: t[WARM_UP:] for name, t in taken.items()} for taken in seconds])
    distributed.destroy_process_group()


def _timed(
    name: str, step: Step, threads: int, number: int, seconds: tuple[Seconds, Seconds]
) -> None:
    torch.set_num_threads(threads)
    start, busy = perf_counter(), process_time()
    step(number)
    for taken, value in zip(seconds, (perf_counter() - start, process_time() - busy), strict=True):
        taken.setdefault(name, []).append(value)


def _ours(recipe: Recipe, batches: list[list[Sample]], workers: int = 1) -> Step:
    entry = BACKBONES[recipe.network]
    model = build(Architecture(CLASSES, recipe.network, freeze_until=entry.freeze_until)).train()
    step = TrainingStep(
        model,
        optimiser(model, recipe, (), workers),
        recipe,
        entry.preprocessing,
        device=torch.device("cpu"),
        workers=workers,
    )
    return lambda number: step(batches[number % len(batches)], number)


def _plain(recipe: Recipe, batches: list[list[Sample]]) -> Step:
    step = plain_step(recipe.network, len(CLASSES) + 1, recipe.learning_rate)
    images = [
        [
            torch.from_numpy(sample.image).permute(2, 0, 1)[None].float().div(127.5).sub(1)
            for sample in batch
        ]
        for batch in batches
    ]
    rois = [[torch.from_numpy(sample.rois) for sample in batch] for batch in batches]
    labels = [torch.from_numpy(np.concatenate([s.labels for s in batch])) for batch in batches]
    targets = [torch.from_numpy(np.concatenate([s.targets for s in batch])) for batch in batches]

    def run(number: int) -> None:
        index = number % len(batches)
        step(images[index], rois[index], labels[index], targets[index])

    return run


def _batch(recipe: Recipe, seed: int) -> list[Sample]:
    random = np.random.default_rng(seed)
    count = recipe.images_per_step
    return [
        _sample(random, *SIZES[(seed * count + index) % len(SIZES)], recipe.rois_per_image)
        for index in range(count)
    ]


def _sample(random: np.random.Generator, height: int, width: int, rois: int) -> Sample:
    centres = random.uniform(0, (width, height), (rois, 2))
    sides = np.exp(random.uniform(np.log(20), np.log(400), (rois, 2)))
    corners = np.clip(centres - sides / 2, 0, np.array([width, height]) - 20)
    ends = np.clip(centres + sides / 2, corners + 20, (width, height))
    labels = np.where(np.arange(rois) < rois // 4, random.integers(1, len(CLASSES) + 1, rois), 0)
    return Sample(
        "random",
        random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        np.concatenate([corners, ends], axis=1).astype(np.float32),
        labels.astype(np.int64),
        random.normal(size=(rois, 4)).astype(np.float32),
    )


if __name__ == "__main__":
    main()
