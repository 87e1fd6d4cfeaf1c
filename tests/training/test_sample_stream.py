"""The stream of samples: the order holds whatever the threads, unreadable images are skipped."""

from itertools import islice

from pipeline import storage
from pipeline.training.sample_loader import Sample, SkippedImage
from pipeline.training.sample_order import SampleOrder
from pipeline.training.sample_stream import SampleStream
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import (
    RECIPE,
    assert_same_samples,
    make_loader,
    open_drawn_datasets,
)


def test_a_stream_keeps_the_order_whatever_the_threads(tmp_path):
    datasets, _ = open_drawn_datasets(tmp_path)
    order = SampleOrder(survey_datasets(datasets, RECIPE).shards, 0)
    streams = [
        SampleStream(make_loader(datasets), order, start=3, threads=threads, ahead=ahead)
        for threads, ahead in ((1, 0), (3, 6))
    ]
    samples = [list(islice(stream, 12)) for stream in streams]
    for stream in streams:
        stream.close()
    for first, second in zip(*samples, strict=True):
        assert first.image_id == second.image_id
        assert_same_samples(first, second)


def test_unreadable_images_are_skipped_with_a_reason(tmp_path):
    datasets, _ = open_drawn_datasets(tmp_path)
    storage.put(str(tmp_path / "images" / "p2.png"), b"no image")
    (tmp_path / "images" / "p4.png").unlink()
    order = SampleOrder(survey_datasets(datasets, RECIPE).shards, 0)
    stream = SampleStream(make_loader(datasets), order, start=0)
    items = list(islice(stream, 8))
    stream.close()
    skipped = {item.image_id: item.reason for item in items if isinstance(item, SkippedImage)}
    assert sorted(skipped) == ["p2", "p4"]
    assert "not an image" in skipped["p2"]
    assert "does not exist" in skipped["p4"]
    assert sum(isinstance(item, Sample) for item in items) == 6
