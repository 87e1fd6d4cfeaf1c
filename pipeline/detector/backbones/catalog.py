"""The backbones by name, with what each is used with unless told otherwise. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.detector import preprocessing
from pipeline.detector.preprocessing import Preprocessing


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone's defaults."""

    preprocessing: Preprocessing
    """Of the pretrained weights that the network is usually started from."""
    roi_size: int
    """Cells per side of a pooled RoI."""
    freeze_until: str
    """The last stage that is not trained, or `none`."""
    paddings: tuple[str, ...] = ("symmetric",)
    """How its strided convolutions can be padded; the first is the default."""


BACKBONES: dict[str, BackboneEntry] = {
    "mobilenet_v2": BackboneEntry(
        preprocessing.TENSORFLOW, 7, "block6", paddings=("same", "symmetric")
    ),
    "tiny": BackboneEntry(
        Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), short_side=192, max_side=320),
        5,
        "none",
    ),
}
