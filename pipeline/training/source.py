"""Where training's images come from: manifests joined with proposals, checked, read by the shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import manifests, schema, storage
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.proposals.stored import StoredProposals, matching


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
class Slice:
    """The images of one shard with what is known of them."""

    image_ids: list[str]
    uris: list[str]
    annotations: list[Annotations | None]
    """None where nothing was annotated."""
    proposals: list[NDArray[np.float32]]
    """`(N, 4)` per image, best first; none where the proposals of an image failed."""


@dataclass(frozen=True)
class Source:
    """One manifest and the proposals of its images."""

    manifest: Manifest
    proposals: StoredProposals

    @property
    def classes(self) -> tuple[str, ...]:
        """The manifest's classes."""
        return self.manifest.classes or ()

    @property
    def shard_rows(self) -> tuple[int, ...]:
        """Images of each shard, in order."""
        return self.proposals.rows

    def read(self, ordinal: int, with_proposals: bool = True) -> Slice:
        """The slice of one shard."""
        first, count = sum(self.shard_rows[:ordinal]), self.shard_rows[ordinal]
        rows = self.manifest.read(first, count, ["image_id", "uri", "objects"]).combine_chunks()
        boxes: list[NDArray[np.float32]] = []
        if with_proposals:
            boxes = schema.box_arrays(self.proposals.of(first, count).table()["boxes"])
        return Slice(
            rows["image_id"].to_pylist(),
            rows["uri"].to_pylist(),
            annotated_objects(rows, self.classes),
            boxes,
        )


def annotated_objects(rows: pa.Table, classes: Sequence[str]) -> list[Annotations | None]:
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
        if known
        else None
        for n, end, known in zip(
            counts, ends, column.is_valid().to_numpy(zero_copy_only=False), strict=True
        )
    ]


def open_manifests(uris: Sequence[str]) -> list[Manifest]:
    """Open the manifests of a training and check that they are annotated with the same classes.

    Raises:
        UnreadableDataset: a manifest without classes, manifests of different classes, or what
            `open_manifest` raises.
    """
    opened: list[Manifest] = []
    for uri in uris:
        manifest = manifests.open_manifest(uri)
        where = storage.shown(manifest.uri)
        if not manifest.classes:
            raise UnreadableDataset(
                f"{where} lists no classes, so it cannot be trained on; "
                "prepare it from an annotated dataset"
            )
        if opened and manifest.classes != opened[0].classes:
            raise UnreadableDataset(
                f"{where} has the classes {_listed(manifest)}, but "
                f"{storage.shown(opened[0].uri)} has {_listed(opened[0])}; prepare both alike"
            )
        opened.append(manifest)
    return opened


def _listed(manifest: Manifest) -> str:
    classes = manifest.classes or ()
    return ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")


def check_objects(opened: Sequence[Manifest]) -> None:
    """Look for one object in any of the manifests.

    Raises:
        UnreadableDataset: there is none to learn from.
    """
    for manifest in opened:
        for first in range(0, manifest.rows, manifests.ROW_GROUP):
            rows = manifest.read(first, manifests.ROW_GROUP, ["objects"])
            known = annotated_objects(rows, manifest.classes or ())
            if any(not found.crowd.all() for found in known if found is not None):
                return
    named = ", ".join(storage.shown(manifest.uri) for manifest in opened)
    raise UnreadableDataset(f"{named}: no image holds an object to learn from")


def open_sources(opened: Sequence[Manifest], proposal_uris: Sequence[str]) -> list[Source]:
    """Join manifests with their proposals: the n-th proposals belong to the n-th manifest.

    Raises:
        InvalidConfiguration: another number of proposals than of manifests.
        MismatchedProposals, UnreadableDataset: as `stored.matching` raises.
    """
    if len(opened) != len(proposal_uris):
        raise InvalidConfiguration(
            f"{len(opened)} manifests but {len(proposal_uris)} proposals: "
            "give one of --proposals for each of --manifest, in the same order"
        )
    return [
        Source(manifest, matching(uri, manifest))
        for manifest, uri in zip(opened, proposal_uris, strict=True)
    ]
