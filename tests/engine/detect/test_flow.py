"""A dataset larger than the object store: the bytes in flight stay within their budget, nothing spills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import imaging, shards
from pipeline.engine.capacity import Capacity
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.work import Flight
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from pipeline.shards import Shard
from tests.engine.drawn_images import write_random_checkpoint
from tests.outputs import write_proposals

ROOT = Path(__file__).parents[3]
IMAGES = 60
STORE_BYTES = 80_000_000
DRIVER = """
import json, sys, ray
from pipeline.engine.detect.run import run_detection
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.monitor.progress import RunProgress
folder, spilled, store = sys.argv[1:]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=int(store), object_spilling_directory=spilled,
         runtime_env={"env_vars": WORKER_ENVIRONMENT})
states = []
refresh = RunProgress.refresh
RunProgress.refresh = lambda self, state: (states.append(state), refresh(self, state))
RunProgress.is_due = lambda self: True
run_detection(f"{folder}/m.parquet", f"{folder}/checkpoint", f"{folder}/out",
              proposals=f"{folder}/proposals", settings=DetectionSettings(), actors=ActorOptions(1))
print(json.dumps([max(state.bytes_in_flight for state in states), states[0].budget]))
"""


def test_a_dataset_larger_than_the_object_store_spills_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{index:03d}.png" for index in range(IMAGES)]
    for path in paths:
        path.write_bytes(imaging.encode_png(rng.integers(0, 255, (800, 900, 3), dtype=np.uint8)))
    size = sum(path.stat().st_size for path in paths)
    assert size > 1.5 * STORE_BYTES
    manifest = f"{tmp_path}/m.parquet"
    write_manifest(manifest, [ManifestRow(p.stem, str(p), 900, 800, None) for p in paths], None)
    boxes = {path.stem: [(10, 10, 200, 200)] for path in paths}
    write_proposals(f"{tmp_path}/proposals", manifest, boxes, shard_size=4, size=(900, 800))
    write_random_checkpoint(tmp_path)

    spilled = tmp_path / "spilled"
    spilled.mkdir()
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(spilled), str(STORE_BYTES)]
    driver = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert driver.returncode == 0, driver.stderr
    held, budget = json.loads(driver.stdout.splitlines()[-1])
    assert 0 < held <= budget <= STORE_BYTES / 2
    assert not [path for path in spilled.rglob("*") if path.is_file()]
    rows = [r for t in shards.open_parts(f"{tmp_path}/out").read_tables() for r in t.to_pylist()]
    assert [(r["image_id"], r["status"]) for r in rows] == [(p.stem, "ok") for p in paths]


class FakePool:
    """A pool of two detectors that are ready."""

    size = 2

    def __init__(self, reserved_cpus: float) -> None:
        self.reserved_cpus = reserved_cpus

    def has_ready(self) -> bool:
        return True


def _flight(rows: int, size: float = 0.0) -> Flight:
    return Flight(Piece(Shard(0, "0" * 24, 0, rows)), size=size)


def test_room_depends_on_the_bytes_of_pieces_that_are_read_and_that_will_be() -> None:
    capacity = Capacity(cpus=100, gpus=0, memory=0, object_store=100e6, hosts=())

    def has_room(*flights: Flight, reserved_cpus: float = 0.0) -> bool:
        pool: Any = FakePool(reserved_cpus)
        plan: Any = None
        return DetectionWork(plan, plan, pool, mean_size=1e6).has_room(flights, capacity)

    assert has_room()
    # 50 MB may be in flight; an image that is not read yet counts 1 MB, as the images checked before.
    assert has_room(_flight(25))
    assert not has_room(_flight(26))
    assert has_room(_flight(20, size=5e6), _flight(20))
    assert not has_room(_flight(20, size=31e6))
    small = _flight(1, size=1.0)
    assert has_room(*[small] * 103)
    assert not has_room(*[small] * 104)
    assert has_room(*[small] * 43, reserved_cpus=60.0)  # actors on GPUs reserve a core each
    assert not has_room(*[small] * 44, reserved_cpus=60.0)
