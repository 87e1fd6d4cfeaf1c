"""Read a dataset into a manifest: one Parquet row per image, with its objects where there are any.

python jobs/prepare.py voc --root VOCdevkit --year 2007 --split train --output out/train.parquet
python jobs/prepare.py coco --annotations instances.json --images train2017 --output out/coco
python jobs/prepare.py folder --images s3://bucket/images --output s3://bucket/manifest
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from jobs.entry import JobOptions, run
from pipeline import storage
from pipeline.manifests import write_manifest
from pipeline.sources.coco import open_coco
from pipeline.sources.dataset import Counts, Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.voc import open_voc

_NAMED_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class Source(JobOptions):
    """Options that every source has. Each path may be of any store: a local one, s3://, gs://."""

    output: str
    """The manifest to write: a .parquet file, or a folder that gets a manifest.parquet."""
    skip_invalid: bool = False
    """Leave out images that are missing, unreadable or wrongly annotated; log and count them."""


@dataclass(frozen=True, kw_only=True)
class Voc(Source):
    """A split of PASCAL VOC, or of a dataset laid out like it."""

    root: str
    """The devkit that holds VOC<year>, or a folder with JPEGImages, Annotations and ImageSets."""
    split: str
    """A list in ImageSets/Main, such as trainval."""
    year: int | None = None
    """The devkit's year; leave it out where root itself holds the data."""
    classes: tuple[str, ...] = ()
    """Labels in the order to number them; by default VOC's 20, or all labels there are, sorted."""
    unlabelled: bool = False
    """Read no annotations: the manifest says nothing about objects."""


@dataclass(frozen=True, kw_only=True)
class Coco(Source):
    """A COCO instances file."""

    annotations: str
    """The JSON file."""
    images: str
    """The folder that holds its images."""
    unlabelled: bool = False
    """Use the file's images and categories only: the manifest says nothing about objects."""


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """All images below a folder, without annotations."""

    images: str
    """The folder, read at all depths."""


def main(options: Voc | Coco | Folder) -> None:
    """Write the manifest and print one line on what it holds."""
    target = manifest_uri(options.output)
    storage.check_writable(posixpath.dirname(target))
    dataset = open_source(options)
    write_manifest(target, dataset.rows, dataset.classes, dataset.category_ids)
    print(summary(dataset.counts, dataset.classes, target))


def open_source(options: Voc | Coco | Folder) -> Dataset:
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


def manifest_uri(output: str) -> str:
    """The manifest's absolute URI: `output`, or manifest.parquet in it if it is no .parquet file."""
    uri = storage.absolute(output)
    return uri if uri.endswith(".parquet") else storage.join(uri, "manifest.parquet")


def summary(counts: Counts, classes: tuple[str, ...] | None, target: str) -> str:
    """One line on what was written."""
    parts = [f"{counts.images} images"]
    if classes is None:
        parts.append("unlabelled")
    else:
        told = [f"{label} {count}" for label, count in counts.objects.most_common(_NAMED_CLASSES)]
        told += ["..."] if len(counts.objects) > _NAMED_CLASSES else []
        told += [f"difficult: {counts.difficult}"] if counts.difficult else []
        told += [f"crowd: {counts.crowd}"] if counts.crowd else []
        detail = f" ({', '.join(told)})" if told else ""
        parts += [f"{counts.objects.total()} objects{detail}", f"{len(classes)} classes"]
    parts += [f"{counts.dropped_boxes} boxes without area dropped"]
    parts += [f"{counts.skipped_images} images skipped"]
    return f"{', '.join(parts)}: {storage.shown(target)}"


if __name__ == "__main__":
    run(Voc | Coco | Folder, main, __doc__)
