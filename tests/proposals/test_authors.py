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


@pytest.mark.parametrize("k", [100.0, 200.0])
def test_every_initial_segment_is_among_the_authors_boxes(authors, k):
    image, boxes = authors
    (segmentation,) = build_hierarchies(image, Strategy(("RGB",), ("S",), (k,)), Workspace())
    segments = {tuple(box) for box in segmentation.boxes.tolist()}
    assert len(segmentation.boxes) > 90
    assert segments <= {tuple(box) for box in boxes.tolist()}


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
