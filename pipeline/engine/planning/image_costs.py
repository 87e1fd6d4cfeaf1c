"""What sampled images cost: read, proposed for and detected in by the functions that a run calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import store_options
from pipeline.engine.detect.chunk_detector import GROUP_ON_GPU, ChunkDetector, split_into_groups
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.planning.time_spent import TimeSpent
from pipeline.engine.propose.memory import compute_memory_limit
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.propose.reading import read_with_stored_proposals
from pipeline.engine.shards.piece import Piece
from pipeline.errors import UnreadableDataset
from pipeline.part_identity import name_shard
from pipeline.proposals.settings import ProposalSettings
from pipeline.proposals.stored_proposals import StoredProposals
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report
from pipeline.runs.tables import build_proposals_table
from pipeline.shards import encode_part

if TYPE_CHECKING:
    from pipeline.detector.predictor import ImageDetections

ROW_WEIGHT = 4.0
"""What a row takes in a part, apart from its boxes or detections, as a number of these."""
ALIKE = 4
"""Images of about one size whose rows are weighed together."""
MEMORY_SHARE = 0.7
"""Share of a machine's memory that Ray leaves to workers."""


@dataclass
class ImageCost:
    """One measured image."""

    row: int
    """In the manifest."""
    propose: TimeSpent = field(default_factory=TimeSpent)
    """Reading, decoding and proposing, or reading with stored proposals: the work of a CPU task."""
    detect: TimeSpent = field(default_factory=TimeSpent)
    """Decoding and detecting: the work of a detector."""
    device_seconds: float = 0.0
    """Of `detect`, without waiting for decoded images."""
    bytes_read: int = 0
    items: int = 0
    """Boxes or detections in its row of the output."""
    part_bytes: float = 0.0
    """What its row takes in a part of images of about its size."""
    is_failed: bool = False


@dataclass
class PartCost:
    """What parts of measured images cost to build, and their size."""

    rows: int = 0
    items: int = 0
    groups: int = 0
    """Parts built."""
    nbytes: int = 0
    """Of all of them."""
    empty_bytes: int = 0
    """Of a part without rows."""
    build: TimeSpent = field(default_factory=TimeSpent)
    """Building and encoding all of them."""


@dataclass
class SampleCosts:
    """What one process measured."""

    images: list[ImageCost] = field(default_factory=list)
    shard: TimeSpent = field(default_factory=TimeSpent)
    """Reading the manifest's rows, and stored proposals, of all shards that were touched."""
    shards: int = 0
    """How many these were."""
    part: PartCost = field(default_factory=PartCost)
    kernels: TimeSpent = field(default_factory=TimeSpent)
    """Loading the kernels of proposals."""
    detector: TimeSpent = field(default_factory=TimeSpent)
    """Loading torch and the checkpoint."""


@dataclass(frozen=True)
class ImageSample:
    """The task of one measuring process: images of a proposals or detection run."""

    plan: ProposalPlan | DetectionPlan
    pieces: tuple[Piece, ...]
    """Single images, in the order of measuring."""
    stored: StoredProposals | None = None
    """The images' proposals, if the plan does not say how to compute them."""
    seconds: float = 300.0
    """No further image begins after this time."""
    with_detection: bool = False

    def prepare(self) -> Callable[[], SampleCosts]:
        """Load the kernels and the checkpoint."""
        store_options.set_options(self.plan.stores)
        settings, costs = self._get_settings(), SampleCosts()
        if settings is not None and settings.backend == "native":
            with costs.kernels.measure():
                from pipeline import proposals  # noqa: PLC0415  (the driver needs no kernels)

                proposals.warm_up_kernels(settings.strategy, settings.load_ranking())
        detector = None
        if self.with_detection:
            with costs.detector.measure():
                detector = self._load_detector()
        return _Sampler(self, settings, detector, costs).measure

    def _get_settings(self) -> ProposalSettings | None:
        """How to compute proposals; None if they are stored."""
        if isinstance(self.plan, ProposalPlan):
            return self.plan.settings
        return self.plan.proposals

    def _load_detector(self) -> ChunkDetector:
        from pipeline.engine.detect.detector_loading import load_detector  # noqa: PLC0415

        assert isinstance(self.plan, DetectionPlan)
        detector, _ = load_detector(self.plan, self.plan.settings.precision)
        return detector


class _Sampler:
    """Measures the images of one sample."""

    def __init__(
        self,
        sample: ImageSample,
        settings: ProposalSettings | None,
        detector: ChunkDetector | None,
        costs: SampleCosts,
    ) -> None:
        self._sample = sample
        self._plan = sample.plan
        self._settings = settings
        self._detector = detector
        self.costs = costs
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE
        self._memory_limit = compute_memory_limit(memory, len(os.sched_getaffinity(0)))

    def measure(self) -> SampleCosts:
        """Measure until the images or the time run out, at least two images."""
        deadline = monotonic() + self._sample.seconds
        encoded_images: list[EncodedImage] = []
        for number, piece in enumerate(self._sample.pieces):
            if number >= 2 and monotonic() > deadline:
                break
            encoded_images.append(self._propose(piece))
        detections = self._detect(encoded_images)
        for encoded, cost, of_image in zip(
            encoded_images, self.costs.images, detections, strict=True
        ):
            cost.is_failed = encoded.failure is not None
            if self._detector is None:
                cost.items = 0 if encoded.boxes is None else len(encoded.boxes)
            elif of_image is not None:
                cost.items = len(of_image.scores)
            encoded.data = None
        self._build_parts(encoded_images, detections)
        return self.costs

    def _propose(self, piece: Piece) -> EncodedImage:
        """Do what a task does with one image; what it does once per shard is measured apart."""
        plan, shard_time = self._plan, TimeSpent()
        assert piece.row is not None
        row = piece.shard.first_row + piece.row
        stored_table: pa.Table | None = None
        with shard_time.measure():
            listed = piece.read_images(plan.manifest, plan.fingerprint)
            if self._sample.stored is not None:
                stored_table = self._sample.stored.locate(row, 1).read_table()
        self.costs.shard.wall += shard_time.wall
        self.costs.shard.cpu += shard_time.cpu
        self.costs.shards += 1
        cost, report = ImageCost(row), Report()
        with cost.propose.measure():
            (encoded,) = (
                read_with_stored_proposals(listed, stored_table, report)
                if stored_table is not None
                else read_and_propose(
                    listed,
                    self._settings or ProposalSettings(),
                    report,
                    image_seconds=plan.options.image_seconds,
                    decoding=plan.manifest.decoding,
                    memory_limit=self._memory_limit,
                )
            )
        cost.bytes_read = report.counts["bytes_read"]
        if isinstance(plan, DetectionPlan) and encoded.boxes is not None:
            encoded.boxes = encoded.boxes[: plan.settings.max_proposals]
        self.costs.images.append(cost)
        return encoded

    def _detect(self, encoded_images: Sequence[EncodedImage]) -> list[ImageDetections | None]:
        """Detect in groups as a detector does; a group's time is divided evenly among its images."""
        if self._detector is None:
            return [None] * len(encoded_images)
        assert isinstance(self._plan, DetectionPlan)
        on_cpu = self._plan.resources.device == "cpu"
        detections: list[ImageDetections | None] = []
        groups = list(split_into_groups(encoded_images, 1 if on_cpu else GROUP_ON_GPU))
        self._detector.detect(list(groups[0]), Report())  # the first image loads more kernels
        first = 0
        for group in groups:
            time_spent, report = TimeSpent(), Report()
            with time_spent.measure():
                detections.extend(self._detector.detect(group, report))
            for cost in self.costs.images[first : first + len(group)]:
                cost.detect = TimeSpent(time_spent.wall / len(group), time_spent.cpu / len(group))
                cost.device_seconds = report.seconds.get("detect", 0.0) / len(group)
            first += len(group)
        return detections

    def _build_parts(
        self,
        encoded_images: Sequence[EncodedImage],
        detections: Sequence[ImageDetections | None],
    ) -> None:
        """Build parts of as many images as the run's, as far as there are so many."""
        part, size = self.costs.part, self._sample.pieces[0].shard.rows
        size = min(size, len(encoded_images))
        part.empty_bytes = len(encode_part(name_shard(self._build_table([], []), "0" * 24)))
        for first in range(0, len(encoded_images) - size + 1, size):
            chosen = slice(first, first + size)
            with part.build.measure():
                table = self._build_table(encoded_images[chosen], detections[chosen])
                part.nbytes += len(encode_part(name_shard(table, "0" * 24)))
            part.groups += 1
            part.rows += size
            part.items += sum(cost.items for cost in self.costs.images[chosen])
        self._weigh_rows(encoded_images, detections)

    def _weigh_rows(
        self,
        encoded_images: Sequence[EncodedImage],
        detections: Sequence[ImageDetections | None],
    ) -> None:
        """Bytes of each row: a box takes more in a large image, since its corners have more values."""
        costs, empty = self.costs.images, self.costs.part.empty_bytes
        order = sorted(
            range(len(costs)),
            key=lambda i: (encoded_images[i].width or 0) * (encoded_images[i].height or 0),
        )
        for first in range(0, len(order), ALIKE):
            chosen = order[first : first + ALIKE]
            table = self._build_table(
                [encoded_images[i] for i in chosen], [detections[i] for i in chosen]
            )
            beyond = len(encode_part(name_shard(table, "0" * 24))) - empty
            weight = sum(costs[i].items + ROW_WEIGHT for i in chosen)
            for i in chosen:
                costs[i].part_bytes = beyond * (costs[i].items + ROW_WEIGHT) / weight

    def _build_table(
        self,
        encoded_images: Sequence[EncodedImage],
        detections: Sequence[ImageDetections | None],
    ) -> Any:
        plan = self._plan
        if isinstance(plan, DetectionPlan):
            return plan.build_table(encoded_images, detections)
        return build_proposals_table(encoded_images, plan.provenance, plan.fingerprint)


def check_measured(costs: Sequence[ImageCost]) -> None:
    """Reject a sample all of whose images failed: it says nothing about the others.

    Raises:
        UnreadableDataset: they did.
    """
    if costs and all(cost.is_failed for cost in costs):
        raise UnreadableDataset(
            f"all {len(costs)} sampled images failed, so nothing can be planned: run the job with --limit "
            f"{len(costs)} --max-failed-fraction 1 to see why"
        )
