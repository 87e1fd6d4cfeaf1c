"""The analysis of a detection run: its matches are made as a run over shards, then reduced to metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline import storage, uris
from pipeline.analysis.executor import Executor, InProcess
from pipeline.engine.analyze.committed_analysis import CommittedAnalysis
from pipeline.engine.analyze.inputs import AnalysisInputs, open_inputs
from pipeline.engine.analyze.match_shard import match_shard
from pipeline.engine.analyze.plan import AnalysisPlan
from pipeline.engine.analyze.source_parts import find_stale_parts
from pipeline.engine.monitor.stages import StageLoad
from pipeline.engine.named_cluster import is_cluster_named
from pipeline.engine.shards.sequential import run_shards_here
from pipeline.excluded_images import read_excluded_images
from pipeline.option_ranges import check_fields
from pipeline.run_record import RunRecord
from pipeline.runs.options import MOST_SECONDS, RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.placement import PlacementOptions
from pipeline.runs.report import Report
from pipeline.runs.summary import WorkDone, complete_run
from pipeline.shards import Parts, Shard

log = logging.getLogger(__name__)

MATCHES = "matches"
"""The folder of the matches in the output."""
MOST_LOCAL_IMAGES = 20_000
MOST_LOCAL_DETECTIONS = 1_000_000
"""A dataset up to this size is analysed in this process: it takes less time than starting Ray."""


@dataclass(frozen=True)
class AnalysisOptions(PlacementOptions):
    """Options of an analysis; none of them changes a number."""

    partial: bool = False
    """Score what an unfinished detection run has committed; a later analysis without this does the rest."""
    overwrite: bool = False
    """Remove the matches that an earlier analysis wrote into the output, and start from nothing."""
    no_capacity_after: float = 300.0
    """Seconds to wait for a free core of the cluster, and later for a node that has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "no_capacity_after", above=0, below=MOST_SECONDS)


@contextlib.contextmanager
def analyze_detections(
    detections_uri: str,
    manifest_uri: str,
    output_uri: str,
    *,
    proposals_uri: str | None = None,
    exclude_uri: str | None = None,
    options: AnalysisOptions = AnalysisOptions(),
) -> Iterator[CommittedAnalysis]:
    """Match the detections of a run with its annotations, or do what an earlier analysis left.

    A small dataset is analysed in this process, unless `RAY_ADDRESS` names a cluster. Inside the block, the
    executor does further work where the matching was done.

    Args:
        detections_uri: an output of `detect`.
        manifest_uri: the annotated manifest from which it was made.
        output_uri: the matches are written into its folder `matches`.
        proposals_uri: stored proposals of the same images, to tell which objects they cover.
        exclude_uri: a list of images without which the metrics are computed as well.
        options: whether the run may be unfinished, and what happens to earlier matches.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    if is_cluster_named():
        _check_cluster()
    excluded = None if exclude_uri is None else read_excluded_images(exclude_uri)
    inputs = open_inputs(detections_uri, manifest_uri, proposals_uri, partial=options.partial)
    output = uris.join(uris.make_absolute(output_uri), MATCHES)
    storage.check_writable(output)
    record = inputs.build_record()
    run_options = RunOptions(
        overwrite=options.overwrite,
        no_capacity_after=options.no_capacity_after,
        resources=options.resources,
        label_selector=options.label_selector,
    )
    ready = _open_output(output, record, inputs, run_options)
    plan = AnalysisPlan(
        inputs.manifest,
        output,
        record.fingerprint,
        (*inputs.classes, *inputs.other_classes),
        inputs.states_classes,
    )
    is_distributed = _is_distributed(inputs)
    matches = Parts(
        output,
        tuple(shard for shard in ready.shards if shard.ordinal not in ready.left_out),
        record.fingerprint,
        one_row_per_image=False,
    )
    with _open_executor(is_distributed, options) as executor:
        summary = complete_run(
            ready, run_options, lambda: _match(plan, inputs, ready, run_options, is_distributed)
        )
        log.info("matches: %.1f s, %s", summary.seconds, uris.redact_uri(output))
        yield CommittedAnalysis(inputs, record, matches, summary, executor, excluded)


def _check_cluster() -> None:
    from pipeline.engine import cluster  # noqa: PLC0415  (loads ray, which takes a second)

    cluster.check_ray_address()


def _is_distributed(inputs: AnalysisInputs) -> bool:
    """Whether Ray tasks do the work; the log says why."""
    images = inputs.detections.rows
    detections = sum(part.detections for part in inputs.sources.values())
    is_large = images > MOST_LOCAL_IMAGES or detections > MOST_LOCAL_DETECTIONS
    place = "on Ray" if is_large else "in this process"
    if is_cluster_named():
        place = "on the cluster of RAY_ADDRESS"
    log.info("%d images with about %d detections: analysing %s", images, detections, place)
    return is_large or is_cluster_named()


def _open_output(
    output: str, record: RunRecord, inputs: AnalysisInputs, options: RunOptions
) -> RunOutput:
    """Start the output or resume it; parts whose detections changed since are done again."""
    ready = open_run(output, record, inputs.cut, options)
    committed = [shard for shard in ready.shards if shard.ordinal in ready.committed]
    parts = Parts(output, ready.shards, record.fingerprint, one_row_per_image=False)
    stale = find_stale_parts(parts, committed, dict(inputs.sources))
    if stale:
        log.info("%d parts are matched again: their detections changed", len(stale))
    return replace(
        ready,
        committed=ready.committed - {shard.ordinal for shard in stale},
        left_out=inputs.left_out,
    )


@contextlib.contextmanager
def _open_executor(is_distributed: bool, options: AnalysisOptions) -> Iterator[Executor]:
    if not is_distributed:
        yield InProcess()
        return
    from pipeline.engine import cluster  # noqa: PLC0415
    from pipeline.engine.analyze.ray_executor import RayExecutor  # noqa: PLC0415

    with cluster.connect_to_cluster():
        yield RayExecutor(options.placement, options.no_capacity_after)


def _match(
    plan: AnalysisPlan,
    inputs: AnalysisInputs,
    ready: RunOutput,
    options: RunOptions,
    is_distributed: bool,
) -> WorkDone:
    """Match the shards that the output lacks."""
    sources = inputs.locate_sources()
    if not is_distributed:

        def match(shard: Shard, _: bool) -> Report:
            return match_shard(plan, shard, sources[shard.ordinal])

        return run_shards_here(match, "analyze", StageLoad("match", "matching", 1, 1, 0), ready)
    from pipeline.engine import cluster  # noqa: PLC0415
    from pipeline.engine.analyze.match_work import make_match_work  # noqa: PLC0415
    from pipeline.engine.shards.retry_policy import RetryPolicy  # noqa: PLC0415
    from pipeline.engine.shards.runner import run_shards  # noqa: PLC0415

    need = options.placement.build_need(CPU=1.0)
    cluster.check_needs([need], options.no_capacity_after, may_grow=is_cluster_named())
    cluster.await_core(options.no_capacity_after, options.placement)
    policy = RetryPolicy(isolates=False)
    return run_shards(
        make_match_work(plan, sources, options.placement), "analyze", ready, options, policy
    )
