"""A fresh worker process: the cost of import, compilation, the first image and memory.

python -m tests.benchmarks.proposal_worker SIDE [STRATEGY] prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np


def measure_worker(side: int, strategy: str = "fast", cold: bool = False) -> dict[str, Any]:
    """Measure a fresh process on an image of side² pixels, with an empty Numba cache if `cold`."""
    command = [sys.executable, "-m", "tests.benchmarks.proposal_worker", str(side), strategy]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | ({"NUMBA_CACHE_DIR": folder} if cold else {})
        worker = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        )
    return json.loads(worker.stdout)


def _main(side: int, strategy: str) -> None:
    begin = perf_counter(), process_time()
    from pipeline.proposals import selective_search

    imported = perf_counter(), process_time()
    image = _draw_regions(side)
    first = perf_counter(), process_time()
    selective_search(image, strategy)
    done = perf_counter(), process_time()
    again = process_time()
    selective_search(image, strategy)
    result = {
        "side": side,
        "import_seconds": imported[0] - begin[0],
        "first_seconds": done[0] - first[0],
        "first_cpu_seconds": done[1] - first[1],
        "next_cpu_seconds": process_time() - again,
        "peak_megabytes": _read_peak_megabytes(),
        "torch_loaded": "torch" in sys.modules,
    }
    print(json.dumps(result))


def _read_peak_megabytes() -> float:
    # Linux's ru_maxrss starts at the parent's value at the fork; VmHWM is this program's alone.
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if peak:
            return int(peak[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _draw_regions(side: int) -> np.ndarray:
    """Draw smooth regions with some noise, which need about as much memory as a photograph."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(9 * a * x + 7 * b * y + c) for a, b, c in random.random((3, 3)) * 6]
    image = 127 + 90 * np.round(np.stack(waves, axis=2) * 2) / 2
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "fast")
