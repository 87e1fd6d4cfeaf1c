"""The data of `--quick`: drawn images with their proposals, and weights in the place of ImageNet's."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.benchmarks.paper_sizes import SIZES
from tests.benchmarks.paper_steps import Steps

IMAGES = 60
TEST_SHARE = 2 / 3
"""Test images for each training image."""
MOST_BOXES = 150


def prepare_drawn_data(options: argparse.Namespace, steps: Steps) -> None:
    """Draw images for training and testing, compute their proposals, and name them in the options.

    Without `--weights`, other images are drawn to pretrain the network on.
    """
    count = options.images or IMAGES
    folder = steps.folder / "data"
    root = _draw(folder / f"drawn-{count}", count, max(1, round(TEST_SHARE * count)), seed=0)
    options.manifest, options.proposals = _propose(root, "train", steps)
    options.test_manifest, options.test_proposals = _propose(root, "test", steps)
    if options.weights is None:
        options.weights = _pretrain(folder, count, steps)


def _draw(root: Path, count: int, tests: int, seed: int) -> Path:
    """Draw images of two splits, `train` and `test`, unless they are there."""
    from pipeline.sources.drawn_dataset import draw_dataset

    lists = root / "ImageSets" / "Main" / "test.txt"  # written last
    if not lists.exists():
        draw_dataset(root, train=count, test=tests, seed=seed)
    return root


def _propose(root: Path, split: str, steps: Steps) -> tuple[str, str]:
    """The manifest of a split and its proposals."""
    from pipeline.manifest_writer import write_manifest
    from pipeline.sources.voc import open_voc

    manifest, proposals = root / f"{split}.parquet", root / f"proposals-{split}"
    if not manifest.exists():
        dataset = open_voc(str(root), split)
        write_manifest(str(manifest), dataset.rows, dataset.classes)
    steps.run_job(
        *("propose", "--manifest", manifest, "--output", proposals),
        *("--max-boxes", str(MOST_BOXES)),
    )
    return str(manifest), str(proposals)


def _pretrain(folder: Path, count: int, steps: Steps) -> str:
    """Weights of `tiny`'s convolutions, from R-CNN's fine-tuning on windows of other images.

    The fully connected layers are left out, as ImageNet's classifier is.
    """
    import safetensors.torch

    from pipeline import storage

    output, weights = folder / f"pretrained-{count}", folder / f"pretrained-{count}.safetensors"
    others = _draw(folder / f"others-{count}", count, 1, seed=1)
    manifest, proposals = _propose(others, "train", steps)
    size = SIZES["tiny"]
    steps.run_job(
        *("train", "--manifest", manifest, "--proposals", proposals, "--recipe", "tiny"),
        *("--system", "rcnn", *size.windows, "--max-proposals", str(size.proposals)),
        *("--fine-tune-steps", str(size.fine_tune_steps)),
        *("--windows-per-step", str(size.windows_per_step), "--output", output),
    )
    if not weights.exists():
        tensors = safetensors.torch.load_file(output / "model.safetensors")
        prefix = "backbone."
        trunk = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and not name.startswith(f"{prefix}fc.")
        }
        storage.put(str(weights), safetensors.torch.save(trunk))
    return str(weights)
