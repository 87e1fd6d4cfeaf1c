"""The stage that trains SVMs and box regressors on stored features, which stream from their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import DetectionArrays, flatten_ground_truth
from pipeline.baselines.system_options import select_baseline_settings, select_recipe_settings
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import load_trained
from pipeline.shards import Parts
from pipeline.training.annotated_dataset import Annotations

if TYPE_CHECKING:
    from pipeline.baselines.feature_table import ImageFeatures
    from pipeline.baselines.svm import LinearScores, WindowBatch

OUTPUT_LAYERS = "svm.safetensors"
"""SVMs and regressors in the folder of the stages, for features as they are stored."""


class StoredFeatures:
    """The features of all images of a training, read part by part."""

    def __init__(self, plan: BaselinePlan, parts: Parts, scale: float = 1.0) -> None:
        self._plan = plan
        self._parts = parts
        self.scale = scale
        """Factor of the features that are read."""

    def read_images(self) -> Iterator[tuple[ImageFeatures, Annotations, Any]]:
        """Yield each image that has features: these, its annotations, and its row of `objects`."""
        from pipeline.baselines.feature_table import read_features  # noqa: PLC0415

        manifest = self._plan.dataset.manifest
        for shard in self._parts.shards:
            table = self._parts.read(shard)
            columns = [*manifest.image_columns, "objects"]
            rows = manifest.read(shard.first_row, shard.rows, columns).combine_chunks()
            annotations = self._plan.dataset.read_annotations(rows, shard.first_row)
            images = read_features(table, shard.part_name)
            for index, (image, of_image) in enumerate(zip(images, annotations, strict=True)):
                if image is not None and of_image is not None:
                    yield image, of_image, rows["objects"].slice(index, 1)

    def read_windows(self) -> Iterator[WindowBatch]:
        """Yield the windows of each image, scaled, with what makes them positives and negatives."""
        from pipeline.baselines.svm import WindowBatch  # noqa: PLC0415
        from pipeline.baselines.window_overlaps import measure_overlaps  # noqa: PLC0415

        for image, of_image, _ in self.read_images():
            overlaps = measure_overlaps(image.boxes, of_image, len(self._plan.classes))
            yield WindowBatch(image.vectors * np.float32(self.scale), overlaps, image.labels)


def run_svm_training(plan: BaselinePlan, parts: Parts) -> Mapping[str, Any]:
    """Train the SVMs with hard negatives, and put them into the folder of the stages.

    Returns:
        Figures: the new negatives of each pass, and the mAP on the training images before and after mining.

    Raises:
        UnreadableDataset: a part is damaged, or no window shows an object.
    """
    import safetensors.numpy  # noqa: PLC0415

    from pipeline.baselines.svm import (  # noqa: PLC0415
        HardNegativeTrainer,
        measure_scale,
        mine_until_done,
    )

    features = StoredFeatures(plan, parts)
    features.scale = measure_scale(image.vectors for image, _, _ in features.read_images())
    trainer = HardNegativeTrainer(
        features.read_windows, len(plan.classes), plan.settings, plan.seed
    )
    before = score_training_images(plan, features, trainer.scores)
    passes = list(mine_until_done(trainer, plan.settings.mining_passes))
    scores = trainer.scores
    after = score_training_images(plan, features, scores)
    layers = {
        "weight": scores.weight * np.float32(features.scale),
        "bias": scores.bias,
        "scale": np.array([features.scale], np.float32),
    }
    storage.put(plan.locate(OUTPUT_LAYERS), safetensors.numpy.save(layers))
    return {
        "passes": [
            {"new_negatives": list(p.new_negatives), "negatives": list(p.cached_negatives)}
            for p in (trainer.passes[0], *passes)
        ],
        "train_map50_before_mining": before,
        "train_map50": after,
        "feature_scale": features.scale,
    }


def score_training_images(
    plan: BaselinePlan, features: StoredFeatures, scores: LinearScores
) -> float:
    """VOC2007's 11-point mAP at IoU 0.5 of the SVMs on the training images, without box regression."""
    import torch  # noqa: PLC0415

    from pipeline.baselines.predictor import compute_scores  # noqa: PLC0415
    from pipeline.detector.postprocessing import select_detections  # noqa: PLC0415
    from pipeline.detector.postprocessing_settings import (  # noqa: PLC0415
        PostprocessingSettings,
    )

    settings = PostprocessingSettings(refine_boxes=False)
    precision = VocAveragePrecision(len(plan.classes))
    for image, _, objects in features.read_images():
        is_proposal = image.labels == 0
        boxes = image.boxes[is_proposal]
        outputs = scores.compute(image.vectors[is_proposal] * np.float32(features.scale))
        with_background = np.concatenate([np.zeros((len(boxes), 1), np.float32), outputs], axis=1)
        limits = image.boxes.max(axis=0, initial=0.0)
        selected = select_detections(
            compute_scores(torch.from_numpy(with_background)),
            torch.zeros(len(boxes), with_background.shape[1], 4),
            torch.from_numpy(boxes),
            (int(np.ceil(limits[3])) + 1, int(np.ceil(limits[2])) + 1),
            settings,
        )
        own_boxes, own_scores, labels = (values.numpy() for values in selected)
        precision.update(
            flatten_ground_truth(objects, plan.classes),
            DetectionArrays(
                np.zeros(len(labels), np.int64),
                labels.astype(np.int64),
                own_scores,
                own_boxes.astype(np.float64),
            ),
        )
    per_class = precision.compute().eleven_point
    return round(float(np.nanmean(per_class)), 6) if np.isfinite(per_class).any() else 0.0


def run_box_regression(plan: BaselinePlan, parts: Parts) -> Mapping[str, Any]:
    """Train the box regressors and put the checkpoint, of SVMs and regressors, into the output.

    Returns:
        Figures: pairs of a proposal and its object, per class.
    """
    import safetensors.numpy  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from pipeline.baselines.checkpoint import save_baseline  # noqa: PLC0415
    from pipeline.baselines.networks import get_width, set_output_layers  # noqa: PLC0415

    layers = safetensors.numpy.load(storage.read(plan.locate(OUTPUT_LAYERS)))
    network = load_trained(plan)
    score_layers = [torch.from_numpy(layers[name]) for name in ("weight", "bias")]
    figures: dict[str, Any] = {}
    if plan.system == "fast-rcnn-svm":  # the network's own box layer stays
        set_output_layers(network, score_layers[0], score_layers[1])
    else:
        scale = np.float32(layers["scale"][0])
        features = StoredFeatures(plan, parts, float(scale))
        weight, bias, pairs = _fit_regressors(plan, features, get_width(network))
        set_output_layers(
            network,
            score_layers[0],
            score_layers[1],
            delta_weight=torch.from_numpy(weight * scale),
            delta_bias=torch.from_numpy(bias),
        )
        figures = {"pairs": pairs}
    save_baseline(
        plan.output,
        network,
        plan.preprocessing,
        plan.regions,
        extra={
            "recipe": select_recipe_settings(plan.system, plan.recipe),
            "baseline": select_baseline_settings(plan.system, plan.settings),
            "seed": plan.seed,
        },
    )
    return figures


def _fit_regressors(
    plan: BaselinePlan, features: StoredFeatures, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int]]:
    """Weights `(K, 4, D)`, biases `(K, 4)` and the number of pairs of each class.

    The features are read once per group of classes whose sums fit in memory.
    """
    from pipeline.baselines.box_regression import (  # noqa: PLC0415
        RidgeRegressors,
        split_classes,
    )
    from pipeline.baselines.window_overlaps import pair_with_objects  # noqa: PLC0415

    classes = len(plan.classes)
    weights = np.zeros((classes, 4, width), np.float32)
    biases = np.zeros((classes, 4), np.float32)
    pairs: list[int] = []
    for group in split_classes(classes, width):
        regressors = RidgeRegressors(len(group), width)
        for image, of_image, _ in features.read_images():
            is_proposal = image.labels == 0
            vectors: NDArray[np.float32] = image.vectors[is_proposal] * np.float32(features.scale)
            rows, labels, deltas = pair_with_objects(
                image.boxes[is_proposal], of_image, plan.settings.regression_iou
            )
            for label in np.intersect1d(labels, group):
                own = labels == label
                regressors.add(int(label) - group.start, vectors[rows[own]], deltas[own])
        weights[group], biases[group] = regressors.solve(plan.settings.ridge)
        pairs += regressors.pairs.tolist()
    return weights, biases, pairs
