"""Federated annotations, as in LVIS: which detections the annotation of an image can judge.

Such an image is annotated for the classes of its objects and for those of `negative_labels`, which it does
not show. Detections of all other classes count neither as true nor as false, and neither do false detections
of a class of `not_exhaustive_labels`, of which the image may show more objects. The 300 best detections of an
image count, whatever their classes (Gupta et al., LVIS, CVPR 2019; `LVISEval` and `LVISResults` of lvis-api).

An image whose lists are null is annotated for all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.matching_kernel import EXCUSED, JUDGED, LEFT_OUT

DETECTIONS_PER_IMAGE = 300
NAMES = tuple(field.name for field in schema.FEDERATED)
"""The columns of a manifest that name the classes of each image."""


def excuse_detections(
    manifest: pa.Table,
    ground_truth: GroundTruthArrays,
    detections: DetectionArrays,
    classes: Sequence[str],
) -> NDArray[np.uint8] | None:
    """Find the detections that the annotations of their images cannot judge.

    Args:
        manifest: the images' rows.
        ground_truth: their objects.
        detections: all of their detections; class -1 is none of `classes`.
        classes: the labels.

    Returns:
        uint8 `(D,)` of `matching_kernel.JUDGED`, `EXCUSED` and `LEFT_OUT`; None if no image is federated.
    """
    negative, not_exhaustive = NAMES
    if negative not in manifest.column_names or not_exhaustive not in manifest.column_names:
        return None
    is_federated = np.zeros(len(manifest), np.bool_)
    for name in NAMES:
        is_federated |= _to_numpy(pc.is_valid(manifest.column(name)))
    if not is_federated.any():
        return None
    keys = _key(detections.image, detections.class_id, classes)
    is_known = np.isin(keys, _key(ground_truth.image, ground_truth.class_id, classes))
    is_known |= np.isin(keys, _key_labels(manifest.column(negative), classes))
    is_known &= ~np.isin(keys, _key_labels(manifest.column(not_exhaustive), classes))
    excuses = np.where(is_known, JUDGED, EXCUSED).astype(np.uint8)
    excuses[_find_surplus(detections)] = LEFT_OUT
    excuses[~is_federated[detections.image]] = JUDGED
    return excuses


def _key(
    image: NDArray[np.int64], class_id: NDArray[np.int64], classes: Sequence[str]
) -> NDArray[np.int64]:
    """A number for each image and class."""
    return image * (len(classes) + 1) + class_id + 1


def _key_labels(column: pa.ChunkedArray, classes: Sequence[str]) -> NDArray[np.int64]:
    """The keys of the labels that the images list; those that are not among the classes have none."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    image = _to_numpy(pc.list_parent_indices(lists)).astype(np.int64)
    labels = lists.flatten()
    class_id = pc.fill_null(pc.index_in(labels, pa.array(list(classes), labels.type)), -1)
    class_ids = _to_numpy(class_id).astype(np.int64)
    return _key(image, class_ids, classes)[class_ids >= 0]


def _find_surplus(detections: DetectionArrays) -> NDArray[np.int64]:
    """The detections behind the best ones of each image; of equal scores, the later ones."""
    order = np.lexsort((-detections.scores, detections.image))
    image = detections.image[order]
    place = np.arange(len(order)) - np.searchsorted(image, image)
    return order[place >= DETECTIONS_PER_IMAGE]


def _to_numpy(values: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
