"""Trains a ranking model on a manifest's annotated images, on the cores of this machine.

It needs no Ray: 1000 images take about two minutes of one core, and more images change little.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib import metadata

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import imaging, manifests, storage, store_options, uris
from pipeline.errors import (
    InvalidConfiguration,
    MissingObject,
    ShardFailed,
    UnreadableDataset,
    UnreadableImage,
)
from pipeline.image_members import read_members
from pipeline.image_reader import ImageReader
from pipeline.manifests import Manifest
from pipeline.proposals.ranking_model import digest_model
from pipeline.proposals.ranking_training import (
    RankingRecipe,
    TrainingBoxes,
    fit_model,
    import_lightgbm,
    join_boxes,
    select_boxes,
)
from pipeline.proposals.search import derive_image_seed
from pipeline.proposals.strategy import resolve_strategy
from pipeline.runs.input_places import check_apart
from pipeline.store_options import StoreOptions

log = logging.getLogger(__name__)

IMAGES_PER_CALL = 8


@dataclass(frozen=True)
class RankingRunSettings:
    """Which images and boxes a ranking is trained on."""

    strategies: tuple[str, ...]
    """The boxes of each are trained on."""
    limit: int
    """Most images; more are sampled."""
    min_side: int
    """Smallest side of the boxes, in pixels."""
    recipe: RankingRecipe


@dataclass(frozen=True)
class TrainedRanking:
    """What a training wrote."""

    uri: str
    digest: str
    images: int
    images_failed: int
    boxes: int
    nbytes: int


@dataclass(frozen=True)
class _ImageTask:
    """A few annotated images, as a process gets them."""

    manifest: Manifest
    rows: tuple[int, ...]
    settings: RankingRunSettings
    stores: StoreOptions


def train_ranking(
    manifest_uri: str, output_uri: str, settings: RankingRunSettings
) -> TrainedRanking:
    """Train a ranking model and write its file.

    Args:
        manifest_uri: annotated images.
        output_uri: the model's file, which ends in .json.
        settings: images, boxes and recipe.

    Raises:
        InvalidConfiguration: an option is wrong, or LightGBM is missing.
        UnreadableDataset: the manifest has no annotated objects, or none of its images can be read.
        StorageError: a store fails.
    """
    if not output_uri.endswith(".json"):
        raise InvalidConfiguration(f"--output {uris.redact_uri(output_uri)} does not end in .json")
    for strategy in settings.strategies:
        resolve_strategy(strategy)
    import_lightgbm()
    target = uris.make_absolute(output_uri)
    manifest = manifests.open_manifest(manifest_uri)
    check_apart(target, {"manifest": manifest.uri})
    folder = target.rpartition("/")[0]
    if not folder.endswith("/"):  # a bucket's root needs no folder
        storage.check_writable(folder)
    rows, digest = _sample_rows(manifest, settings)
    tasks = [
        _ImageTask(
            manifest, rows[first : first + IMAGES_PER_CALL], settings, store_options.get_options()
        )
        for first in range(0, len(rows), IMAGES_PER_CALL)
    ]
    parts, failed = _collect_boxes(tasks)
    if not parts:
        raise UnreadableDataset(
            f"{uris.redact_uri(manifest.uri)}: none of {len(rows)} images can be read"
        )
    boxes = join_boxes(parts)
    log.info("fitting %d trees to %d boxes", settings.recipe.trees, len(boxes.overlaps))
    training = {
        "images": len(rows) - failed,
        "image_ids": digest,
        "boxes": len(boxes.overlaps),
        "strategies": list(settings.strategies),
        "min_side": settings.min_side,
        "recipe": asdict(settings.recipe),
        "lightgbm": metadata.version("lightgbm"),
    }
    content = fit_model(boxes, settings.recipe, training).to_json().encode()
    storage.put(target, content)
    return TrainedRanking(
        target,
        digest_model(content),
        len(rows) - failed,
        failed,
        len(boxes.overlaps),
        len(content),
    )


def _sample_rows(manifest: Manifest, settings: RankingRunSettings) -> tuple[tuple[int, ...], str]:
    """The rows of the images to train on, in order, and a digest of their ids."""
    annotated: list[int] = []
    ids: list[str] = []
    for batch in manifest.read_batches(["image_id", "objects"]):
        for image_id, objects in zip(
            batch.column("image_id").to_pylist(), batch.column("objects"), strict=True
        ):
            if objects.is_valid and len(objects):
                annotated.append(len(ids))
            ids.append(image_id)
    if not annotated:
        raise UnreadableDataset(
            f"{uris.redact_uri(manifest.uri)} has no annotated object to learn from"
        )
    if len(annotated) > settings.limit:
        random = np.random.default_rng(settings.recipe.seed)
        annotated = sorted(random.choice(annotated, settings.limit, replace=False).tolist())
    digest = hashlib.sha256("\n".join(ids[row] for row in annotated).encode()).hexdigest()
    return tuple(annotated), digest


def _collect_boxes(tasks: Sequence[_ImageTask]) -> tuple[list[TrainingBoxes], int]:
    """The boxes of all tasks in their order, and the number of images that cannot be read."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = min(cores or 1, len(tasks) // 2)
    if processes < 2:
        return _gather(map(_collect_task, tasks), len(tasks))
    context = multiprocessing.get_context("spawn")  # a store's client does not survive a fork
    with ProcessPoolExecutor(processes, context) as pool:
        try:
            return _gather(pool.map(_collect_task, tasks), len(tasks))
        except BrokenProcessPool as error:
            raise ShardFailed(
                "a process that computed features was ended, perhaps for its memory"
            ) from error


def _gather(
    outcomes: Iterable[tuple[list[TrainingBoxes], int]], count: int
) -> tuple[list[TrainingBoxes], int]:
    parts: list[TrainingBoxes] = []
    failed = 0
    for number, (boxes, failures) in enumerate(outcomes, start=1):
        parts += boxes
        failed += failures
        if number % 16 == 0 or number == count:
            log.info("features of %d of %d groups of images", number, count)
    return parts, failed


def _collect_task(task: _ImageTask) -> tuple[list[TrainingBoxes], int]:
    """The boxes to train on of some images, and how many of these cannot be read."""
    store_options.set_options(task.stores)
    parts: list[TrainingBoxes] = []
    failed = 0
    for row in task.rows:
        table = task.manifest.read(row, 1, [*task.manifest.image_columns, "objects"])
        (member,) = read_members(table, task.manifest.uri, row)
        uri = table["uri"][0].as_py()
        try:
            encoded = ImageReader([(uri, member)]).read(0)
            image = imaging.decode_image(encoded, task.manifest.decoding)
        except (UnreadableImage, MissingObject) as error:
            log.warning("left out: %s: %s", uris.redact_uri(uri), error)
            failed += 1
            continue
        parts += _describe_image(image, table, task.settings)
    return parts, failed


def _describe_image(
    image: NDArray[np.uint8], table: pa.Table, settings: RankingRunSettings
) -> list[TrainingBoxes]:
    """The boxes of one image to train on, for each strategy; `table` is its row of the manifest."""
    from pipeline.proposals.hierarchy import build_hierarchies  # noqa: PLC0415
    from pipeline.proposals.learned_ranking import describe_boxes  # noqa: PLC0415
    from pipeline.proposals.workspace import get_thread_workspace  # noqa: PLC0415

    annotated = table["objects"][0].as_py()
    objects, ignored = (
        np.array(
            [
                [o[corner] for corner in ("x1", "y1", "x2", "y2")]
                for o in annotated
                if (o["difficult"] or o["crowd"]) == is_ignored
            ],
            np.float32,
        ).reshape(-1, 4)
        for is_ignored in (False, True)
    )
    image = np.require(image, np.uint8, ["C", "W"])
    random = np.random.default_rng(
        derive_image_seed(settings.recipe.seed, table["image_id"][0].as_py())
    )
    parts = []
    for strategy in settings.strategies:
        boxes, features = describe_boxes(
            image,
            build_hierarchies(image, resolve_strategy(strategy), get_thread_workspace()),
            (settings.min_side, settings.min_side),
        )
        parts.append(select_boxes(boxes, features, objects, ignored, settings.recipe, random))
    return parts
