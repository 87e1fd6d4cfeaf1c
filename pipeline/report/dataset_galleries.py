"""Counts and samples all galleries of a dataset report, shard by shard; dataset.json has the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection import suspicious_boxes
from pipeline.inspection.shard_facts import IMAGE_KINDS, ShardFacts
from pipeline.report.collecting import GallerySample
from pipeline.report.drawing import SMALLEST_SHOWN, THUMBNAIL_SIDE
from pipeline.report.sampling import FamilySampler, hash_text

WHOLE_IMAGE = -1
"""The position of what is about an image rather than one of its boxes."""
COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17, 33, 65)
"""Where the steps of objects per image begin."""
SIZE_NAMES = ("small", "medium", "large")
_SIZE_LIMITS = (32.0**2, 96.0**2)
ASPECT_EDGES = (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Where the steps of width by height of a box begin."""
GRID = 8
"""Cells of a side of the grid of positions."""
REASONS = {
    "leak": ("images that another split has, too", "Leaks: `--exclude` leaves them out."),
    "duplicate": (
        "repeated images",
        "An earlier image of the split is the same; the first one stays.",
    ),
}
"""Titles and meanings of why an image is left out."""


@dataclass(frozen=True)
class _Family:
    """Galleries that divide images or boxes."""

    name: str
    keys: tuple[str, ...]
    titles: tuple[str, ...]
    unit: str
    descriptions: tuple[str, ...] = ()
    weight: int = 1
    capacity: int = 60


def _list_families(classes: Sequence[str]) -> tuple[_Family, ...]:
    image_kinds, box_kinds = IMAGE_KINDS, suspicious_boxes.KINDS
    steps = [_describe_step(index) for index in range(len(COUNT_EDGES))]
    aspects = [_describe_aspect(index) for index in range(len(ASPECT_EDGES))]
    cells = [(x, y) for y in range(GRID) for x in range(GRID)]
    kinds = ("without objects", "without annotations")
    image_titles = ("images", *(f"images {kind}" for kind in kinds))
    return (
        _Family("images", ("images", "empty", "unlabelled"), image_titles, "images", weight=2),
        *(_Family(k, (k,), (t,), "images", (d,), 4, 200) for k, (t, d) in image_kinds.items()),
        *(_Family(k, (k,), (t,), "objects", (d,), 4, 200) for k, (t, d) in box_kinds.items()),
        _Family("suspicious", ("suspicious",), ("suspicious boxes",), "objects", (), 2, 200),
        *(_Family(k, (k,), (t,), "images", (d,), 2, 200) for k, (t, d) in REASONS.items()),
        _Family("objects", ("objects",), ("annotated objects",), "objects", weight=2),
        _Family("classes", _number("class", len(classes)), tuple(classes), "objects"),
        _Family(
            "per-image",
            tuple(f"with-{low}" for low in COUNT_EDGES),
            tuple(f"images with {step}" for step in steps),
            "images",
        ),
        _Family(
            "sizes",
            tuple(f"size-{size}" for size in SIZE_NAMES),
            tuple(f"{size} objects" for size in SIZE_NAMES),
            "objects",
        ),
        _Family(
            "aspects",
            _number("aspect", len(aspects)),
            tuple(f"objects, width by height {aspect}" for aspect in aspects),
            "objects",
        ),
        _Family(
            "positions",
            tuple(f"cell-{x}-{y}" for x, y in cells),
            tuple(f"objects with their centre in column {x + 1}, row {y + 1}" for x, y in cells),
            "objects",
            capacity=24,
        ),
    )


def _number(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}-{index}" for index in range(count))


def _describe_step(index: int) -> str:
    low = COUNT_EDGES[index]
    if index + 1 == len(COUNT_EDGES):
        return f"{low} objects or more"
    high = COUNT_EDGES[index + 1] - 1
    return f"{low} object{'s' * (low != 1)}" if high == low else f"{low} to {high} objects"


def _describe_aspect(index: int) -> str:
    low = ASPECT_EDGES[index]
    if index + 1 == len(ASPECT_EDGES):
        return f"{low:.2g} or more"
    return f"{low:.2g} to {ASPECT_EDGES[index + 1]:.2g}"


class DatasetCollector:
    """Counts the galleries of one split."""

    def __init__(
        self, split: int, first_number: int, name: str, classes: Sequence[str], seed: int
    ) -> None:
        """Prepare the galleries.

        Args:
            split: position of the split.
            first_number: number of its first image over all splits.
            name: the split's name, which titles hold.
            classes: the labels of its objects.
            seed: of the samples.
        """
        self._split, self._first, self._name = split, first_number, name
        self._families = _list_families(classes)
        self._samplers = {
            family.name: FamilySampler(
                f"{split}/{family.name}", len(family.keys), family.capacity, seed
            )
            for family in self._families
        }

    def update(self, facts: ShardFacts, excluded: NDArray[np.integer]) -> None:
        """Count one shard.

        Args:
            facts: of its images and boxes.
            excluded: `(N,)` why each image is left out: position among REASONS, or -1.
        """
        numbers = self._first + facts.first_row + np.arange(len(facts.image_ids))
        hashes = np.array([hash_text(image_id) for image_id in facts.image_ids], np.uint64)
        whole = np.ones(len(numbers), np.int64)
        images = self._refer(numbers, np.full(len(numbers), WHOLE_IMAGE), whole)
        boxes = self._refer(numbers[facts.image], facts.position, _find_shown_whole(facts))

        def count(name: str, codes: NDArray[np.integer], *, of_boxes: bool) -> None:
            if of_boxes:
                self._samplers[name].update(codes, hashes[facts.image], boxes)
            else:
                self._samplers[name].update(codes, hashes, images)

        self._count_images(facts, excluded, count)
        self._count_boxes(facts, count)

    def _refer(
        self, numbers: NDArray[np.int64], positions: NDArray[np.int64], whole: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        split = np.full(len(numbers), self._split)
        return np.stack([split, numbers, positions, whole], axis=1).astype(np.int64)

    def _count_images(
        self, facts: ShardFacts, excluded: NDArray[np.integer], count: Callable[..., None]
    ) -> None:
        every = np.zeros(len(facts.image_ids), np.int64)
        count("images", every, of_boxes=False)
        is_empty = facts.is_annotated & (facts.object_counts == 0)
        count("images", np.where(is_empty, 1, -1), of_boxes=False)
        count("images", np.where(~facts.is_annotated, 2, -1), of_boxes=False)
        for kind, flags in facts.image_flags.items():
            count(kind, np.where(flags, 0, -1), of_boxes=False)
        for position, reason in enumerate(REASONS):
            count(reason, np.where(excluded == position, 0, -1), of_boxes=False)
        steps = np.searchsorted(COUNT_EDGES, facts.object_counts, side="right") - 1
        count("per-image", np.where(facts.is_annotated, steps, -1), of_boxes=False)

    def _count_boxes(self, facts: ShardFacts, count: Callable[..., None]) -> None:
        every = np.zeros(len(facts.boxes), np.int64)
        count("objects", every, of_boxes=True)
        count("classes", facts.label, of_boxes=True)
        is_suspicious = np.zeros(len(facts.boxes), bool)
        for kind, flags in facts.box_flags.items():
            count(kind, np.where(flags, 0, -1), of_boxes=True)
            is_suspicious |= flags
        count("suspicious", np.where(is_suspicious, 0, -1), of_boxes=True)
        sides = (facts.boxes[:, 2:] - facts.boxes[:, :2]).astype(np.float64)
        areas = sides.prod(axis=1)
        count("sizes", np.searchsorted(_SIZE_LIMITS, areas, side="right"), of_boxes=True)
        aspects = sides[:, 0] / np.maximum(sides[:, 1], 1e-6)
        count("aspects", np.searchsorted(ASPECT_EDGES, aspects, side="right") - 1, of_boxes=True)
        count("positions", _find_cells(facts), of_boxes=True)

    def compute(self) -> list[GallerySample]:
        """Return all galleries that count something."""
        galleries = []
        for family in self._families:
            for index, sample in self._samplers[family.name].compute().items():
                galleries.append(
                    GallerySample(
                        name_gallery(self._split, family.keys[index]),
                        f"{self._name}: {family.titles[index]}",
                        family.unit,
                        family.descriptions[index] if family.descriptions else "",
                        family.weight,
                        sample,
                    )
                )
        return galleries


def name_gallery(split: int, key: str) -> str:
    """The key of a split's gallery."""
    return f"split-{split}-{key}"


def _find_shown_whole(facts: ShardFacts) -> NDArray[np.int64]:
    """Which boxes are shown on the whole image, `(B,)`; by the rule of `drawing.choose_crop`."""
    longer = (facts.boxes[:, 2:] - facts.boxes[:, :2]).max(axis=1, initial=0)
    is_whole: NDArray[np.bool_] = longer * THUMBNAIL_SIDE >= SMALLEST_SHOWN * facts.sizes[
        facts.image
    ].max(axis=1, initial=0)
    return is_whole.astype(np.int64)


def _find_cells(facts: ShardFacts) -> NDArray[np.int64]:
    """The cell of the grid over its image in which each box has its centre; -1 if the size is unknown."""
    sizes = facts.sizes[facts.image].astype(np.float64)
    centres = (facts.boxes[:, :2] + facts.boxes[:, 2:]).astype(np.float64) / 2
    cells = np.clip(GRID * centres / np.maximum(sizes, 1), 0, GRID - 1).astype(np.int64)
    numbers: NDArray[np.int64] = np.array(GRID * cells[:, 1] + cells[:, 0], np.int64)
    numbers[(sizes <= 0).any(axis=1)] = -1
    return numbers
