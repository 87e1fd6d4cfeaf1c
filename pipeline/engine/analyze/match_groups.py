"""Groups of parts of matches, which the reductions read: a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import sleep
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.analysis.image_counts import ImageCounts
from pipeline.analysis.match_sums import RANKING_COLUMNS, select_ranking_rows
from pipeline.analysis.match_table import read_matches
from pipeline.analysis.matching import Matches
from pipeline.analysis.ranking import RankingRows, concatenate_rows
from pipeline.engine.analyze.match_shard import IMAGES
from pipeline.errors import MissingObject, StorageError, UnreadableDataset
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF
from pipeline.shards import Parts, Shard

GROUP_ROWS = 2**20
"""Detections that one task reads: with all that is computed from them some 0.3 GB."""

T = TypeVar("T")


@dataclass(frozen=True)
class MatchGroup:
    """Some parts of matches that follow each other in the manifest."""

    parts: Parts
    classes: int
    """Number of classes that are scored, the first ones of the matches."""
    left_out: NDArray[np.int64] | None = None
    """Rows of the manifest whose matches are not read."""

    def read_tables(self, columns: Sequence[str]) -> Iterator[tuple[Shard, pa.Table]]:
        """Read the parts one at a time; a store that fails is asked again.

        Raises:
            UnreadableDataset: a part is damaged, or of another run.
            StorageError: the store keeps failing.
        """
        names = columns if self.left_out is None else tuple(dict.fromkeys([*columns, "row"]))
        for shard in self.parts.shards:
            table = retry_store(lambda shard=shard: self.parts.read(shard, names))  # type: ignore[misc]
            if self.left_out is not None:
                is_left_out = pc.is_in(table["row"], value_set=pa.array(self.left_out))
                table = table.filter(pc.invert(is_left_out)).select(list(columns))
            yield shard, table

    def read_matches(self, columns: Sequence[str]) -> Iterator[Matches]:
        """Read the parts one at a time as arrays."""
        for shard, table in self.read_tables(columns):
            yield read_matches(table, uris.join(self.parts.uri, shard.part_name))

    def __call__(self) -> RankingRows:
        """Read what the ranking needs."""
        return concatenate_rows(
            [
                select_ranking_rows(matches, self.classes)
                for matches in self.read_matches(RANKING_COLUMNS)
            ]
        )


def retry_store(read: Callable[[], T]) -> T:
    """Do a read, again and again if its store fails.

    Raises:
        StorageError: the store keeps failing, or the object is missing.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return read()
        except MissingObject:
            raise
        except StorageError:
            sleep(DEFAULT_BACKOFF.wait(attempt))
    return read()


def read_image_counts(table: pa.Table, uri: str) -> ImageCounts:
    """Read how many images a part covers from its metadata.

    Raises:
        UnreadableDataset: it does not say.
    """
    stored = schema.read_metadata(table.schema, IMAGES)
    try:
        return ImageCounts.from_json(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} does not say how many images it covers: it is not a part of matches, "
            "or another program rewrote it"
        ) from error


def group_parts(
    matches: Parts, detections: Mapping[int, int], classes: int, rows: int = GROUP_ROWS
) -> list[MatchGroup]:
    """Group the parts so that a group has at most `rows` detections, or a single part.

    Args:
        matches: the parts of matches.
        detections: about how many detections each shard has, by ordinal.
        classes: number of classes that are scored.
        rows: the most detections of a group.
    """
    groups: list[list[Shard]] = []
    count = rows + 1
    for shard in matches.shards:
        if count + detections[shard.ordinal] > rows:
            groups.append([])
            count = 0
        groups[-1].append(shard)
        count += detections[shard.ordinal]
    return [
        MatchGroup(
            Parts(matches.uri, tuple(members), matches.fingerprint, one_row_per_image=False),
            classes,
        )
        for members in groups
    ]
