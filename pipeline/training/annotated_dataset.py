"""Annotated datasets to train on: manifests joined with proposals, checked, read one shard at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import manifests, schema, uris
from pipeline.annotated_classes import list_annotated_classes
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.excluded_images import ExcludedImages
from pipeline.image_members import Member, read_members
from pipeline.manifests import Manifest
from pipeline.proposals.stored_proposals import StoredProposals, open_stored_proposals
from pipeline.stated_sizes import pair_sizes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of one image."""

    boxes: NDArray[np.float32]
    """`(G, 4)` in pixels of the original image."""
    labels: NDArray[np.int64]
    """`(G,)`, counted from 1: 0 is the background."""
    crowd: NDArray[np.bool_]
    """`(G,)`, whether the box holds a crowd."""


@dataclass(frozen=True)
class AnnotatedShard:
    """The images of one shard with their annotations and proposals."""

    image_ids: list[str]
    uris: list[str]
    members: list[Member | None]
    """Where each image lies in the file of its URI; None if it is that file."""
    annotations: list[Annotations | None]
    """None for an image that is not annotated."""
    proposals: list[NDArray[np.float32]]
    """`(N, 4)` per image, best first; no rows if the proposals of the image failed."""
    stated_sizes: list[tuple[int, int] | None]
    """Width and height in pixels that the annotations refer to; None if unknown."""
    proposed_sizes: list[tuple[int, int] | None]
    """Width and height of the images that the proposals were computed for; None if unknown."""


@dataclass(frozen=True)
class AnnotatedDataset:
    """One manifest and the proposals of its images."""

    manifest: Manifest
    proposals: StoredProposals
    excluded: ExcludedImages | None = None
    """Images that count as not annotated, so that no one trains on them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The manifest's classes."""
        return self.manifest.classes or ()

    @property
    def shard_rows(self) -> tuple[int, ...]:
        """Images of each shard, in order."""
        return self.proposals.rows

    def count_excluded(self) -> int:
        """How many of its images are left out."""
        return 0 if self.excluded is None else len(self.excluded.find_rows(self.manifest))

    def read(self, ordinal: int, with_proposals: bool = True) -> AnnotatedShard:
        """The images of one shard."""
        first, count = sum(self.shard_rows[:ordinal]), self.shard_rows[ordinal]
        columns = [*self.manifest.image_columns, "objects"]
        rows = self.manifest.read(first, count, columns).combine_chunks()
        boxes: list[NDArray[np.float32]] = []
        proposed_sizes: list[tuple[int, int] | None] = []
        if with_proposals:
            stored = self.proposals.locate(first, count).read_table()
            boxes, proposed_sizes = schema.split_box_column(stored["boxes"]), pair_sizes(stored)
        return AnnotatedShard(
            rows["image_id"].to_pylist(),
            rows["uri"].to_pylist(),
            read_members(rows, self.manifest.uri, first),
            self.read_annotations(rows, first),
            boxes,
            pair_sizes(rows),
            proposed_sizes,
        )

    def read_annotations(self, rows: pa.Table, first_row: int) -> list[Annotations | None]:
        """The annotations of some rows of the manifest; None too for an excluded image.

        Args:
            rows: with `objects` and the manifest's `image_columns`.
            first_row: the row of the first of them.
        """
        annotations = read_annotations(rows, self.classes)
        if self.excluded is not None:
            for row in np.flatnonzero(self.excluded.find(self.manifest, rows, first_row)):
                annotations[row] = None
        return annotations


def read_annotations(rows: pa.Table, classes: Sequence[str]) -> list[Annotations | None]:
    """The annotated objects of manifest rows, with labels as numbers from 1.

    Raises:
        UnreadableDataset: an object of a class that the manifest does not list.
    """
    number = {name: index + 1 for index, name in enumerate(classes)}
    column = rows["objects"]
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(rows) == 0:
        return []
    flat = column.flatten()
    labels = flat.field("label").to_pylist()
    unknown = [label for label in set(labels) if label not in number]
    if unknown:
        raise UnreadableDataset(
            f"an object is of class {unknown[0]!r}, which is not among the manifest's classes"
        )
    numbers = np.array([number[label] for label in labels], np.int64)
    corners = [flat.field(n).to_numpy(zero_copy_only=False) for n in ("x1", "y1", "x2", "y2")]
    boxes = np.stack(corners, axis=1).astype(np.float32, copy=False)
    crowd = flat.field("crowd").fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    counts = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    ends = np.cumsum(counts)
    return [
        Annotations(boxes[end - n : end], numbers[end - n : end], crowd[end - n : end])
        if is_annotated
        else None
        for n, end, is_annotated in zip(
            counts, ends, column.is_valid().to_numpy(zero_copy_only=False), strict=True
        )
    ]


def open_annotated_manifests(
    manifest_uris: Sequence[str], classes: Sequence[str] = ()
) -> list[Manifest]:
    """Open the manifests of a training and settle their classes, which must be the same.

    Manifests that list no classes, as other tools write them, take those of the first manifest that does;
    if none does, `classes`, or all their labels, sorted.

    Args:
        manifest_uris: the manifests.
        classes: the labels in the order of their numbers, if the manifests do not say.

    Raises:
        UnreadableDataset: a manifest without annotations, manifests of different classes, or what
            `open_manifest` raises.
        InvalidConfiguration: a manifest lists other classes than `classes`, or `classes` repeats one.
    """
    if len(set(classes)) < len(classes):
        raise InvalidConfiguration(f"--classes names a class twice: {', '.join(classes)}")
    opened = [manifests.open_manifest(uri) for uri in manifest_uris]
    labels = [
        manifest.classes or list_annotated_classes(manifest, manifest.rows) for manifest in opened
    ]
    listed = next((manifest for manifest in opened if manifest.classes), None)
    if listed is not None and listed.classes is not None:
        _check_alike(opened, listed, classes)
        settled = listed.classes
    else:
        settled = tuple(classes) or tuple(sorted(set().union(*labels)))
        log.info("the manifests list no classes: training on %s", _join_names(settled))
    for manifest, own_labels in zip(opened, labels, strict=True):
        unknown = [label for label in own_labels if label not in settled]
        if unknown:
            raise UnreadableDataset(
                f"{uris.redact_uri(manifest.uri)}: an object is of class {unknown[0]!r}, "
                f"which is not among the classes {_join_names(settled)}"
            )
    return [replace(manifest, classes=settled) for manifest in opened]


def _check_alike(opened: Sequence[Manifest], listed: Manifest, classes: Sequence[str]) -> None:
    expected = listed.classes or ()
    if classes and tuple(classes) != expected:
        raise InvalidConfiguration(
            f"--classes is {_join_names(classes)}, but {uris.redact_uri(listed.uri)} lists "
            f"{_join_names(expected)}: leave --classes out"
        )
    for manifest in opened:
        if manifest.classes and manifest.classes != expected:
            raise UnreadableDataset(
                f"{uris.redact_uri(manifest.uri)} has the classes {_join_names(manifest.classes)}, but "
                f"{uris.redact_uri(listed.uri)} has {_join_names(expected)}; "
                "prepare both with the same classes"
            )


def _join_names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")


def check_objects(annotated_manifests: Sequence[Manifest]) -> None:
    """Reject manifests without a single object to learn from.

    Raises:
        UnreadableDataset: none of their images holds an object, or crowds alone.
    """
    for manifest in annotated_manifests:
        for first in range(0, manifest.rows, manifests.ROW_GROUP):
            rows = manifest.read(first, manifests.ROW_GROUP, ["objects"])
            annotations = read_annotations(rows, manifest.classes or ())
            if any(not image.crowd.all() for image in annotations if image is not None):
                return
    shown_uris = ", ".join(uris.redact_uri(manifest.uri) for manifest in annotated_manifests)
    raise UnreadableDataset(f"{shown_uris}: no image holds an object to learn from")


def open_annotated_datasets(
    annotated_manifests: Sequence[Manifest],
    proposal_uris: Sequence[str],
    excluded: ExcludedImages | None = None,
) -> list[AnnotatedDataset]:
    """Join manifests with their proposals: the n-th proposals belong to the n-th manifest.

    Args:
        annotated_manifests: the manifests.
        proposal_uris: outputs of `propose`.
        excluded: images that are left out.

    Raises:
        InvalidConfiguration: the numbers of manifests and proposals differ.
        MismatchedProposals, UnreadableDataset: as `open_stored_proposals` raises.
    """
    if len(annotated_manifests) != len(proposal_uris):
        raise InvalidConfiguration(
            f"{len(annotated_manifests)} manifests but {len(proposal_uris)} proposals: "
            "give one of --proposals for each of --manifest, in the same order"
        )
    return [
        AnnotatedDataset(manifest, open_stored_proposals(uri, manifest), excluded)
        for manifest, uri in zip(annotated_manifests, proposal_uris, strict=True)
    ]
