"""The steps of the paper's tables: jobs that run once, and what their outputs say."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.benchmarks.paper_inputs import identify_input, list_inputs
from tests.benchmarks.paper_rows import FINER, MAP, Estimate

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60
"""Seconds that a job has to end, when this command is stopped, before it is killed."""


@dataclass(frozen=True)
class Score:
    """The scores of a run's detections, alone or compared with another run's."""

    output: str
    """Of the job that computed them."""
    estimates: Mapping[str, Estimate]
    """By `MAP` and the names of `FINER`."""


class Steps:
    """Runs each job once and records it in `steps.jsonl` in the folder.

    A step is finished if the same command has succeeded on the same inputs: another manifest or other
    proposals at the same place run it again.
    """

    def __init__(self, folder: Path, *, in_process: bool = False) -> None:
        """Keep outputs in a folder; `in_process` runs the jobs here, on one Ray for all of them."""
        self.folder = folder
        self._in_process = in_process
        self._log = folder / "steps.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._finished = _read_steps(self._log)
        self._commands: dict[str, list[str]] = {}
        """The command of each output."""
        self._identities: dict[str, str] = {}
        """Of inputs that no step writes."""

    def run_job(self, job: str, *arguments: str | Path) -> None:
        """Run a job, unless the same command has already succeeded on the same inputs.

        Raises:
            SystemExit: the job failed; the same command resumes it.
        """
        command = [f"jobs/{job}.py", *map(str, arguments)]
        self._commands[command[command.index("--output") + 1]] = command
        step = {"command": command, "inputs": [self._identify(uri) for uri in list_inputs(command)]}
        if step in self._finished:
            return
        print(f"\n$ {_format_command(command)}", flush=True)
        start = perf_counter()
        code = self.execute(job, command[1:])
        if code != 0:
            sys.exit(code)
        self._finished.append(step)
        with self._log.open("a") as log:
            log.write(json.dumps(step | {"seconds": round(perf_counter() - start, 1)}) + "\n")

    def execute(self, job: str, arguments: Sequence[str]) -> int:
        """Run a job now; returns its exit code."""
        if self._in_process:
            return _run_here(job, arguments)
        return _run_alone([f"jobs/{job}.py", *arguments])

    def _identify(self, uri: str) -> str:
        if uri in self._commands:
            return identify_input(uri)
        if uri not in self._identities:
            self._identities[uri] = identify_input(uri)
        return self._identities[uri]

    def list_commands(self, *outputs: str) -> list[str]:
        """The commands that outputs rest on: those of their inputs, then their own."""
        listed: dict[str, None] = {}
        for output in outputs:
            command = self._commands.get(output)
            if command is not None:
                inputs = [word for word in command if word in self._commands and word != output]
                listed |= dict.fromkeys([*self.list_commands(*inputs), _format_command(command)])
        return list(listed)

    def score(self, detections: str, manifest: str) -> Score:
        """The scores of a run's detections with their own intervals."""
        output = self.folder / "scored" / Path(detections).name
        self.run_job(
            *("analyze", "detections", "--detections", detections, "--manifest", manifest),
            *("--no-report", "--output", output),
        )
        metrics = read_json(output / "metrics.json")
        intervals = metrics["intervals"]
        estimates = {name: Estimate(metrics[name], *intervals[name]) for name in (MAP, *FINER)}
        return Score(str(output), estimates)

    def compare(self, first: str, second: str, manifest: str) -> Score:
        """The scores of the second of two runs, and their differences from the first's."""
        output = self.folder / "compared" / f"{Path(first).name}-{Path(second).name}"
        self.run_job(
            *("analyze", "compare", "--detections", first, second, "--manifest", manifest),
            *("--no-report", "--output", output),
        )
        compared = read_json(output / "comparison.json")
        estimates = {}
        for name in (MAP, *FINER):
            values = compared[name]
            ends = values["low"], values["high"]
            estimates[name] = Estimate(values["second"], *ends, values["difference"])
        return Score(str(output), estimates)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file that a job wrote."""
    values: Mapping[str, Any] = json.loads(path.read_text())
    return values


def _read_steps(log: Path) -> list[dict[str, Any]]:
    """The finished steps, without the last line if it is not whole."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines = lines[:-1]
        log.write_text("".join(lines))
    steps = [json.loads(line) for line in lines]
    return [{"command": step["command"], "inputs": step.get("inputs")} for step in steps]


def _format_command(command: Sequence[str]) -> str:
    return f"python {shlex.join(command)}"


def _run_alone(command: Sequence[str]) -> int:
    """Run a job in a process of its own, which ends with this one."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    try:
        return process.wait()
    except BaseException as stop:
        if not isinstance(stop, KeyboardInterrupt):  # a terminal sends Ctrl-C to the job, too
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        raise


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
