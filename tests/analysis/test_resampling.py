import numpy as np
import pytest

from pipeline.analysis import resampling
from pipeline.analysis.poisson_weights import draw_weights
from pipeline.analysis.resampling import ImageSample, Resampler, limit_share
from tests.analysis.scenes import draw_scenes


def test_weights_are_poisson():
    weights = draw_weights(np.arange(400), 500, seed=0)
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.02)
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)
    correlation = np.corrcoef(weights.T.astype(float))
    assert np.abs(correlation - np.eye(500)).max() < 0.3


def test_a_weight_depends_on_seed_image_and_resample_alone():
    whole = draw_weights(np.arange(100), 50, seed=7)
    np.testing.assert_array_equal(draw_weights(np.arange(40, 60), 50, seed=7), whole[40:60])
    np.testing.assert_array_equal(draw_weights(np.arange(100), 20, seed=7), whole[:, :20])
    assert (draw_weights(np.arange(100), 50, seed=8) != whole).mean() > 0.4


def test_images_of_a_sample_stand_for_more():
    weights = draw_weights(np.arange(300), 300, seed=0, mean=25.0)
    assert weights.mean() == pytest.approx(25, abs=0.2)
    assert weights.var() == pytest.approx(25, abs=0.8)


@pytest.mark.parametrize("limits", [{"max_rows": 100}, {"max_images": 11}])
def test_the_sample_does_not_depend_on_the_grouping(limits):
    scenes = draw_scenes(images=60, seed=1)
    whole = ImageSample(3, **limits)
    whole.update(scenes.match())
    expected, _ = whole.collect()
    assert 0 < len(np.unique(expected.row)) < 50
    merged = ImageSample(3, **limits)
    for part in reversed(scenes.match_parts([7, 8, 20, 33, 52])):
        sample = ImageSample(3, **limits)
        sample.update(part)
        sample.collect()
        merged.merge(sample)
    np.testing.assert_array_equal(merged.collect()[0].row, expected.row)
    np.testing.assert_array_equal(merged.collect()[0].score, expected.score)
    assert merged.images == whole.images


def test_a_share_above_the_sample_changes_nothing(monkeypatch):
    scenes = draw_scenes(images=60, seed=1)
    monkeypatch.setattr(resampling, "MAX_IMAGES", 11)
    matches = scenes.match()
    share = limit_share(len(np.unique(matches.row)), len(matches) // 2)
    assert 11 / 60 < share < 0.25
    plain, shared = ImageSample(3, max_images=11), ImageSample(3, max_images=11, share=share)
    for sample in (plain, shared):
        sample.update(matches)
    np.testing.assert_array_equal(shared.collect()[0].score, plain.collect()[0].score)
    assert shared.images == plain.images == len(np.unique(matches.row))
    few = ImageSample(3, share=share)
    few.update(matches)
    assert 0 < len(few.collect()[0]) < len(matches) / 2
    assert limit_share(11, 10**6) == 1


def test_sums_count_an_image_as_often_as_its_weight():
    sample = ImageSample(0)
    sample.update(draw_scenes(images=20).match())
    resampler = Resampler(sample, 30)
    figure, image = np.array([0, 0, 1, 0]), np.array([2, 3, 3, 2])
    values = np.array([[1.0, 5.0], [2.0, 0.0], [1.0, 1.0], [4.0, 0.0]])
    first, second = resampler.resample_sums(figure, image, values, 3)
    weights = resampler.weights
    np.testing.assert_allclose(first[0], 5 * weights[2] + 2 * weights[3])
    np.testing.assert_allclose(second[1], weights[3])
    assert not first[2].any()
    assert (weights[:, 0] == 1).all()


def test_intervals_cover_the_rate_that_images_are_drawn_from():
    """Of 60 sets of images with a rate of 0.3, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        hits = rng.random(200) < 0.3
        weights = draw_weights(np.arange(200), 400, seed)
        rates = (weights * hits[:, None]).sum(axis=0) / weights.sum(axis=0)
        low, high = np.percentile(rates, [2.5, 97.5])
        covered += low <= 0.3 <= high
    assert 52 <= covered <= 60


def test_a_sample_gives_intervals_as_wide_as_all_images():
    scenes = draw_scenes(images=400, seed=2, objects=3)
    matches = scenes.match()
    widths = []
    for limits in ({}, {"max_images": 100}):
        sample = ImageSample(1, **limits)
        sample.update(matches)
        resampler = Resampler(sample, 400)
        is_object = resampler.matches.stands_for_object
        is_true = resampler.matches.is_detection[is_object]
        sums = resampler.resample_sums(
            np.zeros(is_object.sum(), int),
            resampler.image[is_object],
            np.stack([is_true, np.ones_like(is_true)], axis=1),
            1,
        )
        whole = matches.stands_for_object
        (rate,) = resampler.summarize_ratios(
            np.array([(matches.is_detection & whole).sum()]), np.array([whole.sum()]), *sums
        )
        assert rate.low < rate.value < rate.high
        widths.append(rate.high - rate.low)
        assert bool(resampler.notes) == bool(limits)
    assert widths[1] == pytest.approx(widths[0], rel=0.4)
