"""Run a job as its command line does, in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from jobs import analyze, compress, detect, entry, exchange, prepare, propose, train


def _options(job: str, arguments: tuple[str, ...]) -> tuple[Any, Any]:
    """The job's options, as its script names them, and its main function."""
    if job == "prepare":
        return prepare.Voc | prepare.Coco | prepare.Folder, prepare.main
    if job == "analyze":
        return analyze.Detections | analyze.Proposals | analyze.Compare, analyze.main
    if job == "exchange":
        return exchange.Exchange, exchange.main
    if job == "train":
        return train.options_for(list(arguments)), train.main
    if job == "compress":
        return compress.Compress, compress.main
    if job == "propose":
        return propose.Propose, propose.main
    return detect.Detect, detect.main


def run_job(job: str, *arguments: str) -> int:
    """Run the job and return its exit code; what it prints is for `capsys`."""
    options, main = _options(job, arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"jobs/{job}.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            entry.run(options, main, f"The {job} job.")
    return int(ended.value.code or 0)
