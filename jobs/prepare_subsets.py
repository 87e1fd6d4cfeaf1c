"""The options that make manifests of manifests: `prepare split`, `prepare merge`, `prepare filter`."""

from __future__ import annotations

import contextlib
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.entry import JobOptions, print_lines
from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.manifest_files import FIRST_NAME
from pipeline.manifest_writer import open_manifest_writer
from pipeline.manifests import open_manifest
from pipeline.option_ranges import check_fields
from pipeline.runs.input_places import check_apart
from pipeline.subsets.class_maps import ClassMap, read_class_map
from pipeline.subsets.filtering import find_rows
from pipeline.subsets.manifest_copy import write_selections
from pipeline.subsets.merging import Repeated, open_merge
from pipeline.subsets.split_assignment import check_fractions
from pipeline.subsets.splitting import BY_IMAGE, SplitPlan, split_manifest

_NAMES = {2: ("train", "test"), 3: ("train", "val", "test")}
_UNSAFE = set('/\\:*?"<>|')


@dataclass(frozen=True, kw_only=True)
class SubsetOptions(JobOptions, ABC):
    """Options of what makes manifests of manifests."""

    @abstractmethod
    def write(self) -> None:
        """Write the manifests, and print what they hold."""


@dataclass(frozen=True, kw_only=True)
class Split(SubsetOptions):
    """Divide a manifest into splits by a hash, so that its images keep their split when others are added."""

    manifest: str
    """Manifest to split: a Parquet file or a folder of them; any fsspec URI."""
    fractions: tuple[float, ...]
    """Fractions of the images by split; they add up to 1."""
    output: str
    """Folder for the splits, NAME.parquet each."""
    names: tuple[str, ...] = ()
    """Names of the splits; by default train test, or train val test, or split-0 split-1 ..."""
    by: str = BY_IMAGE
    """Column with the group of each image, such as a patient or a video: a group stays in one split. hash:
    each image is its own group."""
    groups: str | None = None
    """Parquet file with image_id and the column of --by, such as duplicate_groups.parquet of analyze dataset
    (--by group); an image that it does not have is its own group. By default the manifest has the column."""
    seed: int = 0
    """Seed of the hash."""
    stratify: bool = False
    """Meet the fractions for each class, by the rarest class of each group. Images that are added later may
    move others, unless --earlier keeps them."""
    earlier: str | None = None
    """Folder of an earlier split with these names: its images keep their split."""

    def __post_init__(self) -> None:
        check_fractions(self.fractions)
        check_fields(self, "seed", at_least=0)
        names = self.split_names
        if len(names) != len(self.fractions) or len(set(names)) < len(names):
            raise InvalidConfiguration(
                f"--names {' '.join(names)}: expected {len(self.fractions)} different names, one for each of "
                "--fractions"
            )
        unsafe = next((n for n in names if not n or n.startswith(".") or _UNSAFE & set(n)), None)
        if unsafe is not None:
            raise InvalidConfiguration(f"--names {unsafe!r:.100} cannot be the name of a file")
        if self.groups is not None and self.by == BY_IMAGE:
            raise InvalidConfiguration("--groups needs --by COLUMN, the column that has the groups")

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits."""
        count = len(self.fractions)
        numbered = tuple(f"split-{number}" for number in range(count))
        return self.names or _NAMES.get(count, numbered)

    def write(self) -> None:
        """Write the splits."""
        names = self.split_names
        folder = uris.make_absolute(self.output)
        targets = [uris.join(folder, f"{name}.parquet") for name in names]
        for target in targets:
            _check_target(target, {"manifest": self.manifest, "groups": self.groups})
        plan = SplitPlan(
            self.fractions, names, self.by, self.groups, self.seed, self.stratify, self.earlier
        )
        result = split_manifest(open_manifest(self.manifest), plan, targets)
        total = sum(result.rows)
        for name, rows, target in zip(names, result.rows, targets, strict=True):
            print_lines(f"{name}: {rows} images ({rows / total:.1%}): {uris.redact_uri(target)}")
        if self.by != BY_IMAGE:
            alone = f"; {result.ungrouped} images are in none" if result.ungrouped else ""
            print_lines(f"groups: {result.groups}{alone}")
        if self.earlier is not None:
            print_lines(f"kept where the earlier split has them: {result.kept} images")


@dataclass(frozen=True, kw_only=True)
class Merge(SubsetOptions):
    """Merge manifests, with new names for their classes; what contradicts itself is rejected by name."""

    manifests: tuple[str, ...]
    """Manifests to merge, two or more."""
    output: str
    """The manifest to write: a .parquet file or a folder, as of the other sources."""
    class_map: tuple[str, ...] = ()
    """JSON files {"old name": "new name"}, null to leave out the objects of a class: one for all manifests,
    or one for each; - stands for none. Classes that a map does not name keep their names."""
    repeated: Repeated = "reject"
    """An image that two manifests have: reject the merge, or keep the first one."""
    prefix_ids: bool = False
    """Put the name of its manifest before each image_id: for manifests that number their images alike."""
    federated: bool = False
    """Record for each image which classes it is annotated for, as LVIS does: for manifests of different
    classes, whose images may show objects that are not annotated."""

    def __post_init__(self) -> None:
        if len(self.manifests) < 2:
            raise InvalidConfiguration("--manifests: expected two or more")
        if len(self.class_map) not in (0, 1, len(self.manifests)):
            raise InvalidConfiguration(
                f"--class-map: expected one file, or {len(self.manifests)}, one for each of --manifests"
            )

    def write(self) -> None:
        """Write the merged manifest."""
        target = uris.make_absolute(self.output)
        maps = [uri for uri in self.class_map if uri != "-"]
        _check_target(target, {"manifests": self.manifests, "class-map": maps})
        merge = open_merge(
            [open_manifest(uri) for uri in self.manifests],
            self._read_maps(),
            repeated=self.repeated,
            prefix_ids=self.prefix_ids,
            federated=self.federated,
        )
        with open_manifest_writer(target, merge.contents) as writer:
            for row in merge.read_rows():
                writer.add(row)
        tally, classes = merge.tally, merge.contents.classes
        labels = (
            "unlabelled" if classes is None else f"{tally.objects} objects, {len(classes)} classes"
        )
        print_lines(f"{tally.images} images, {labels}: {uris.redact_uri(writer.location)}")
        if tally.left_out_objects:
            print_lines(f"left out by the class maps: {tally.left_out_objects} objects")
        if tally.repeated:
            print_lines(
                f"left out, since an earlier manifest has them: {tally.repeated} images, {tally.differing} "
                "of them with other objects there"
            )
        print_lines(*(f"note: {note}" for note in merge.notes))

    def _read_maps(self) -> list[ClassMap]:
        empty: ClassMap = {}
        maps = [empty if uri == "-" else read_class_map(uri) for uri in self.class_map]
        if not maps:
            return [empty] * len(self.manifests)
        return maps * len(self.manifests) if len(maps) == 1 else maps


@dataclass(frozen=True, kw_only=True)
class Filter(SubsetOptions):
    """Keep the images of a manifest that fulfil a condition in SQL; columns and metadata stay."""

    manifest: str
    """Manifest to filter: a Parquet file or a folder of them; any fsspec URI."""
    where: str
    """Condition over the columns of the manifest, num_objects and labels (the list of the objects' classes),
    in DuckDB's SQL: "width >= 300 AND list_contains(labels, 'dog')"."""
    output: str
    """The manifest to write: a .parquet file, or a folder for manifest.parquet."""

    def write(self) -> None:
        """Write the selection."""
        target = uris.make_absolute(self.output)
        if not target.endswith(".parquet"):
            target = uris.join(target, FIRST_NAME)
        _check_target(target, {"manifest": self.manifest})
        manifest = open_manifest(self.manifest)
        is_chosen = find_rows(manifest, self.where)
        if not is_chosen.any():
            raise InvalidConfiguration(
                f"--where {self.where!r:.200} holds for none of the {manifest.rows} images"
            )
        (rows,) = write_selections(manifest, [target], np.where(is_chosen, 0, -1))
        print_lines(f"{rows} of {manifest.rows} images: {uris.redact_uri(target)}")


def _check_target(target: str, inputs: Mapping[str, str | Sequence[str] | None]) -> None:
    """Reject a file that is an input, or that is not Parquet, and a folder that cannot be written.

    Raises:
        InvalidConfiguration: it is.
        StorageError: the folder cannot be written.
    """
    first = target if target.endswith(".parquet") else uris.join(target, FIRST_NAME)
    check_apart(first, inputs)
    with contextlib.suppress(MissingObject):
        if storage.read_start(first, 4) != b"PAR1":
            raise InvalidConfiguration(
                f"{uris.redact_uri(first)} exists and is not Parquet, so it is no earlier manifest: choose "
                "another --output"
            )
    storage.check_writable(posixpath.dirname(first))
