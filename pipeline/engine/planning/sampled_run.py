"""A run over shards from a sample of its images: totals of all stages, with their resamples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline import uris
from pipeline.engine.planning.image_costs import (
    ROW_WEIGHT,
    ImageCost,
    ImageSample,
    SampleCosts,
    check_measured,
)
from pipeline.engine.planning.processes import measure_together
from pipeline.engine.planning.this_machine import count_cores
from pipeline.engine.shards.piece import Piece
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.manifests import Manifest
from pipeline.run_record import RunRecord
from pipeline.runs.image_strata import (
    Stratum,
    interleave,
    list_rows,
    read_pixel_counts,
    stratify,
)
from pipeline.runs.options import RunOptions
from pipeline.runs.output import list_shards_left
from pipeline.runs.plan_estimation import MeasuredStratum, resample_totals
from pipeline.runs.plan_options import PlanOptions
from pipeline.shards import Cut, Shard

SLACK_SECONDS = 600.0
"""How long the measuring may take beyond `--plan-seconds`, for the last image and building parts."""


def check_plannable(options: RunOptions) -> None:
    """Reject options of a run that its plan cannot account for.

    Raises:
        InvalidConfiguration: there are some.
    """
    for name in ("overwrite", "retry_failed", "reuse"):
        if getattr(options, name):
            raise InvalidConfiguration(
                f"--plan does not take --{name.replace('_', '-')} into account: leave it out, and plan with "
                "another --output"
            )


def list_shards_to_plan(output: str, record: RunRecord, cut: Cut) -> list[Shard]:
    """The shards that the run would do.

    Raises:
        MismatchedOutput: none is left, or the run would be rejected.
    """
    left = list_shards_left(output, record, cut)
    if not left:
        raise MismatchedOutput(
            f"{uris.redact_uri(output)} holds a finished run, so nothing is left to plan: choose another "
            "--output"
        )
    return left


@dataclass(frozen=True)
class ImageSampling:
    """The images to measure."""

    strata: tuple[Stratum, ...]
    pieces: tuple[Piece, ...]
    """The sampled images, in the order of measuring."""


def sample_images(
    manifest: Manifest, shards: Sequence[Shard], options: PlanOptions
) -> ImageSampling:
    """Draw the images to measure from the shards that are left."""
    rows = list_rows(shards, options.plan_seed)
    pixels = read_pixel_counts(manifest, rows)
    total = sum(shard.rows for shard in shards)
    strata = stratify(pixels, rows, options.plan_images, images=total, seed=options.plan_seed)
    first_rows = [shard.first_row for shard in shards]
    pieces = []
    for row in interleave(strata):
        shard = shards[bisect_right(first_rows, row) - 1]
        pieces.append(Piece(shard, row - shard.first_row))
    return ImageSampling(tuple(strata), tuple(pieces))


@dataclass(frozen=True)
class StartSeconds:
    """What it takes until a worker is ready, if it has a core for itself."""

    base: float
    """The interpreter, with imports that all workers share."""
    kernels: float = 0.0
    """Loading the kernels of proposals; 0 if they are stored."""
    detector: float = 0.0
    """Loading torch and the checkpoint; 0 where nothing is detected."""

    @property
    def tasks(self) -> float:
        """Until the workers of tasks are ready: kernels are loaded by one worker of a node, then by all."""
        return 2 * (self.base + self.kernels) if self.kernels else self.base


@dataclass(frozen=True)
class MeasuredRun:
    """What a sample says of the run; arrays `(1 + RESAMPLES,)` hold the estimate, then the resamples."""

    start: StartSeconds
    images: list[ImageCost]
    shards: Sequence[Shard]
    propose_cpu: NDArray[np.float64]
    """CPU seconds of the tasks that read and propose."""
    propose_wall: NDArray[np.float64]
    """Seconds of the same."""
    detect_cpu: NDArray[np.float64]
    detect_wall: NDArray[np.float64]
    device_seconds: NDArray[np.float64]
    """Seconds of the detectors without waiting for decoded images."""
    bytes_read: NDArray[np.float64]
    bytes_written: NDArray[np.float64]

    @property
    def failed(self) -> int:
        """Measured images that failed."""
        return sum(image.is_failed for image in self.images)

    @property
    def rows(self) -> list[int]:
        """Images of each shard."""
        return [shard.rows for shard in self.shards]


def measure_sample(
    sample: ImageSample,
    strata: Sequence[Stratum],
    shards: Sequence[Shard],
    *,
    processes: int,
) -> MeasuredRun:
    """Divide a sample among processes, one per core, and compute totals from what they measure.

    Raises:
        NoCapacity: a process died.
        PipelineError: an error that would end the run.
    """
    count = max(1, min(processes, count_cores(), len(sample.pieces) // 2))
    tasks = [replace(sample, pieces=sample.pieces[rank::count]) for rank in range(count)]
    answers = measure_together(tasks, sample.seconds + SLACK_SECONDS)
    costs: list[SampleCosts] = [answer.value for answer in answers]
    start = StartSeconds(
        min(answer.base_seconds for answer in answers),
        min(process.kernels.wall for process in costs),
        min(process.detector.wall for process in costs),
    )
    return compute_totals(costs, strata, shards, start)


def compute_totals(
    costs: Sequence[SampleCosts],
    strata: Sequence[Stratum],
    shards: Sequence[Shard],
    start: StartSeconds,
) -> MeasuredRun:
    """Totals over all shards from the costs that the processes measured."""
    images = [image for process in costs for image in process.images]
    check_measured(images)
    by_row = {image.row: image for image in images}
    measured = [
        MeasuredStratum(
            stratum.images,
            np.array([_list_values(by_row[r]) for r in stratum.sample if r in by_row]).reshape(
                -1, 7
            ),
        )
        for stratum in strata
    ]
    totals = resample_totals(measured)
    rows = sum(shard.rows for shard in shards)
    propose_cpu, propose_wall, detect_cpu, detect_wall, device, bytes_read, row_bytes = totals.T
    touched = max(1, sum(process.shards for process in costs))
    built = max(1, sum(process.part.rows for process in costs))
    # The stage that puts the parts is the last one; which of the two it is matters little.
    propose_cpu = propose_cpu + len(shards) * sum(c.shard.cpu for c in costs) / touched
    propose_wall = propose_wall + len(shards) * sum(c.shard.wall for c in costs) / touched
    build_cpu = rows * sum(c.part.build.cpu for c in costs) / built
    build_wall = rows * sum(c.part.build.wall for c in costs) / built
    return MeasuredRun(
        start,
        images,
        shards,
        propose_cpu + (0 if detect_cpu.any() else build_cpu),
        propose_wall + (0 if detect_cpu.any() else build_wall),
        detect_cpu + (build_cpu if detect_cpu.any() else 0),
        detect_wall + (build_wall if detect_cpu.any() else 0),
        device,
        bytes_read,
        _estimate_bytes_written(costs, row_bytes, len(shards)),
    )


def _list_values(image: ImageCost) -> list[float]:
    return [
        image.propose.cpu,
        image.propose.wall,
        image.detect.cpu,
        image.detect.wall,
        image.device_seconds,
        float(image.bytes_read),
        image.part_bytes,
    ]


def _estimate_bytes_written(
    costs: Sequence[SampleCosts], row_bytes: NDArray[np.float64], parts: int
) -> NDArray[np.float64]:
    """Bytes of all parts: those of an empty one each, and of the rows.

    Rows were weighed in groups of a few images; in a whole part they share more, which scales them.
    """
    part_costs = [process.part for process in costs]
    empty = float(np.mean([part.empty_bytes for part in part_costs]))
    beyond = sum(part.nbytes - part.groups * part.empty_bytes for part in part_costs)
    weight = sum(part.items + ROW_WEIGHT * part.rows for part in part_costs)
    images = [image for process in costs for image in process.images]
    weighed = sum(image.part_bytes for image in images)
    all_weights = sum(image.items + ROW_WEIGHT for image in images)
    scale = (beyond / weight) / (weighed / all_weights) if weight and weighed else 1.0
    return parts * empty + scale * row_bytes
