"""Run the whole pipeline on a small drawn dataset: a few minutes on two cores.

Draws a labelled dataset in VOC layout, then runs the jobs prepare, propose, train, detect and analyze on
it, each by the command that a user would type for other data. All results stay in the output folder.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs import analyze, detect, entry, prepare, propose, train
from jobs.prepare_options import Prepare
from pipeline import imaging, storage, uris
from pipeline.analysis.detection_sheet import draw_detection_sheet
from pipeline.engine import cluster
from pipeline.errors import InvalidConfiguration
from pipeline.sources.drawn_dataset import draw_dataset

SHEET_NAME = "sheet.png"
COMMANDS = (
    "prepare voc --root {output}/data --split train --output {output}/manifests/train.parquet",
    "prepare voc --root {output}/data --split test --output {output}/manifests/test.parquet",
    "propose --manifest {output}/manifests/train.parquet --output {output}/proposals/train --seed {seed}",
    "propose --manifest {output}/manifests/test.parquet --output {output}/proposals/test --seed {seed}",
    "train --manifest {output}/manifests/train.parquet --proposals {output}/proposals/train"
    " --output {output}/checkpoint --recipe tiny --seed {seed}",
    "detect --manifest {output}/manifests/test.parquet --checkpoint {output}/checkpoint"
    " --proposals {output}/proposals/test --output {output}/detections/test",
    "analyze detections --detections {output}/detections/test"
    " --manifest {output}/manifests/test.parquet --proposals {output}/proposals/test --output {output}",
)
"""The stages in order: a job and its arguments."""
QUERY = (  # printed, not run
    "SELECT d.label, count(*) AS n, avg(d.score) AS score FROM (SELECT unnest(detections) AS d "
    "FROM '{output}/detections/test/part-*.parquet') WHERE d.score >= 0.5 GROUP BY ALL ORDER BY n DESC"
)
"""Counts the confident detections of each class."""


@dataclass(frozen=True, kw_only=True)
class Demo(entry.JobOptions):
    """Options of the demo."""

    output: str = "demo-output"
    """Local folder for the drawn data and all results; a rerun continues where an earlier one stopped."""
    train_images: int = 200
    """Number of images to draw for training."""
    test_images: int = 60
    """Number of images to draw for testing."""
    seed: int = 0
    """Seed of the drawn images, the ranking of proposals, and training."""


class StageClock:
    """Prints a heading and a command line for each stage, and sums the seconds by stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str, command: str) -> Iterator[None]:
        """Announce a stage, and add the time of the `with` block to it."""
        self.console.rule(f"[bold]{stage}", align="left")
        self.console.print(command, style="dim", soft_wrap=True, highlight=False, markup=False)
        start = perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start


def main(options: Demo) -> None:
    """Run all stages and print the results.

    Raises:
        InvalidConfiguration: the output is not a local folder.
    """
    if uris.get_protocol(options.output) != "file":
        raise InvalidConfiguration(
            f"--output is {options.output}, expected a local folder: the demo draws its images there"
        )
    output = uris.make_absolute(options.output)
    console = Console(soft_wrap=True)
    clock = StageClock(console)
    numbers = (options.train_images, options.test_images)
    with clock.measure("draw", f"(draws {numbers[0]} + {numbers[1]} images into {output}/data)"):
        draw_dataset(Path(output) / "data", *numbers, options.seed)
    with cluster.connect_to_cluster():
        for command in COMMANDS:
            job, *arguments = (
                word.format(output=output, seed=options.seed) for word in command.split()
            )
            with clock.measure(job, f"$ python {shlex.join([f'jobs/{job}.py', *arguments])}"):
                run_job(job, arguments)
    _write_sheet(output)
    _print_results(console, clock, output)


def run_job(job: str, arguments: list[str]) -> None:
    """Parse the arguments as the job's script does, and run the job in this process."""
    jobs: dict[str, tuple[Any, Any]] = {
        "prepare": (Prepare, prepare.main),
        "propose": (propose.Propose, propose.main),
        "train": (train.make_options_class(arguments), train.main),
        "detect": (detect.Detect, detect.main),
        "analyze": (analyze.Analyze, analyze.main),
    }
    options, job_main = jobs[job]
    job_main(entry.parse(options, arguments))


def _write_sheet(output: str) -> None:
    sheet = draw_detection_sheet(f"{output}/detections/test", f"{output}/manifests/test.parquet")
    storage.put(f"{output}/{SHEET_NAME}", imaging.encode_png(sheet))


def _print_results(console: Console, clock: StageClock, output: str) -> None:
    """Print the time of each stage, the paths of the results, and a query to look further."""
    console.rule("[bold]done", align="left")
    times = Table("stage", "seconds")
    for stage, seconds in clock.seconds.items():
        times.add_row(stage, f"{seconds:.1f}")
    times.add_row("all", f"{sum(clock.seconds.values()):.1f}")
    console.print(times)
    query = QUERY.format(output=output)
    for line in (
        f"detections (Parquet): {output}/detections/test",
        f"metrics:              {output}/metrics.json",
        f"images:               {output}/{SHEET_NAME}",
        "count the detections of each class with DuckDB:",
        f'  .venv/bin/python -c "import duckdb; print(duckdb.sql(\\"{query}\\"))"',
        f"the report, every number with its images: {output}/report/index.html",
    ):
        console.print(line, highlight=False, markup=False)


if __name__ == "__main__":
    entry.run(Demo, main, __doc__)
