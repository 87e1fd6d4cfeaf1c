"""A row of the paper's tables, and the figures that the paper gives beside it.

Figures are those of Girshick, "Fast R-CNN" (ICCV 2015), on VOC 2007, of its networks S, M and L (CaffeNet,
VGG_CNN_M_1024 and VGG16), in this order, or of L alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

TRAINING, TRAINING_CPU = "training, wall s", "training, CPU s"
DETECTION, DETECTION_CPU = "detection, worker-s per image", "detection, CPU s per image"
STORED = "stored features, MB"
STEP = "training, s per step"
IMAGE = "an image, s"
"""Names of figures; `NOTES` say how the clocks differ."""


MAP = "voc07_map50"
FINER = {"voc_map50": "area mAP", "coco_ap": "COCO AP"}
"""Scores beside mAP, by their names in `metrics.json`, with their titles. With 11 recall levels, mAP jumps
where a class gains or loses a level, by up to 0.03 with three classes; these move with each detection."""


@dataclass(frozen=True)
class Estimate:
    """A score, and its difference from another run's."""

    value: float
    low: float
    high: float
    """95 % interval of the difference, or of the value if there is none."""
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    map50: float | None = None
    """mAP at IoU 0.5, 11 points, on the test images; the mean over seeds."""
    difference: float | None = None
    """From the mAP of the row `compared_with`, seed by seed; the mean over seeds."""
    interval: tuple[float, float] | None = None
    """95 % of the difference, or of the mAP in a row without one, by a bootstrap over the test images;
    the mean of the ends over seeds."""
    seeds: int = 1
    """Trainings that the values are means over."""
    compared_with: str = ""
    """The name of the row that the difference is from."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Other figures, by name and unit."""
    paper: str = ""
    """The paper's figures for this row."""
    note: str = ""
    """What limits these figures, such as a time that was measured on a part of the images."""
    commands: Sequence[str] = ()
    """The jobs that this row rests on, in their order."""
    map50_by_seed: Sequence[float] = ()
    """The mAP of each seed."""
    finer: Mapping[str, Estimate] = field(default_factory=dict)
    """The scores of `FINER`: means over seeds, as for mAP."""
    differences_by_seed: Sequence[float] = ()
    """The difference of each seed's mAP."""

    @property
    def measure(self) -> str:
        """The name of the row's value: mAP, or the first of its other figures."""
        return "mAP" if self.map50 is not None else next(iter(self.figures), "")

    def as_json(self) -> dict[str, Any]:
        """JSON values: `value` is that of `measure`."""
        values = asdict(self)
        value = self.map50 if self.map50 is not None else self.figures.get(self.measure)
        del values["map50"]
        return {"name": values.pop("name"), "measure": self.measure, "value": value} | values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """The row that `as_json` returned."""
        names = {item.name for item in fields(cls)}
        stored = {name: value for name, value in values.items() if name in names}
        if stored.get("interval") is not None:
            stored["interval"] = tuple(stored["interval"])
        for name in ("map50_by_seed", "differences_by_seed"):
            stored[name] = tuple(stored.get(name, ()))
        finer = stored.get("finer", {})
        stored["finer"] = {score: Estimate(**values) for score, values in finer.items()}
        return cls(**stored, map50=values["value"] if values["measure"] == "mAP" else None)


TITLES = {
    "speed": "Speed and cost of the three systems (table 4)",
    "quality": "Quality of the three systems",
    "layers": "Which layers to train (table 5)",
    "multi_task": "Multi-task training (table 6)",
    "scales": "One scale or five (table 7)",
    "svd": "SVD of fc6 and fc7 (figure 2)",
    "svm": "Softmax or SVM (table 8)",
    "proposals": "Number of proposals (figure 3)",
    "sampling": "Hierarchical sampling (section 2.3)",
    "fixed_proposals": "Proposals are fixed",
}
"""The tables in their order, by the name in `paper.json` and `--only`."""

NOTES = {
    "speed": (
        "Training: seconds by the clock, start-up of workers included, on all cores but for the stages svm "
        "and boxes, which use one; CPU seconds of the workers. How long each system is trained was chosen, "
        "so the ratio of training times is not the paper's. Detection: seconds of the detectors, one per "
        "core or GPU, summed over them and without their start-up; reading images is not in them, "
        "proposals are stored before. The paper's times are of one NVIDIA K40."
    ),
    "scales": "Detection: seconds of the detectors, one per core or GPU, summed over them.",
    "svd": (
        "mAP is that of the test images. Times by layer are from `jobs/compress.py` with the first seed: "
        "medians of repeated passes over one image of random noise with random boxes, of which none becomes "
        "a detection."
    ),
    "sampling": (
        "The median time of a whole step, waiting for its images included. A quarter of one RoI is none, so "
        "the steps of 128 images take an object from each: their time does not depend on what a RoI shows."
    ),
    "fixed_proposals": (
        "Proposals: seconds of the processes that compute them, all that are stored; detection: seconds of "
        "the detectors, which score the best of them; each summed over its workers."
    ),
}
"""How the figures of a table were measured."""

PAPER = {
    ("speed", "rcnn"): "22 / 28 / 84 h training, 9.8 / 12.1 / 47.0 s per image (S / M / L)",
    ("speed", "sppnet"): "25 h training, 2.3 s per image (L)",
    ("speed", "fast_rcnn"): "1.2 / 2.0 / 9.5 h training, 0.10 / 0.15 / 0.32 s per image",
    ("speed", "whole"): "0.10 / 0.15 / 0.32 s per image",
    ("speed", "factorised"): "0.06 / 0.08 / 0.22 s per image with SVD",
    ("quality", "rcnn"): "58.5 / 60.2 / 66.0 mAP (S / M / L)",
    ("quality", "sppnet"): "63.1 mAP (L)",
    ("quality", "fast_rcnn"): "57.1 / 59.2 / 66.9 mAP",
    ("layers", "head only"): "61.4 mAP from fc6 on",
    ("layers", "middle"): "66.9 mAP from conv3_1 on",
    ("layers", "all layers"): "67.2 mAP from conv2_1 on, 1.3x the training time",
    ("multi_task", "classification"): "52.2 / 54.7 / 62.6 mAP (S / M / L)",
    ("multi_task", "joint, own boxes"): "53.3 / 55.5 / 63.4 mAP",
    ("multi_task", "stage-wise"): "54.6 / 56.6 / 64.0 mAP",
    ("multi_task", "joint"): "57.1 / 59.2 / 66.9 mAP",
    ("multi_task", "joint, against stage-wise"): "+2.5 / +2.6 / +2.9 mAP",
    ("scales", "1"): "57.1 / 59.2 / 66.9 mAP, 0.10 / 0.15 / 0.32 s per image (S / M / L)",
    ("scales", "5"): "58.4 / 60.7 mAP, 0.39 / 0.64 s per image (S / M)",
    ("svd", "whole"): (
        "66.9 mAP, 0.320 s: conv 46.3 %, RoI pooling 5.4 %, fc6 38.7 %, fc7 6.2 %, other 3.5 %"
    ),
    ("svd", "factorised"): (
        "66.6 mAP, 0.223 s: conv 67.8 %, RoI pooling 7.9 %, fc6 17.5 %, fc7 1.7 %, other 5.1 %"
    ),
    ("svm", "softmax"): "57.1 / 59.2 / 66.9 mAP (S / M / L)",
    ("svm", "svm"): "56.3 / 58.7 / 66.8 mAP",
    (
        "proposals",
        "",
    ): "mAP rises, then falls slightly, from 1k to 10k boxes (M); average recall rises",
    ("sampling", ""): "2 images x 64 RoIs: 64x faster than 128 images x 1 RoI",
    ("fixed_proposals", ""): "times of table 4 leave selective search out",
}
"""What the paper reports, by table and row."""


def format_number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
