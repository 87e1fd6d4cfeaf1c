"""The steps of the ablations: jobs that are done once, comparisons, measured seconds, the table."""

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
    """`comparison.json` of the run it is measured by, first, and this one; none where only time counts."""
    note: str = ""
    first: bool = False
    """What the rows after it are measured by."""


class Steps:
    """Does each step once: what was done stands in `steps.jsonl` in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "steps.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._done = [json.loads(line)["command"] for line in lines]

    def job(self, job: str, *arguments: str | Path) -> None:
        """Run a job, unless this very command has ended well before.

        Raises:
            SystemExit: the job failed; the same command goes on where it stopped.
        """
        command = [f"jobs/{job}.py", *map(str, arguments)]
        if command in self._done:
            return
        print(f"\n$ python {shlex.join(command)}", flush=True)
        start = perf_counter()
        code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
        if code != 0:
            sys.exit(code)
        self._done.append(command)
        with self._log.open("a") as log:
            seconds = round(perf_counter() - start, 1)
            log.write(json.dumps({"command": command, "seconds": seconds}) + "\n")

    def compare(self, first: str, second: str, manifest: str) -> Mapping[str, Any]:
        """The comparison of two runs' detections."""
        output = self.folder / "compared" / Path(second).name
        self.job(
            *("analyze", "compare", "--detections", first, second),
            *("--manifest", manifest, "--output", output),
        )
        told: Mapping[str, Any] = json.loads((output / "comparison.json").read_text())
        return told

    def seconds(self, name: str, checkpoints: Sequence[str], rois: int) -> list[float]:
        """Seconds per image with each checkpoint, the median of some."""

        def measure() -> list[float]:
            from pipeline.detector import checkpoint, cost

            loaded = [checkpoint.load(uri) for uri in checkpoints]
            return [taken.image for taken in cost.measured(loaded, rois, REPEATS)]

        digests = [(Path(uri) / "model.json").read_text() for uri in checkpoints]
        return self._measured(name, [rois, *digests], measure)

    def seconds_of_vgg16(self, rois: int) -> list[float]:
        """Seconds per image of VGG16 as it is and factorised; weights do not change the time."""

        def measure() -> list[float]:
            from pipeline.detector import cost
            from pipeline.detector.backbones.catalog import BACKBONES
            from pipeline.detector.checkpoint import Checkpoint
            from pipeline.detector.network import Architecture, build

            classes = tuple(f"class {k}" for k in range(20))
            made = [
                Checkpoint(
                    build(Architecture(classes, "vgg16", fc_ranks=ranks)),
                    BACKBONES["vgg16"].preprocessing,
                )
                for ranks in (None, (1024, 256))
            ]
            return [taken.image for taken in cost.measured(made, rois, REPEATS)]

        return self._measured("vgg16", [rois], measure)

    def _measured(
        self, name: str, of: Sequence[object], measure: Callable[[], list[float]]
    ) -> list[float]:
        """What was measured before of the same thing, or is now."""
        place = self.folder / "measured" / f"{name}.json"
        digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()
        if place.exists():
            known = json.loads(place.read_text())
            if known["of"] == digest:
                return [float(seconds) for seconds in known["seconds"]]
        print(f"\nmeasuring {name}", flush=True)
        seconds = measure()
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"of": digest, "seconds": seconds}))
        return seconds


def markdown(sections: Mapping[str, Sequence[Row]]) -> str:
    """The table; differences are to the row without any that stands before."""
    lines = [
        "| | mAP@0.5, 11-point | difference | 95 % interval | seconds |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for rows in sections.values():
        for row in rows:
            cells = ["", "", ""]
            if row.comparison is not None:
                found = row.comparison["voc07_map50"]
                cells = [f"{found['second']:.3f}", "", ""]
                if not row.first:
                    cells[1] = f"{found['difference']:+.3f}"
                    cells[2] = f"{found['low']:+.3f} to {found['high']:+.3f}"
            lines.append(" | ".join([f"| {row.name}", *cells, f"{row.note} |"]))
    return "\n".join(lines) + "\n"
