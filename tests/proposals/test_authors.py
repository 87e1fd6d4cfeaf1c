"""Against the boxes that the authors' MATLAB code gives for two VOC images (skipped without the data)."""

import numpy as np
import pytest
from scipy.io import loadmat

from pipeline import geometry, imaging
from pipeline.proposals import Strategy, selective_search
from pipeline.proposals.hierarchy import build_hierarchies
from pipeline.proposals.workspace import Workspace


@pytest.fixture(params=["000004", "001551"])
def authors(request, dev_data):
    """An image and the authors' boxes, half open."""
    folder = dev_data / "selective_search_matlab"
    boxes = loadmat(folder / f"{request.param}_boxes.mat")["boxes"].astype(np.float32)
    image = imaging.decode_image((folder / f"{request.param}.jpg").read_bytes())
    return image, geometry.from_inclusive(boxes, 0)


AUTHORS_STRATEGY = "RGB,HSV,rgI:TS:100,200"
"""The setting of the ICCV 2011 paper, with which the boxes were made."""


@pytest.mark.parametrize("space", ["RGB", "HSV", "rgI"])
@pytest.mark.parametrize("k", [100.0, 200.0])
def test_every_initial_segment_is_among_the_authors_boxes(authors, space, k):
    image, boxes = authors
    (segmentation,) = build_hierarchies(image, Strategy((space,), ("S",), (k,)), Workspace())
    segments = {tuple(box) for box in segmentation.boxes.tolist()}
    assert len(segmentation.boxes) > 75
    assert segments <= {tuple(box) for box in boxes.tolist()}


def test_the_authors_strategy_reproduces_half_of_their_boxes_to_the_pixel(authors):
    image, boxes = authors
    proposals = selective_search(image, AUTHORS_STRATEGY, min_side=1)
    authors_boxes = {tuple(box) for box in boxes.tolist()}
    shared = authors_boxes & {tuple(box) for box in proposals.tolist()}
    assert len(shared) > 0.5 * len(authors_boxes)


@pytest.mark.parametrize(("strategy", "least"), [("fast", 0.82), ("quality", 0.92)])
def test_most_authors_boxes_are_near_a_proposal(authors, strategy, least):
    image, boxes = authors
    proposals = selective_search(image, strategy, min_side=1)
    # A few boxes at a time: their overlaps with all proposals fit into the cache, which is five times faster.
    overlaps = [
        geometry.iou(boxes[first : first + 8], proposals).max(axis=1)
        for first in range(0, len(boxes), 8)
    ]
    assert np.concatenate(overlaps).mean() > least
