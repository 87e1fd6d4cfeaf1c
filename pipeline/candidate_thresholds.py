"""The thresholds of `detect --rule paper`: one score for each class, which depends on all images of a run.

The released Fast R-CNN keeps, of each class, the best 40 boxes per image on average over the test set,
counted before NMS. A worker sees one shard. So the parts keep all detections and, in the column
`candidate_scores`, the scores of the boxes that entered NMS. After the last shard, the run puts
`candidate_thresholds.json`, and `shards.Parts` leaves out what these thresholds exclude.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage, uris
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.json_reader import InvalidJson, is_finite_number, parse_fields
from pipeline.run_record import RunRecord

THRESHOLDS_NAME = "candidate_thresholds.json"
CANDIDATE_SCORES = pa.field("candidate_scores", pa.list_(pa.float32()))
"""Additional column of the detections of such a run: each class's scores before NMS, class by class in the
order of the metadata `classes`, as many for each; null for a failed image."""


@dataclass(frozen=True)
class CandidateThresholds:
    """The scores above which detections of a run stay."""

    fingerprint: str
    """Of the run."""
    images: int
    """Images that the run detected in."""
    mean_per_image: int
    """Candidates per image, on average, that reach a class's threshold."""
    thresholds: Mapping[str, float | None]
    """By class; null if the class has no more candidates than `images * mean_per_image`: all stay."""

    def put(self, output: str) -> None:
        """Put candidate_thresholds.json into the output."""
        data = json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(output, THRESHOLDS_NAME), data)

    def apply(self, table: pa.Table) -> pa.Table:
        """The rows of a part, without the detections whose score is not above their class's threshold.

        The column of candidate scores is left out.

        Args:
            table: with the column `detections` in the type of `schema.DETECTIONS`.

        Raises:
            UnreadableDataset: a detection of a class without an entry.
        """
        rows = table.column("detections").combine_chunks()
        if isinstance(rows, pa.ChunkedArray):  # of an empty table
            return _drop_candidate_scores(table)
        detections = rows.flatten()
        classes = pa.array(list(self.thresholds), pa.string())
        class_id = pc.index_in(detections.field("label"), value_set=classes)
        if class_id.null_count:
            label = detections.field("label").filter(pc.is_null(class_id))[0].as_py()
            raise UnreadableDataset(f"{THRESHOLDS_NAME} has no threshold for the class {label!r}")
        limits = [-np.inf if limit is None else limit for limit in self.thresholds.values()]
        limit = np.array(limits, np.float32)[class_id.to_numpy()]
        stays = detections.field("score").to_numpy() > limit
        image = pc.list_parent_indices(rows).to_numpy()
        counts = np.bincount(image[stays], minlength=len(rows))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        column = pa.ListArray.from_arrays(
            offsets, detections.filter(pa.array(stays)), mask=rows.is_null()
        )
        index = table.schema.get_field_index("detections")
        return _drop_candidate_scores(
            table.set_column(index, table.schema.field(index), column.cast(rows.type))
        )


def get_mean_per_image(record: RunRecord) -> int | None:
    """The candidates per image on average that a run keeps; None if its rule has no such threshold."""
    keep = record.settings.get("keep")
    mean = keep.get("mean_per_image") if isinstance(keep, Mapping) else None
    return mean if isinstance(mean, int) else None


def read_thresholds(output: str, record: RunRecord) -> CandidateThresholds | None:
    """The thresholds of a run, or None if its output has none, or those of another run.

    Raises:
        UnreadableDataset: the file is damaged.
    """
    uri = uris.join(output, THRESHOLDS_NAME)
    try:
        stored = parse_fields(storage.read(uri))
        thresholds = stored.read_object("thresholds").values
        for label, limit in thresholds.items():
            if limit is not None and not is_finite_number(limit):
                raise InvalidJson(f"the threshold of {label!r} is not a finite number")
        read = CandidateThresholds(
            stored.read_text("fingerprint"),
            stored.read_integer("images"),
            stored.read_integer("mean_per_image", at_least=1),
            thresholds,
        )
    except MissingObject:
        return None
    except InvalidJson as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is damaged ({error}): remove it and rerun the detect job"
        ) from error
    return read if read.fingerprint == record.fingerprint else None


def _drop_candidate_scores(table: pa.Table) -> pa.Table:
    has_scores = CANDIDATE_SCORES.name in table.column_names
    return table.drop_columns([CANDIDATE_SCORES.name]) if has_scores else table
