"""Verifies an output of propose, detect or analyze against its manifest, reading every row of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import shards, storage, uris
from pipeline.candidate_thresholds import get_mean_per_image, read_thresholds
from pipeline.errors import (
    MismatchedProposals,
    MissingObject,
    UnreadableDataset,
)
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.manifests import Manifest, open_manifest
from pipeline.run_record import RECORD_NAME, RunRecord
from pipeline.runs.output import SUMMARY_NAME
from pipeline.runs.part_verification import TABLES, PartContents, PartVerifier
from pipeline.runs.run_status import find_run_folder, open_record
from pipeline.runs.threshold_selection import select_thresholds
from pipeline.runs.verification_batches import batch_shards, verify_batches
from pipeline.runs.verification_faults import CHECKS, Fault, FaultList
from pipeline.shards import PART_NAME, TABLE_NAME, Parts, Shard

_SCRATCH_END = ".partial"


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification."""

    output: str
    job: str
    images: int
    """Of the shard table."""
    shards: int
    contents: PartContents
    """What the parts hold, and all faults."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a check was not made, by its name."""
    others: tuple[str, ...] = ()
    """Names in the folder that no run writes; they are left alone."""

    @property
    def is_right(self) -> bool:
        """Whether no check found a fault."""
        return not self.contents.faults.counts.total()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        faults = self.contents.faults
        return {
            "output": uris.redact_uri(self.output),
            "job": self.job,
            "right": self.is_right,
            "images": self.images,
            "images_failed": self.contents.failed.total(),
            "shards": self.shards,
            "parts_read": self.contents.parts,
            "rows_read": self.contents.rows,
            "checks": {
                name: {
                    "faults": faults.counts[name],
                    "skipped": self.skipped.get(name),
                    "title": title,
                }
                for name, title in CHECKS.items()
            },
            "first_faults": [vars(fault) for fault in faults.kept],
            "other_files": list(self.others),
        }


def verify_output(
    output: str,
    manifest_uri: str,
    *,
    processes: int | None = None,
    most_faults: int = 20,
    note_progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Read an output whole and compare it with its manifest.

    Args:
        output: a folder that propose or detect wrote, the `matches` of an analysis, or a folder with these.
        manifest_uri: the manifest that the run had.
        processes: processes that read parts; None takes one per core, fewer for a small output.
        most_faults: faults of each check that are named; all are counted.
        note_progress: called with the images verified so far and all images.

    Raises:
        UnreadableDataset: the folder is no such output, or the manifest cannot be read.
        StorageError: a store fails.
        ShardFailed: a process of the verification was ended.
    """
    output = find_run_folder(output)
    faults = FaultList(most_faults)
    record = _open_record(output, faults)
    table = shards.read_shard_table(output)
    if not table:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} has no {TABLE_NAME}: its run has not begun to work"
        )
    manifest = open_manifest(manifest_uri)
    skipped = _verify_shards(record, table, manifest, faults)
    present, others = _verify_names(output, table, faults)
    verifier = PartVerifier(output, record.job, record.fingerprint, manifest, most_faults)
    contents = PartContents(faults)
    total = sum(shard.rows for shard in present)
    for batch in verify_batches(verifier, batch_shards(present, manifest.rows), processes):
        contents = _add_contents(contents, batch)
        if note_progress is not None:
            note_progress(contents.rows, total)
    skipped |= _verify_thresholds(output, record, table, contents)
    skipped |= _verify_summary(output, record, table, contents)
    images = sum(shard.rows for shard in table)
    return Verification(output, record.job, images, len(table), contents, skipped, others)


def _open_record(output: str, faults: FaultList) -> RunRecord:
    record = open_record(output)
    if record.job not in TABLES:
        raise UnreadableDataset(
            f"{uris.redact_uri(output)} was written by {record.job}: outputs of propose, detect and analyze "
            "can be verified"
        )
    stored = parse_fields(storage.read(uris.join(output, RECORD_NAME))).values.get("fingerprint")
    if stored != record.fingerprint:
        text = f"its fingerprint is {stored!r:.80}, its settings have {record.fingerprint!r:.80}"
        faults.add(Fault("record", RECORD_NAME, text))
    return record


def _verify_shards(
    record: RunRecord, table: Sequence[Shard], manifest: Manifest, faults: FaultList
) -> dict[str, str]:
    """Compare the shard table with the one that the manifest gives; returns what could not be checked."""
    images = sum(shard.rows for shard in table)
    name = "manifest"
    try:
        cut = shards.cut_manifest(manifest, [shard.rows for shard in table], images)
    except MismatchedProposals:
        text = f"it has {manifest.rows} images, the output has {images}"
        faults.add(Fault("dataset", name, text))
        return {"shards": "the manifest has fewer images"}
    except UnreadableDataset as error:
        faults.add(Fault("dataset", name, str(error)))
        return {"shards": "the manifest is not usable"}
    if cut.dataset != record.settings.get("dataset"):
        text = "its image_ids, uris or decoding are others than when the run began"
        faults.add(Fault("dataset", name, text))
    stated = record.settings.get("images", images)
    if stated != images:
        faults.add(Fault("shards", TABLE_NAME, f"it has {images} images, {RECORD_NAME} {stated}"))
    for shard, expected in zip(table, cut.build_shards(record.fingerprint), strict=True):
        if shard != expected:
            text = f"shard {shard.ordinal} has key {shard.key}, expected {expected.key}"
            faults.add(Fault("shards", TABLE_NAME, text))
    return {}


def _verify_names(
    output: str, table: Sequence[Shard], faults: FaultList
) -> tuple[list[Shard], tuple[str, ...]]:
    """The shards that have a part, and names that no run writes."""
    own = {
        RECORD_NAME,
        TABLE_NAME,
        SUMMARY_NAME,
        "candidate_thresholds.json",
        "plan.json",
        "README.md",
    }
    names = set(storage.list_names(output))
    expected = {shard.part_name for shard in table}
    present = [shard for shard in table if shard.part_name in names]
    for shard in table:
        if shard.part_name not in names:
            if storage.exists(uris.join(output, shard.part_name)):  # a listing may lag behind
                present.append(shard)
            else:
                text = f"shard {shard.ordinal} of {shard.rows} images has no part"
                faults.add(Fault("parts", shard.part_name, text))
    others = []
    for name in sorted(names - expected - own):
        if PART_NAME.fullmatch(name):
            faults.add(Fault("strays", name, "it belongs to no shard of this run"))
        elif name.startswith(".") and name.endswith(_SCRATCH_END):
            faults.add(Fault("strays", name, "a writer is at work, or was killed and left it"))
        else:
            others.append(name)
    present.sort(key=lambda shard: shard.ordinal)
    return present, tuple(others)


def _add_contents(first: PartContents, second: PartContents) -> PartContents:
    first.faults.merge(second.faults)
    return PartContents(
        first.faults,
        first.parts + second.parts,
        first.rows + second.rows,
        first.sums + second.sums,
        first.failed + second.failed,
    )


def _verify_thresholds(
    output: str, record: RunRecord, table: Sequence[Shard], contents: PartContents
) -> dict[str, str]:
    """Select the thresholds of `detect --rule paper` again; returns why that was not done."""
    mean = get_mean_per_image(record)
    if mean is None:
        return {"thresholds": "the run's rule has none"}
    if contents.faults.counts.total():
        return {"thresholds": "they need parts without faults"}
    name = "candidate_thresholds.json"
    try:
        stored = read_thresholds(output, record)
        expected = select_thresholds(Parts(output, tuple(table), record.fingerprint), mean)
    except UnreadableDataset as error:
        contents.faults.add(Fault("thresholds", name, str(error)))
        return {}
    if stored is None:
        contents.faults.add(Fault("thresholds", name, "it is missing, or another run's"))
    elif stored != expected:
        contents.faults.add(Fault("thresholds", name, "the parts give other thresholds"))
    return {}


def _verify_summary(
    output: str, record: RunRecord, table: Sequence[Shard], contents: PartContents
) -> dict[str, str]:
    """Compare summary.json with what the parts hold; returns why that was not done."""
    faults = contents.faults
    if contents.parts < len(table):
        faults.add(Fault("counts", SUMMARY_NAME, "not all parts could be read"))
        return {}
    try:
        summary = parse_fields(storage.read(uris.join(output, SUMMARY_NAME)))
        expected = _list_counts(record, table, contents)
        is_from_one_start = summary.read_integer("images_done_before", default=0) == 0
        counts = summary.read_object("counts", {}).values
        stored = {**summary.values, **(counts if is_from_one_start else {})}
    except MissingObject:
        faults.add(Fault("counts", SUMMARY_NAME, "it is missing: the run has not finished"))
        return {}
    except InvalidJson as error:
        faults.add(Fault("counts", SUMMARY_NAME, f"it is damaged: {error}"))
        return {}
    for name, value in expected.items():
        if name in stored and stored[name] != value:
            text = f"{name} is {stored[name]!r:.200}, the parts have {value!r:.200}"
            faults.add(Fault("counts", SUMMARY_NAME, text))
    return {}


def _list_counts(
    record: RunRecord, table: Sequence[Shard], contents: PartContents
) -> dict[str, Any]:
    """What summary.json must say, by its names."""
    expected: dict[str, Any] = {
        "images": sum(shard.rows for shard in table),
        "shards": len(table),
    }
    if record.job == "analyze":
        return expected | {"rows": contents.rows}
    failed = dict(contents.failed)
    sums = {name: value for name, value in contents.sums.items() if value}
    if "proposals" in sums:
        sums["boxes"] = sums["proposals"]  # what an import of proposals calls them
    return expected | {"images_failed": sum(failed.values()), "failed": failed, **sums}
