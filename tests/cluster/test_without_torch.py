"""The jobs of the image `proposals`, in a Python that finds no torch, driver and workers alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import shards
from pipeline.engine.detect import detector_loading
from pipeline.errors import NoCapacity
from tests.engine.drawn_images import draw_images
from tests.outputs import make_object, write_annotations, write_detections

ROOT = Path(__file__).parents[2]
HIDE = """
import importlib.machinery, os, pathlib, sys
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    hidden = ("torch", "torchvision", "tensorboard")
    return None if name.partition(".")[0] in hidden else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
words = " ".join(sys.orig_argv)
pathlib.Path(os.environ["STARTED"], str(os.getpid())).write_text(words)
"""


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with torch hidden from it and from all that it starts."""
    (folder / "hide").mkdir(exist_ok=True)
    (folder / "started").mkdir(exist_ok=True)
    (folder / "hide" / "sitecustomize.py").write_text(HIDE)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(folder / "hide"), "STARTED": str(folder / "started")}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_torch_is_hidden(tmp_path: Path) -> None:
    ended = _run(tmp_path, "-c", "import torch")
    assert "No module named 'torch'" in ended.stderr


def test_prepare_and_propose_need_no_torch(tmp_path: Path) -> None:
    draw_images(tmp_path / "images", 3)
    manifest, boxes = str(tmp_path / "manifest.parquet"), str(tmp_path / "boxes")
    images = str(tmp_path / "images")
    prepared = _run(tmp_path, "jobs/prepare.py", "folder", "--images", images, "--output", manifest)
    assert prepared.returncode == 0, prepared.stderr
    proposed = _run(
        tmp_path,
        *("jobs/propose.py", "--manifest", manifest, "--output", boxes, "--strategy", "single"),
    )
    assert proposed.returncode == 0, proposed.stderr
    assert shards.open_parts(boxes).rows == 3
    started = [path.read_text() for path in (tmp_path / "started").iterdir()]
    assert any("default_worker.py" in words for words in started), "torch was not hidden in workers"


def test_analyze_needs_no_torch(tmp_path: Path) -> None:
    """The whole job, with diagnostics, intervals and the report; both images' one object is detected."""
    images = {path.stem: str(path) for path in draw_images(tmp_path / "images", 2)}
    box = (10, 10, 40, 40)
    objects = {name: [make_object("cat", box)] for name in images}
    manifest = str(tmp_path / "manifest.parquet")
    write_annotations(manifest, objects, ("cat",), size=(80, 60), uris=images)
    boxes = {name: [("cat", 0.9, box), ("cat", 0.2, (0, 0, 5, 5))] for name in images}
    detections = write_detections(str(tmp_path / "detections"), manifest, boxes, ("cat",))
    analyzed = _run(
        tmp_path,
        *("jobs/analyze.py", "detections", "--detections", detections, "--manifest", manifest),
        *("--output", str(tmp_path / "analysis"), "--resamples", "10"),
    )
    assert analyzed.returncode == 0, analyzed.stderr
    metrics = json.loads((tmp_path / "analysis" / "metrics.json").read_text())
    assert (metrics["voc_map50"], metrics["detections"]) == (1.0, 4)
    assert (tmp_path / "analysis" / "report" / "index.html").is_file()


@pytest.mark.parametrize("job", ["compress", "demo", "detect", "train"])
def test_the_other_jobs_say_what_is_missing(job: str, tmp_path: Path) -> None:
    for words in ([f"jobs/{job}.py"], ["-m", f"jobs.{job}"]):
        ended = _run(tmp_path, *words)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"error: {sys.executable}: the packages torch, torchvision")
        assert " are not installed; use the environment that `make` sets up" in line


def test_a_node_without_torch_is_no_place_for_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_loading, "find_spec", lambda _name: None)
    with pytest.raises(NoCapacity, match="nodes without torch cannot hold detectors"):
        detector_loading.check_torch()
