"""The inspection of a dataset: signatures as runs over shards, then duplicates, counts and the report."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from pipeline import uris
from pipeline.engine.inspect.findings import Findings, InspectedSplit, find_duplicates
from pipeline.engine.inspect.inspecting import inspect_shard
from pipeline.engine.inspect.splits import SplitInputs, open_splits
from pipeline.engine.monitor.stages import StageLoad
from pipeline.engine.named_cluster import is_cluster_named
from pipeline.engine.shards.sequential import run_shards_here
from pipeline.inspection import signature
from pipeline.option_ranges import check_fields
from pipeline.runs.options import MOST_SECONDS, RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.summary import WorkDone, complete_run
from pipeline.shards import Parts

log = logging.getLogger(__name__)

MOST_LOCAL_IMAGES = 2000
"""A dataset up to this size is hashed in this process: that takes about as long as starting Ray."""


@dataclass(frozen=True)
class InspectionOptions:
    """Options of an inspection; none of them changes what it finds."""

    overwrite: bool = False
    """Remove the signatures that an earlier inspection wrote into the output, and start from nothing."""
    image_seconds: float = 120.0
    """Seconds that an image may take on Ray to decode and hash; one that takes longer is unreadable."""
    no_capacity_after: float = 300.0
    """Seconds to wait for a free core of the cluster."""

    def __post_init__(self) -> None:
        check_fields(self, "image_seconds", "no_capacity_after", above=0, below=MOST_SECONDS)

    @property
    def run(self) -> RunOptions:
        """The options of the runs over shards: failed images are findings, however many."""
        return RunOptions(
            overwrite=self.overwrite,
            image_seconds=self.image_seconds,
            no_capacity_after=self.no_capacity_after,
            max_failed_fraction=1.0,
        )


def check_installation() -> None:
    """Fail now rather than after work has been done.

    Raises:
        InvalidConfiguration: a package is missing, or `RAY_ADDRESS` is no address.
    """
    signature.check_installed()
    if is_cluster_named():
        from pipeline.engine import cluster  # noqa: PLC0415  (loads ray, which takes a second)

        cluster.check_ray_address()


def inspect_dataset(
    manifest_uri: str,
    output_uri: str,
    against: Sequence[str] = (),
    options: InspectionOptions = InspectionOptions(),
    *,
    are_images_tried: bool = False,
    most_local_images: int = MOST_LOCAL_IMAGES,
) -> Findings:
    """Compute the signatures of all images, or those that are missing, and find duplicates.

    A small dataset is inspected in this process, unless `RAY_ADDRESS` names a cluster.

    Args:
        manifest_uri: the manifest to inspect.
        output_uri: the signatures are written into its folders `signatures`, `signatures-1`, ...
        against: manifests that are inspected as well, for images that are in both.
        options: overwrite, patience.
        are_images_tried: some images have been decoded already; otherwise that comes first.
        most_local_images: a larger dataset is inspected on Ray.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    check_installation()
    is_on_cluster = is_cluster_named()
    output = uris.make_absolute(output_uri)
    splits = open_splits(
        [manifest_uri, *against],
        output,
        options.run,
        own_disk=not is_on_cluster,
        are_images_tried=are_images_tried,
    )
    images = sum(split.cut.images for split in splits)
    is_distributed = is_on_cluster or images > most_local_images
    place = "on Ray" if is_distributed else "in this process"
    log.info("%d images in %d manifests: hashing %s", images, len(splits), place)
    outputs = [open_run(s.folder, s.record, s.cut, options.run) for s in splits]
    has_work = any(ready.has_work for ready in outputs)
    with _connect() if is_distributed and has_work else contextlib.nullcontext():
        for split, ready in zip(splits, outputs, strict=True):
            _complete(split, ready, options.run, is_distributed)
    inspected = [
        InspectedSplit(split, Parts(split.folder, ready.shards, split.record.fingerprint))
        for split, ready in zip(splits, outputs, strict=True)
    ]
    began = perf_counter()
    findings = find_duplicates(inspected)
    log.info(
        "duplicates: %.1f s, %d candidates compared by their pixels, %d pairs",
        perf_counter() - began,
        findings.pairs.candidates,
        len(findings.pairs),
    )
    return findings


@contextlib.contextmanager
def _connect() -> Iterator[None]:
    from pipeline.engine import cluster  # noqa: PLC0415

    with cluster.connect_to_cluster():
        yield


def _complete(
    split: SplitInputs, ready: RunOutput, options: RunOptions, is_distributed: bool
) -> None:
    """Compute the signatures that a split lacks."""
    plan = split.build_plan(options)

    def compute_signatures() -> WorkDone:
        if not is_distributed:
            inspect = functools.partial(inspect_shard, plan)
            stage = StageLoad("inspect", "hashing", 1, 1, 0)
            return run_shards_here(inspect, "inspect", stage, ready)
        from pipeline.engine import cluster  # noqa: PLC0415
        from pipeline.engine.inspect.work import make_inspection_work  # noqa: PLC0415
        from pipeline.engine.shards.runner import run_shards  # noqa: PLC0415

        cluster.await_core(options.no_capacity_after)
        return run_shards(make_inspection_work(plan), "inspect", ready, options)

    summary = complete_run(ready, options, compute_signatures)
    log.info("%s: %d images, %.1f s", split.name, summary.images, summary.seconds)
