"""Splits a manifest: the group and the classes of each image, where they go, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import schema, storage, uris
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.subsets.manifest_copy import (
    read_manifest_schema,
    read_manifest_tables,
    write_selections,
)
from pipeline.subsets.split_assignment import assign_by_hash, assign_stratified, spread
from pipeline.table_checks import require_columns

BY_IMAGE = "hash"
"""Each image is a group of its own."""
_MOST_BYTES = 1 << 31


@dataclass(frozen=True)
class SplitPlan:
    """How a manifest is split."""

    fractions: tuple[float, ...]
    names: tuple[str, ...]
    by: str = BY_IMAGE
    """A column with the group of each image, or BY_IMAGE."""
    groups: str | None = None
    """A Parquet file that has this column, with image_id; by default the manifest has it."""
    seed: int = 0
    is_stratified: bool = False
    earlier: str | None = None
    """A folder with an earlier split of the same names, whose images stay where they are."""


@dataclass(frozen=True)
class SplitResult:
    """What was written."""

    rows: list[int]
    """By split."""
    groups: int
    kept: int
    """Images that an earlier split had already."""
    ungrouped: int
    """Images that the table of groups does not have; each is a group of its own."""


def split_manifest(manifest: Manifest, plan: SplitPlan, targets: Sequence[str]) -> SplitResult:
    """Write the splits; nothing is written if one of them would be empty.

    Raises:
        InvalidConfiguration: the column of groups does not exist, or a split gets no image.
        UnreadableDataset: a group is null, or a manifest is damaged.
    """
    image_ids, groups, labels = _read_images(manifest, plan)
    groups, ungrouped = _read_groups(image_ids, groups, plan)
    kept = _read_earlier(image_ids, groups, plan)
    if plan.is_stratified:
        assigned = assign_stratified(groups, labels, plan.fractions, plan.seed, kept)
    else:
        assigned = assign_by_hash(groups, plan.fractions, plan.seed) | kept
    chosen = spread(groups, assigned)
    counts = np.bincount(chosen, minlength=len(plan.names))
    if not counts.all():
        empty = plan.names[int(np.flatnonzero(counts == 0)[0])]
        raise InvalidConfiguration(
            f"split {empty!r} gets none of the {len(chosen)} images in {len(set(groups))} groups: choose a "
            "larger fraction, another --seed or smaller groups"
        )
    rows = write_selections(manifest, targets, chosen)
    return SplitResult(rows, len(set(groups)), _count_kept(groups, kept), ungrouped)


def _count_kept(groups: Sequence[str], kept: dict[str, int]) -> int:
    return sum(group in kept for group in groups)


def _read_images(
    manifest: Manifest, plan: SplitPlan
) -> tuple[list[str], list[str], list[list[str]]]:
    """The image_id, group and classes of each image."""
    stored = read_manifest_schema(manifest)
    has_column = plan.by != BY_IMAGE and plan.groups is None
    if has_column and plan.by not in stored.names:
        raise InvalidConfiguration(
            f"{uris.redact_uri(manifest.uri)} has no column {plan.by!r} to split by (columns: "
            f"{', '.join(stored.names)}); --groups takes a Parquet file that has it"
        )
    image_ids: list[str] = []
    groups: list[str] = []
    labels: list[list[str]] = []
    for table in read_manifest_tables(manifest):
        ids = table["image_id"].to_pylist()
        if has_column:
            groups += _read_names(table[plan.by], plan.by, manifest.uri, ids)
        image_ids += ids
        if plan.is_stratified:
            objects = (
                table["objects"].to_pylist()
                if "objects" in table.column_names
                else [None] * len(ids)
            )
            labels += [[item["label"] for item in of_image or ()] for of_image in objects]
    if plan.is_stratified and not any(labels):
        raise InvalidConfiguration(
            f"{uris.redact_uri(manifest.uri)} has no objects: --stratify needs their classes"
        )
    return image_ids, groups or image_ids, labels or [[]] * len(image_ids)


def _read_names(
    column: pa.ChunkedArray, name: str, uri: str, image_ids: Sequence[str]
) -> list[str]:
    if pa.types.is_nested(column.type):
        raise InvalidConfiguration(
            f"{uris.redact_uri(uri)}: column {name!r} is {column.type}, expected texts or numbers"
        )
    values = column.to_pylist()
    if None in values:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: column {name!r} is null for image "
            f"{image_ids[values.index(None)]!r:.200}: every image needs a group"
        )
    return [str(value) for value in values]


def _read_groups(
    image_ids: Sequence[str], groups: list[str], plan: SplitPlan
) -> tuple[list[str], int]:
    """The groups, from their table if there is one, and how many images it does not have."""
    if plan.groups is None:
        return groups, 0
    data = storage.read(uris.make_absolute(plan.groups), _MOST_BYTES)
    with schema.report_damage(plan.groups):
        table = schema.parse_parquet(data)
    if plan.by == BY_IMAGE:
        raise InvalidConfiguration("--groups needs --by COLUMN, the column that has the groups")
    require_columns(table, ["image_id", plan.by], plan.groups)
    ids = table["image_id"].to_pylist()
    group_of = dict(zip(ids, _read_names(table[plan.by], plan.by, plan.groups, ids), strict=True))
    missing = sum(image_id not in group_of for image_id in image_ids)
    # A group's name never equals that of an image on its own.
    return [
        f"group {group_of[image_id]}" if image_id in group_of else f"image {image_id}"
        for image_id in image_ids
    ], missing


def _read_earlier(
    image_ids: Sequence[str], groups: Sequence[str], plan: SplitPlan
) -> dict[str, int]:
    """The split of the groups that an earlier split has.

    Raises:
        UnreadableDataset: one group is in two of its splits.
    """
    if plan.earlier is None:
        return {}
    split_of: dict[str, int] = {}
    for position, name in enumerate(plan.names):
        earlier = open_manifest(uris.join(uris.make_absolute(plan.earlier), f"{name}.parquet"))
        for table in read_manifest_tables(earlier):
            split_of.update(dict.fromkeys(table["image_id"].to_pylist(), position))
    kept: dict[str, int] = {}
    for image_id, group in zip(image_ids, groups, strict=True):
        split = split_of.get(image_id)
        if split is not None and kept.setdefault(group, split) != split:
            raise UnreadableDataset(
                f"{uris.redact_uri(plan.earlier)} has images of group {group!r:.200} in "
                f"{plan.names[kept[group]]} and in {plan.names[split]}: groups cannot be kept together"
            )
    return kept
