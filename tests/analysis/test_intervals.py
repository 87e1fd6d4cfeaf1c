import numpy as np
import pytest

from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.intervals import (
    bootstrap_precision,
    resample_precision,
    resample_size_precision,
)
from pipeline.analysis.recall_intervals import resample_recalls
from pipeline.analysis.resampling import ImageSample, Resampler
from tests.analysis.scenes import Scenes, draw_scenes, evaluate_with_hotcoco


def make_resampler(scenes, resamples):
    sample = ImageSample(0)
    sample.update(scenes.match())
    return Resampler(sample, resamples)


def repeat_images(scenes, weights):
    """The images, each as often as its weight."""
    images = np.repeat(np.arange(scenes.images), weights)

    def repeat(arrays, kind):
        index = [np.flatnonzero(arrays.image == image) for image in images]
        image = np.repeat(np.arange(len(images)), [len(own) for own in index])
        rows = np.concatenate(index)
        columns = {name: getattr(arrays, name)[rows] for name in arrays.__dict__ if name != "image"}
        return kind(image=image, **columns)

    return Scenes(
        len(images),
        scenes.classes,
        repeat(scenes.ground_truth, GroundTruthArrays),
        repeat(scenes.detections, DetectionArrays),
    )


def score(scenes):
    """hotcoco's AP, AP50 and AP75, and VOC's 11-point and area mAP."""
    evaluation = evaluate_with_hotcoco(scenes)
    evaluation.accumulate()
    evaluation.summarize()
    voc = VocAveragePrecision(len(scenes.classes))
    voc.update(scenes.ground_truth, scenes.detections)
    scores = voc.compute()
    return [*evaluation.stats[:3], np.nanmean(scores.eleven_point), np.nanmean(scores.area)]


def test_the_first_weighting_is_the_score_of_the_images():
    scenes = draw_scenes(images=60, seed=1)
    figures = resample_precision(make_resampler(scenes, 0), len(scenes.classes))[..., 0]
    coco = figures[:, :10]
    ours = [coco.mean(), coco[:, 0].mean(), coco[:, 5].mean(), *figures[:, 10:].mean(axis=0)]
    assert ours == pytest.approx(score(scenes), abs=1e-6)


def test_a_resample_is_the_score_of_repeated_images():
    scenes = draw_scenes(images=25, seed=2, classes=2)
    resampler = make_resampler(scenes, 20)
    figures = resample_precision(resampler, len(scenes.classes))
    images = np.unique(resampler.matches.row)
    for column in (1, 20):  # the last one is in a block of its own
        weights = np.zeros(scenes.images, int)
        weights[images] = resampler.weights[:, column]
        expected = score(repeat_images(scenes, weights))
        coco = figures[:, :10, column]
        ours = [
            coco.mean(),
            coco[:, 0].mean(),
            coco[:, 5].mean(),
            *figures[:, 10:, column].mean(axis=0),
        ]
        # Copies of an image with two detections of equal rank alternate there.
        assert ours == pytest.approx(expected, abs=2e-3)


def test_intervals_surround_the_scores():
    scenes = draw_scenes(images=120, seed=3)
    intervals = bootstrap_precision(make_resampler(scenes, 300), scenes.classes)
    expected = score(scenes)
    names = ("coco_ap", "coco_ap50", "coco_ap75", "voc07_map50", "voc_map50")
    for name, value in zip(names, expected, strict=True):
        estimate = getattr(intervals, name)
        assert estimate.low < value < estimate.high
        assert intervals.list_intervals()[name] == [estimate.low, estimate.high]
    assert [row.label for row in intervals.per_class] == list(scenes.classes)
    assert all(
        row.coco_ap50.low < row.coco_ap50.value < row.coco_ap50.high for row in intervals.per_class
    )


def test_a_sample_is_centred_on_the_score_of_all_images():
    scenes = draw_scenes(images=120, seed=3)
    sample = ImageSample(0, max_images=40)
    sample.update(scenes.match())
    resampler = Resampler(sample, 100)
    estimate = bootstrap_precision(resampler, scenes.classes, {"coco_ap50": 0.9}).coco_ap50
    assert estimate.value == 0.9
    assert 0.8 < estimate.low < estimate.high < 1.0


def test_without_objects_nothing_is_defined():
    scenes = draw_scenes(images=5, objects=0, seed=1)
    assert len(scenes.detections.scores)
    intervals = bootstrap_precision(make_resampler(scenes, 10), scenes.classes)
    assert intervals.coco_ap.value is None
    assert intervals.list_intervals()["coco_ap"] is None


def test_resampled_recalls_and_sizes_are_those_of_repeated_images():
    scenes = draw_scenes(images=40, seed=2, classes=3)
    resampler = make_resampler(scenes, 20)
    figures = resample_size_precision(resampler, 3) | resample_recalls(resampler, 3)
    assert list(figures) == [
        *(f"coco_ap_{size}" for size in ("small", "medium", "large")),
        *(f"coco_ar_{name}" for name in (1, 10, 100, "small", "medium", "large")),
    ]
    images = np.unique(resampler.matches.row)
    for column in (0, 1, 20):
        weights = np.zeros(scenes.images, int)
        weights[images] = resampler.weights[:, column]
        weights = np.ones(scenes.images, int) if column == 0 else weights
        evaluation = evaluate_with_hotcoco(repeat_images(scenes, weights))
        evaluation.accumulate()
        evaluation.summarize()
        expected = [np.nan if value == -1 else value for value in evaluation.stats[3:]]
        ours = [values[column] for values in figures.values()]
        assert np.isnan(expected).sum() == 2  # there are no large objects
        assert ours == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_recalls_and_sizes_have_intervals():
    scenes = draw_scenes(images=80, seed=3)
    estimates = bootstrap_precision(make_resampler(scenes, 200), scenes.classes)
    listed = estimates.list_intervals()
    for name in ("coco_ap_medium", "coco_ar_1", "coco_ar_100", "coco_ar_medium"):
        low, high = listed[name]
        assert low < estimates.further[name].value < high < low + 0.4, name
    assert listed["coco_ap_large"] is None
