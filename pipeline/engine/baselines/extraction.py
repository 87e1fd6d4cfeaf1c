"""The features, or SPPnet's maps, of the images of one piece: read, decode, compute, build the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import geometry, schema
from pipeline.engine.baselines.image_decoding import decode_for_boxes
from pipeline.engine.baselines.plan import IMAGE_SECONDS, BaselinePlan
from pipeline.engine.lost_device import end_if_device_is_lost
from pipeline.engine.propose.reading import read_with_stored_proposals
from pipeline.engine.shards.piece import Piece
from pipeline.engine.watchdog import time_limit
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report
from pipeline.runs.tables import build_common_columns
from pipeline.shards import Parts
from pipeline.training.annotated_dataset import Annotations
from pipeline.training.survey import select_candidates

if TYPE_CHECKING:
    from pipeline.baselines.feature_table import ImageFeatures
    from pipeline.baselines.regions import PyramidFeatures, RegionFeatures

Content = Literal["features", "maps"]


@dataclass(frozen=True)
class ExtractionPlan:
    """A run over shards that extracts features or maps."""

    training: BaselinePlan
    content: Content
    output: str
    fingerprint: str
    network_digest: str
    """Digest of the weights that compute them."""
    maps: Parts | None = None
    """SPPnet's stored maps, from which its features are computed; cut as this run is."""


def extract_piece(
    plan: ExtractionPlan, piece: Piece, report: Report, last_chance: bool
) -> pa.Table:
    """Compute what a piece's images contribute to the stored features or maps.

    Args:
        plan: the run.
        piece: a shard, or one image of it.
        report: receives seconds, bytes and failures.
        last_chance: whether the piece is not tried again if this raises.

    Raises:
        StorageError: a store fails, which is not an image's fault.
    """
    if plan.content == "maps":
        return _extract_maps(plan, piece, report, last_chance)
    return _extract_features(plan, piece, report, last_chance)


def _extract_features(
    plan: ExtractionPlan, piece: Piece, report: Report, last_chance: bool
) -> pa.Table:
    from pipeline.baselines.feature_table import build_feature_columns  # noqa: PLC0415

    training = plan.training
    network = load_stage_network(training, plan.network_digest)
    encoded_images = _read(plan, piece, report, last_chance)
    annotations = _read_annotations(training, piece)
    maps = None if plan.maps is None else _read_maps(plan, piece)
    extracted: list[ImageFeatures | None] = []
    for index, (encoded, of_image) in enumerate(zip(encoded_images, annotations, strict=True)):
        own_maps = None if maps is None else maps[index]
        extracted.append(
            _extract_image(plan, encoded, of_image, network=network, maps=own_maps, report=report)
        )
        encoded.data = None
    columns = build_common_columns(encoded_images)
    columns |= build_feature_columns(extracted, network.width)
    return _build_table(columns, plan)


def _extract_image(
    plan: ExtractionPlan,
    encoded: EncodedImage,
    annotations: Annotations | None,
    *,
    network: StageNetwork,
    maps: Sequence[NDArray[np.float32]] | None,
    report: Report,
) -> ImageFeatures | None:
    """The features of one image's windows; None with its failure set if it cannot be read."""
    from pipeline.baselines.feature_table import ImageFeatures  # noqa: PLC0415

    decoding = plan.training.dataset.manifest.decoding
    try:
        with time_limit(IMAGE_SECONDS):
            with report.time_stage("decode"):
                image = decode_for_boxes(encoded, decoding)
            if image is None:
                report.fail(encoded.failure or Failure("features", "UnreadableImage", ""))
                return None
            boxes, labels = list_windows(encoded.boxes, annotations, image.shape[:2], plan.training)
            report.counts["windows"] += len(boxes)
            with report.time_stage("features"):
                vectors = network.compute(image, boxes, maps)
    except (RuntimeError, *IMAGE_ERRORS) as error:
        end_if_device_is_lost(error)
        encoded.failure = Failure.from_error("features", error)
        report.fail(encoded.failure)
        return None
    return ImageFeatures(boxes, labels, vectors)


def list_windows(
    proposals: NDArray[np.float32] | None,
    annotations: Annotations | None,
    size: tuple[int, ...],
    plan: BaselinePlan,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The windows `(N, 4)` of an image, clipped to it, and their labels `(N,)`: proposals, then objects.

    An image that is not annotated has none: what looks like background there may be an object.
    """
    if annotations is None or proposals is None:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    height, width = size[:2]
    candidates = select_candidates(geometry.clip(proposals, width, height), plan.recipe)
    objects = geometry.clip(annotations.boxes[~annotations.crowd], width, height)
    inside = geometry.is_nonempty(objects)
    own_labels = annotations.labels[~annotations.crowd][inside]
    boxes = np.concatenate([candidates, objects[inside]]).astype(np.float32)
    labels = np.concatenate([np.zeros(len(candidates), np.int32), own_labels.astype(np.int32)])
    return boxes, labels


def _extract_maps(
    plan: ExtractionPlan, piece: Piece, report: Report, last_chance: bool
) -> pa.Table:
    from pipeline.baselines.feature_table import build_map_column  # noqa: PLC0415

    network = load_stage_network(plan.training, plan.network_digest)
    encoded_images = _read(plan, piece, report, last_chance)
    maps: list[list[NDArray[np.float32]] | None] = []
    for encoded in encoded_images:
        try:
            with time_limit(IMAGE_SECONDS):
                image = decode_for_boxes(encoded, plan.training.dataset.manifest.decoding)
                encoded.data = None
                if image is None:
                    report.fail(encoded.failure or Failure("maps", "UnreadableImage", ""))
                    maps.append(None)
                    continue
                with report.time_stage("maps"):
                    maps.append([m[0].cpu().numpy() for m in network.pyramid.extract_maps(image)])
        except (RuntimeError, *IMAGE_ERRORS) as error:
            end_if_device_is_lost(error)
            encoded.failure = Failure.from_error("maps", error)
            report.fail(encoded.failure)
            maps.append(None)
    columns = build_common_columns(encoded_images)
    columns["maps"] = build_map_column(maps)
    return _build_table(columns, plan)


def _read(
    plan: ExtractionPlan, piece: Piece, report: Report, last_chance: bool
) -> list[EncodedImage]:
    """Read the piece's images with their proposals."""
    dataset = plan.training.dataset
    rows = piece.read_images(dataset.manifest, plan.fingerprint)
    first = piece.shard.first_row + (piece.row or 0)
    stored = dataset.proposals.locate(first, len(rows)).read_table()
    return list(read_with_stored_proposals(rows, stored, report, is_last_chance=last_chance))


def _read_annotations(plan: BaselinePlan, piece: Piece) -> list[Annotations | None]:
    first = piece.shard.first_row + (piece.row or 0)
    manifest = plan.dataset.manifest
    rows = manifest.read(first, piece.rows, [*manifest.image_columns, "objects"]).combine_chunks()
    return plan.dataset.read_annotations(rows, first)


def _read_maps(plan: ExtractionPlan, piece: Piece) -> list[list[NDArray[np.float32]] | None]:
    """The stored maps of a piece's images."""
    from pipeline.baselines.feature_table import read_maps  # noqa: PLC0415

    assert plan.maps is not None, "the caller checks it"
    shard = plan.maps.shards[piece.shard.ordinal]
    channels = load_stage_network(plan.training, plan.network_digest).channels
    maps = read_maps(plan.maps.read(shard), channels, shard.part_name)
    return maps if piece.row is None else maps[piece.row : piece.row + 1]


def build_failed_part(plan: ExtractionPlan, encoded: EncodedImage) -> pa.Table:
    """The row of an image that ended its workers."""
    from pipeline.baselines.feature_table import (  # noqa: PLC0415
        build_feature_columns,
        build_map_column,
    )

    columns = build_common_columns([encoded])
    if plan.content == "maps":
        columns["maps"] = build_map_column([None])
    else:
        columns |= build_feature_columns([None], _get_width(plan.training))
    return _build_table(columns, plan)


def _get_width(plan: BaselinePlan) -> int:
    from pipeline.baselines.networks import build_baseline_network, get_width  # noqa: PLC0415

    return get_width(build_baseline_network(plan.architecture, plan.regions))


def _build_table(columns: dict[str, Any], plan: ExtractionPlan) -> pa.Table:
    from pipeline.baselines.feature_table import MAPS, build_feature_schema  # noqa: PLC0415

    if plan.content == "maps":
        target = MAPS
    else:
        target = build_feature_schema(columns["vectors"].type.value_type.list_size)
    metadata = {"fingerprint": plan.fingerprint, "classes": list(plan.training.classes)}
    return pa.table(columns, schema=schema.add_metadata(target, metadata))


class StageNetwork:
    """A stage's network on this process's device, ready to compute features."""

    def __init__(self, plan: BaselinePlan) -> None:
        import torch  # noqa: PLC0415

        from pipeline.baselines.networks import SppNetwork, get_width  # noqa: PLC0415
        from pipeline.baselines.regions import (  # noqa: PLC0415
            PyramidFeatures,
            build_region_features,
        )
        from pipeline.detector.device_selection import select_device, select_dtype  # noqa: PLC0415
        from pipeline.engine.baselines.stage_network import load_trained  # noqa: PLC0415

        device = select_device("cuda" if plan.gpu else "cpu")
        if not plan.gpu:
            torch.set_num_threads(1)  # Ray gives a task one core
        network = load_trained(plan)
        self.width = get_width(network)
        """Length of a feature."""
        self.channels = network.backbone.channels
        """Channels of the feature map."""
        dtype = select_dtype(plan.recipe.precision, device)
        regions = build_region_features(network, plan.preprocessing, plan.regions, device, dtype)
        self._regions: RegionFeatures = regions
        if isinstance(network, SppNetwork):
            assert isinstance(regions, PyramidFeatures), "SPPnet pools a pyramid"
            self.pyramid: PyramidFeatures = regions

    def compute(
        self,
        image: NDArray[np.uint8],
        boxes: NDArray[np.float32],
        maps: Sequence[NDArray[np.float32]] | None,
    ) -> NDArray[np.float32]:
        """The features `(N, D)` of boxes `(N, 4)`, from stored maps if the image has them."""
        import torch  # noqa: PLC0415

        if not len(boxes):
            return np.zeros((0, self.width), np.float32)
        if maps is None:
            return self._regions.compute(image, boxes).cpu().numpy()
        tensors = [torch.from_numpy(np.array(m))[None] for m in maps]
        size = (image.shape[0], image.shape[1])
        return self.pyramid.compute_vectors(tensors, size, boxes).cpu().numpy()


_loaded: dict[tuple[str, str], StageNetwork] = {}
"""The last network of this process, by output and digest: a process works on several pieces."""


def load_stage_network(plan: BaselinePlan, digest: str) -> StageNetwork:
    """The network with these weights, loaded once per process."""
    key = (plan.output, digest)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = StageNetwork(plan)
    return _loaded[key]
