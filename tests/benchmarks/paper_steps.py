"""The steps of the paper's tables: jobs that run once, and what their outputs say."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[2]


class Steps:
    """Runs each job once and records it in `steps.jsonl` in the folder."""

    def __init__(self, folder: Path, *, in_process: bool = False) -> None:
        """Keep outputs in a folder; `in_process` runs the jobs here, on one Ray for all of them."""
        self.folder = folder
        self._in_process = in_process
        self._log = folder / "steps.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._finished = [json.loads(line)["command"] for line in lines]
        self.commands: list[str] = []
        """What the rows since the last `take_commands` rest on."""

    def run_job(self, job: str, *arguments: str | Path) -> None:
        """Run a job, unless the same command has already succeeded.

        Raises:
            SystemExit: the job failed; the same command resumes it.
        """
        command = [f"jobs/{job}.py", *map(str, arguments)]
        text = f"python {shlex.join(command)}"
        if text not in self.commands:
            self.commands.append(text)
        if command in self._finished:
            return
        print(f"\n$ {text}", flush=True)
        start = perf_counter()
        code = _run_here(job, command[1:]) if self._in_process else _run_alone(command)
        if code != 0:
            sys.exit(code)
        self._finished.append(command)
        with self._log.open("a") as log:
            seconds = round(perf_counter() - start, 1)
            log.write(json.dumps({"command": command, "seconds": seconds}) + "\n")

    def take_commands(self) -> list[str]:
        """The commands since the last call."""
        commands, self.commands = self.commands, []
        return commands

    def score(self, detections: str, manifest: str) -> Mapping[str, Any]:
        """The mAP of a run's detections, `second`, and its 95 % interval, `low` and `high`."""
        output = self.folder / "scored" / Path(detections).name
        self.run_job(
            *("analyze", "detections", "--detections", detections, "--manifest", manifest),
            *("--no-report", "--output", output),
        )
        metrics = read_json(output / "metrics.json")
        low, high = metrics["intervals"]["voc07_map50"]
        return {"second": metrics["voc07_map50"], "low": low, "high": high}

    def compare(self, first: str, second: str, manifest: str) -> Mapping[str, Any]:
        """The comparison of two runs' mAP: `second`, `difference`, 95 % interval `low` and `high`."""
        output = self.folder / "compared" / f"{Path(first).name}-{Path(second).name}"
        self.run_job(
            *("analyze", "compare", "--detections", first, second, "--manifest", manifest),
            *("--no-report", "--output", output),
        )
        comparison: Mapping[str, Any] = read_json(output / "comparison.json")["voc07_map50"]
        return comparison


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file that a job wrote."""
    values: Mapping[str, Any] = json.loads(path.read_text())
    return values


def _run_alone(command: Sequence[str]) -> int:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode


def _run_here(job: str, arguments: Sequence[str]) -> int:
    from jobs import entry
    from pipeline.errors import PipelineError
    from tests.jobs.command import get_options_and_main

    options, main = get_options_and_main(job, tuple(arguments))
    try:
        main(entry.parse(options, arguments))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
