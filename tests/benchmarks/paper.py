"""The claims of the Fast R-CNN paper, measured: R-CNN, SPPnet and Fast R-CNN, and the paper's tables.

python -m tests.benchmarks.paper --output DIR --quick
python -m tests.benchmarks.paper --manifest train.parquet --proposals train --test-manifest val.parquet \
    --test-proposals val --weights mobilenet_v2.pth --output DIR [--only speed,quality]

`--quick` draws images, pretrains the network `tiny` on windows of others, and runs all tables on these. Every
step is a job whose command is printed; the same command skips finished steps. Each table rewrites
`DIR/paper.json`, `DIR/paper.md` and `DIR/figures`. Options after `--` go to each training of Fast R-CNN, such
as `-- --workers 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.paper_report import write_report
from tests.benchmarks.paper_rows import Row
from tests.benchmarks.paper_runs import Runs
from tests.benchmarks.paper_sizes import SIZES
from tests.benchmarks.paper_steps import Steps
from tests.benchmarks.paper_tables import TABLES

QUICK_IMAGES = 60
QUICK_TEST_IMAGES = 40


def main() -> None:
    """Run the requested tables."""
    arguments, training = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, training = arguments[:split], arguments[split + 1 :]
    parser = _build_parser()
    options = parser.parse_args(arguments, argparse.Namespace(training=training))
    data = ("manifest", "proposals", "test_manifest", "test_proposals")
    given = [name for name in data if getattr(options, name) is not None]
    if options.quick and given:
        parser.error(f"--quick draws its own images: leave out --{given[0].replace('_', '-')}")
    if not options.quick and len(given) < len(data):
        missing = next(name for name in data if name not in given)
        parser.error(f"--{missing.replace('_', '-')} is missing; --quick draws images")
    run(options)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--manifest", help="manifest for training")
    parser.add_argument("--proposals", help="stored proposals for training")
    parser.add_argument("--test-manifest", help="manifest for testing")
    parser.add_argument("--test-proposals", help="stored proposals for testing")
    parser.add_argument("--weights", help="ImageNet weights of the backbone")
    parser.add_argument("--output", required=True, help="folder for networks, detections, tables")
    parser.add_argument("--quick", action="store_true", help="drawn images, in minutes")
    parser.add_argument("--recipe", choices=tuple(SIZES), default="mobilenet_v2")
    parser.add_argument("--epochs", type=float, help="epochs of each training of Fast R-CNN")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of Fast R-CNN per row")
    parser.add_argument("--images", type=int, help="with --quick: images that are drawn")
    parser.add_argument(
        "--only",
        type=parse_tables,
        default=tuple(TABLES),
        help=f"comma-separated; all by default: {','.join(TABLES)}",
    )
    return parser


def parse_tables(argument: str) -> tuple[str, ...]:
    """The tables of a comma-separated list."""
    names = tuple(argument.split(","))
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown table {unknown[0]!r} (choose from {', '.join(TABLES)})"
        )
    return names


def run(options: argparse.Namespace) -> None:
    """Run the tables in order, and write the report after each."""
    steps = Steps(Path(options.output).absolute(), in_process=options.quick)
    with contextlib.ExitStack() as stack:
        if options.quick:
            stack.enter_context(_share_ray())
            options.recipe = "tiny"
            _prepare_drawn_data(options, steps)
        size = SIZES[options.recipe]
        if options.epochs is not None:
            size = replace(size, epochs=options.epochs)
        runs = Runs(steps, size, options)
        tables: dict[str, list[Row]] = {}
        for name in TABLES:
            if name in options.only:
                tables[name] = TABLES[name](runs)
                write_report(steps.folder, tables, _describe(options))
    print((steps.folder / "paper.md").read_text())


def _share_ray() -> Any:
    """One Ray for all jobs: starting it takes longer than a small job."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from pipeline.engine import cluster

    return cluster.connect_to_cluster()


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    """What the tables were measured on."""
    return {
        "trained on": options.manifest,
        "tested on": options.test_manifest,
        "recipe": options.recipe,
        "seeds": options.seeds,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }


def _prepare_drawn_data(options: argparse.Namespace, steps: Steps) -> None:
    """Draw images for pretraining, training and testing, and compute proposals and weights."""
    from pipeline.manifest_writer import write_manifest
    from pipeline.sources.drawn_dataset import draw_dataset
    from pipeline.sources.voc import open_voc

    count = options.images or QUICK_IMAGES
    folder = steps.folder / "data"
    sets: Sequence[tuple[str, str, int]] = (
        ("pretraining", "train", 1),
        ("train", "train", 0),
        ("test", "test", 0),
    )
    for name, split, seed in sets:
        manifest, root = folder / f"{name}.parquet", folder / f"drawn-{seed}"
        if not root.exists():
            tests = max(1, count * QUICK_TEST_IMAGES // QUICK_IMAGES)
            draw_dataset(root, train=count, test=tests, seed=seed)
        if not manifest.exists():
            dataset = open_voc(str(root), split)
            write_manifest(str(manifest), dataset.rows, dataset.classes)
        steps.run_job(
            *("propose", "--manifest", manifest, "--output", folder / f"proposals-{name}"),
            *("--max-boxes", "150"),
        )
    options.manifest, options.proposals = (
        str(folder / "train.parquet"),
        str(folder / "proposals-train"),
    )
    options.test_manifest = str(folder / "test.parquet")
    options.test_proposals = str(folder / "proposals-test")
    options.weights = _pretrain(folder, steps)


def _pretrain(folder: Path, steps: Steps) -> str:
    """Weights of `tiny`'s convolutions in the place of ImageNet's, from R-CNN's windows of other images.

    The fully connected layers are left out, as ImageNet's classifier is.
    """
    import safetensors.torch

    output, weights = folder / "pretrained", folder / "pretrained.safetensors"
    size = SIZES["tiny"]
    steps.run_job(
        *("train", "--manifest", folder / "pretraining.parquet"),
        *("--proposals", folder / "proposals-pretraining", "--recipe", "tiny"),
        *("--system", "rcnn", *size.windows, *size.fine_tuning, "--output", output),
    )
    if not weights.exists():
        tensors = safetensors.torch.load_file(output / "model.safetensors")
        prefix = "backbone."
        trunk = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and not name.startswith(f"{prefix}fc.")
        }
        safetensors.torch.save_file(trunk, weights)
    steps.take_commands()
    return str(weights)


if __name__ == "__main__":
    main()
