"""The formats by name, built for one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.errors import InvalidConfiguration
from pipeline.exports import coco, fiftyone, flat_parquet, label_studio, voc, yolo
from pipeline.exports import csv_table as csv
from pipeline.exports.export_format import ExportFormat

FormatName = Literal["coco", "voc", "yolo", "csv", "parquet", "label-studio", "fiftyone"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)
OF_MANIFESTS: tuple[FormatName, ...] = ("coco", "voc")
"""The formats of annotated objects."""
WITH_ANNOTATIONS: tuple[FormatName, ...] = ("coco", "yolo")
"""The formats in which detections can stand for annotations."""

WRITES: Mapping[FormatName, tuple[str, ...]] = {
    "coco": (coco.RESULTS_NAME, coco.INSTANCES_NAME, coco.IDS_NAME),
    "voc": (f"{voc.FOLDER}/*.xml", voc.LIST_NAME, voc.CLASSES_NAME),
    "yolo": (f"{yolo.FOLDER}/*.txt", yolo.CONFIGURATION_NAME),
    "csv": (csv.TABLE_NAME,),
    "parquet": (f"{flat_parquet.FOLDER}/*.parquet",),
    "label-studio": (label_studio.TASKS_NAME, label_studio.CONFIGURATION_NAME),
    "fiftyone": (fiftyone.LABELS_NAME, fiftyone.DATA_NAME),
}
"""Patterns of the files that a format writes below the output, besides those of every export; `*` crosses
folders."""


@dataclass(frozen=True)
class DatasetFacts:
    """What the files of a format say about the whole dataset."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """COCO's, of the classes."""
    root: str | None
    """The folder that holds all images."""
    model_version: str | None
    """Names the detector; None if the boxes are annotated objects."""


def build_format(
    name: FormatName, facts: DatasetFacts, as_annotations: bool, image_prefix: str | None = None
) -> ExportFormat:
    """The format of an export.

    Args:
        name: one of `FORMATS`.
        facts: about the dataset.
        as_annotations: detections stand for annotations, in formats that distinguish the two.
        image_prefix: what stands in place of the images' folder, in formats that hold addresses.

    Raises:
        InvalidConfiguration: the format cannot hold annotated objects, a class or addresses, or the images
            have no folder in common.
    """
    is_of_manifest = facts.model_version is None
    if is_of_manifest and name not in OF_MANIFESTS:
        raise InvalidConfiguration(
            f"--format {name} needs --detections; a manifest alone exports as {', '.join(OF_MANIFESTS)}"
        )
    if as_annotations and (is_of_manifest or name not in WITH_ANNOTATIONS):
        raise InvalidConfiguration(
            f"--as-annotations is for --detections as {' or '.join(WITH_ANNOTATIONS)}"
        )
    if image_prefix is not None:
        if name != "label-studio":
            raise InvalidConfiguration("--image-prefix is for --format label-studio")
        if facts.root is None:
            raise InvalidConfiguration(
                "--image-prefix stands in place of the folder of all images, and these have none in common"
            )
        prefix = (facts.root, image_prefix.rstrip("/") + "/")
        return label_studio.LabelStudioTasks(facts.classes, facts.model_version or "", prefix)
    if name == "coco":
        if as_annotations or is_of_manifest:
            return coco.CocoInstances(facts.classes, facts.category_ids, facts.root)
        return coco.CocoResults(facts.category_ids)
    if name == "voc":
        voc.check_labels(facts.classes)
        return voc.VocFolder(facts.classes)
    if name == "yolo":
        return yolo.YoloFolder(facts.classes, facts.root, has_scores=not as_annotations)
    return _build_table_format(name, facts)


def _build_table_format(name: FormatName, facts: DatasetFacts) -> ExportFormat:
    if name == "csv":
        return csv.CsvTable(facts.classes)
    if name == "parquet":
        return flat_parquet.FlatParquet(facts.classes)
    if name == "label-studio":
        return label_studio.LabelStudioTasks(facts.classes, facts.model_version or "")
    return fiftyone.FiftyOneDataset(facts.classes)
