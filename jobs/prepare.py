"""Read a dataset into a manifest: one Parquet row per image, with its objects if it is annotated.

python jobs/prepare.py voc --root VOCdevkit --year 2007 --split train --output out/train.parquet

python jobs/prepare.py coco --annotations instances.json --images train2017 --output out/coco

python jobs/prepare.py yolo --root dataset --split train --output out/train.parquet

python jobs/prepare.py openimages --images train --boxes boxes.csv --classes classes.csv --output out

python jobs/prepare.py labelstudio --annotations export.json --images images --output out

python jobs/prepare.py webdataset --tars "s3://bucket/train-{000..127}.tar" --output s3://bucket/manifest

python jobs/prepare.py parquet --data s3://bucket/dataset --output s3://bucket/manifest

python jobs/prepare.py folder --images s3://bucket/images --output s3://bucket/manifest

And manifests of manifests (`split`, `merge`, `filter`):

python jobs/prepare.py split --manifest out/all.parquet --fractions .8 .1 .1 --output out/splits
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import contextlib
import posixpath
from collections.abc import Iterator

from jobs.entry import print_lines, run
from jobs.prepare_check import open_check
from jobs.prepare_options import DistributedOptions, Parquet, Prepare, PrepareOptions
from jobs.prepare_subsets import SubsetOptions
from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.imaging import Decoding
from pipeline.manifest_files import FIRST_NAME
from pipeline.manifest_writer import ManifestContents, open_manifest_writer
from pipeline.runs.input_places import check_apart
from pipeline.sources.parquet_images import list_parquet_files
from pipeline.sources.tally import Tally, describe_count

_LISTED_CLASSES = 20
PARQUET_MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""


def main(options: Prepare) -> None:
    """Write the manifest; print its counts in one line, and what was left out or repaired in another."""
    if isinstance(options, SubsetOptions):
        options.write()
        return
    target = uris.make_absolute(options.output)
    _check_target(target, options)
    storage.check_writable(posixpath.dirname(_name_first_file(target)))
    check = open_check() if options.check else None
    with _connect(options):
        dataset = options.open_dataset()
        contents = ManifestContents(
            dataset.classes,
            dataset.category_ids,
            Decoding(options.exif, options.truncated),
            dataset.federated,
            dataset.has_members,
        )
        with open_manifest_writer(target, contents) as writer:
            for row in dataset.rows:
                writer.add(row)
                if check is not None:
                    check.add(row)
            if check is not None:
                check.try_images(writer.location, contents.decoding)
    print_lines(describe_manifest(dataset.tally, dataset.classes, writer.location))
    print_lines(f"left out or repaired: {dataset.tally.describe_repairs()}")
    if check is not None:
        check.run(writer.location)


@contextlib.contextmanager
def _connect(options: PrepareOptions) -> Iterator[None]:
    """Connect to Ray and wait for a free core, if the dataset is read in its tasks."""
    if not isinstance(options, DistributedOptions) or not options.distribute:
        yield
        return
    from pipeline.engine import cluster  # noqa: PLC0415  (Ray takes seconds to load)

    with cluster.connect_to_cluster():
        cluster.await_core(options.no_capacity_after)
        yield


def _check_target(target: str, options: PrepareOptions) -> None:
    """Reject a manifest that would replace an input, or a file that is no Parquet.

    Raises:
        InvalidConfiguration: it would.
    """
    names = ("root", "annotations", "images", "boxes", "classes", "hierarchy", "tars")
    inputs = {name: getattr(options, name, None) for name in names}
    check_apart(_name_first_file(target), inputs)
    if isinstance(options, Parquet):
        check_apart(_name_first_file(target), {"data": list_parquet_files(options.data)})
        for folder in map(uris.make_absolute, options.data):
            if _name_first_file(target).startswith(folder.rstrip("/") + "/"):
                raise InvalidConfiguration(
                    f"--output {uris.redact_uri(target)} lies in the --data {uris.redact_uri(folder)}, where "
                    "the next run would read it as data: choose another folder"
                )
    with contextlib.suppress(MissingObject):
        if storage.read_start(_name_first_file(target), len(PARQUET_MAGIC)) != PARQUET_MAGIC:
            raise InvalidConfiguration(
                f"{uris.redact_uri(_name_first_file(target))} exists and is not Parquet, so it is no earlier "
                "manifest: choose another --output"
            )


def _name_first_file(target: str) -> str:
    """The first file of the manifest, or the only one."""
    return target if target.endswith(".parquet") else uris.join(target, FIRST_NAME)


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
            describe_count(len(classes), "class"),
        ]
    return f"{', '.join(parts)}: {uris.redact_uri(target)}"


if __name__ == "__main__":
    run(Prepare, main, __doc__)
