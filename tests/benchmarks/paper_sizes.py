"""How large the trainings of the paper's tables are: one for real images, one for drawn images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The options of all trainings and detections of a run of the tables."""

    recipe: str
    network: tuple[str, ...]
    """Options of each training, besides the recipe's name."""
    single_scale: tuple[str, ...]
    """Options of a training of Fast R-CNN at one scale."""
    epochs: float
    fc_widths: tuple[int, int]
    """fc6 and fc7 of the table of SVD, and of SPPnet."""
    ranks: tuple[int, int]
    """A quarter of fc6 and a sixteenth of fc7, like the paper's 1024 and 256 of 4096."""
    scales: tuple[int, ...]
    """Short sides in the ratio of the paper's 480 to 1200 to its single 600."""
    side: int
    cap: int
    """Longest side at the single scale; twice this at several scales, like the paper."""
    proposals: int
    """Per image, in all tables but that of proposals."""
    proposal_counts: tuple[int, ...]
    """Best proposals per image with which the table of proposals trains and tests."""
    windows: tuple[str, ...]
    """Options of R-CNN's windows."""
    fine_tuning: tuple[str, ...]
    """Options of fine-tuning of R-CNN and SPPnet."""
    freezes: tuple[tuple[str, str], ...]
    """The table of layers: a name, and the last stage that is not trained."""
    sampling_steps: int
    """Steps that the table of sampling times."""


SIZES = {
    "mobilenet_v2": Size(
        recipe="mobilenet_v2",
        network=(),
        single_scale=("--short-sides", "384", "--max-side", "640"),
        epochs=6.0,
        fc_widths=(1024, 1024),
        ranks=(256, 64),
        scales=(304, 368, 440, 552, 768),
        side=384,
        cap=640,
        proposals=1000,
        proposal_counts=(50, 200, 1000, 4000),
        windows=("--window-size", "160", "--window-context", "11"),
        fine_tuning=("--fine-tune-steps", "300"),
        freezes=(("head only", "block13"), ("from block 7", "block6"), ("all layers", "none")),
        sampling_steps=20,
    ),
    "tiny": Size(
        recipe="tiny",
        network=(),
        single_scale=("--short-sides", "120", "--max-side", "200"),
        epochs=12.0,
        fc_widths=(128, 128),
        ranks=(32, 8),
        scales=(96, 112, 136, 176, 240),
        side=120,
        cap=200,
        proposals=100,
        proposal_counts=(10, 30, 100),
        windows=("--window-size", "48", "--window-context", "3"),
        fine_tuning=("--fine-tune-steps", "150", "--windows-per-step", "64"),
        freezes=(("head only", "block2"), ("from block 1", "block0"), ("all layers", "none")),
        sampling_steps=10,
    ),
}
