"""Detections matched with annotated objects: `match_images(ground_truth, detections) -> Matches`.

Three rules are applied at once, each as its own program does:

- COCO (pycocotools' `evaluateImg`): per image and class, detections by falling score, each with the object of
  the largest IoU that is still free; at ten IoU thresholds and in four ranges of the object's area.
- VOC (the development kit): each detection belongs to the object that it overlaps most, at IoU 0.5.
- TIDE (Bolya et al., ECCV 2020): why a detection is false, and which misses no false detection explains.

Crowds are COCO's crowds. A difficult object is treated like an object outside the scored range of sizes:
it need not be found, and the detection that fits it best is not false. COCO's evaluation ignores the
`ignore` flag of boxes (it derives the flag from `iscrowd`), and as a crowd a difficult object would also
excuse every small box inside it; therefore it is outside every range.

The manifest holds boxes and no masks, so small (under 32² pixels), medium and large (over 96²) are
measured by the box's area. COCO's own files use the mask's area, which is smaller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.analysis import matching_kernel
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.ranking import IOU_THRESHOLDS

KINDS = ("detection", "missed", "ignored")
"""The kinds of rows; a row's `kind` is a position in it."""

ERRORS = ("cls", "loc", "both", "dupe", "bkg", "miss")
"""TIDE's types of errors; a row's `error` is a position in it, or -1."""

AREA_LIMITS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
"""The smallest and the largest area of each of `schema.AREA_RANGES`, both included."""


@dataclass(frozen=True)
class Matches:
    """The R rows of some images: the columns of `schema.MATCHES`, which describes them, as arrays `(R,)`.

    What is null there is -1 in a column of integers, NaN in one of floats, and False in a flag. Labels are
    positions in a list of classes.
    """

    row: NDArray[np.int64]
    kind: NDArray[np.int8]
    """Position in `KINDS`."""
    is_annotated: NDArray[np.bool_]
    """Whether the row's image has annotations; if not, the columns after `rank` mean nothing."""
    class_id: NDArray[np.int32]
    score: NDArray[np.float32]
    x1: NDArray[np.float32]
    y1: NDArray[np.float32]
    x2: NDArray[np.float32]
    y2: NDArray[np.float32]
    rank: NDArray[np.int32]
    object_index: NDArray[np.int32]
    object_x1: NDArray[np.float32]
    object_y1: NDArray[np.float32]
    object_x2: NDArray[np.float32]
    object_y2: NDArray[np.float32]
    iou: NDArray[np.float32]
    object_difficult: NDArray[np.bool_]
    object_crowd: NDArray[np.bool_]
    nearest_index: NDArray[np.int32]
    nearest_class_id: NDArray[np.int32]
    nearest_iou: NDArray[np.float32]
    true_all: NDArray[np.int16]
    true_small: NDArray[np.int16]
    true_medium: NDArray[np.int16]
    true_large: NDArray[np.int16]
    ignored_all: NDArray[np.int16]
    ignored_small: NDArray[np.int16]
    ignored_medium: NDArray[np.int16]
    ignored_large: NDArray[np.int16]
    voc: NDArray[np.int8]
    error: NDArray[np.int8]
    """Position in `ERRORS`, or -1."""
    error_index: NDArray[np.int32]
    covered50: NDArray[np.int8]
    """1 or 0; -1 without proposals, and in rows that stand for no object."""
    covered70: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Matches:
        """Select rows by a slice, a mask `(R,)` or positions."""
        return Matches(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def is_detection(self) -> NDArray[np.bool_]:
        """`(R,)` whether the row is a detection; the others are objects."""
        is_detection: NDArray[np.bool_] = self.kind == matching_kernel.DETECTION
        return is_detection

    @property
    def stands_for_object(self) -> NDArray[np.bool_]:
        """`(R,)` whether the row is the one in which its object stands."""
        is_true = (self.true_all & 1).astype(np.bool_)
        stands: NDArray[np.bool_] = self.is_annotated & (is_true | ~self.is_detection)
        return stands


def match_images(
    ground_truth: GroundTruthArrays,
    detections: DetectionArrays,
    images: int,
    *,
    first_row: int = 0,
    is_annotated: NDArray[np.bool_] | None = None,
    excuses: NDArray[np.uint8] | None = None,
) -> Matches:
    """Match the detections of consecutive images with their objects.

    Args:
        ground_truth: the objects; an object's position in `objects` counts from its image's first.
        detections: of any classes from 0, with finite scores.
        images: the number of images; both `image` arrays are below it.
        first_row: the first image's row in the manifest.
        is_annotated: bool `(images,)`, if some images have no annotations.
        excuses: uint8 `(D,)`, how detections count in federated images (`federation.excuse_detections`).
    """
    if is_annotated is None:
        is_annotated = np.ones(images, np.bool_)
    rows = match_rows(ground_truth, detections, images, is_annotated, excuses=excuses)
    uncovered = np.full(len(rows), matching_kernel.NONE, np.int8)
    columns = {
        name: rows[name]
        for name in matching_kernel.ROW.names or ()
        if name not in ("image", "detection")
    }
    return Matches(
        row=first_row + rows["image"].astype(np.int64),
        is_annotated=is_annotated[rows["image"]],
        covered50=uncovered,
        covered70=uncovered,
        **columns,
    )


def match_rows(
    ground_truth: GroundTruthArrays,
    detections: DetectionArrays,
    images: int,
    is_annotated: NDArray[np.bool_],
    *,
    voc_threshold: float = 0.5,
    excuses: NDArray[np.uint8] | None = None,
) -> NDArray[np.void]:
    """The rows of `match_images` as an array of `matching_kernel.ROW`, which says the detection of each."""
    objects = _build_objects(ground_truth)
    if excuses is None:
        excuses = np.full(len(detections.scores), matching_kernel.JUDGED, np.uint8)
    rows = np.repeat(matching_kernel.EMPTY_ROW[None], len(detections.scores) + len(objects))
    count = matching_kernel.match_rows(
        _rank(detections),
        _prepare(detections.class_id, np.int64),
        _prepare(detections.scores, np.float32),
        _prepare(detections.boxes, np.float64),
        _prepare(excuses, np.uint8),
        _find_ends(detections.image, images),
        objects,
        _find_ends(ground_truth.image, images),
        _prepare(is_annotated, np.bool_),
        IOU_THRESHOLDS,
        AREA_LIMITS,
        voc_threshold,
        rows,
    )
    return rows[:count]


def _prepare(values: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The array in the one form for which kernels are compiled: Arrow's arrays cannot be written."""
    return np.require(values, dtype, ("C", "W"))


def _rank(detections: DetectionArrays) -> NDArray[np.int64]:
    """Positions `(D,)` of the detections by image, class and falling score; equal scores stay in order.

    A float's bits order like the float, so one key holds class and score.
    """
    bits = (-detections.scores + np.float32(0)).view(np.uint32)  # + 0: -0.0 equals 0.0
    rising = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    keys = detections.class_id.astype(np.uint64) << np.uint64(32) | rising.astype(np.uint64)
    return np.lexsort((keys, detections.image))


def _find_ends(image: NDArray[np.int64], images: int) -> NDArray[np.int64]:
    """`(images,)` the end of each image's elements when they are sorted by image."""
    return np.cumsum(np.bincount(image, minlength=images)).astype(np.int64)


def _build_objects(ground_truth: GroundTruthArrays) -> NDArray[np.void]:
    """The objects by image as an array of `matching_kernel.OBJECT`."""
    objects = np.zeros(len(ground_truth.boxes), matching_kernel.OBJECT)
    for column, name in enumerate(("x1", "y1", "x2", "y2")):
        objects[name] = ground_truth.boxes[:, column]
    objects["class_id"] = ground_truth.class_id
    objects["difficult"], objects["crowd"] = ground_truth.difficult, ground_truth.crowd
    areas = geometry.area(ground_truth.boxes)
    is_ignored = ground_truth.difficult | ground_truth.crowd
    for index, (smallest, largest) in enumerate(AREA_LIMITS):
        is_outside = is_ignored | (areas < smallest) | (areas > largest)
        objects["outside"] |= is_outside.astype(np.uint8) << np.uint8(index)
    return objects[np.argsort(ground_truth.image, kind="stable")]


def add_coverage(
    matches: Matches,
    ground_truth: GroundTruthArrays,
    proposals: Iterable[NDArray[np.float32]],
    first_row: int = 0,
) -> Matches:
    """The matches with `covered50` and `covered70`.

    Args:
        matches: of consecutive images, as `match_images` returns them for `ground_truth`.
        ground_truth: the objects, sorted by image.
        proposals: each image's boxes `(N, 4)`, which are read one image at a time.
        first_row: the first image's row in the manifest.
    """
    covered = np.zeros((len(ground_truth.boxes), 2), np.bool_)
    starts: list[int] = []
    end = 0
    for image, boxes in enumerate(proposals):
        start, end = end, int(np.searchsorted(ground_truth.image, image, side="right"))
        starts.append(start)
        covered[start:end] = matching_kernel.find_covered(
            _prepare(ground_truth.boxes[start:end], np.float64),
            _prepare(boxes, np.float32),
            0.5,
            0.7,
        )
    is_object = matches.stands_for_object
    image_of_row = matches.row[is_object] - first_row
    positions = np.asarray(starts, np.int64)[image_of_row] + matches.object_index[is_object]
    columns = np.full((2, len(matches)), matching_kernel.NONE, np.int8)
    columns[:, is_object] = covered[positions].T
    return replace(matches, covered50=columns[0], covered70=columns[1])
