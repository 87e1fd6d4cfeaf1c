"""Run the most used benchmarks in short forms: python -m tests.benchmarks (or `make bench`).

Uses the VOC images in PIPELINE_DEV_DATA if they exist, else drawn images, which are small and easy. Take
figures to quote from the single benchmarks on real images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.manifest_writer import write_manifest
from pipeline.sources.drawn_dataset import draw_dataset
from pipeline.sources.voc import open_voc

LIMIT = 60


def main() -> int:
    """Run them and return the highest exit code."""
    argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__.splitlines()[0]
    ).parse_args()
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("PIPELINE_DEV_DATA", root.parent / "shared")) / "data"
    voc, split = data / "VOCdevkit" / "VOC2007", "devval"
    with tempfile.TemporaryDirectory() as folder:
        if not voc.is_dir():
            voc, split = Path(folder) / "drawn", "test"
            draw_dataset(voc, train=1, test=LIMIT)
        dataset = open_voc(str(voc), split)
        manifest = f"{folder}/manifest.parquet"
        write_manifest(manifest, dataset.rows, dataset.classes)
        commands = [
            [
                "selective_search",
                *("--images", str(voc / "JPEGImages"), "--annotations", str(voc / "Annotations")),
                *("--list", str(voc / "ImageSets" / "Main" / f"{split}.txt"), "--limit", "10"),
                *("--slow-limit", "3", "--json", f"{folder}/selective_search.json"),
            ],
            ["ranking", "--manifest", manifest, "--limit", "8", "--repeats", "1"],
            ["propose_job", "--manifest", manifest, "--limit", str(LIMIT)],
            ["detect_job", "--manifest", manifest, "--recipe", "tiny", "--limit", str(LIMIT)],
            ["driver_scale", "--images", "100000", "--committed", "2000"],
            ["analysis", "--images", "500", "--repeats", "1"],
            ["report", "--images", "200", "--report-images", "60"],
            ["coco_source", "--annotations", "20000"],
            ["duplicates", "copies", "--limit", "40"],
            ["train_step", "--network", "mobilenet_v2", "--steps", "5"],
        ]
        proposals = f"{folder}/proposals"
        propose = ["--manifest", manifest, "--output", proposals, "--limit", "4"]
        for recipe in ("mobilenet_v2", "resnet18"):
            options = ["--recipe", recipe, "--proposals", proposals, "--limit", "4"]
            commands.append(["predictor", "--manifest", manifest, *options])
        codes = [_run(root, ["jobs/propose.py", *propose])]
        for name, *arguments in commands:
            print(f"\n== {name}", flush=True)
            codes.append(_run(root, ["-m", f"tests.benchmarks.{name}", *arguments]))
    return max(codes)


def _run(root: Path, arguments: list[str]) -> int:
    return subprocess.run([sys.executable, *arguments], cwd=root, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
