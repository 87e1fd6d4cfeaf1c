"""R-CNN and SPPnet from windows to a checkpoint, on a few drawn images and in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import imaging, storage
from pipeline.baselines import svm
from pipeline.baselines.checkpoint import load_baseline
from pipeline.baselines.feature_table import read_features
from pipeline.baselines.fine_tuning import FineTuningState
from pipeline.baselines.predictor import BaselinePredictor
from pipeline.baselines.regions import build_region_features
from pipeline.baselines.settings import System
from pipeline.baselines.window_sampling import index_windows
from pipeline.detector.checkpoint import load_checkpoint, save_checkpoint
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.baselines import fine_tuning_stage, svm_stage
from pipeline.engine.baselines.fine_tuning_stage import STATE, run_fine_tuning
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import FINE_TUNED
from pipeline.engine.baselines.svm_stage import StoredFeatures
from pipeline.errors import InvalidCheckpoint
from pipeline.excluded_images import ExcludedImages
from tests.baselines.stages_in_process import SETTINGS, build_plan, extract, train


def detect_in_first_image(plan: BaselinePlan, **settings: object) -> tuple[object, np.ndarray]:
    """Detections in the first training image, and its proposals."""
    shard = plan.dataset.read(0)
    image = imaging.decode_image(Path(shard.uris[0]).read_bytes())
    postprocessing = PostprocessingSettings(**settings)  # type: ignore[arg-type]
    predictor = BaselinePredictor(
        load_baseline(plan.output), device="cpu", precision="fp32", postprocessing=postprocessing
    )
    (detections,) = predictor([image], [shard.proposals[0]])
    return detections, shard.proposals[0]


@pytest.mark.parametrize("system", ["rcnn", "sppnet"])
def test_all_stages_end_in_a_checkpoint_that_detects(system: System, tmp_path: Path) -> None:
    plan = build_plan(tmp_path, system)
    figures = train(plan)
    assert figures["fine-tune"]["steps"] == SETTINGS.fine_tune_steps  # type: ignore[index]
    svm = figures["svm"]
    assert len(svm["passes"]) >= 2  # type: ignore[index]
    assert 0 <= svm["train_map50"] <= 1  # type: ignore[index]
    assert sum(figures["boxes"]["pairs"]) > 0  # type: ignore[index]
    trained = load_baseline(plan.output)
    assert trained.settings == SETTINGS.describe_system(system)
    detections, proposals = detect_in_first_image(plan)
    assert len(detections.scores) > 0  # type: ignore[attr-defined]
    assert (np.diff(detections.scores) <= 0).all()  # type: ignore[attr-defined]
    own, _ = detect_in_first_image(plan, refine_boxes=False)
    distance = np.abs(own.boxes[:, None] - proposals[None]).max(axis=2).min(axis=1)  # type: ignore[attr-defined]
    assert distance.max() < 1  # each is one of the proposals, clipped to the image
    with pytest.raises(InvalidCheckpoint, match=f'"{system}", not of Fast R-CNN'):
        load_checkpoint(plan.output)


@pytest.mark.parametrize("system", ["rcnn", "sppnet"])
def test_the_checkpoint_computes_what_its_stages_stored_and_learned(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features from the image, and the outputs of SVMs and regressors, which learned from scaled features."""
    trainers: list[svm.HardNegativeTrainer] = []
    fitted: list[tuple[np.ndarray, np.ndarray]] = []

    class Recorded(svm.HardNegativeTrainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            trainers.append(self)

    fit = svm_stage._fit_regressors

    def record_fit(*arguments: Any) -> Any:
        weight, bias, pairs = fit(*arguments)
        fitted.append((weight, bias))
        return weight, bias, pairs

    monkeypatch.setattr(svm, "HardNegativeTrainer", Recorded)
    monkeypatch.setattr(svm_stage, "_fit_regressors", record_fit)
    plan = build_plan(tmp_path, system, images=3)
    maps = extract(plan, "maps") if system == "sppnet" else None
    run_fine_tuning(plan, maps)
    parts = extract(plan, "features", maps)
    scale = np.float32(svm_stage.run_svm_training(plan, parts)["feature_scale"])
    svm_stage.run_box_regression(plan, parts)

    trained = load_baseline(plan.output)
    regions = build_region_features(
        trained.network, plan.preprocessing, plan.regions, torch.device("cpu"), torch.float32
    )
    shard = plan.dataset.read(0)
    (weight, bias), scores = fitted[0], trainers[0].scores
    for uri, stored in zip(
        shard.uris, read_features(next(parts.read_tables()), "part"), strict=True
    ):
        assert stored is not None
        image = imaging.decode_image(Path(uri).read_bytes())
        vectors = regions.compute(image, stored.boxes)
        np.testing.assert_allclose(vectors.numpy(), stored.vectors, rtol=1e-3, atol=1e-3)
        scaled = stored.vectors * scale
        with torch.inference_mode():
            own_scores = trained.network.cls_score(vectors)[:, 1:].numpy()
            own_deltas = trained.network.bbox_pred(vectors)[:, 4:].numpy()
        np.testing.assert_allclose(own_scores, scores.compute(scaled), rtol=1e-2, atol=1e-2)
        deltas = np.einsum("nd,kcd->nkc", scaled, weight) + bias
        np.testing.assert_allclose(
            own_deltas, deltas.reshape(len(deltas), -1), rtol=1e-2, atol=1e-2
        )
    assert abs(scale - 1) > 0.1  # else nothing here would show a scale that is left out


def test_stored_features_are_those_of_the_images_windows(tmp_path: Path) -> None:
    """One row per image; objects follow the proposals with their class."""
    plan = build_plan(tmp_path, "rcnn", images=2)
    parts = extract(plan, "features")
    images = read_features(next(parts.read_tables()), "part")
    annotations = plan.dataset.read(0).annotations
    for image, of_image in zip(images, annotations, strict=True):
        assert image is not None
        assert of_image is not None
        count = len(of_image.labels)
        assert image.labels.tolist() == [0] * (len(image.labels) - count) + of_image.labels.tolist()
        np.testing.assert_allclose(image.boxes[-count:], of_image.boxes)
        assert image.vectors.shape == (len(image.labels), 32)
        assert np.isfinite(image.vectors).all()


def test_an_excluded_image_has_no_windows_and_trains_nothing(tmp_path: Path) -> None:
    plan = build_plan(tmp_path, "rcnn", images=2)
    left_out, _ = plan.dataset.read(0).image_ids
    excluded = ExcludedImages("list.parquet", {left_out: frozenset({""})})
    plan = replace(plan, dataset=replace(plan.dataset, excluded=excluded))
    parts = extract(plan, "features")
    first, second = read_features(next(parts.read_tables()), "part")
    assert first is not None
    assert second is not None
    assert (len(first.labels), len(second.labels) > 0) == (0, True)
    assert len(list(StoredFeatures(plan, parts).read_images())) == 1
    index = index_windows(plan.dataset, plan.recipe, plan.system)
    assert {*index.foreground.image.tolist(), *index.background.image.tolist()} == {1}


def test_fine_tuning_goes_on_from_its_state_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning_stage, "PUT_EVERY", 0.0)
    settings = replace(SETTINGS, fine_tune_steps=6, windows_per_step=8)
    monkeypatch.setattr("pipeline.baselines.fine_tuning.MOST_BLOCK_BYTES", 2 * 8 * 3 * 48**2)
    whole = build_plan(tmp_path, "rcnn", images=3, settings=settings)
    stopped = replace(whole, output=str(tmp_path / "stopped"))
    run_fine_tuning(whole, None)
    run_step = FineTuningState.to_bytes

    def stop_after_four(self: FineTuningState) -> bytes:
        if self.step > 4:
            raise KeyboardInterrupt
        return run_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuningState, "to_bytes", stop_after_four)
        with pytest.raises(KeyboardInterrupt):
            run_fine_tuning(stopped, None)
    assert storage.exists(stopped.locate(STATE))
    figures = run_fine_tuning(stopped, None)
    assert figures == run_fine_tuning(replace(whole, output=str(tmp_path / "again")), None)
    assert storage.read(stopped.locate(FINE_TUNED)) == storage.read(whole.locate(FINE_TUNED))
    assert not storage.exists(stopped.locate(STATE))


def test_svms_on_the_features_of_a_fast_rcnn_keep_its_box_layer(tmp_path: Path) -> None:
    from pipeline.detector.network import build_network

    plan = build_plan(tmp_path, "rcnn", images=3)
    network = build_network(plan.architecture)
    checkpoint = str(tmp_path / "fast")
    save_checkpoint(checkpoint, network, plan.preprocessing)
    plan = replace(plan, system="fast-rcnn-svm", weights=checkpoint)
    train(plan)
    trained = load_baseline(plan.output)
    assert trained.settings.system == "fast-rcnn-svm"
    torch.testing.assert_close(trained.network.bbox_pred.weight, network.bbox_pred.weight)
    assert not torch.equal(trained.network.cls_score.weight, network.cls_score.weight)
    detections, _ = detect_in_first_image(plan)
    assert len(detections.scores) > 0  # type: ignore[attr-defined]
