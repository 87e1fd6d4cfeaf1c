"""Where training's pictures come from: manifests joined with proposals, checked, read by the shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import manifest as manifests
from pipeline import run_record, schema, shards, storage
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableDataset
from pipeline.manifest import Manifest
from pipeline.shards import Parts


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of one picture."""

    boxes: NDArray[np.float32]
    """`(G, 4)` in pixels of the original picture."""
    labels: NDArray[np.int64]
    """`(G,)`, counted from 1: 0 is the background."""
    crowd: NDArray[np.bool_]
    """`(G,)`, whether the box holds a crowd."""


@dataclass(frozen=True)
class Slice:
    """The pictures of one shard with what is known of them."""

    image_ids: list[str]
    uris: list[str]
    annotations: list[Annotations | None]
    """None where nothing was annotated."""
    proposals: list[NDArray[np.float32]]
    """`(N, 4)` per picture, best first; none where the proposals of a picture failed."""


@dataclass(frozen=True)
class Source:
    """One manifest and the proposals of its pictures."""

    manifest: Manifest
    proposals: Parts

    @property
    def classes(self) -> tuple[str, ...]:
        """The manifest's classes."""
        return self.manifest.classes or ()

    def read(self, ordinal: int, with_proposals: bool = True) -> Slice:
        """The slice of one shard.

        Raises:
            MismatchedProposals: manifest and proposals name different pictures.
        """
        shard = self.proposals.shards[ordinal]
        rows = self.manifest.read(
            shard.first_row, shard.rows, ["image_id", "uri", "objects"]
        ).combine_chunks()
        ids = rows["image_id"].to_pylist()
        boxes: list[NDArray[np.float32]] = []
        if with_proposals:
            part = self.proposals.read(shard, ["image_id", "boxes"])
            self._compare(ids, part["image_id"].to_pylist(), shard.first_row)
            boxes = schema.box_arrays(part["boxes"])
        return Slice(ids, rows["uri"].to_pylist(), annotated_objects(rows, self.classes), boxes)

    def check(self) -> str:
        """Compare the pictures of manifest and proposals; returns the digest of the pictures.

        Raises:
            MismatchedProposals: they differ; the message names the first picture that does.
        """
        where = storage.shown(self.proposals.uri)
        columns = self.proposals.schema().names
        if "boxes" not in columns:
            raise MismatchedProposals(
                f"{where} holds no proposals: its columns are {', '.join(columns)}"
            )
        if self.proposals.rows != self.manifest.rows:
            short = self.proposals.rows < self.manifest.rows
            raise MismatchedProposals(
                f"{where} has proposals of {self.proposals.rows} pictures, "
                f"{storage.shown(self.manifest.uri)} has {self.manifest.rows}"
                + ("; propose without --limit, or prepare a smaller manifest" if short else "")
            )
        record = run_record.read_record(self.proposals.uri)
        made_for = None if record is None else record.settings.get("dataset")
        dataset = shards.cut(self.manifest, [shard.rows for shard in self.proposals.shards]).dataset
        if made_for != dataset:  # other pictures, or the same that lay elsewhere then
            for shard in self.proposals.shards:
                ids = self.manifest.read(shard.first_row, shard.rows, ["image_id"])["image_id"]
                part = self.proposals.read(shard, ["image_id"])["image_id"]
                self._compare(ids.to_pylist(), part.to_pylist(), shard.first_row)
        return dataset

    def _compare(self, expected: list[str], found: list[str], first_row: int) -> None:
        for offset, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one != other:
                raise MismatchedProposals(
                    f"{storage.shown(self.proposals.uri)} has the proposals of other pictures: row "
                    f"{first_row + offset} is {other!r} there and {one!r} in "
                    f"{storage.shown(self.manifest.uri)}; propose for this manifest"
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


def open_sources(opened: Sequence[Manifest], proposal_uris: Sequence[str]) -> list[Source]:
    """Join manifests with their proposals: the n-th proposals belong to the n-th manifest.

    Raises:
        InvalidConfiguration: another number of proposals than of manifests.
        UnreadableDataset: what `open_parts` raises.
    """
    if len(opened) != len(proposal_uris):
        raise InvalidConfiguration(
            f"{len(opened)} manifests but {len(proposal_uris)} proposals: "
            "give one of --proposals for each of --manifest, in the same order"
        )
    return [
        Source(manifest, shards.open_parts(uri))
        for manifest, uri in zip(opened, proposal_uris, strict=True)
    ]
