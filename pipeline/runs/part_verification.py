"""Verifies some parts of an output: what a process of a verification does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage, store_options, uris
from pipeline.candidate_thresholds import CANDIDATE_SCORES
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.part_identity import find_fault_in_end
from pipeline.runs.match_row_checks import find_wrong_matches
from pipeline.runs.row_checks import find_wrong_images, find_wrong_rows
from pipeline.runs.verification_faults import Fault, FaultList
from pipeline.shards import Shard
from pipeline.store_options import StoreOptions
from pipeline.table_checks import cast_table

TABLES = {"propose": schema.PROPOSALS, "detect": schema.DETECTIONS, "analyze": schema.MATCHES}
"""The schema of the parts of each job that can be verified."""


@dataclass(frozen=True)
class PartContents:
    """What some parts hold."""

    faults: FaultList
    parts: int = 0
    rows: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    """Boxes or detections, by the name that summary.json has for them."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failed images by stage and error type."""


@dataclass(frozen=True)
class PartVerifier:
    """Verifies parts of one output; goes to other processes."""

    output: str
    job: str
    fingerprint: str
    manifest: Manifest
    most_faults: int
    stores: StoreOptions = field(default_factory=store_options.get_options)

    def __call__(self, shards: Sequence[Shard]) -> PartContents:
        """Verify the parts of consecutive shards, each read once and whole.

        Raises:
            UnreadableDataset: the manifest is damaged.
            StorageError: a store fails.
        """
        store_options.set_options(self.stores)
        faults = FaultList(self.most_faults)
        parts = rows = 0
        sums: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        listed = self._read_manifest(shards)
        for shard in shards:
            own = listed.slice(shard.first_row - shards[0].first_row, shard.rows)
            table = self._verify_part(shard, own, faults)
            if table is not None:
                parts, rows = parts + 1, rows + len(table)
                sums.update(_count_elements(table))
                failed.update(_count_failures(table))
        return PartContents(faults, parts, rows, sums, failed)

    def _read_manifest(self, shards: Sequence[Shard]) -> pa.Table:
        objects = ["objects"] if self.job == "analyze" else []
        columns = [*self.manifest.image_columns, *objects]
        return self.manifest.read(shards[0].first_row, sum(shard.rows for shard in shards), columns)

    def _verify_part(self, shard: Shard, listed: pa.Table, faults: FaultList) -> pa.Table | None:
        """The part's table, or None if it is not readable as this shard's."""
        part = shard.part_name
        uri = uris.join(self.output, part)
        try:
            data = storage.read(uri)
        except MissingObject:
            faults.add(Fault("parts", part, "it is not there"))
            return None
        fault = find_fault_in_end(data, shard.key, shard.rows, self.fingerprint)
        if fault is not None:
            faults.add(Fault("identity", part, fault))
            return None
        target = TABLES[self.job]
        try:
            with schema.report_damage(uri):
                table = schema.parse_parquet(data)
            del data
            schema.check_version(table.schema, uri)
            faults.add_all(_find_wrong_columns(table.schema, target, part))
            missing = [name for name in target.names if name not in table.column_names]
            if missing:
                return None
            table = cast_table(table, target, uri)
        except UnreadableDataset as error:
            text = str(error).removeprefix(uris.redact_uri(uri)).lstrip(": ")
            faults.add(Fault("rows", part, text))
            return None
        if self.job == "analyze":
            faults.add_all(find_wrong_matches(table, listed, shard))
            return table
        before = faults.counts["images"]
        arguments = (table, listed, self.manifest, shard.first_row, part)
        faults.add_all(find_wrong_images(*arguments))
        if faults.counts["images"] == before:  # else the rows cannot be compared
            faults.add_all(find_wrong_rows(table, listed, self.manifest, part))
        return table


def _find_wrong_columns(stored: pa.Schema, target: pa.Schema, part: str) -> list[Fault]:
    optional = pa.schema([*schema.IMAGE_FACTS, CANDIDATE_SCORES])
    faults = [
        Fault("schema", part, f"it has no column {name}")
        for name in target.names
        if name not in stored.names
    ]
    for field_ in stored:
        expected = next(
            (s.field(field_.name) for s in (target, optional) if field_.name in s.names), None
        )
        if expected is None:
            faults.append(Fault("schema", part, f"it has an unknown column {field_.name!r:.100}"))
        elif field_.type != expected.type:
            text = f"column {field_.name} is {field_.type}, expected {expected.type}"
            faults.append(Fault("schema", part, text))
    return faults


def _count_elements(table: pa.Table) -> dict[str, int]:
    names = {"boxes": "proposals", "detections": "detections"}
    return {
        name: pc.sum(pc.list_value_length(table[column])).as_py() or 0
        for column, name in names.items()
        if column in table.column_names
    }


def _count_failures(table: pa.Table) -> Counter[str]:
    """Failed images as summary.json counts them: proposals do not store the stage."""
    if "status" not in table.column_names:
        return Counter()
    failed = table.filter(pc.equal(table["status"], "failed"))
    stages = (
        failed["stage"].to_pylist() if "stage" in failed.column_names else ["propose"] * len(failed)
    )
    types = failed["error_type"].to_pylist()
    return Counter(f"{stage}: {kind}" for stage, kind in zip(stages, types, strict=True))
