"""Proposals for a whole manifest: one CPU task per shard reads, decodes, searches and commits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import manifests, schema, storage, store_options
from pipeline.engine import cluster
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.propose.reading import Reading
from pipeline.engine.propose.warm_up import warm_up
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.runner import work_through
from pipeline.engine.shards.work import Flight
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs import output
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.image_check import FirstLook
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Failure, Report
from pipeline.runs.summary import Summary, summarise
from pipeline.store_options import StoreOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProposalPlan:
    """What every task of a run needs to know; it lies in the object store once."""

    manifest: Manifest
    output: str
    fingerprint: str
    settings: ProposalSettings
    provenance: dict[str, Any]
    image_seconds: float
    stores: StoreOptions = field(default_factory=store_options.used)
    """Options of the stores, for the workers."""


def run(
    manifest_uri: str,
    output_uri: str,
    settings: ProposalSettings,
    options: RunOptions = RunOptions(),
) -> Summary:
    """Compute proposals for the images of a manifest, or for those that are not done yet.

    Args:
        manifest_uri: Parquet file or folder.
        output_uri: folder for the parts; a rerun into it does what is left.
        settings: how the boxes are made.
        options: shard size, limits, patience.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    opened = manifests.open_manifest(manifest_uri)
    target = storage.absolute(output_uri)
    output.check_apart(target, manifest=manifest_uri)
    storage.check_writable(target)
    provenance = settings.recorded()
    cut = output.plan_cut(opened, target, options)
    record = RunRecord(
        "propose",
        {"dataset": cut.dataset, "images": cut.images, "proposals": provenance},
        {"manifest": storage.shown(opened.uri)},
    )
    look = FirstLook(
        opened, cut.images, all_may_fail=options.max_failed_fraction == 1, own_disk=cluster.is_own()
    )
    ready = output.open_run(target, record, cut, options, look)
    with cluster.connected():
        plan = ProposalPlan(
            opened, target, record.fingerprint, settings, provenance, options.image_seconds
        )
        with summarise(ready, options) as summary:
            summary.labelled = opened.classes is not None
            if ready.todo or ready.retry:
                cluster.await_core(options.no_capacity_after)
                warm_up(settings)
                work_through(ProposalWork(plan), "propose", ready, summary, options)
        return summary


class ProposalWork:
    """Shard work of one stage: a task that commits its own part."""

    def __init__(self, plan: ProposalPlan) -> None:
        self.plan = plan
        self._plan_reference = ray.put(plan)

    def follow(self, capacity: cluster.Capacity) -> None:
        """Ray takes tasks to new nodes by itself."""

    def has_room(self, flights: Collection[Flight], capacity: cluster.Capacity) -> bool:
        """Two pieces per core: one at work, one waiting."""
        return len(flights) < 2 * capacity.cpus

    def flow(self, flights: Collection[Flight], capacity: cluster.Capacity) -> FlowState:
        """There is one stage; images stay with their task."""
        busy = min(len(flights), capacity.cpus)
        waiting = len(flights) - busy
        return FlowState([StageLoad("propose", "proposals on CPU", capacity.cpus, busy, waiting)])

    def needs(self) -> Sequence[dict[str, float]]:
        """A core."""
        return [{"CPU": 1.0}]

    def start(self, flight: Flight) -> ObjectRef[Report]:
        """Start the one task of a piece."""
        flight.stage = "propose"
        return _propose_piece.remote(self._plan_reference, flight.piece, flight.last_chance)

    def proceed(self, flight: Flight) -> None:
        """There is no second stage."""

    def lost(self, flight: Flight, error: Exception) -> bool:  # noqa: ARG002
        """A task works on its own piece only."""
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of an image that ended its workers."""
        rows = piece.image_rows(self.plan.manifest, self.plan.fingerprint)
        return _rows([EncodedImage(*rows[0], failure=failure)], self.plan)


@ray.remote(num_cpus=1, max_retries=0)
def _propose_piece(plan: ProposalPlan, piece: Piece, last_chance: bool) -> Report:
    store_options.use(plan.stores)
    rows = piece.image_rows(plan.manifest, plan.fingerprint)
    report = Report()
    done = []
    reading = Reading(report, plan.image_seconds, last_chance=last_chance)
    for encoded in reading.proposed(rows, plan.settings):
        encoded.data = None  # the boxes are all that is kept
        if encoded.failure is not None:
            report.fail(encoded.failure)
        elif encoded.boxes is not None:
            report.counts["proposals"] += len(encoded.boxes)
        done.append(encoded)
    return commit_or_return(piece, plan.output, _rows(done, plan), report)


def _rows(encoded_images: Sequence[EncodedImage], plan: ProposalPlan) -> pa.Table:
    return proposals_table(encoded_images, plan.provenance, plan.fingerprint)


def proposals_table(
    encoded_images: Sequence[EncodedImage], provenance: dict[str, Any], fingerprint: str
) -> pa.Table:
    """Rows of `schema.PROPOSALS`, one per image."""
    failures = [encoded.failure for encoded in encoded_images]
    columns = {
        "image_id": [encoded.image_id for encoded in encoded_images],
        "width": pa.array([encoded.width for encoded in encoded_images], pa.int32()),
        "height": pa.array([encoded.height for encoded in encoded_images], pa.int32()),
        "boxes": schema.box_lists(
            [None if encoded.failure else encoded.boxes for encoded in encoded_images]
        ),
        "status": ["failed" if failure else "ok" for failure in failures],
        "error_type": pa.array([f.error_type if f else None for f in failures], pa.string()),
        "error_message": pa.array([f.message if f else None for f in failures], pa.string()),
    }
    kept = schema.with_metadata(
        schema.PROPOSALS, {"provenance": provenance, "fingerprint": fingerprint}
    )
    return pa.table(columns, schema=kept)
