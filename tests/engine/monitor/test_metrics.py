"""A run's metrics as Prometheus reads them from the node's endpoint, on a separate Ray."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.engine.drawn_images import write_damaged_manifest
from tests.swift import find_free_port

ROOT = Path(__file__).parents[3]
DRIVER = """
import sys, time, ray
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.engine.monitor.metrics import TrainingMetrics
from pipeline.training.logs import TrainingRecord
manifest, output, port = sys.argv[1:]
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         _metrics_export_port=int(port), runtime_env={"env_vars": WORKER_ENVIRONMENT})
run_proposals(manifest, output, ProposalSettings(strategy="single"),
                 RunOptions(shard_size=4, max_failed_fraction=1.0))
metrics = TrainingMetrics("a" * 64, steps=400, workers=2)
for step, skipped in ((20, 0), (40, 3)):
    losses = {"total": 30 / step, "class": 0.5, "box": 0.25}
    metrics.count_record(TrainingRecord(step, step / 100, losses, 0.001, 1.0, 16.0, 48.0, 80, skipped, 8.0,
                                        data_wait=0.25, bytes_read=1000, voc07_map50=0.4))
print("done", flush=True)
sys.stdin.read()  # keeps the endpoint until the test has read it
"""


def _read_samples(port: int, job: str) -> dict[str, float]:
    """Values of a job's metrics, by name and the labels that distinguish them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = {}
    for line in lines:
        if line.startswith("ray_pipeline_"):
            name, labels, value = re.match(r"(\w+)\{(.*)\} (\S+)", line).groups()
            labels_by_name = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if labels_by_name["job"] != job:
                continue
            assert re.fullmatch("[0-9a-f]{12}", labels_by_name["run"])
            keys = [
                key
                for key in ("status", "stage", "direction", "part", "le")
                if key in labels_by_name
            ]
            values = [labels_by_name[key] for key in keys]
            samples["/".join([name.removeprefix("ray_pipeline_"), *values])] = float(value)
    return samples


def test_prometheus_reads_the_run(tmp_path: Path) -> None:
    manifest = write_damaged_manifest(tmp_path, 10)
    read = sum(path.stat().st_size for path in (tmp_path / "images").glob("*"))
    port = find_free_port()
    command = [sys.executable, "-c", DRIVER, manifest, str(tmp_path / "out"), str(port)]
    driver = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "done\n"
        deadline = time.monotonic() + 60
        samples: dict[str, float] = {}
        while samples.get("shards_total") != 3 and time.monotonic() < deadline:
            time.sleep(1)
            samples = _read_samples(port, "propose")
        trained = _read_samples(port, "train")
    finally:
        driver.communicate("")
    assert samples["images_total/ok"] == 7
    assert samples["images_total/failed"] == 3
    assert samples["shards_total"] == 3
    assert samples["bytes_total/in"] == read
    parts = sum(path.stat().st_size for path in (tmp_path / "out").glob("part-*"))
    assert samples["bytes_total/out"] == parts
    assert samples["stage_seconds_total/propose"] > 0
    assert samples["image_seconds_count/propose"] == 3
    assert samples["image_seconds_bucket/propose/+Inf"] == 3
    assert samples["stage_slots/propose"] == 1
    assert trained == {
        "images_total/ok": 160,
        "images_total/failed": 3,
        "bytes_total/in": 2000,
        "stage_slots/train": 2,
        "stage_busy/train": 1.5,
        "training_step": 40,
        "training_steps": 400,
        "training_loss/total": 0.75,
        "training_loss/class": 0.5,
        "training_loss/box": 0.25,
        "training_map50": 0.4,
    }
