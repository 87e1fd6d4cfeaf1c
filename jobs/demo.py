"""The whole pipeline on a small drawn dataset, in a few minutes on two cores.

Draws a labelled dataset in VOC layout, then runs the jobs prepare, propose, train, detect and analyze on
it, each as a user would on data of their own; everything stays in the output folder for a closer look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

from jobs import analyze, detect, entry, prepare, propose, train
from pipeline import imaging, manifests, shards, storage
from pipeline.analysis.sheet import image_sheet
from pipeline.engine import cluster
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.sources.drawn import draw_dataset
from pipeline.training.recipes import named

SHEET_NAME = "sheet.png"


@dataclass(frozen=True, kw_only=True)
class Demo(entry.JobOptions):
    """Options of the demo."""

    output: str = "demo-output"
    """Local folder for the drawn data and all that is made of it; a rerun goes on where one stopped."""
    train_images: int = 200
    """Images to draw for training."""
    test_images: int = 60
    """Images to draw for the test."""
    seed: int = 0
    """Seed of the drawn images, the proposals' ranking and the training."""


class Stages:
    """Runs the stages in turn, says which command each is, and keeps their times."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    def run(self, name: str, command: str, stage: Callable[[], object]) -> None:
        """Run one stage."""
        self.console.rule(f"[bold]{name}", align="left")
        self.console.print(f"$ {command}", style="dim", soft_wrap=True, highlight=False)
        start = perf_counter()
        stage()
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - start


def main(options: Demo) -> None:
    """Run all stages and show what came out.

    Raises:
        InvalidConfiguration: the output is not a local folder.
    """
    if storage.protocol(options.output) != "file":
        raise InvalidConfiguration(f"--output {options.output}: the demo draws into a local folder")
    output = Path(storage.absolute(options.output))
    console = Console(soft_wrap=True)
    stages = Stages(console)
    stages.run(
        "draw",
        f"(draws {options.train_images} + {options.test_images} images into {output / 'data'})",
        lambda: draw_dataset(
            output / "data", options.train_images, options.test_images, options.seed
        ),
    )
    with cluster.connected():
        _run_jobs(stages, options, output)
    _show(console, stages, output)


def _run_jobs(stages: Stages, options: Demo, output: Path) -> None:
    at = str(output)
    for split in ("train", "test"):
        place = f"{at}/manifests/{split}.parquet"
        stages.run(
            "prepare",
            f"python jobs/prepare.py voc --root {at}/data --split {split} --output {place}",
            lambda split=split, place=place: prepare.main(  # type: ignore[misc]
                prepare.Voc(root=f"{at}/data", split=split, output=place)
            ),
        )
    for split in ("train", "test"):
        stages.run(
            "propose",
            f"python jobs/propose.py --manifest {at}/manifests/{split}.parquet "
            f"--output {at}/proposals/{split} --seed {options.seed}",
            lambda split=split: propose.main(  # type: ignore[misc]
                propose.Propose(
                    manifest=f"{at}/manifests/{split}.parquet",
                    output=f"{at}/proposals/{split}",
                    proposals=ProposalSettings(seed=options.seed),
                )
            ),
        )
    stages.run(
        "train",
        f"python jobs/train.py --manifest {at}/manifests/train.parquet "
        f"--proposals {at}/proposals/train --output {at}/checkpoint --recipe tiny --seed {options.seed}",
        lambda: train.main(
            train.Train(
                manifest=(f"{at}/manifests/train.parquet",),
                proposals=(f"{at}/proposals/train",),
                output=f"{at}/checkpoint",
                recipe="tiny",
                fields=named("tiny"),
                seed=options.seed,
            )
        ),
    )
    stages.run(
        "detect",
        f"python jobs/detect.py --manifest {at}/manifests/test.parquet --checkpoint {at}/checkpoint "
        f"--proposals {at}/proposals/test --output {at}/detections/test",
        lambda: detect.main(
            detect.Detect(
                manifest=f"{at}/manifests/test.parquet",
                checkpoint=f"{at}/checkpoint",
                proposals=f"{at}/proposals/test",
                output=f"{at}/detections/test",
            )
        ),
    )
    stages.run(
        "analyze",
        f"python jobs/analyze.py detections --detections {at}/detections/test "
        f"--manifest {at}/manifests/test.parquet --output {at}",
        lambda: analyze.main(
            analyze.Detections(
                detections=f"{at}/detections/test",
                manifest=f"{at}/manifests/test.parquet",
                output=at,
            )
        ),
    )


def _show(console: Console, stages: Stages, output: Path) -> None:
    """The times, where everything lies, and how to look further."""
    sheet = image_sheet(
        shards.open_parts(f"{output}/detections/test"),
        manifests.open_manifest(f"{output}/manifests/test.parquet"),
    )
    storage.put(f"{output}/{SHEET_NAME}", imaging.encode_png(sheet))
    console.rule("[bold]done", align="left")
    times = Table("stage", "seconds")
    for name, seconds in stages.seconds.items():
        times.add_row(name, f"{seconds:.1f}")
    times.add_row("all", f"{sum(stages.seconds.values()):.1f}")
    console.print(times)
    console.print(f"detections (Parquet): {output}/detections/test", highlight=False)
    console.print(f"metrics:              {output}/metrics.json", highlight=False)
    console.print(f"images:             {output}/{SHEET_NAME}", highlight=False)
    console.print("count the detections by class with DuckDB:", highlight=False)
    query = (  # shown, not run
        "SELECT d.label, count(*) AS n, avg(d.score) AS score FROM (SELECT unnest(detections) AS d "  # noqa: S608
        f"FROM '{output}/detections/test/part-*.parquet') WHERE d.score >= 0.5 GROUP BY ALL ORDER BY n DESC"
    )
    console.print(
        f'  .venv/bin/python -c "import duckdb; print(duckdb.sql(\\"{query}\\"))"', highlight=False
    )


if __name__ == "__main__":
    entry.run(Demo, main, __doc__)
