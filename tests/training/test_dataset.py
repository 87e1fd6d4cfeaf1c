"""Samples: keyed randomness, geometry of flips and scales, unreadable images, order."""

import dataclasses
import threading
from itertools import islice

import numpy as np
import pytest

from pipeline import geometry, storage
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.targets import TargetStatistics
from pipeline.errors import StorageError
from pipeline.training.dataset import Dataset, Sample, SampleStream, Skipped, SliceCache
from pipeline.training.plan import Place, Plan, Planned, generator
from pipeline.training.recipe import Recipe
from pipeline.training.survey import survey
from tests.training.drawn import make_sources

RECIPE = Recipe(short_sides=(200,), max_side=400)
PLAIN = TargetStatistics(np.zeros((7, 4), np.float32), np.ones((7, 4), np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("drawn"))


def dataset(sources, recipe=RECIPE, seed=0, statistics=PLAIN):
    return Dataset(sources, recipe, Preprocessing(), statistics, seed)


def assert_same(one, other):
    for name in ("image", "rois", "labels", "targets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_sample_depends_on_seed_epoch_and_image(data):
    sources, _ = data
    place = Place(0, 1, 2)
    first = dataset(sources).sample(Planned(5, 3, place))
    assert_same(first, dataset(sources).sample(Planned(77, 3, place)))
    other_epoch = dataset(sources).sample(Planned(5, 4, place))
    other_seed = dataset(sources, seed=1).sample(Planned(5, 3, place))
    for other in (other_epoch, other_seed):
        assert not (first.rois.shape == other.rois.shape and np.array_equal(first.rois, other.rois))


def test_rois_and_targets_meet_the_objects_after_flip_and_scale(data):
    sources, drawn = data
    for flip in (0.0, 1.0):
        recipe = dataclasses.replace(RECIPE, flip=flip)
        sample = dataset(sources, recipe).sample(Planned(0, 0, Place(0, 0, 1)))
        image = drawn[1]
        height, width = image.image.shape[:2]
        assert min(sample.image.shape[:2]) == 200
        truth = geometry.flip_horizontally(image.boxes, width) if flip else image.boxes
        truth = geometry.scale(truth, sample.image.shape[1] / width, sample.image.shape[0] / height)
        foreground = sample.labels > 0
        assert foreground.sum() > 3
        found = geometry.decode(sample.targets[foreground, None], sample.rois[foreground])[:, 0]
        best = geometry.iou(found, truth)
        np.testing.assert_allclose(best.max(axis=1), 1, atol=1e-4)
        named = [sources[0].classes[label - 1] for label in sample.labels[foreground]]
        assert named == [image.labels[index] for index in best.argmax(axis=1)]


def test_the_image_is_mirrored_with_its_boxes(data):
    sources, _ = data
    plain, mirrored = (
        dataset(sources, dataclasses.replace(RECIPE, flip=flip)).sample(
            Planned(0, 0, Place(0, 0, 0))
        )
        for flip in (0.0, 1.0)
    )
    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    flipped = geometry.flip_horizontally(plain.rois, plain.image.shape[1])
    np.testing.assert_allclose(mirrored.rois, flipped, atol=1e-3)


def test_targets_are_normalised(data):
    sources, _ = data
    statistics = TargetStatistics(np.full((7, 4), 0.25, np.float32), np.full((7, 4), 2, np.float32))
    planned = Planned(0, 0, Place(0, 0, 0))
    raw = dataset(sources).sample(planned)
    normalised = dataset(sources, statistics=statistics).sample(planned)
    foreground = raw.labels > 0
    np.testing.assert_allclose(
        normalised.targets[foreground], (raw.targets[foreground] - 0.25) / 2, atol=1e-6
    )
    assert not normalised.targets[~foreground].any()


def test_of_several_sizes_each_is_taken(data):
    sources, _ = data
    several = dataclasses.replace(RECIPE, short_sides=(96, 128, 160))
    made = dataset(sources, several)
    sides = {
        min(made.sample(Planned(0, epoch, Place(0, 0, 0))).image.shape[:2]) for epoch in range(20)
    }
    assert sides == {96, 128, 160}


def test_a_stream_goes_in_the_plans_order_whatever_the_threads(data):
    sources, _ = data
    plan = Plan(survey(sources, RECIPE).shards, 0)
    streams = [
        SampleStream(dataset(sources), plan, start=3, threads=threads, ahead=ahead)
        for threads, ahead in ((1, 0), (3, 6))
    ]
    samples = [list(islice(stream, 12)) for stream in streams]
    for stream in streams:
        stream.close()
    for one, other in zip(*samples, strict=True):
        assert one.image_id == other.image_id
        assert_same(one, other)


def test_unreadable_images_are_skipped_with_the_reason(tmp_path):
    sources, _ = make_sources(tmp_path)
    storage.put(str(tmp_path / "images" / "p2.png"), b"no image")
    (tmp_path / "images" / "p4.png").unlink()
    plan = Plan(survey(sources, RECIPE).shards, 0)
    stream = SampleStream(dataset(sources), plan, start=0)
    found = list(islice(stream, 8))
    stream.close()
    skipped = {item.image_id: item.reason for item in found if isinstance(item, Skipped)}
    assert sorted(skipped) == ["p2", "p4"]
    assert "not an image" in skipped["p2"]
    assert "does not exist" in skipped["p4"]
    assert sum(isinstance(item, Sample) for item in found) == 6


def test_a_store_that_does_not_answer_skips_nothing(tmp_path, monkeypatch):
    sources, _ = make_sources(tmp_path)
    plan = Plan(survey(sources, RECIPE).shards, 0)
    read, waits, outage = storage.read, [], iter([True] * 2 + [False] + [True] * 9)

    def failing(uri):
        if uri.endswith("p0.png") and next(outage):
            raise StorageError(f"{uri}: the store is away")
        return read(uri)

    monkeypatch.setattr(storage, "read", failing)
    monkeypatch.setattr("pipeline.training.dataset.time.sleep", waits.append)
    made, planned = dataset(sources), list(islice(plan.samples(0), 8))
    assert all(isinstance(made.sample(place), Sample) for place in planned)
    assert waits == [1, 4]
    with pytest.raises(StorageError, match="the store is away"):
        [made.sample(place) for place in planned]
    assert waits == [1, 4, 1, 4, 16]


def test_a_image_without_proposals_gives_its_objects(data):
    sources, drawn = data
    known = sources[0].read(0).annotations[0]
    sample = dataset(sources).prepare(
        "p", drawn[0].image, known, np.zeros((0, 4), np.float32), generator(0)
    )
    assert sorted(sample.labels) == sorted(known.labels)


def test_slices_are_read_once_by_many_threads_and_dropped_when_old(data):
    sources, _ = data
    reads = []

    class Counting:
        def read(self, shard):
            reads.append(shard)
            return sources[0].read(shard)

    cache = SliceCache([Counting()], size=2)
    threads = [threading.Thread(target=cache.get, args=(0, 0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [0]
    for shard in (1, 2, 0):
        cache.get(0, shard)
    assert reads == [0, 1, 2, 0]
