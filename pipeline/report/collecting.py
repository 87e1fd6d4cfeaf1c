"""Counts and samples all galleries of a report from the parts of matches and detections, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.analysis.image_coverage import list_failure_reasons
from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.side_table import SideTable
from pipeline.report.gallery import ITEMS_PER_PAGE
from pipeline.report.match_rows import MatchRows, read_match_rows
from pipeline.report.plan import Category, GalleryPlan, Split
from pipeline.report.sampling import FamilySampler, Sample, hash_text
from pipeline.report.splits import list_splits
from pipeline.shards import Shard

RESULT_COLUMNS = ("image_id", "width", "height", "status", "stage", "error_type")
"""The columns of a detections part that galleries of images depend on."""

_ITEMS_OF_A_CLASS = 60
_ITEMS_OF_A_STEP = 24
_MOST_STEPS = 64
_MOST_ERRORS = 65534


@dataclass(frozen=True)
class GallerySample:
    """One gallery, counted and sampled."""

    key: str
    title: str
    unit: str
    description: str
    weight: int
    sample: Sample
    is_ranked: bool = False
    """Whether the order of the sample has a meaning; otherwise items are shown by falling score."""


_IMAGES = Category("images", "images", "images", "All images of the run.", 2)
_WITHOUT_DETECTIONS = Category(
    "without-detections", "images without detections", "images", "Failed images are not among them."
)
_WORST = Category(
    "worst",
    "images with errors",
    "images",
    "Most false detections and missed objects first, not sampled.",
    6,
)
_EXCLUDED = Category(
    "excluded", "excluded images", "images", "Images that the list of --exclude names.", 2
)
_FAILED = Category("failed", "failed images", "images", "Images that the run could not process.", 2)


def _describe_step(step: int) -> Category:
    """The images with 0, 1, 2 to 3, 4 to 7 detections and so on."""
    low = 2 ** (step - 1) if step else 0
    numbers = str(low) if low < 2 else f"{low} to {2 * low - 1}"
    return Category(f"images-with-{low}", f"images with {numbers} detections", "images")


class GalleryCollector:
    """Accepts the shards of a run in any order and grouping; two collectors of one plan can be merged."""

    def __init__(self, plan: GalleryPlan) -> None:
        self.plan = plan
        self._splits = list_splits(plan)
        self._samplers: dict[str, FamilySampler] = {}
        for split in self._splits:
            count = len(split.categories)
            self._add_sampler(split.name, count, split.capacity)
            if split.is_by_class:
                name = f"class-{split.name}"
                self._add_sampler(name, count * len(plan.classes), _ITEMS_OF_A_CLASS)
        for name in ("images", "without-detections", "worst", "failed", "excluded"):
            self._add_sampler(name, 1)
        self._add_sampler("per-image", _MOST_STEPS, _ITEMS_OF_A_STEP)
        self._add_sampler("reasons", len(plan.failure_reasons))

    def _add_sampler(self, name: str, galleries: int, capacity: int = ITEMS_PER_PAGE) -> None:
        self._samplers[name] = FamilySampler(name, galleries, capacity, self.plan.seed)

    def update(
        self,
        matches: pa.Table,
        results: pa.Table,
        facts: ImageFacts,
        shard: int,
        side: SideTable | None = None,
    ) -> None:
        """Count one shard.

        Args:
            matches: its matches part, with `match_rows.COLUMNS`.
            results: its detections part, with RESULT_COLUMNS: one row per image.
            facts: of its images.
            shard: its ordinal.
            side: a table whose columns divide the images into slices.
        """
        rows = read_match_rows(matches, self.plan.classes, facts, side)
        for split in self._splits:
            self._count_split(split, rows)
        self._count_images(rows, results, shard, facts.first_row)

    def _count_split(self, split: Split, rows: MatchRows) -> None:
        categories = split.assign(rows, self.plan)
        priorities = None
        if split.is_confident_first:
            is_low = rows.matches.is_detection & ~rows.is_shown(self.plan.min_score)
            priorities = is_low.astype(np.int64)
        position = (rows.image_hashes, rows.references, priorities)
        self._samplers[split.name].update(categories, *position)
        if split.is_by_class:
            by_class = len(split.categories) * rows.class_id + categories
            codes = np.where((categories < 0) | (rows.class_id < 0), -1, by_class)
            self._samplers[f"class-{split.name}"].update(codes, *position)

    def _count_images(self, rows: MatchRows, results: pa.Table, shard: int, first_row: int) -> None:
        images = len(results)
        ids = results.column("image_id").to_pylist()
        hashes = np.array([hash_text(image_id) for image_id in ids], np.uint64)
        references = np.stack(
            [
                np.full(images, shard),
                first_row + np.arange(images),
                np.full(images, -1),
                np.ones(images, np.int64),
            ],
            axis=1,
        )
        is_failed = pc.not_equal(results.column("status"), "ok").to_numpy()

        def count(
            name: str, codes: NDArray[np.int64], order: NDArray[np.int64] | None = None
        ) -> None:
            self._samplers[name].update(codes, hashes, references, order)

        image = rows.references[:, 1] - first_row
        detections = np.bincount(image[rows.matches.is_detection], minlength=images)
        min_score = self.plan.min_score
        is_error = rows.find_false(min_score) | rows.find_missed(min_score)
        errors = np.minimum(np.bincount(image[is_error], minlength=images), _MOST_ERRORS)
        count("images", np.zeros(images, np.int64))
        count("without-detections", np.where((detections == 0) & ~is_failed, 0, -1))
        steps = np.where(detections == 0, 0, np.floor(np.log2(np.maximum(detections, 1))) + 1)
        count("per-image", np.where(is_failed, -1, steps.astype(np.int64)))
        count("worst", np.where(errors > 0, 0, -1), _MOST_ERRORS - errors)
        count("failed", np.where(is_failed, 0, -1))
        reasons = np.full(images, -1, np.int64)
        position_of = {reason: index for index, reason in enumerate(self.plan.failure_reasons)}
        reasons[is_failed] = [position_of.get(r, -1) for r in list_failure_reasons(results)]
        count("reasons", reasons)

    def count_excluded(self, results: pa.Table, excluded: Sequence[int], shard: Shard) -> None:
        """Count the images of a shard that are excluded.

        Args:
            results: its detections part, with the column image_id.
            excluded: rows of the manifest, of any shard.
            shard: which one it is.
        """
        last = shard.first_row + shard.rows
        rows = np.array([r for r in excluded if shard.first_row <= r < last], np.int64)
        ids = results.column("image_id").take(pa.array(rows - shard.first_row)).to_pylist()
        hashes = np.array([hash_text(image_id) for image_id in ids], np.uint64)
        every = np.zeros(len(rows), np.int64)
        references = np.stack([every + shard.ordinal, rows, every - 1, every + 1], axis=1)
        self._samplers["excluded"].update(every, hashes, references)

    def merge(self, other: GalleryCollector) -> None:
        """Add what another collector of the same plan counted on other shards."""
        for name, sampler in self._samplers.items():
            sampler.merge(other._samplers[name])

    def shrink(self) -> None:
        """Drop candidates outside the samples, as before a collector is sent to be merged."""
        for sampler in self._samplers.values():
            sampler.shrink()

    def compute(self) -> list[GallerySample]:
        """Return all galleries that count something, those over all classes first."""
        whole: list[GallerySample] = []
        by_class: list[GallerySample] = []
        for split in self._splits:
            whole += self._describe(split.name, split.categories.__getitem__)
            if split.is_by_class:
                by_class += self._describe(f"class-{split.name}", partial(self._narrow, split))
        for category in (_IMAGES, _WITHOUT_DETECTIONS, _WORST, _FAILED, _EXCLUDED):
            whole += self._describe(category.key, (category,).__getitem__)
        whole += self._describe("reasons", self._describe_reason)
        return [*whole, *self._describe("per-image", _describe_step), *by_class]

    def _describe(
        self, name: str, get_category: Callable[[int], Category]
    ) -> Iterator[GallerySample]:
        for index, sample in self._samplers[name].compute().items():
            c = get_category(index)
            is_ranked = name == "worst"
            yield GallerySample(c.key, c.title, c.unit, c.description, c.weight, sample, is_ranked)

    def _describe_reason(self, index: int) -> Category:
        reason = self.plan.failure_reasons[index]
        return Category(f"failed-{index}", f"failed images: {reason}", "images")

    def _narrow(self, split: Split, index: int) -> Category:
        """A category of a split for one class."""
        class_id, position = divmod(index, len(split.categories))
        category = split.categories[position]
        return Category(
            f"class-{class_id}-{category.key}",
            f"{self.plan.classes[class_id]}: {category.title}",
            category.unit,
            category.description,
        )
