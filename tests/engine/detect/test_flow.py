"""More images than the object store holds: what is in flight stays within its budget, nothing spills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from pipeline import imaging, shards
from pipeline.engine.cluster import Capacity
from pipeline.engine.detect import work as detection_work
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.runner import Flight
from pipeline.manifests import ManifestRow, write_manifest
from pipeline.shards import Shard
from tests.engine.drawn_images import random_checkpoint
from tests.outputs import write_proposals

ROOT = Path(__file__).parents[2]
IMAGES = 60
STORE_BYTES = 80_000_000
DRIVER = """
import json, sys, ray
from pipeline.engine.detect import run as detection_run
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.engine.detect.run import DetectionSettings
from pipeline.engine.monitor.progress import RunProgress
folder, spilled, store = sys.argv[1:]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=int(store), object_spilling_directory=spilled,
         runtime_env={"env_vars": WORKER_ENVIRONMENT})
states = []
refresh = RunProgress.refresh
RunProgress.refresh = lambda self, state: (states.append(state), refresh(self, state))
RunProgress.due = lambda self: True
detection_run.run(f"{folder}/m.parquet", f"{folder}/checkpoint", f"{folder}/out",
                  proposals=f"{folder}/proposals", settings=DetectionSettings(), actors=1)
print(json.dumps([max(state.held for state in states), states[0].budget]))
"""


def test_more_images_than_the_store_holds(tmp_path: Path) -> None:
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
    random_checkpoint(tmp_path)

    spilled = tmp_path / "spilled"
    spilled.mkdir()
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(spilled), str(STORE_BYTES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held, budget = json.loads(done.stdout.splitlines()[-1])
    assert 0 < held <= budget <= STORE_BYTES / 2
    assert not [path for path in spilled.rglob("*") if path.is_file()]
    rows = [r for t in shards.open_parts(f"{tmp_path}/out").tables() for r in t.to_pylist()]
    assert [(r["image_id"], r["status"]) for r in rows] == [(p.stem, "ok") for p in paths]


class _Pool:
    """Stands for a pool of two detectors that are ready."""

    size = 2
    reserved_cpus = 0.0

    def __init__(self, *told: object) -> None:
        pass

    def has_ready(self) -> bool:
        return True

    def await_first(self) -> None:
        pass

    def close(self) -> None:
        pass


def _flight(rows: int, size: float = 0.0) -> Flight:
    return Flight(Piece(Shard(0, "0" * 24, 0, rows)), size=size)


def test_room_is_counted_in_bytes_of_what_is_read_and_of_what_will_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = SimpleNamespace()
    monkeypatch.setattr(detection_work, "DetectorPool", _Pool)
    monkeypatch.setattr(ray, "put", lambda plan: None)
    capacity = Capacity(cpus=100, gpus=0, memory=0, object_store=100e6, hosts=())
    with DetectionWork(plan, ActorResources(0.0, 1), 1.0, "fp32", mean_size=1e6) as work:
        assert work.has_room([], capacity)
        # 50 MB may be in flight; an image is taken for 1 MB, as those that were looked up.
        assert work.has_room([_flight(25)], capacity)
        assert not work.has_room([_flight(26)], capacity)
        assert work.has_room([_flight(20, size=5e6), _flight(20)], capacity)
        assert not work.has_room([_flight(20, size=31e6)], capacity)
        assert not work.has_room([_flight(1, size=1.0)] * 104, capacity)
        monkeypatch.setattr(_Pool, "reserved_cpus", 60.0)  # actors on GPUs keep a core each
        assert work.has_room([_flight(1, size=1.0)] * 43, capacity)
        assert not work.has_room([_flight(1, size=1.0)] * 44, capacity)
