"""Run a job as its command line does, in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from jobs import analyze, compress, detect, entry, exchange, prepare, propose, train


def options_of(job: str, arguments: tuple[str, ...]) -> tuple[Any, Any]:
    """The job's options, as its script names them, and its main function."""
    if job == "train":
        return train.options_for(list(arguments)), train.main
    jobs = {
        "prepare": (prepare.Voc | prepare.Coco | prepare.Folder, prepare.main),
        "propose": (propose.Propose, propose.main),
        "exchange": (exchange.Exchange, exchange.main),
        "compress": (compress.Compress, compress.main),
        "detect": (detect.Detect, detect.main),
        "analyze": (analyze.Detections | analyze.Proposals | analyze.Compare, analyze.main),
    }
    return jobs[job]


def run_job(job: str, *arguments: str) -> int:
    """Run the job and return its exit code; what it prints is for `capsys`."""
    options, main = options_of(job, arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"jobs/{job}.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.run(options, main, f"The {job} job.")
    return int(ended.value.code or 0)
