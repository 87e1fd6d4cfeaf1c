"""Detection and training on GPUs that Ray counts but that do not exist: workers compute on cores.

python -m tests.engine.fake_gpus FOLDER    writes FOLDER/result.json

Only this module can do so: it replaces the device of detectors and of Ray Train's workers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import ray

from pipeline import shards
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.capacity import Capacity
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.engine.detect.resources import (
    ActorOptions,
    ActorResources,
    choose_actor_resources,
)
from pipeline.engine.detect.run import run_detection
from pipeline.engine.train import fit
from pipeline.engine.train.run import run_training
from pipeline.engine.train.training_request import Execution, TrainingRequest
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.training import logs
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import get_recipe
from tests.chaos.processes import send_signal, wait_until
from tests.engine.drawn_images import draw_images, write_random_checkpoint
from tests.training.training_dataset import write_dataset

GPUS, DETECTORS = 2, 3
IMAGES = 40
RECORDS = "FAKE_GPU_RECORDS"
"""Variable with the folder in which each worker records its process and its GPU."""
QUICK: Recipe = dataclasses.replace(
    get_recipe("tiny"), short_sides=(64,), max_side=96, iterations=6
)


def record_gpu(kind: str) -> None:
    """Record this process and the GPU that Ray assigned to it."""
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    record = {"kind": kind, "pid": os.getpid(), "gpus": gpus, "visible": seen, "at": time.time()}
    path = Path(os.environ[RECORDS]) / f"{kind}-{os.getpid()}.json"
    path.with_suffix(".tmp").write_text(json.dumps(record))
    path.with_suffix(".tmp").rename(path)


def _await_detectors() -> None:
    """Wait until all detectors of the start have recorded their GPUs: the first could do all the work."""
    deadline = time.monotonic() + 60
    folder = Path(os.environ[RECORDS])
    while len(_read_records(folder, "detector")) < DETECTORS and time.monotonic() < deadline:
        time.sleep(0.05)


class FakeGpuResources(ActorResources):
    """Takes shares of GPUs, but computes on a core."""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        if RECORDS in os.environ:  # the driver asks, too
            record_gpu("detector")
            _await_detectors()
        return "cpu"


def _choose_resources(capacity: Capacity, options: ActorOptions) -> ActorResources:
    return FakeGpuResources(**vars(choose_actor_resources(capacity, options)))


def _read_records(folder: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in folder.glob(f"{kind}-*.json")]
    return sorted(records, key=lambda record: record["at"])


def _lose_detector(folder: Path, output: Path) -> list[int]:
    """Kill the detector that has a GPU for itself once parts are committed; returns its process id.

    The others stand still until another has taken its place: alone they might finish before.
    """

    def are_at_work() -> bool:
        records = _read_records(folder, "detector")
        return len(records) == DETECTORS and len(list(output.glob("part-*"))) >= 2

    wait_until(are_at_work, "two parts by three detectors", 120)
    records = _read_records(folder, "detector")
    used = Counter(record["gpus"][0] for record in records)
    alone = next(record["pid"] for record in records if used[record["gpus"][0]] == 1)
    others = [record["pid"] for record in records if record["pid"] != alone]
    send_signal(others, signal.SIGSTOP)
    try:
        os.kill(alone, signal.SIGKILL)
        wait_until(
            lambda: len(_read_records(folder, "detector")) > DETECTORS, "another detector", 120
        )
    finally:
        send_signal(others, signal.SIGCONT)
    return [alone]


def detect(folder: Path) -> dict[str, Any]:
    """Detect with three detectors of half a GPU each, of which one is lost."""
    rows = [ManifestRow(p.stem, str(p), 80, 60, None) for p in draw_images(folder / "p", IMAGES)]
    manifest = str(folder / "manifest.parquet")
    write_manifest(manifest, rows, None)
    output = folder / "detections"
    killer = ThreadPoolExecutor(1)
    killed = killer.submit(_lose_detector, folder, output)
    with patch("pipeline.engine.detect.run.choose_actor_resources", _choose_resources):
        run_detection(
            manifest,
            write_random_checkpoint(folder),
            str(output),
            proposals=ProposalSettings(strategy="single", max_boxes=50, min_side=8),
            settings=DetectionSettings(
                PostprocessingSettings(score_threshold=0.0, max_per_image=5), "fp32"
            ),
            options=RunOptions(shard_size=1),
            actors=ActorOptions(DETECTORS, gpus_per_actor=0.5),
        )
    parts = shards.open_parts(str(output)).read_tables()
    statuses = [row["status"] for table in parts for row in table.to_pylist()]
    summary = json.loads((output / "summary.json").read_text())
    return {
        "statuses": statuses,
        "killed": killed.result(),
        "detectors": _read_records(folder, "detector"),
        "summary": summary,
    }


def _run_on_core(config: Mapping[str, Any]) -> None:
    """Ray Train's worker, which holds a GPU, on a core."""
    import torch

    record_gpu("worker")
    with patch("ray.train.torch.get_device", lambda: torch.device("cpu")):
        fit._run_worker(dict(config))


def train(folder: Path) -> dict[str, Any]:
    """Train with as many workers as there are GPUs; they meet through gloo, as cores do."""
    from ray.train.torch import TorchConfig

    manifest, proposals, _ = write_dataset(folder / "drawn")
    # In one dictionary, whose entries `patch.multiple` cannot take: the names are of two modules.
    with (
        patch("pipeline.engine.train.fit._run_worker", _run_on_core),
        patch(
            "ray.train.torch.TorchConfig",
            lambda **options: TorchConfig(backend="gloo", **options),
        ),
    ):
        execution = Execution(checkpoint_every=3, log_every=2)
        output = str(folder / "trained")
        run_training(TrainingRequest([manifest], [proposals], output, QUICK, execution=execution))
    records = logs.read_log(str(folder / "trained"))
    return {
        "losses": [record.loss for record in records],
        "workers": _read_records(folder, "worker"),
    }


def main(folder: Path) -> None:
    """Start a Ray with GPUs that do not exist, detect, train, write what happened."""
    ray.init(
        address="local",
        num_cpus=3,
        num_gpus=GPUS,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": WORKER_ENVIRONMENT | {RECORDS: str(folder)}},
    )
    result = {"detection": detect(folder), "training": train(folder)}
    (folder / "result.json").write_text(json.dumps(result))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
