"""What an inspection finds among the signatures: duplicates, leaks, and the list of images to leave out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema, storage, uris
from pipeline.engine.inspect.splits import SplitInputs
from pipeline.inspection.duplicate_groups import (
    DuplicateGroups,
    ExclusionRow,
    group_duplicates,
    list_exclusions,
)
from pipeline.inspection.near_duplicates import (
    SIGNATURE_COLUMNS,
    NearPairs,
    describe_copy,
    find_near_duplicates,
)
from pipeline.shards import Parts, encode_part

EXCLUSIONS = "exclude.parquet"
PAIRS = "duplicates.parquet"
GROUPS = "duplicate_groups.parquet"


@dataclass(frozen=True)
class InspectedSplit:
    """One split with the signatures of its images."""

    inputs: SplitInputs
    parts: Parts

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.inputs.name


@dataclass(frozen=True)
class Findings:
    """Duplicates over all splits; images are numbered through them."""

    splits: Sequence[InspectedSplit]
    pairs: NearPairs
    groups: DuplicateGroups
    exclusions: Sequence[ExclusionRow]

    @cached_property
    def first_numbers(self) -> NDArray[np.int64]:
        """`(S + 1,)` the number of each split's first image, and the number of all images."""
        counts = [split.parts.rows for split in self.splits]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def find_splits(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The split of each image."""
        return np.searchsorted(self.first_numbers, numbers, side="right") - 1

    def write(self, output: str) -> None:
        """Put the pairs, the groups and the list of images to leave out as Parquet files."""
        numbers = np.unique(
            np.concatenate(
                [self.pairs.first, self.pairs.second, [row.image for row in self.exclusions]]
            ).astype(np.int64)
        )
        names = self._read_names(numbers)
        for name, table in (
            (PAIRS, self._build_pairs(names)),
            (GROUPS, self._build_groups(names)),
            (EXCLUSIONS, self._build_exclusions(names)),
        ):
            target = schema.add_metadata(table.schema, {})
            storage.put(uris.join(output, name), encode_part(table.cast(target)))

    def _read_names(self, numbers: NDArray[np.int64]) -> dict[int, tuple[str, str, str]]:
        """The image_id, key and split of some images, by number."""
        names: dict[int, tuple[str, str, str]] = {}
        for position, split in enumerate(self.splits):
            first = int(self.first_numbers[position])
            for shard in split.parts.shards:
                start = first + shard.first_row
                rows = numbers[(numbers >= start) & (numbers < start + shard.rows)] - start
                if not len(rows):
                    continue
                table = split.parts.read(shard, ["image_id", "image_key"]).take(pa.array(rows))
                ids, keys = (table[name].to_pylist() for name in ("image_id", "image_key"))
                for row, image_id, key in zip(rows.tolist(), ids, keys, strict=True):
                    names[start + row] = (image_id, key, split.name)
        return names

    def _build_pairs(self, names: dict[int, tuple[str, str, str]]) -> pa.Table:
        first, second = (
            [names[number] for number in numbers.tolist()]
            for numbers in (self.pairs.first, self.pairs.second)
        )
        text = pa.string()
        return pa.table(
            {
                "image_id": pa.array([name[0] for name in first], text),
                "split": pa.array([name[2] for name in first], text),
                "other_image_id": pa.array([name[0] for name in second], text),
                "other_split": pa.array([name[2] for name in second], text),
                "copy": pa.array([describe_copy(view) for view in self.pairs.view.tolist()], text),
                "similarity": pa.array(self.pairs.similarity, pa.float32()),
            }
        )

    def _build_groups(self, names: dict[int, tuple[str, str, str]]) -> pa.Table:
        chosen = [names[number] for number in self.groups.images.tolist()]
        labels = [names[number] for number in self.groups.group.tolist()]
        return pa.table(
            {
                "image_id": pa.array([name[0] for name in chosen], pa.string()),
                "split": pa.array([name[2] for name in chosen], pa.string()),
                "group": pa.array([f"{name[2]}/{name[0]}" for name in labels], pa.string()),
            }
        )

    def _build_exclusions(self, names: dict[int, tuple[str, str, str]]) -> pa.Table:
        images = [names[row.image] for row in self.exclusions]
        others = [names[row.other] for row in self.exclusions]
        text = pa.string()
        return pa.table(
            {
                "image_id": pa.array([name[0] for name in images], text),
                "image_key": pa.array([name[1] for name in images], text),
                "split": pa.array([name[2] for name in images], text),
                "reason": pa.array([row.reason for row in self.exclusions], text),
                "other_image_id": pa.array([name[0] for name in others], text),
                "other_split": pa.array([name[2] for name in others], text),
            }
        )


def find_duplicates(splits: Sequence[InspectedSplit]) -> Findings:
    """Find duplicates within and between splits.

    Raises:
        UnreadableDataset: a part of the signatures is damaged.
    """
    pairs = find_near_duplicates(_read_signatures(splits))
    groups = group_duplicates(pairs)
    findings = Findings(splits, pairs, groups, ())
    split_of = findings.find_splits(np.arange(findings.first_numbers[-1]))
    return Findings(splits, pairs, groups, list_exclusions(groups, split_of))


def _read_signatures(splits: Sequence[InspectedSplit]) -> Iterator[pa.Table]:
    for split in splits:
        yield from split.parts.read_tables(SIGNATURE_COLUMNS)
