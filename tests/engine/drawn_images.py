"""Small images and a small network for the tests of the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline import imaging
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow


def draw_images(folder: Path, count: int) -> list[Path]:
    """PNG files of 80x60 with a coloured rectangle on noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image = rng.integers(90, 110, (60, 80, 3), dtype=np.uint8)
        x, y = rng.integers(0, 30, 2)
        image[y : y + 25, x : x + 40] = rng.integers(0, 255, 3)
        path = folder / f"{index:03d}.png"
        path.write_bytes(imaging.encode_png(image))
        paths.append(path)
    return paths


def write_damaged_manifest(folder: Path, count: int = 10) -> str:
    """A manifest of images: number 3 is truncated, 4 empty, 5 missing."""
    paths = draw_images(folder / "images", count)
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    paths[4].write_bytes(b"")
    paths[5].unlink()
    uri = str(folder / "manifest.parquet")
    write_manifest(uri, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
    return uri


def write_random_checkpoint(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> str:
    """A `tiny` network with random weights, spread so that some scores are high."""
    import torch

    from pipeline.detector.architecture import Architecture
    from pipeline.detector.checkpoint import save_checkpoint
    from pipeline.detector.network import build_network
    from pipeline.detector.preprocessing import Preprocessing

    model = build_network(Architecture(backbone="tiny", classes=classes), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.manual_seed(0)))
    uri = str(folder / "checkpoint")
    save_checkpoint(uri, model, Preprocessing(short_side=60, max_side=100))
    return uri
