"""How large the trainings of the paper's tables are: one for real images, one for drawn images."""

from __future__ import annotations

from dataclasses import dataclass

PAPER_RECIPE = (
    *("--optimiser", "sgd", "--weight-decay", "0.0005", "--bias-rate-factor", "2"),
    *("--schedule", "step", "--warm-up", "0", "--gradient-clip", "None"),
    *("--background-iou-low", "0.1", "--widen-background", "False"),
)
"""The paper's training where the recipes of `Size` differ: SGD, one cut of the rate, background of an IoU
of 0.1 to 0.5."""


@dataclass(frozen=True)
class Size:
    """The options of all trainings and detections of a run of the tables."""

    recipe: str
    single_scale: tuple[str, ...]
    """Options of a training of Fast R-CNN at one scale."""
    epochs: float
    paper_rates: tuple[str, ...]
    """Learning rates of the paper's recipe: its 0.001, or more for a network that starts from little."""
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
    """Best proposals per image in training and testing, in all tables but that of proposals."""
    proposal_counts: tuple[int, ...]
    """Best proposals per image with which the table of proposals trains and tests."""
    windows: tuple[str, ...]
    """Options of R-CNN's windows."""
    fine_tune_steps: int
    """Steps of fine-tuning of R-CNN and SPPnet."""
    windows_per_step: int
    freezes: tuple[tuple[str, str], ...]
    """The table of layers: a name, and the last stage that is not trained."""
    sampling_steps: int
    """Steps of 2 images that the table of sampling times."""


SIZES = {
    "mobilenet_v2": Size(
        recipe="mobilenet_v2",
        single_scale=("--short-sides", "384", "--max-side", "640"),
        epochs=6.0,
        paper_rates=("--learning-rate", "0.001", "--pretrained-learning-rate", "0.001"),
        fc_widths=(1024, 1024),
        ranks=(256, 64),
        scales=(304, 368, 440, 552, 768),
        side=384,
        cap=640,
        proposals=1000,
        proposal_counts=(50, 200, 1000, 4000),
        windows=("--window-size", "160", "--window-context", "11"),
        fine_tune_steps=300,
        windows_per_step=128,
        freezes=(
            ("head only", "block14-expansion"),
            ("from block 7", "block6"),
            ("all layers", "none"),
        ),
        sampling_steps=20,
    ),
    "tiny": Size(
        recipe="tiny",
        single_scale=("--short-sides", "120", "--max-side", "200"),
        epochs=8.0,
        paper_rates=("--learning-rate", "0.01"),
        fc_widths=(512, 512),
        ranks=(128, 32),
        scales=(96, 112, 136, 176, 240),
        side=120,
        cap=200,
        proposals=100,
        proposal_counts=(10, 30, 100),
        windows=("--window-size", "48", "--window-context", "3"),
        fine_tune_steps=150,
        windows_per_step=64,
        freezes=(("head only", "block2"), ("from block 1", "block0"), ("all layers", "none")),
        sampling_steps=6,
    ),
}
"""The sizes by recipe."""
