"""The training step against a plain loop of torchvision's parts, and one worker against several.

python -m tests.benchmarks.train_step --network mobilenet_v2 --steps 20 --json result.json
python -m tests.benchmarks.train_step --log OUTPUT_OF_A_TRAINING

Four loops take turns, one step at a time, over the same two images and 128 RoIs: the plain step with one
thread per core and with a single thread, our step in one worker with one thread per core, and our step
divided among workers that share the cores, as in the train job. The plain step is torchvision's trunk,
`roi_pool`, head, `FastRCNNPredictor` and `fastrcnn_loss`, contiguous and fp32, with the same layers
frozen. Ours uses bf16 if the processor supports it, unless --precision says otherwise. Images and RoIs
are random, because no loop's time depends on their content. The table shows CPU seconds per image beside
images/s, because the CPU time of a single thread suffers least from other load on the machine.

With --log: images/s of a real run and the share of its time spent waiting for images, from its records.
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

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.device_selection import select_dtype
from pipeline.detector.network import build_network
from pipeline.engine.train.fit import HUGE_PAGES
from pipeline.training import logs
from pipeline.training.optimisation import build_optimiser
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import get_recipe
from pipeline.training.sample_loader import Sample
from pipeline.training.step import TrainingStep
from tests.benchmarks.plain_training import NETWORKS, build_plain_step

CLASSES = tuple(f"class{index}" for index in range(20))
SIZES = ((480, 640), (640, 480), (480, 720), (500, 480))
"""Height and width of the images, as VOC's become at short side 480."""
WARM_UP = 2
Seconds = dict[str, list[float]]
"""Seconds of each step, by loop."""
Step = Callable[[int], object]


@dataclass(frozen=True)
class Turns:
    """The settings of the processes that take turns."""

    recipe: Recipe
    steps: int
    cores: int
    workers: int
    folder: str
    """The folder of the file through which they find each other."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--network", choices=sorted(NETWORKS), default="mobilenet_v2", help="backbone of all loops"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each loop")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="precision of our step",
    )
    parser.add_argument("--log", help="output of a training; only its log is read")
    parser.add_argument("--json", help="output file for the figures")
    options = parser.parse_args()
    result = (
        measure_waiting(options.log)
        if options.log
        else measure_in_turns(options.network, options.steps, options.precision)
    )
    for name, value in result.items():
        print(f"{name:28} {value:.3f}" if isinstance(value, float) else f"{name:28} {value}")
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


def measure_waiting(output: str) -> dict[str, Any]:
    """Images/s and the share of time spent waiting, over all records of a training's log."""
    records = logs.read_log(uris.make_absolute(output))
    seconds = [record.images / record.images_per_second for record in records]
    return {
        "steps": records[-1].step,
        "images_per_second": sum(record.images for record in records) / sum(seconds),
        "share_waiting": sum(
            record.data_wait * spent for record, spent in zip(records, seconds, strict=True)
        )
        / sum(seconds),
    }


def measure_in_turns(
    network: str, steps: int, precision: Literal["auto", "fp32", "bf16"]
) -> dict[str, Any]:
    """Images per second of each loop, from its median step, and the ratios of the loops."""
    cores = len(os.sched_getaffinity(0))
    recipe = replace(
        get_recipe("mobilenet_v2"), network=network, short_sides=(480,), precision=precision
    )
    _, workers = recipe.divide_among_workers(cores)
    os.environ |= HUGE_PAGES  # for the plain loop too
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(recipe, steps, cores, workers, folder)
        multiprocessing.spawn(_worker, (turns, queue), nprocs=workers)
    wall, busy = queue.get()
    images = recipe.images_per_step
    rate = {name: images / median(durations) for name, durations in wall.items()}
    divided = f"ours_{workers}_workers"
    # Only the first worker is timed; the others take about as long.
    busy[divided] = [workers * seconds for seconds in busy[divided]]
    cost = {name: median(durations) / images for name, durations in busy.items()}
    return {
        "network": network,
        "precision": str(select_dtype(precision, torch.device("cpu"))).removeprefix("torch."),
        "cores": cores,
        "steps": steps,
        **{f"{name}_images_per_second": value for name, value in rate.items()},
        **{f"{name}_cpu_seconds": value for name, value in cost.items()},
        "one_worker_over_plain": rate["ours_1_worker"] / rate["plain"],
        "workers_over_one_worker": rate[divided] / rate["ours_1_worker"],
        "ratio": rate[divided] / rate["plain"],
        "cpu_ratio": cost["plain_1_thread"] / cost[divided],
    }


def _worker(rank: int, turns: Turns, queue: Any) -> None:
    recipe, workers = turns.recipe, turns.workers
    distributed.init_process_group(
        "gloo", init_method=f"file://{turns.folder}/meeting", rank=rank, world_size=workers
    )
    batches = [_draw_batch(recipe, seed) for seed in range(2)]
    share = [batch[rank::workers] for batch in batches]
    worker_step = _build_our_step(recipe.divide_among_workers(workers)[0], share, workers=workers)
    whole: list[tuple[str, Step, int]] = []
    if rank == 0:
        plain = _build_plain_loop(recipe, batches)
        whole = [
            ("plain", plain, turns.cores),
            ("plain_1_thread", plain, 1),
            ("ours_1_worker", _build_our_step(recipe, batches), turns.cores),
        ]
    seconds: tuple[Seconds, Seconds] = ({}, {})
    for number in range(WARM_UP + turns.steps):
        for name, step, threads in whole:
            _time_step(name, step, threads, number, seconds)
        distributed.barrier()
        _time_step(f"ours_{workers}_workers", worker_step, turns.cores // workers, number, seconds)
        distributed.barrier()
    if rank == 0:
        queue.put([{name: s[WARM_UP:] for name, s in by_loop.items()} for by_loop in seconds])
    distributed.destroy_process_group()


def _time_step(
    name: str, step: Step, threads: int, number: int, seconds: tuple[Seconds, Seconds]
) -> None:
    torch.set_num_threads(threads)
    start, busy = perf_counter(), process_time()
    step(number)
    for by_loop, value in zip(
        seconds, (perf_counter() - start, process_time() - busy), strict=True
    ):
        by_loop.setdefault(name, []).append(value)


def _build_our_step(recipe: Recipe, batches: list[list[Sample]], workers: int = 1) -> Step:
    entry = BACKBONES[recipe.network]
    model = build_network(
        Architecture(CLASSES, recipe.network, freeze_until=entry.freeze_until)
    ).train()
    step = TrainingStep(
        model,
        build_optimiser(model, recipe, (), workers),
        recipe,
        entry.preprocessing,
        device=torch.device("cpu"),
        workers=workers,
    )
    return lambda number: step(batches[number % len(batches)], number)


def _build_plain_loop(recipe: Recipe, batches: list[list[Sample]]) -> Step:
    step = build_plain_step(recipe.network, len(CLASSES) + 1, recipe.learning_rate)
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


def _draw_batch(recipe: Recipe, seed: int) -> list[Sample]:
    random = np.random.default_rng(seed)
    count = recipe.images_per_step
    return [
        _draw_sample(random, *SIZES[(seed * count + index) % len(SIZES)], recipe.rois_per_image)
        for index in range(count)
    ]


def _draw_sample(random: np.random.Generator, height: int, width: int, rois: int) -> Sample:
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
