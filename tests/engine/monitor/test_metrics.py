"""A run's metrics as Prometheus reads them from the node's endpoint, on a Ray of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.engine.drawn_images import damaged_manifest
from tests.swift import free_port

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys, time, ray
from pipeline.engine.propose import run as proposal_run
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
manifest, output, port = sys.argv[1:]
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         _metrics_export_port=int(port), runtime_env={"env_vars": WORKER_ENVIRONMENT})
proposal_run.run(manifest, output, ProposalSettings(strategy="single"),
                 RunOptions(shard_size=4, max_failed_fraction=1.0))
print("done", flush=True)
sys.stdin.read()  # until the endpoint was read
"""


def _samples(port: int) -> dict[str, float]:
    """Values of the run's metrics, by name and the labels that tell them apart."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("ray_pipeline_"):
            name, labels, value = re.match(r"(\w+)\{(.*)\} (\S+)", line).groups()
            told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert told["job"] == "propose"
            assert re.fullmatch("[0-9a-f]{12}", told["run"])
            kept = [told[key] for key in ("status", "stage", "direction", "le") if key in told]
            found["/".join([name.removeprefix("ray_pipeline_"), *kept])] = float(value)
    return found


def test_prometheus_reads_the_run(tmp_path: Path) -> None:
    manifest = damaged_manifest(tmp_path, 10)
    read = sum(path.stat().st_size for path in (tmp_path / "images").glob("*"))
    port = free_port()
    command = [sys.executable, "-c", DRIVER, manifest, str(tmp_path / "out"), str(port)]
    driver = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "done\n"
        deadline = time.monotonic() + 60
        found: dict[str, float] = {}
        while found.get("shards_total") != 3 and time.monotonic() < deadline:
            time.sleep(1)
            found = _samples(port)
    finally:
        driver.communicate("")
    assert found["images_total/ok"] == 7
    assert found["images_total/failed"] == 3
    assert found["shards_total"] == 3
    assert found["bytes_total/in"] == read
    parts = sum(path.stat().st_size for path in (tmp_path / "out").glob("part-*"))
    assert found["bytes_total/out"] == parts
    assert found["stage_seconds_total/propose"] > 0
    assert found["image_seconds_count/propose"] == 3
    assert found["image_seconds_bucket/propose/+Inf"] == 3
    assert found["stage_slots/propose"] == 1
