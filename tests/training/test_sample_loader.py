"""Samples: keyed randomness, the geometry of flips and scales, a store that does not answer."""

import dataclasses
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import geometry, storage
from pipeline.detector.targets import TargetStatistics
from pipeline.errors import StorageError
from pipeline.sources.webdataset import open_webdataset
from pipeline.training.sample_loader import Sample
from pipeline.training.sample_order import ImageLocation, PlannedSample, SampleOrder, make_generator
from pipeline.training.survey import survey_datasets
from tests.sources.containers import write_tar
from tests.training.training_dataset import (
    RECIPE,
    assert_same_samples,
    make_loader,
    open_drawn_datasets,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_drawn_datasets(tmp_path_factory.mktemp("drawn"))


def test_a_sample_depends_on_seed_epoch_and_image(data):
    datasets, _ = data
    location = ImageLocation(0, 1, 2)
    first = make_loader(datasets).load(PlannedSample(5, 3, location))
    assert_same_samples(first, make_loader(datasets).load(PlannedSample(77, 3, location)))
    other_epoch = make_loader(datasets).load(PlannedSample(5, 4, location))
    other_seed = make_loader(datasets, seed=1).load(PlannedSample(5, 3, location))
    for other in (other_epoch, other_seed):
        assert not (first.rois.shape == other.rois.shape and np.array_equal(first.rois, other.rois))


def test_rois_and_targets_match_the_objects_after_flip_and_scale(data):
    datasets, drawn = data
    for flip in (0.0, 1.0):
        recipe = dataclasses.replace(RECIPE, flip=flip)
        sample = make_loader(datasets, recipe).load(PlannedSample(0, 0, ImageLocation(0, 0, 1)))
        image = drawn[1]
        height, width = image.image.shape[:2]
        assert min(sample.image.shape[:2]) == 200
        truth = geometry.flip_horizontally(image.boxes, width) if flip else image.boxes
        truth = geometry.scale(truth, sample.image.shape[1] / width, sample.image.shape[0] / height)
        foreground = sample.labels > 0
        assert foreground.sum() > 3
        decoded = geometry.decode_deltas(sample.targets[foreground, None], sample.rois[foreground])[
            :, 0
        ]
        overlaps = geometry.iou(decoded, truth)
        np.testing.assert_allclose(overlaps.max(axis=1), 1, atol=1e-4)
        labels = [datasets[0].classes[label - 1] for label in sample.labels[foreground]]
        assert labels == [image.labels[index] for index in overlaps.argmax(axis=1)]


def test_the_image_is_mirrored_with_its_boxes(data):
    datasets, _ = data
    plain, mirrored = (
        make_loader(datasets, dataclasses.replace(RECIPE, flip=flip)).load(
            PlannedSample(0, 0, ImageLocation(0, 0, 0))
        )
        for flip in (0.0, 1.0)
    )
    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    flipped = geometry.flip_horizontally(plain.rois, plain.image.shape[1])
    np.testing.assert_allclose(mirrored.rois, flipped, atol=1e-3)


def test_targets_are_normalised(data):
    datasets, _ = data
    statistics = TargetStatistics(np.full((7, 4), 0.25, np.float32), np.full((7, 4), 2, np.float32))
    planned = PlannedSample(0, 0, ImageLocation(0, 0, 0))
    raw = make_loader(datasets).load(planned)
    normalised = make_loader(datasets, statistics=statistics).load(planned)
    foreground = raw.labels > 0
    np.testing.assert_allclose(
        normalised.targets[foreground], (raw.targets[foreground] - 0.25) / 2, atol=1e-6
    )
    assert not normalised.targets[~foreground].any()


def test_every_one_of_several_sizes_is_drawn(data):
    datasets, _ = data
    several = dataclasses.replace(RECIPE, short_sides=(96, 128, 160))
    loader = make_loader(datasets, several)
    sides = {
        min(loader.load(PlannedSample(0, epoch, ImageLocation(0, 0, 0))).image.shape[:2])
        for epoch in range(20)
    }
    assert sides == {96, 128, 160}


def test_a_store_that_does_not_answer_is_retried_and_skips_nothing(tmp_path, monkeypatch):
    datasets, _ = open_drawn_datasets(tmp_path)
    order = SampleOrder(survey_datasets(datasets, RECIPE).shards, 0)
    read, waits, outage = storage.read, [], iter([True] * 2 + [False] + [True] * 9)

    def failing(uri, max_bytes=None):
        if uri.endswith("p0.png") and next(outage):
            raise StorageError(f"{uri}: the store is away")
        return read(uri, max_bytes)

    monkeypatch.setattr(storage, "read", failing)
    monkeypatch.setattr("pipeline.training.sample_loader.time.sleep", waits.append)
    loader, planned = make_loader(datasets), list(islice(order.iterate_samples(0), 8))
    assert all(isinstance(loader.load(place), Sample) for place in planned)
    assert waits == [1, 4]
    with pytest.raises(StorageError, match="the store is away"):
        [loader.load(place) for place in planned]
    assert waits == [1, 4, 1, 4, 16]


@pytest.mark.parametrize("side", ["stated_sizes", "proposed_sizes"])
def test_an_image_of_another_size_than_its_boxes_is_skipped(data, side):
    datasets, drawn = data
    height, width = drawn[1].image.shape[:2]
    planned = PlannedSample(0, 0, ImageLocation(0, 0, 1))
    for size, reason in (
        ((width, height), None),
        (None, None),
        ((height, width), f"{height}x{width}"),
    ):
        loader = make_loader(datasets)
        shard = datasets[0].read(0)
        shard = dataclasses.replace(shard, **{side: [size] * len(shard.image_ids)})
        loader._shards = SimpleNamespace(get=lambda *_, shard=shard: shard)
        sample = loader.load(planned)
        assert isinstance(sample, Sample) == (reason is None)
        if reason:
            assert reason in sample.reason


def test_an_image_without_proposals_samples_its_objects(data):
    datasets, drawn = data
    annotations = datasets[0].read(0).annotations[0]
    sample = make_loader(datasets).prepare(
        "p", drawn[0].image, annotations, np.zeros((0, 4), np.float32), make_generator(0)
    )
    assert sorted(sample.labels) == sorted(annotations.labels)


def test_images_in_a_tar_file_are_loaded(data, tmp_path):
    datasets, _ = data
    shard = datasets[0].read(0)
    images = {f"{i}.jpg": storage.read(uri) for i, uri in enumerate(shard.uris)}
    write_tar(tmp_path / "a.tar", images)
    rows = list(open_webdataset([f"{tmp_path}/a.tar"]).rows)

    class InTar(type(datasets[0])):
        def read(self, ordinal, with_proposals=True):
            shard = super().read(ordinal, with_proposals)
            members = [row.member for row in rows]
            return dataclasses.replace(shard, uris=[row.uri for row in rows], members=members)

    in_tar = [InTar(datasets[0].manifest, datasets[0].proposals)]
    planned = PlannedSample(0, 0, ImageLocation(0, 0, 1))
    assert_same_samples(make_loader(in_tar).load(planned), make_loader(datasets).load(planned))
