"""LVIS: COCO's layout, in which every image is annotated for some of its 1,203 classes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.coco import IMAGE_FIELDS, open_instances
from pipeline.sources.coco_file import Record
from pipeline.sources.dataset import Dataset
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.scalars import is_absent, read_whole

_NEGATIVE, _NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"


def open_lvis(
    annotations: str,
    images: str | None,
    unlabelled: bool = False,
    options: SourceOptions = DEFAULT,
) -> Dataset:
    """The images of an LVIS file, read as `open_coco` does, with the classes that each is annotated for.

    LVIS v1 names no files: an image is found by the end of its `coco_url`, such as
    `train2017/000000391895.jpg` or its last part, or else, without a folder, read from there. The classes
    of `neg_category_ids` and `not_exhaustive_category_ids` become the columns of `schema.FEDERATED`
    (Gupta, Dollár, Girshick, CVPR 2019, section 2.2).

    Args:
        annotations: the JSON file, in any store.
        images: the folder of COCO's images; None takes each image's `coco_url`.
        unlabelled: use only images and categories (the file of the test split).
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: as for `open_coco`.
        StorageError: the file or the store cannot be reached.
    """
    dataset = open_instances(
        annotations,
        images,
        unlabelled,
        options,
        image_fields=(*IMAGE_FIELDS, _NEGATIVE, _NOT_EXHAUSTIVE),
        change_row=_add_classes,
    )
    return replace(dataset, federated=True)


def _add_classes(
    row: ManifestRow, record: Record, categories: Mapping[int, str], where: str
) -> ManifestRow:
    negative = _read_labels(record, _NEGATIVE, categories, where)
    shown = {item.label for item in row.objects or ()}.intersection(negative or ())
    if shown:
        raise UnreadableDataset(
            f"{where}: field {_NEGATIVE} says that the image does not show {min(shown)!r:.100}, and an "
            "object is of this class"
        )
    return replace(
        row,
        negative_labels=negative,
        not_exhaustive_labels=_read_labels(record, _NOT_EXHAUSTIVE, categories, where),
    )


def _read_labels(
    record: Record, field: str, categories: Mapping[int, str], where: str
) -> tuple[str, ...] | None:
    values = record.get(field)
    if is_absent(values):
        return None
    if not isinstance(values, list):
        raise UnreadableDataset(
            f"{where}: field {field} is {values!r:.60}, expected a list of category ids"
        )
    keys = [read_whole(value, field, where) for value in values]
    unlisted = [key for key in keys if key not in categories]
    if unlisted:
        raise UnreadableDataset(
            f"{where}: field {field} names category {unlisted[0]}, which categories does not list"
        )
    return tuple(categories[key] for key in keys)
