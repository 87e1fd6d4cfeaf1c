"""Batches prepared ahead, whose images a GPU resizes, are those that are prepared when they are needed."""

import numpy as np
import pytest
import torch

from pipeline.detector.batch_preparation import BatchPreparation
from pipeline.detector.pyramid import split_by_level
from tests.detector.networks import SMALL, draw_random_boxes, draw_random_image

SIZES = [(60, 80), (80, 60), (60, 80), (64, 64)]


def draw_inputs():
    rng = np.random.default_rng(0)
    images = [draw_random_image(rng, *size) for size in SIZES]
    boxes = [draw_random_boxes(rng, 9, *size) for size in SIZES]
    batches = [(at_level.shape, [at_level]) for at_level in split_by_level(boxes, SIZES, [SMALL])]
    return batches, images, boxes


def test_threads_prepare_the_same_batches_in_the_same_order():
    inputs = draw_inputs()
    # The meta device takes the path of a GPU, without its memory.
    direct, ahead = (
        list(BatchPreparation(SMALL, 1 / 8, torch.device(name)).prepare_ahead(*inputs))
        for name in ("cpu", "meta")
    )
    assert [batch.rois_by_image[0].image_index for batch in ahead] == [0, 1, 2, 3]
    for one, other in zip(direct, ahead, strict=True):
        on_cpu = torch.device("cpu")
        assert torch.equal(one.resize(on_cpu), other.resize(on_cpu))
        assert torch.equal(one.unique, other.unique)
        assert torch.equal(one.unique_index, other.unique_index)


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_an_image_that_cannot_be_prepared_raises_its_error(name):
    batches, images, boxes = draw_inputs()
    images[2] = None
    prepared = BatchPreparation(SMALL, 1 / 8, torch.device(name)).prepare_ahead(
        batches, images, boxes
    )
    assert next(prepared).rois_by_image[0].image_index == 0
    with pytest.raises(AttributeError):
        list(prepared)


def test_a_batch_resizes_images_of_several_sizes_in_their_order():
    rng = np.random.default_rng(3)
    sizes = [(60, 80), (30, 40), (60, 80), (90, 120)]  # all become 64 x 85
    images = [draw_random_image(rng, *size) for size in sizes]
    boxes = [draw_random_boxes(rng, 9, *size) for size in sizes]
    rois = split_by_level(boxes, sizes, [SMALL])
    assert {at_level.shape for at_level in rois} == {(64, 85)}
    preparation = BatchPreparation(SMALL, 1 / 8, torch.device("meta"))
    (batch,) = preparation.prepare_ahead([((64, 85), rois)], images, boxes)
    resized = batch.resize(torch.device("cpu"))
    for image, result in zip(images, resized, strict=True):
        difference = np.abs(SMALL.resize(image).astype(int) - result.numpy())
        assert difference.max() <= 1
    assert torch.equal(resized[0], torch.from_numpy(SMALL.resize(images[0]).copy()))
