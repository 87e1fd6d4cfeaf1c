"""Read a dataset into a manifest: one Parquet row per image, with its objects if it is annotated.

python jobs/prepare.py voc --root VOCdevkit --year 2007 --split train --output out/train.parquet

python jobs/prepare.py coco --annotations instances.json --images train2017 --output out/coco

python jobs/prepare.py yolo --root dataset --split train --output out/train.parquet

python jobs/prepare.py openimages --images train --boxes boxes.csv --classes classes.csv --output out

python jobs/prepare.py labelstudio --annotations export.json --images images --output out

python jobs/prepare.py webdataset --tars "s3://bucket/train-{000..127}.tar" --output s3://bucket/manifest

python jobs/prepare.py parquet --data s3://bucket/dataset --output s3://bucket/manifest

python jobs/prepare.py folder --images s3://bucket/images --output s3://bucket/manifest
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import contextlib
import posixpath

from jobs.entry import print_lines, run
from jobs.prepare_options import Parquet, Prepare
from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.imaging import Decoding
from pipeline.manifests import write_manifest
from pipeline.runs.input_places import check_apart
from pipeline.sources.parquet_images import list_parquet_files
from pipeline.sources.tally import Tally, describe_count

_LISTED_CLASSES = 20
PARQUET_MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""


def main(options: Prepare) -> None:
    """Write the manifest; print its counts in one line, and what was left out or repaired in another."""
    target = resolve_manifest_uri(options.output)
    _check_target(target, options)
    storage.check_writable(posixpath.dirname(target))
    dataset = options.open_dataset()
    decoding = Decoding(options.exif, options.truncated)
    write_manifest(
        target,
        dataset.rows,
        dataset.classes,
        dataset.category_ids,
        decoding,
        federated=dataset.federated,
        has_members=dataset.has_members,
    )
    print_lines(describe_manifest(dataset.tally, dataset.classes, target))
    print_lines(f"left out or repaired: {dataset.tally.describe_repairs()}")


def _check_target(target: str, options: Prepare) -> None:
    """Reject a manifest that would replace an input, or a file that is no Parquet.

    Raises:
        InvalidConfiguration: it would.
    """
    names = ("root", "annotations", "images", "boxes", "classes", "tars")
    check_apart(target, {name: getattr(options, name, None) for name in names})
    if isinstance(options, Parquet):
        check_apart(target, {"data": list_parquet_files(options.data)})
        for folder in map(uris.make_absolute, options.data):
            if target.startswith(folder.rstrip("/") + "/"):
                raise InvalidConfiguration(
                    f"--output {uris.redact_uri(target)} lies in the --data {uris.redact_uri(folder)}, where "
                    "the next run would read it as data: choose another folder"
                )
    with contextlib.suppress(MissingObject):
        if storage.read_start(target, len(PARQUET_MAGIC)) != PARQUET_MAGIC:
            raise InvalidConfiguration(
                f"{uris.redact_uri(target)} exists and is not Parquet, so it is no earlier manifest: "
                "choose another --output"
            )


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
