"""Drawn images with proposals, a `tiny` network trained on them, and its mean average precision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.detector.predictor import Predictor
from pipeline.manifests import open_manifest
from pipeline.proposals import derive_image_seed, selective_search
from pipeline.sources.drawn_dataset import CLASSES, DrawnImage, draw_image
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from pipeline.training.trainer import Trainer
from tests.gpu.checks import Setting
from tests.training.training_dataset import jitter_boxes, write_dataset, write_proposals

DEMO_MAP = 0.87
"""The demo's detector reaches 0.91 (11 points) on its 60 test images; the rest is for the other order of
a GPU's additions, which gives another network."""
BRIEF_MAP = 0.2
"""After a brief training, which reaches 0.5; an untrained network has 0.04."""
DEMO_IMAGES, DEMO_TEST_IMAGES = 200, 60


@dataclass(frozen=True)
class Scene:
    """An image with its objects, and proposals `(N, 4)`."""

    drawn: DrawnImage
    proposals: np.ndarray


def draw_scenes(setting: Setting) -> list[Scene]:
    """The demo's test images; few of them, with jittered objects as proposals, if quick."""
    first = 0 if setting.is_quick else DEMO_IMAGES
    count = 16 if setting.is_quick else DEMO_TEST_IMAGES
    seed = 1 if setting.is_quick else 0
    drawn = [draw_image(np.random.default_rng([seed, first + number])) for number in range(count)]
    return [Scene(*pair) for pair in zip(drawn, propose(setting, drawn, first), strict=True)]


def propose(setting: Setting, drawn: list[DrawnImage], first: int = 0) -> list[np.ndarray]:
    """Boxes of selective search, as the demo's, or jittered objects if quick: the search compiles slowly."""
    if setting.is_quick:
        return [jitter_boxes(d, np.random.default_rng([9, i])) for i, d in enumerate(drawn)]
    seeds = [derive_image_seed(0, f"drawn_{first + number:05d}") for number in range(len(drawn))]
    with ThreadPoolExecutor() as threads:
        return list(
            threads.map(
                lambda image, seed: selective_search(image, "fast", seed, max_boxes=2000),
                [image.image for image in drawn],
                seeds,
            )
        )


def build_spec(setting: Setting, output: str, recipe: Recipe, **options: Any) -> TrainingSpec:
    """A training on the demo's images, or on 24 of them if quick; its data is written once."""
    folder = setting.folder / "drawn"
    proposals_uri = str(folder / "searched")
    if not folder.is_dir():
        count = 24 if setting.is_quick else DEMO_IMAGES
        manifest_uri, _, drawn = write_dataset(folder, images=count, shard_size=8)
        boxes: list[np.ndarray | None] = [*propose(setting, drawn)]
        write_proposals(open_manifest(manifest_uri), proposals_uri, boxes, shard_size=8)
    manifests = open_annotated_manifests([str(folder / "manifest.parquet")])
    datasets = open_annotated_datasets(manifests, [proposals_uri])
    survey = survey_datasets(datasets, recipe)
    return TrainingSpec(output, recipe, datasets, survey, **options)


def get_tiny_recipe(setting: Setting) -> Recipe:
    """The demo's recipe, shortened if quick."""
    recipe = get_recipe("tiny")
    if not setting.is_quick:
        return recipe
    return replace(recipe, short_sides=(120,), max_side=200, epochs=20.0)


def train_tiny(setting: Setting) -> str:
    """Train the demo's network on the device, once per call; returns the checkpoint's folder."""
    output = setting.folder / "trained"
    if not (output / "model.json").is_file():
        spec = build_spec(setting, str(output), get_tiny_recipe(setting), checkpoint_every=10**6)
        Trainer(spec, device=setting.device, ingest_threads=8 if setting.on_gpu else 1).train()
    return str(output)


def score_scenes(predictor: Predictor, scenes: list[Scene]) -> float:
    """VOC2007's 11-point mean AP at IoU 0.5."""
    scores = VocAveragePrecision(len(CLASSES))
    detected = predictor([s.drawn.image for s in scenes], [s.proposals for s in scenes])
    for scene, detections in zip(scenes, detected, strict=True):
        drawn, count = scene.drawn, len(scene.drawn.boxes)
        nowhere = np.zeros(count, bool)
        truth = GroundTruthArrays(
            np.zeros(count, np.int64),
            np.array([CLASSES.index(label) for label in drawn.labels], np.int64),
            drawn.boxes.astype(np.float64),
            nowhere,
            nowhere,
        )
        scores.update(
            truth,
            DetectionArrays(
                np.zeros(len(detections.scores), np.int64),
                detections.labels.astype(np.int64),
                detections.scores,
                detections.boxes.astype(np.float64),
            ),
        )
    return float(np.nanmean(scores.compute().eleven_point))
