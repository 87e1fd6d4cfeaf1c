"""Which rows of an earlier output a run may take over: `propose --reuse` and `detect --reuse`.

The earlier run must have had the same settings; only its images may be others. Its rows are found by the
images' keys, which hash image_id, uri and decoding. Workers then check that these images did not change
(`reusable_rows.py`). An output of an earlier release has no keys: its rows are taken over only if its images
are the manifest's first ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from pipeline import run_record, shards, uris
from pipeline.errors import (
    InvalidConfiguration,
    MismatchedOutput,
    UnreadableDataset,
)
from pipeline.manifests import Manifest
from pipeline.run_record import RunRecord
from pipeline.runs.options import ReuseCheck, RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.reusable_rows import ReusableRows
from pipeline.runs.reuse_index import (
    LocatedRows,
    PositionIndex,
    index_keys,
    read_key_hashes,
)
from pipeline.runs.unlisted_parts import find_unlisted
from pipeline.shards import Parts, Shard

log = logging.getLogger(__name__)

_DATASET_SETTINGS = ("dataset", "images")
"""The settings that may differ: which images the runs are about."""
MANY_PARTS = 16.0
"""Parts of the earlier output that a shard reads, on average, from which on the log says that it is slow."""


@dataclass(frozen=True)
class EarlierOutput:
    """An output with the run's settings, whose rows may be taken over."""

    parts: Parts
    """Its committed parts."""
    resolved: Mapping[str, Any]
    """What its settings of `auto` were resolved to; rows of other values would not be the same."""
    check: ReuseCheck
    has_keys: bool
    """Whether its rows have image keys."""

    def locate(self, ready: RunOutput, manifest: Manifest) -> ReusePlan | None:
        """Find the rows for the images that the output lacks; None if it lacks none.

        Takes 16 bytes of memory per row of the earlier output, and 12 per image that is found.
        """
        if not ready.has_work:
            return None
        index = index_keys(self.parts) if self.has_keys else PositionIndex(self.parts)
        wanted = {shard.ordinal for shard in ready.todo} | {s.ordinal for s in ready.retry}
        last = max((s.first_row + s.rows for s in ready.shards if s.ordinal in wanted), default=0)
        numbers = read_key_hashes(manifest, last) if self.has_keys else iter(range(last))
        located: dict[int, LocatedRows] = {}
        for shard in ready.shards:
            of_shard = list(islice(numbers, shard.rows))
            if shard.ordinal in wanted:
                place = index.locate(np.array(of_shard, np.uint64))
                if len(place.rows):
                    located[shard.ordinal] = place
        plan = ReusePlan(self, located)
        plan.log_extent(sum(s.rows for s in ready.shards if s.ordinal in wanted))
        return plan


@dataclass(frozen=True)
class ReusePlan:
    """For the shards of a run, where an earlier output has rows for their images."""

    earlier: EarlierOutput
    located: Mapping[int, LocatedRows]
    """By ordinal."""

    def select(self, shard: Shard, row: int | None = None) -> ReusableRows | None:
        """The rows for a shard, or for one image of it; None if there are none."""
        place = self.located.get(shard.ordinal)
        if place is None:
            return None
        chosen = np.arange(len(place.rows)) if row is None else np.flatnonzero(place.rows == row)
        if not len(chosen):
            return None
        spans = []
        for ordinal in np.unique(place.ordinals[chosen]):
            of_part = chosen[place.ordinals[chosen] == ordinal]
            positions = place.rows[of_part] - (row or 0)
            span = (self.earlier.parts.shards[ordinal], place.earlier_rows[of_part], positions)
            spans.append(span)
        parts = self.earlier.parts
        return ReusableRows(
            parts.uri, parts.fingerprint, self.earlier.check, self.earlier.has_keys, tuple(spans)
        )

    def log_extent(self, images: int) -> None:
        """Log how many of the run's images the earlier output has."""
        parts = self.earlier.parts
        count = sum(len(place.rows) for place in self.located.values())
        log.info("%s has rows for %d of %d images", uris.redact_uri(parts.uri), count, images)
        if not count:
            log.warning(
                "no row can be taken over: the images have other ids or URIs there, or are decoded otherwise"
            )
        spread = [len(np.unique(place.ordinals)) for place in self.located.values()]
        if spread and sum(spread) / len(spread) > MANY_PARTS:
            log.warning(
                "the manifest has the images in another order: a shard reads rows from %d parts on average",
                round(sum(spread) / len(spread)),
            )


def list_reused_inputs(options: RunOptions) -> dict[str, str]:
    """What run.json says of `--reuse` among the inputs: nothing without it."""
    if options.reuse is None:
        return {}
    return {"reuse": uris.redact_uri(uris.make_absolute(options.reuse))}


def open_earlier_output(
    options: RunOptions, record: RunRecord, manifest: Manifest
) -> EarlierOutput | None:
    """Open the output of `--reuse` and compare its settings; None without this option.

    Args:
        options: of the run.
        record: of the run.
        manifest: the run's images.

    Raises:
        MismatchedOutput: its settings are others, or it is no output of the job.
        UnreadableDataset: it has no committed part, or is damaged.
        InvalidConfiguration: it does not hold what `--reuse-check content` compares.
    """
    if options.reuse is None:
        return None
    uri = uris.make_absolute(options.reuse)
    earlier = run_record.read_record(uri)
    if earlier is None:
        raise UnreadableDataset(
            f"--reuse {uris.redact_uri(uri)} has no {run_record.RECORD_NAME}: it is not the output of a "
            f"{record.job} run"
        )
    _check_settings(uri, earlier, record)
    table = shards.read_shard_table(uri) or []
    committed = shards.list_parts(uri, table).committed
    committed |= find_unlisted(uri, table, committed)
    parts = Parts(
        uri, tuple(shard for shard in table if shard.ordinal in committed), earlier.fingerprint
    )
    if not parts.shards:
        raise UnreadableDataset(
            f"--reuse {uris.redact_uri(uri)} has no committed part: leave out the option"
        )
    has_keys = "image_key" in parts.read_schema().names
    if not has_keys:
        _check_without_keys(parts, table, earlier, manifest, options.reuse_check)
    return EarlierOutput(parts, earlier.resolved, options.reuse_check, has_keys)


def _check_settings(uri: str, earlier: RunRecord, record: RunRecord) -> None:
    """Compare all settings that decide an image's row."""
    differences = run_record.describe_differences(
        _keep_row_settings(earlier), _keep_row_settings(record)
    )
    if differences:
        raise MismatchedOutput(
            f"--reuse {uris.redact_uri(uri)} was written by a run with other settings "
            f"({'; '.join(differences)}): its rows cannot be taken over"
        )


def _keep_row_settings(record: RunRecord) -> RunRecord:
    """The record without the settings that say which images the run is about.

    Stored proposals are named by the run that stored them, so by its images too. Those of selective search
    follow from their settings, image by image. Of all others only those of the same run are the same.
    """
    settings = {k: v for k, v in record.settings.items() if k not in _DATASET_SETTINGS}
    proposals = settings.get("proposals")
    stored = proposals.get("stored") if isinstance(proposals, Mapping) else None
    if isinstance(stored, Mapping) and stored.get("algorithm") == "selective_search":
        settings["proposals"] = stored
    return replace(record, settings=settings)


def _check_without_keys(
    parts: Parts,
    table: Sequence[Shard],
    earlier: RunRecord,
    manifest: Manifest,
    check: ReuseCheck,
) -> None:
    """Check that the images of an output of an earlier release are the manifest's first ones."""
    name = uris.redact_uri(parts.uri)
    if check == "content":
        raise InvalidConfiguration(
            f"--reuse {name} was written by an earlier release, which did not store what --reuse-check "
            "content compares: use --reuse-check size, or leave out --reuse"
        )
    images = sum(shard.rows for shard in table)
    is_start = images <= manifest.rows and (
        shards.cut_manifest(manifest, [shard.rows for shard in table], images).dataset
        == earlier.settings.get("dataset")
    )
    if not is_start:
        raise MismatchedOutput(
            f"--reuse {name} was written by an earlier release, whose rows do not say which file they are "
            f"about: they can be taken over only if its {images} images are the first ones of the manifest"
        )
    log.warning(
        "%s was written by an earlier release, which stored no sizes of files: an image with the same "
        "image_id and uri counts as unchanged",
        name,
    )
