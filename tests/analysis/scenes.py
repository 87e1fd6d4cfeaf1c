"""Random images with objects and detections of them, as arrays and as the peers' inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.matching import Matches, match_images


@dataclass(frozen=True)
class Scenes:
    images: int
    classes: tuple[str, ...]
    ground_truth: GroundTruthArrays
    detections: DetectionArrays

    def match(self) -> Matches:
        return match_images(self.ground_truth, self.detections, self.images)

    def match_parts(self, cuts: list[int]) -> list[Matches]:
        """The matches of the images up to each cut, and of those after the last."""
        matches = self.match()
        ends = [*np.searchsorted(matches.row, cuts), len(matches)]
        starts = [0, *ends[:-1]]
        return [matches[slice(start, end)] for start, end in zip(starts, ends, strict=True)]


def draw_scenes(
    images: int = 30,
    classes: int = 4,
    seed: int = 0,
    *,
    objects: int = 5,
    apart: bool = False,
    flags: bool = False,
) -> Scenes:
    """Objects of which most are detected, displaced, repeated or mislabelled, and detections of nothing.

    Args:
        images: their number.
        classes: their number.
        seed: of all draws.
        objects: the most objects of an image.
        apart: place objects without overlap.
        flags: make some objects difficult and some crowds.
    """
    rng = np.random.default_rng(seed)
    truth: list[tuple[Any, ...]] = []
    found: list[tuple[Any, ...]] = []
    for image in range(images):
        for number in range(int(rng.integers(0, objects + 1))):
            corner = np.array([150.0 * number, 10.0]) if apart else rng.uniform(0, 150, 2)
            side = rng.uniform(20, 90, 2)
            label = int(rng.integers(classes))
            difficult, crowd = rng.random(2) < 0.1 if flags else (False, False)
            truth.append(
                (image, label, *corner, *(corner + side), difficult, crowd and not difficult)
            )
            for _ in range(int(rng.integers(0, 4))):
                moved = corner + rng.normal(0, 0.15, 2) * side
                size = side * rng.uniform(0.8, 1.25, 2)
                own = label if rng.random() < 0.8 else int(rng.integers(classes))
                found.append((image, own, *moved, *(moved + size)))
        for _ in range(int(rng.integers(0, 3))):
            corner, side = (
                rng.uniform(0, 150, 2) + (0 if not apart else [0, 500]),
                rng.uniform(20, 90, 2),
            )
            found.append((image, int(rng.integers(classes)), *corner, *(corner + side)))
    objects_, rows = np.array(truth, float).reshape(-1, 8), np.array(found, float).reshape(-1, 6)
    scores = (
        rng.permutation(np.arange(1, 4096))[: len(rows)] / 4096
    )  # distinct and without rounding
    return Scenes(
        images,
        tuple(f"class {index}" for index in range(classes)),
        GroundTruthArrays(
            objects_[:, 0].astype(np.int64),
            objects_[:, 1].astype(np.int64),
            objects_[:, 2:6].astype(np.float32).astype(np.float64),
            objects_[:, 6] > 0,
            objects_[:, 7] > 0,
        ),
        DetectionArrays(
            rows[:, 0].astype(np.int64),
            rows[:, 1].astype(np.int64),
            scores.astype(np.float32),
            rows[:, 2:6].astype(np.float32).astype(np.float64),
        ),
    )


def evaluate_with_hotcoco(scenes: Scenes) -> Any:
    """hotcoco's batch evaluation, after `evaluate`."""
    from hotcoco import COCO, COCOeval

    images = [{"id": index + 1, "width": 1000, "height": 1000} for index in range(scenes.images)]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(scenes.classes)]
    truth, found = scenes.ground_truth, scenes.detections
    ground_truth = COCO.from_arrays(
        images,
        categories,
        image_ids=truth.image + 1,
        category_ids=truth.class_id + 1,
        boxes=to_xywh(truth.boxes),
        iscrowd=truth.crowd,
    )
    rows = np.column_stack(
        [found.image + 1, to_xywh(found.boxes), found.scores, found.class_id + 1]
    ).astype(np.float64)
    evaluation = COCOeval(ground_truth, ground_truth.load_res(rows), "bbox")
    evaluation.evaluate()
    return evaluation


def to_xywh(boxes: Any) -> Any:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def make_scenes(
    images: int,
    classes: tuple[str, ...],
    objects: list[tuple[int, str, tuple[float, ...]]],
    detections: list[tuple[int, str, float, tuple[float, ...]]],
    *,
    difficult: tuple[int, ...] = (),
    crowd: tuple[int, ...] = (),
) -> Scenes:
    """Scenes from (image, label, box) and (image, label, score, box); the flags name objects."""
    numbers = np.arange(len(objects))
    return Scenes(
        images,
        classes,
        GroundTruthArrays(
            np.array([image for image, _, _ in objects], np.int64),
            np.array([classes.index(label) for _, label, _ in objects], np.int64),
            np.array([box for _, _, box in objects], np.float64).reshape(-1, 4),
            np.isin(numbers, difficult),
            np.isin(numbers, crowd),
        ),
        DetectionArrays(
            np.array([image for image, *_ in detections], np.int64),
            np.array([classes.index(label) for _, label, *_ in detections], np.int64),
            np.array([score for _, _, score, _ in detections], np.float32),
            np.array([box for *_, box in detections], np.float64).reshape(-1, 4),
        ),
    )


def make_facts(images: int, side: float = 240.0, first_row: int = 0) -> ImageFacts:
    """Square images named by their rows."""
    ids = [f"image {first_row + index}" for index in range(images)]
    return ImageFacts(
        first_row, pa.chunked_array([pa.array(ids, pa.string())]), *np.full((2, images), side)
    )
