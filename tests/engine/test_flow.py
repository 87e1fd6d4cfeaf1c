"""More pictures than the object store holds: what is in flight stays within its budget, nothing spills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline import images, shards
from pipeline.manifest import ManifestRow, write_manifest
from tests.engine.pictures import random_checkpoint
from tests.outputs import write_proposals

ROOT = Path(__file__).parents[2]
PICTURES = 60
STORE_BYTES = 80_000_000
DRIVER = """
import json, sys, ray
from pipeline.engine import detection_run
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.engine.detection_run import DetectionSettings
from pipeline.engine.progress import RunProgress
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


def test_more_pictures_than_the_store_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{index:03d}.png" for index in range(PICTURES)]
    for path in paths:
        path.write_bytes(images.encode_png(rng.integers(0, 255, (800, 900, 3), dtype=np.uint8)))
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
