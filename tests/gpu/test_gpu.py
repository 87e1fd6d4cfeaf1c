"""The checks and figures of the GPU path on a CPU, and which packages they do without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.engine.detect import chunk_detector
from tests.gpu import __main__ as command
from tests.gpu import predictor_figures
from tests.gpu.checks import Setting, SkippedCheck, run_checks
from tests.gpu.figures import measure_figures
from tests.gpu.timing import measure_union

ROOT = Path(__file__).parents[2]
NEEDS_CUDA = {"nms_of_many_boxes"}
MAY_LACK_FP16 = {"gradient_scale"}

HIDE = """
import importlib.machinery, sys

find = importlib.machinery.PathFinder.find_spec
hidden = set(sys.argv[1].split(","))

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)

importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
for name in hidden:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is not hidden")
import tests.gpu.__main__
print("imported")
"""
ABSENT = (
    *("ray", "duckdb", "tyro", "jinja2", "markupsafe", "grpc", "matplotlib", "rich", "yaml"),
    *("defusedxml", "selectivesearch", "hotcoco", "pytest", "hypothesis", "cv2", "pandas"),
    *("s3fs", "gcsfs", "adlfs", "pycocotools", "psutil"),
)
"""Packages that a GPU machine may lack; it needs those in docs/gpu.md."""


def test_the_checks_run_on_a_cpu(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    assert command.main(["--quick", "--device", "cpu", "--json", str(result)]) == 0
    outcomes = {o["name"]: o for o in json.loads(result.read_text())["checks"]}
    assert len(outcomes) == len(command.CHECKS)
    skipped = {name for name, outcome in outcomes.items() if outcome["status"] == "skipped"}
    assert NEEDS_CUDA <= skipped <= NEEDS_CUDA | MAY_LACK_FP16
    assert outcomes["nms_of_many_boxes"]["reason"] == "needs CUDA"
    assert outcomes["half_gpu_each"]["skipped_parts"]


def test_a_failed_check_is_reported_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_wrong(setting: Setting) -> dict[str, float]:
        assert setting.on_gpu, "as it should be"
        return {}

    def check_right(setting: Setting) -> dict[str, float]:
        return {"one": 1.0}

    def check_absent(setting: Setting) -> dict[str, float]:
        raise SkippedCheck("nothing to check")

    setting = Setting(torch.device("cpu"), tmp_path, is_quick=True)
    outcomes = run_checks([check_wrong, check_right, check_absent], setting)
    assert [outcome.status for outcome in outcomes] == ["failed", "passed", "skipped"]
    assert "as it should be" in outcomes[0].reason
    monkeypatch.setattr(command, "CHECKS", (check_wrong, check_right))
    assert command.main(["--device", "cpu"]) == 1
    assert "1 passed, 1 failed, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("group", ["predictors", "training"])
def test_figures_are_measured_on_a_cpu(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("predictor_figures", "variant_figures"):
        monkeypatch.setattr(f"tests.gpu.{module}.list_networks", lambda _: ("tiny",))
    kept: list[int] = []
    setting = Setting(torch.device("cpu"), tmp_path, is_quick=True)
    figures = measure_figures(setting, group, lambda so_far: kept.append(len(so_far)))
    assert kept == list(range(1, len(figures) + 1))
    measured = [values for values in figures.values() if "skipped" not in values]
    assert measured
    for values in measured:
        assert values["images_per_second"] > 0
        assert 0 < values["busy_share"] <= 1


def test_nothing_else_is_needed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HIDE, ",".join(ABSENT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "imported\n"


def test_kernels_that_overlap_count_once() -> None:
    assert measure_union([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (1.5, 1.6)]) == 4.0
    assert measure_union([]) == 0.0


def test_figures_are_of_as_many_images_as_a_job_detects_in_together():
    assert predictor_figures.GROUP_ON_GPU == chunk_detector.GROUP_ON_GPU
