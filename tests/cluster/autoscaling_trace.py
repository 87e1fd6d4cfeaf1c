"""Nodes over time on an autoscaling cluster: python -m tests.cluster.autoscaling_trace.

Runs propose, train and detect, one after the other, on a cluster of one machine that has no workers at first
(Ray's fake multi-node provider: a node is a raylet). Prints a row whenever the number of nodes changes. Fake
GPUs are counted by Ray; detectors on them compute on cores. The exit code is 0 if each step succeeded, every
image is there once, and no node is left at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import shards
from pipeline.sources.drawn_dataset import draw_dataset
from tests.cluster.autoscaling_ray import ROOT, AutoscalingRay, NodeType

TYPES = {
    "cpu": NodeType({"CPU": 1}, at_most=3, labels={"market": "spot"}),
    "gpu": NodeType({"CPU": 1, "GPU": 1}, at_most=2, labels={"market": "stable"}),
}
IDLE_SECONDS = 10.0
DISTINCT = 24
"""Images that are drawn; the others are copies."""
MOST_IDLE_SECONDS = 180.0
"""By then all nodes must have ended after a step."""
SPOT = ("--label-selector", '{"market": "spot"}')


@dataclass
class Trace:
    """Rows of the table: when the number of nodes changed, and what was committed by then."""

    cluster: AutoscalingRay
    began: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def sample(self, step: str, output: Path | None = None) -> bool:
        """Add a row if anything but the time and the parts changed; returns whether nodes are alive."""
        nodes = self.cluster.count_nodes()
        parts = "" if output is None else str(len(list(output.glob("part-*"))))
        row = (step, str(nodes["cpu"]), str(nodes["gpu"]))
        if not self.rows or self.rows[-1][1:4] != row:
            self.rows.append((f"{time.monotonic() - self.began:.0f}", *row, parts))
            print(*self.rows[-1], flush=True)
        return bool(nodes)

    def format_table(self) -> str:
        """The rows in Markdown."""
        head = ("s", "step", "CPU nodes", "GPU nodes", "parts")
        lines = [head, ("---",) * len(head), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _draw_images(root: Path, count: int) -> None:
    """Draw a few images in VOC layout, and copy them under other names: drawing takes longer than reading."""
    draw_dataset(root, train=min(count, DISTINCT), test=1)
    lists = root / "ImageSets" / "Main" / "train.txt"
    names = lists.read_text().split()
    copies = [f"copy_{number:05d}" for number in range(count - len(names))]
    for number, copy in enumerate(copies):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            original = root / kind / f"{names[number % len(names)]}.{suffix}"
            content = original.read_bytes()
            content = content.replace(f"{original.stem}.jpg".encode(), f"{copy}.jpg".encode())
            (root / kind / f"{copy}.{suffix}").write_bytes(content)
    lists.write_text("".join(f"{name}\n" for name in (*names, *copies)))


def _list_steps(folder: Path, images: int) -> list[tuple[str, Path, list[str]]]:
    """Name, output and command of each step."""
    manifest = ("--manifest", f"{folder}/m.parquet")
    proposals = ("--proposals", f"{folder}/p")
    size = str(max(1, images // 40))
    return [
        (
            "propose",
            folder / "p",
            ["jobs.propose", *manifest, "--output", f"{folder}/p", "--shard-size", size, *SPOT],
        ),
        (
            "train",
            folder / "t",
            [
                *("jobs.train", *manifest, *proposals, "--output", f"{folder}/t", *SPOT),
                *("--recipe", "tiny", "--iterations", "60", "--workers", "2"),
            ],
        ),
        (
            "detect",
            folder / "d",
            [
                *("tests.cluster.detect_on_fake_gpus", *manifest, *proposals, *SPOT),
                *("--checkpoint", f"{folder}/t", "--output", f"{folder}/d"),
                *("--gpus-per-actor", "1", "--actors", "2"),
                *("--actor-label-selector", '{"market": "stable"}'),
            ],
        ),
    ]


def _run_step(
    trace: Trace, environment: dict[str, str], name: str, output: Path, command: list[str]
) -> bool:
    """Run a job, then wait until its nodes have ended; returns whether it succeeded."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        _wait(lambda: process.poll() is None, lambda: trace.sample(name, output))
        deadline = time.monotonic() + MOST_IDLE_SECONDS
        _wait(lambda: trace.sample("idle", output) and time.monotonic() < deadline)
        log.seek(0)
        print(log.read().decode(), flush=True)
    return process.returncode == 0


def _wait(goes_on: Callable[[], bool], do: Callable[[], object] = lambda: None) -> None:
    while goes_on():
        do()
        time.sleep(1)


def _is_complete(output: Path, images: int) -> bool:
    tables = shards.open_parts(str(output)).read_tables()
    ids = [image_id for table in tables for image_id in table["image_id"].to_pylist()]
    return len(ids) == len(set(ids)) == images


def main() -> int:
    """Run the steps, print the table and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tests.cluster.autoscaling_trace", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--images", type=int, default=600, help="number of drawn images")
    parser.add_argument("--markdown", type=Path, help="output file for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _draw_images(folder / "voc", options.images)
        prepare = ["jobs.prepare", "voc", "--root", str(folder / "voc"), "--split", "train"]
        prepare += ["--output", f"{folder}/m.parquet"]
        subprocess.run([sys.executable, "-m", *prepare], cwd=ROOT, check=True)
        with AutoscalingRay(TYPES, IDLE_SECONDS) as cluster:
            trace = Trace(cluster)
            environment = os.environ | cluster.environment
            trace.sample("no job")
            succeeded = [
                _run_step(trace, environment, *step) for step in _list_steps(folder, options.images)
            ]
            is_empty = not trace.sample("end")
        is_complete = all(_is_complete(folder / name, options.images) for name in ("p", "d"))
    table = trace.format_table()
    print(f"\n{table}\nsucceeded: {succeeded}, complete: {is_complete}, no node left: {is_empty}")
    if options.markdown:
        options.markdown.write_text(table)
    return 0 if all(succeeded) and is_complete and is_empty else 1


if __name__ == "__main__":
    sys.exit(main())
