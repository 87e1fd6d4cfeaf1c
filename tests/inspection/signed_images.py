"""Signatures of small drawn images for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.inspection.signature import Signature, compute_signature


def draw_smooth(seed: int, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A smooth RGB image `(H, W, 3)` that no other seed draws nearly alike."""
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def build_signatures(images: Sequence[NDArray[np.uint8] | None]) -> pa.Table:
    """The table that the search reads; None is an image that cannot be read."""
    signed: list[Signature | None] = [None if i is None else compute_signature(i) for i in images]
    return pa.table(
        {
            "image_id": [str(number) for number in range(len(images))],
            "status": ["failed" if s is None else "ok" for s in signed],
            "image_md5": [
                None if i is None else hashlib.md5(i.tobytes()).hexdigest() for i in images
            ],
            "hashes": pa.array([s and s.hashes for s in signed], pa.list_(pa.uint64())),
            "pixels": pa.array([s and s.pixels.tobytes() for s in signed], pa.binary()),
            "contrast": pa.array([s and s.contrast for s in signed], pa.float32()),
        }
    )
