"""The steps of the ablations: jobs that run once, comparisons, measured seconds, the table."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[2]
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    comparison: Mapping[str, Any] | None = None
    """`comparison.json` of the baseline and this run; None if only time is measured."""
    note: str = ""
    is_baseline: bool = False
    """Whether the rows after it are compared with this one."""


class Steps:
    """Runs each step once and records it in `steps.jsonl` in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "steps.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._finished_commands = [json.loads(line)["command"] for line in lines]

    def run_job(self, job: str, *arguments: str | Path) -> None:
        """Run a job, unless the same command has already succeeded.

        Raises:
            SystemExit: the job failed; the same command resumes it.
        """
        command = [f"jobs/{job}.py", *map(str, arguments)]
        if command in self._finished_commands:
            return
        print(f"\n$ python {shlex.join(command)}", flush=True)
        start = perf_counter()
        code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
        if code != 0:
            sys.exit(code)
        self._finished_commands.append(command)
        with self._log.open("a") as log:
            seconds = round(perf_counter() - start, 1)
            log.write(json.dumps({"command": command, "seconds": seconds}) + "\n")

    def compare(self, first: str, second: str, manifest: str) -> Mapping[str, Any]:
        """Compare the detections of two runs."""
        output = self.folder / "compared" / Path(second).name
        self.run_job(
            *("analyze", "compare", "--detections", first, second),
            *("--manifest", manifest, "--output", output),
        )
        comparison: Mapping[str, Any] = json.loads((output / "comparison.json").read_text())
        return comparison

    def measure_seconds(self, name: str, checkpoints: Sequence[str], rois: int) -> list[float]:
        """Median seconds per image with each checkpoint."""

        def measure() -> list[float]:
            from pipeline.detector.checkpoint import load_checkpoint
            from pipeline.detector.timing import measure_seconds

            loaded = [load_checkpoint(uri) for uri in checkpoints]
            return [figures.image for figures in measure_seconds(loaded, rois, REPEATS)]

        digests = [(Path(uri) / "model.json").read_text() for uri in checkpoints]
        return self._measure_once(name, [rois, *digests], measure)

    def measure_vgg16_seconds(self, rois: int) -> list[float]:
        """Seconds per image of VGG16, whole and factorised; the weights do not change the time."""

        def measure() -> list[float]:
            from pipeline.detector.architecture import Architecture
            from pipeline.detector.backbones.catalog import BACKBONES
            from pipeline.detector.checkpoint import TrainedNetwork
            from pipeline.detector.network import build_network
            from pipeline.detector.timing import measure_seconds

            classes = tuple(f"class {k}" for k in range(20))
            variants = [
                TrainedNetwork(
                    build_network(Architecture(classes, "vgg16", fc_ranks=ranks)),
                    BACKBONES["vgg16"].preprocessing,
                )
                for ranks in (None, (1024, 256))
            ]
            return [figures.image for figures in measure_seconds(variants, rois, REPEATS)]

        return self._measure_once("vgg16", [rois], measure)

    def _measure_once(
        self, name: str, inputs: Sequence[object], measure: Callable[[], list[float]]
    ) -> list[float]:
        """Return the seconds stored for the same inputs, or measure and store them."""
        path = self.folder / "measured" / f"{name}.json"
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["of"] == digest:
                return [float(seconds) for seconds in stored["seconds"]]
        print(f"\nmeasuring {name}", flush=True)
        seconds = measure()
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"of": digest, "seconds": seconds}))
        return seconds


def format_table(sections: Mapping[str, Sequence[Row]]) -> str:
    """Format the Markdown table; differences are to the last baseline row."""
    lines = [
        "| | mAP@0.5, 11-point | difference | 95 % interval | seconds |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for rows in sections.values():
        for row in rows:
            cells = ["", "", ""]
            if row.comparison is not None:
                metric = row.comparison["voc07_map50"]
                cells = [f"{metric['second']:.3f}", "", ""]
                if not row.is_baseline:
                    cells[1] = f"{metric['difference']:+.3f}"
                    cells[2] = f"{metric['low']:+.3f} to {metric['high']:+.3f}"
            lines.append(" | ".join([f"| {row.name}", *cells, f"{row.note} |"]))
    return "\n".join(lines) + "\n"
