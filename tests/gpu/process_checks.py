"""Two processes that share a GPU, each with half of its memory, as with `--gpus-per-actor 0.5`.

python -m tests.gpu.process_checks DEVICE    is one of them
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.detector.device_memory import limit_memory, read_total_memory
from pipeline.detector.predictor import Predictor
from tests.detector.networks import (
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)
from tests.gpu.checks import Setting

ROOT = Path(__file__).parents[2]
SHARE = 0.5


def check_half_gpu_each(setting: Setting) -> dict[str, Any]:
    """Two processes detect at once, and neither can allocate more than half of the memory."""
    if setting.is_quick:
        setting.skipped_parts.append("processes of their own, and limits: not if quick")
        return {"scores": detect_in_share(setting.device)["scores"]}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.process_checks", str(setting.device)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = []
    try:
        for process in processes:
            written, _ = process.communicate(timeout=240)
            assert process.returncode == 0, f"exit code {process.returncode}"
            answers.append(json.loads(written.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()  # one that hangs would keep the GPU
    assert answers[0]["scores"] == answers[1]["scores"] != []
    if not setting.on_gpu:
        setting.skipped_parts.append("limits: need CUDA")
        return answers[0]
    for answer in answers:
        assert answer["was_limited"], answer
    return {"limited": 2, "largest_allocation": answers[0]["largest_allocation"]}


def detect_in_share(device: torch.device) -> dict[str, Any]:
    """Detect in a few images within this process's share, then try to allocate more than the share."""
    if device.type == "cuda":
        limit_memory(device, SHARE)
    predictor = Predictor(build_random_trained_network(), device=str(device), precision="fp32")
    rng = np.random.default_rng(0)
    images = [draw_random_image(rng, 60, 80) for _ in range(4)]
    detections = predictor(images, [draw_random_boxes(rng, 30, 60, 80) for _ in images])
    answer: dict[str, Any] = {"scores": [round(float(d.scores.sum()), 2) for d in detections]}
    if device.type == "cuda":
        total = read_total_memory(device)
        answer["largest_allocation"] = int(SHARE * total)
        try:
            torch.empty(int(SHARE * total), dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:
            answer["was_limited"] = True
        else:
            answer["was_limited"] = False
    return answer


CHECKS = (check_half_gpu_each,)

if __name__ == "__main__":
    print(json.dumps(detect_in_share(torch.device(sys.argv[1]))))
