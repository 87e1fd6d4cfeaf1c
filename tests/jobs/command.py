"""Run a job as its command line does, in this process, and read its errors."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from jobs import (
    analyze,
    compress,
    detect,
    entry,
    exchange,
    export,
    prepare,
    propose,
    rank,
    status,
    train,
    verify,
)
from jobs.prepare_options import Prepare

_RAY_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ \S+\.py:\d+ -- |\([a-z_]+ pid=|\(raylet")


def get_options_and_main(job: str, arguments: tuple[str, ...]) -> tuple[Any, Any]:
    """The job's options, as its script passes them, and its main function."""
    if job == "train":
        return train.make_options_class(list(arguments)), train.main
    jobs = {
        "prepare": (Prepare, prepare.main),
        "propose": (propose.Propose, propose.main),
        "rank": (rank.Rank, rank.main),
        "exchange": (exchange.Exchange, exchange.main),
        "export": (export.Export, export.main),
        "compress": (compress.Compress, compress.main),
        "detect": (detect.Detect, detect.main),
        "analyze": (analyze.Analyze, analyze.main),
        "status": (status.Status, status.main),
        "verify": (verify.Verify, verify.main),
    }
    return jobs[job]


def run_job(job: str, *arguments: str) -> int:
    """Run the job and return its exit code; read what it prints with `capsys`."""
    options, main = get_options_and_main(job, arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"jobs/{job}.py", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            entry.run(options, main, f"The {job} job.")
    return int(exit_info.value.code or 0)


def read_error_output(capsys: pytest.CaptureFixture[str]) -> str:
    """What the job printed to standard error, without lines that Ray logs, perhaps for an earlier test."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if not _RAY_LINE.match(line))
