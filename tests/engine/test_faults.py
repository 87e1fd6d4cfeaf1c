"""Workers killed during a detection run: its rows are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import shards
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import draw_images, write_random_checkpoint

pytestmark = pytest.mark.usefixtures("ray_cluster")

IMAGES = 60


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    rows = [ManifestRow(p.stem, str(p), 80, 60, None) for p in draw_images(folder / "p", IMAGES)]
    write_manifest(str(folder / "manifest.parquet"), rows, None)
    return str(folder / "manifest.parquet"), write_random_checkpoint(folder)


def _detect(inputs: tuple[str, str], output: Path) -> list[dict[str, Any]]:
    run_detection(
        *inputs,
        str(output),
        proposals=ProposalSettings(strategy="single", max_boxes=50, min_side=8),
        settings=DetectionSettings(
            PostprocessingSettings(score_threshold=0.0, max_per_image=5), "fp32"
        ),
        options=RunOptions(shard_size=2),
        actors=ActorOptions(1),
    )
    return [
        row for table in shards.open_parts(str(output)).read_tables() for row in table.to_pylist()
    ]


@pytest.fixture(scope="module")
def baseline_rows(
    inputs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    return _detect(inputs, tmp_path_factory.mktemp("undisturbed"))


def _find_workers(title: str) -> list[int]:
    """Pids of this process's Ray workers that run such a task or actor, by their process title."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::" + title.encode()) and _is_descendant(int(process.name)):
            pids.append(int(process.name))
    return pids


def _is_descendant(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


@pytest.mark.parametrize("title", ["DetectorActor", "read_piece"])
def test_a_killed_worker_changes_no_row(
    title: str, inputs: tuple[str, str], baseline_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    output, killed = tmp_path / "detections", []

    def kill_once_some_are_done() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            if len(list(output.glob("part-*"))) >= 3:
                for pid in _find_workers(title)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(len(list(output.glob("part-*"))))
            time.sleep(0.002)

    killer = threading.Thread(target=kill_once_some_are_done)
    killer.start()
    rows = _detect(inputs, output)
    killer.join()
    assert killed, f"no {title} was found to kill"
    assert killed[0] < IMAGES // 2, "it was killed too late to matter"
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in baseline_rows]
    for row, expected in zip(rows, baseline_rows, strict=True):
        assert row["status"] == "ok"
        scores, expected_scores = ([d["score"] for d in r["detections"]] for r in (row, expected))
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
