"""Read a dataset into a manifest: one Parquet row per image, with its objects if it is annotated.

python jobs/prepare.py voc --root VOCdevkit --year 2007 --split train --output out/train.parquet

python jobs/prepare.py coco --annotations instances.json --images train2017 --output out/coco

python jobs/prepare.py folder --images s3://bucket/images --output s3://bucket/manifest
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from jobs.entry import JobOptions, run
from pipeline import storage, uris
from pipeline.manifests import write_manifest
from pipeline.sources.coco import open_coco
from pipeline.sources.dataset import Counts, Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.voc import open_voc

_LISTED_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(JobOptions):
    """Options of every source. Paths are local or any fsspec URI, such as s3:// and gs://."""

    output: str
    """The manifest to write: a .parquet file, or a folder in which to write manifest.parquet."""
    skip_invalid: bool = False
    """Skip images that are missing, unreadable or wrongly annotated; log and count them."""


@dataclass(frozen=True, kw_only=True)
class Voc(PrepareOptions):
    """A split of PASCAL VOC, or of a dataset in the same layout."""

    root: str
    """The devkit that contains VOC<year>, or a folder with JPEGImages, Annotations and ImageSets."""
    split: str
    """A list in ImageSets/Main, such as trainval."""
    year: int | None = None
    """The devkit's year; leave it out if --root itself contains JPEGImages."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default VOC's 20, or all labels of the dataset, sorted."""
    unlabelled: bool = False
    """Do not read annotations: the manifest has no objects."""


@dataclass(frozen=True, kw_only=True)
class Coco(PrepareOptions):
    """A COCO instances file."""

    annotations: str
    """The JSON file of annotations."""
    images: str
    """The folder of its images."""
    unlabelled: bool = False
    """Read only the file's images and categories: the manifest has no objects."""


@dataclass(frozen=True, kw_only=True)
class Folder(PrepareOptions):
    """All images below a folder, without annotations."""

    images: str
    """The folder; images in its subfolders are included."""


Prepare = Voc | Coco | Folder


def main(options: Prepare) -> None:
    """Write the manifest and print its counts in one line."""
    target = resolve_manifest_uri(options.output)
    storage.check_writable(posixpath.dirname(target))
    dataset = open_source(options)
    write_manifest(target, dataset.rows, dataset.classes, dataset.category_ids)
    print(describe_manifest(dataset.counts, dataset.classes, target))


def open_source(options: Prepare) -> Dataset:
    """Open the dataset that the options name."""
    skip = options.skip_invalid
    if isinstance(options, Voc):
        return open_voc(
            options.root,
            options.split,
            options.year,
            classes=options.classes,
            unlabelled=options.unlabelled,
            skip_invalid=skip,
        )
    if isinstance(options, Coco):
        return open_coco(options.annotations, options.images, options.unlabelled, skip)
    return open_folder(options.images, skip)


def resolve_manifest_uri(output: str) -> str:
    """The manifest's absolute URI: `output` if it ends in .parquet, else manifest.parquet in that folder."""
    uri = uris.make_absolute(output)
    return uri if uri.endswith(".parquet") else uris.join(uri, "manifest.parquet")


def describe_manifest(counts: Counts, classes: tuple[str, ...] | None, target: str) -> str:
    """One line with the counts of a written manifest."""
    parts = [f"{counts.images} images"]
    if classes is None:
        parts.append("unlabelled")
    else:
        details = [
            f"{label} {count}" for label, count in counts.objects.most_common(_LISTED_CLASSES)
        ]
        details += ["..."] if len(counts.objects) > _LISTED_CLASSES else []
        details += [f"difficult: {counts.difficult}"] if counts.difficult else []
        details += [f"crowd: {counts.crowd}"] if counts.crowd else []
        suffix = f" ({', '.join(details)})" if details else ""
        parts += [f"{counts.objects.total()} objects{suffix}", f"{len(classes)} classes"]
    parts += [f"{counts.dropped_boxes} boxes without area dropped"]
    parts += [f"{counts.skipped_images} images skipped"]
    return f"{', '.join(parts)}: {uris.redact_uri(target)}"


if __name__ == "__main__":
    run(Prepare, main, __doc__)
