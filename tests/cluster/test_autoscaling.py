"""Jobs on a cluster that has no workers at first: they ask for nodes, use them, and let them go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline import shards
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos.processes import send_signal, wait_until
from tests.cluster.autoscaling_ray import ROOT, AutoscalingRay, NodeType
from tests.engine.drawn_images import draw_images, write_random_checkpoint

IMAGES = 16
SIZE = (400, 300)
"""Of the images: `quality` takes about a second for the four of a shard, long enough to be seen at work."""
HOLD_SECONDS = 150.0
"""How long tasks stand still at most, until the autoscaler has started as many nodes as it may."""
TYPES = {
    "cpu": NodeType({"CPU": 1}, at_most=2, labels={"market": "spot"}),
    "gpu": NodeType({"CPU": 1, "GPU": 1}, at_most=1, labels={"market": "stable"}),
    "rare": NodeType({"CPU": 1, "rare": 1}, at_most=1, is_available=False),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoscalingRay]:
    with AutoscalingRay(TYPES, idle_seconds=5) as running:
        yield running


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest and a checkpoint."""
    folder = tmp_path_factory.mktemp("inputs")
    paths = draw_images(folder / "i", IMAGES)
    for path in paths:
        Image.open(path).resize(SIZE, Image.Resampling.NEAREST).save(path)
    rows = [ManifestRow(path.stem, str(path), *SIZE, None) for path in paths]
    write_manifest(str(folder / "m.parquet"), rows, None)
    write_random_checkpoint(folder)
    return folder


def _run(
    cluster: AutoscalingRay, *command: str, hold_until: int = 0
) -> tuple[int, str, Counter[str]]:
    """Run Python; returns the exit code, what it printed, and the most nodes of each type at one time.

    Args:
        cluster: where its jobs run.
        command: what follows `python`.
        hold_until: a number of CPU nodes; until they are there, tasks of propose stand still. Otherwise a
            small run might end before the autoscaler sees that others wait.
    """
    most: Counter[str] = Counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def watch() -> None:
        nonlocal most
        held: set[int] = set()
        deadline = time.monotonic() + HOLD_SECONDS
        while process.poll() is None:
            most |= cluster.count_nodes()
            is_holding = most["cpu"] < hold_until and time.monotonic() < deadline
            if is_holding:
                held.update(cluster.head.list_workers("propose_piece"))
            send_signal([*held], signal.SIGSTOP if is_holding else signal.SIGCONT)
            if not is_holding:
                held.clear()
            time.sleep(0.1 if is_holding else 0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate(timeout=400)
    watcher.join()
    return process.returncode, output, most


def _read_ids(output: Path) -> list[str]:
    tables = shards.open_parts(str(output)).read_tables()
    return [image_id for table in tables for image_id in table["image_id"].to_pylist()]


def test_from_no_workers_to_no_workers(
    cluster: AutoscalingRay, inputs: Path, tmp_path: Path
) -> None:
    """Proposals run on as many CPU nodes as there may be, detectors on a GPU node; idle nodes end."""
    manifest, small = ("--manifest", f"{inputs}/m.parquet"), ("--shard-size", "4")
    assert cluster.count_nodes() == Counter()
    on_cpus = ("--label-selector", '{"market": "spot"}')
    code, printed, most = _run(
        cluster,
        *("-m", "jobs.propose", *manifest, "--output", f"{tmp_path}/p", *small, *on_cpus),
        *("--strategy", "quality", "--max-boxes", "100"),
        hold_until=TYPES["cpu"].at_most,
    )
    assert code == 0, printed
    assert "waiting up to 300 s for CPU 1 (of 1 living node none has more than 0)" in printed
    assert most["cpu"] == TYPES["cpu"].at_most == 2
    assert not most["gpu"]
    code, printed, most = _run(
        cluster,
        *("-m", "tests.cluster.detect_on_fake_gpus", *manifest, "--output", f"{tmp_path}/d"),
        *("--proposals", f"{tmp_path}/p", "--checkpoint", f"{inputs}/checkpoint", *on_cpus),
        *("--gpus-per-actor", "1", "--actors", "1", "--score-threshold", "0"),
    )
    assert code == 0, printed
    assert "waiting up to 300 s for GPU 1" in printed
    assert most["gpu"] == 1
    expected = [f"{index:03d}" for index in range(IMAGES)]
    assert _read_ids(tmp_path / "p") == _read_ids(tmp_path / "d") == expected
    wait_until(lambda: not cluster.count_nodes(), "end of the idle nodes", 120, interval=0.5)


def test_a_node_that_cannot_be_had_ends_with_the_resource(
    cluster: AutoscalingRay, inputs: Path, tmp_path: Path
) -> None:
    code, printed, most = _run(
        cluster,
        *("-m", "jobs.propose", "--manifest", f"{inputs}/m.parquet"),
        *("--output", f"{tmp_path}/p", "--resources", '{"rare": 1}', "--no-capacity-after", "8"),
    )
    assert code == 1, printed
    assert "for 8 s no task could start: waiting for CPU 1" in printed
    assert "rare 1 (of 1 living node none has more than 0)" in printed
    assert not most


WORKERS = """
from pipeline.engine.cluster import connect_to_cluster
from pipeline.engine.train.workers import choose_workers
from pipeline.training.recipe import Recipe
with connect_to_cluster():
    print("chosen:", choose_workers(Recipe(), 2, 120))
    choose_workers(Recipe(), 2, 4, gpu=True)
"""


def test_training_waits_for_as_many_nodes_as_its_workers_need(cluster: AutoscalingRay) -> None:
    """Two workers need two nodes of one core each; two GPUs are more than the cluster can ever have.

    The rest of a training on a growing cluster takes most of a minute, in which torch is loaded by each
    worker, so `python -m tests.cluster.autoscaling_trace` does that.
    """
    code, printed, most = _run(cluster, "-c", WORKERS)
    assert "chosen: 2 workers with 1 core" in printed
    assert most["cpu"] == 2
    assert code == 1
    assert "NoCapacity: 2 training workers with a GPU each do not fit: the nodes have" in printed
