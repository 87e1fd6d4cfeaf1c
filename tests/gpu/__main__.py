"""The checks of the GPU path, or its figures: without Ray, without a network, on a GPU if there is one.

python -m tests.gpu --json result.json               the checks; exit code 1 if one fails
python -m tests.gpu --figures --json figures.json    what the device does in a second
python -m tests.gpu --quick --device cpu             small inputs, as in the test suite

Without CUDA both run on the CPU with what it can, and name what was skipped. Torch 2.11 or newer.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torchvision

from pipeline.detector.device_selection import select_device
from tests.gpu import operator_checks, predictor_checks, process_checks, training_checks
from tests.gpu.checks import Check, Setting, run_checks
from tests.gpu.figures import Figures, measure_figures

CHECKS: tuple[Check, ...] = (
    *operator_checks.CHECKS,
    *training_checks.CHECKS,
    *predictor_checks.CHECKS,
    *process_checks.CHECKS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", help="output file")
    parser.add_argument("--figures", action="store_true", help="measure instead of checking")
    parser.add_argument("--quick", action="store_true", help="small inputs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--only", default="", help="only checks or figures with this in their name")
    options = parser.parse_args(arguments)
    device = select_device(options.device)
    result: dict[str, Any] = {"machine": describe_machine(device)}
    print(json.dumps(result["machine"]), flush=True)
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="fast-rcnn-gpu-") as folder:
        setting = Setting(device, Path(folder), options.quick)
        if options.figures:
            code = 0

            def keep(figures: Figures) -> None:
                _write(result | {"figures": figures}, options.json)

            result["figures"] = measure_figures(setting, options.only, keep)
        else:
            checks = [check for check in CHECKS if options.only in check.__name__]
            outcomes = run_checks(checks, setting)
            result["checks"] = [asdict(outcome) for outcome in outcomes]
            code = _summarise(result["checks"])
    result["seconds"] = perf_counter() - began
    print(f"{result['seconds']:.0f} s")
    _write(result, options.json)
    return code


def _write(result: dict[str, Any], path: str | None) -> None:
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the results depend on."""
    described: dict[str, Any] = {
        "device": str(device),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described |= {"gpu": properties.name, "gpu_bytes": properties.total_memory}
        described |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return described


def _summarise(outcomes: Sequence[dict[str, Any]]) -> int:
    """Print the reasons of failures and the counts; returns the exit code."""
    failed = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    for outcome in failed:
        print(f"--- {outcome['name']}\n{outcome['reason']}", file=sys.stderr)
    skipped = [outcome for outcome in outcomes if outcome["status"] == "skipped"]
    print(f"{len(outcomes) - len(failed) - len(skipped)} passed, ", end="")
    print(f"{len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or len(skipped) == len(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
