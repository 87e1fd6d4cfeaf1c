"""Read a dataset into a manifest: one Parquet row per image, with its objects if it is annotated.

python jobs/prepare.py voc --root VOCdevkit --year 2007 --split train --output out/train.parquet

python jobs/prepare.py coco --annotations instances.json --images train2017 --output out/coco

python jobs/prepare.py folder --images s3://bucket/images --output s3://bucket/manifest
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import contextlib
import posixpath
from dataclasses import dataclass

from jobs.entry import JobOptions, print_lines, run
from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.imaging import Decoding, Exif, Truncated
from pipeline.manifests import write_manifest
from pipeline.option_ranges import check_fields
from pipeline.runs.input_places import check_apart
from pipeline.sources.coco import open_coco
from pipeline.sources.dataset import Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.options import SourceOptions
from pipeline.sources.tally import Tally, describe_count
from pipeline.sources.voc import open_voc

_LISTED_CLASSES = 20
PARQUET_MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(JobOptions):
    """Options of every source. Paths are local or any fsspec URI, such as s3:// and gs://."""

    output: str
    """The manifest to write: a .parquet file, or a folder in which to write manifest.parquet."""
    max_invalid: float = 0.05
    """Share of the images that may be missing, unreadable or wrongly annotated, and of the boxes that may
    be without area or outside their image. These are left out and counted; above the share, the job fails."""
    skip_invalid: bool = False
    """Leave out any number of invalid images and boxes."""
    strict: bool = False
    """Fail at the first image or box that would be left out, and at a line that repeats an image."""
    check_sizes: bool = False
    """Compare every annotated size with the image's header, not only where a box reaches out of the image.
    The job then reads the first 64 KB of each image: one request per image on an object store."""
    exif: Exif = "ignore"
    """apply: sizes and boxes are those of the images as viewers display them, turned by their EXIF
    orientation, and all later jobs decode them so. ignore: those of the stored pixels. apply reads each
    image's header, as --check-sizes does."""
    truncated: Truncated = "reject"
    """accept: later jobs use a JPEG that ends early, grey where its pixels are missing. reject: it fails."""

    def __post_init__(self) -> None:
        """Reject values that are not possible."""
        check_fields(self, "max_invalid", at_least=0, at_most=1)
        if self.strict and self.skip_invalid:
            raise InvalidConfiguration(
                "--strict fails at what --skip-invalid leaves out: pass one of them"
            )

    @property
    def source(self) -> SourceOptions:
        """The options as the sources take them."""
        return SourceOptions(
            max_invalid=1.0 if self.skip_invalid else self.max_invalid,
            strict=self.strict,
            check_sizes=self.check_sizes,
            exif=self.exif,
        )


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
    """Write the manifest; print its counts in one line, and what was left out or repaired in another."""
    target = resolve_manifest_uri(options.output)
    _check_target(target, options)
    storage.check_writable(posixpath.dirname(target))
    dataset = open_source(options)
    decoding = Decoding(options.exif, options.truncated)
    write_manifest(target, dataset.rows, dataset.classes, dataset.category_ids, decoding)
    print_lines(describe_manifest(dataset.tally, dataset.classes, target))
    print_lines(f"left out or repaired: {dataset.tally.describe_repairs()}")


def _check_target(target: str, options: Prepare) -> None:
    """Reject a manifest that would replace an input, or a file that is no Parquet.

    Raises:
        InvalidConfiguration: it would.
    """
    inputs = {name: getattr(options, name, None) for name in ("root", "annotations", "images")}
    check_apart(target, inputs)
    with contextlib.suppress(MissingObject):
        if storage.read_start(target, len(PARQUET_MAGIC)) != PARQUET_MAGIC:
            raise InvalidConfiguration(
                f"{uris.redact_uri(target)} exists and is not Parquet, so it is no earlier manifest: "
                "choose another --output"
            )


def open_source(options: Prepare) -> Dataset:
    """Open the dataset that the options name."""
    if isinstance(options, Voc):
        return open_voc(
            options.root,
            options.split,
            options.year,
            classes=options.classes,
            unlabelled=options.unlabelled,
            options=options.source,
        )
    if isinstance(options, Coco):
        return open_coco(options.annotations, options.images, options.unlabelled, options.source)
    return open_folder(options.images, options.source)


def resolve_manifest_uri(output: str) -> str:
    """The manifest's absolute URI: `output` if it ends in .parquet, else manifest.parquet in that folder."""
    uri = uris.make_absolute(output)
    return uri if uri.endswith(".parquet") else uris.join(uri, "manifest.parquet")


def describe_manifest(tally: Tally, classes: tuple[str, ...] | None, target: str) -> str:
    """One line with the counts of a written manifest."""
    parts = [describe_count(tally.images, "image")]
    if classes is None:
        parts.append("unlabelled")
    else:
        details = [
            f"{label} {count}" for label, count in tally.objects.most_common(_LISTED_CLASSES)
        ]
        details += ["..."] if len(tally.objects) > _LISTED_CLASSES else []
        details += [f"difficult: {tally.difficult}"] if tally.difficult else []
        details += [f"crowd: {tally.crowd}"] if tally.crowd else []
        suffix = f" ({', '.join(details)})" if details else ""
        parts += [
            f"{describe_count(tally.objects.total(), 'object')}{suffix}",
            f"{len(classes)} classes",
        ]
    return f"{', '.join(parts)}: {uris.redact_uri(target)}"


if __name__ == "__main__":
    run(Prepare, main, __doc__)
