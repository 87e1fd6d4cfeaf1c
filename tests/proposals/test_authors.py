"""Against the boxes of two VOC images that the authors' MATLAB code gave (real data, else skipped)."""

import numpy as np
import pytest
from scipy.io import loadmat

from pipeline import geometry, imaging
from pipeline.proposals import Strategy, selective_search
from pipeline.proposals.hierarchy import segmentations
from pipeline.proposals.workspace import Workspace


@pytest.fixture(params=["000004", "001551"])
def authors(request, dev_data):
    """An image and the authors' boxes, half open."""
    folder = dev_data / "selective_search_matlab"
    boxes = loadmat(folder / f"{request.param}_boxes.mat")["boxes"].astype(np.float32)
    image = imaging.decode((folder / f"{request.param}.jpg").read_bytes())
    return image, geometry.from_inclusive(boxes, 0)


@pytest.mark.parametrize("k", [100.0, 200.0])
def test_every_initial_segment_is_among_the_authors_boxes(authors, k):
    image, boxes = authors
    theirs = {tuple(box) for box in boxes.tolist()}
    (segmentation,) = segmentations(image, Strategy(("RGB",), ("S",), (k,)), Workspace())
    ours = [tuple(box) for box in segmentation.boxes.tolist()]
    assert len(ours) > 90
    assert set(ours) <= theirs


@pytest.mark.parametrize(("strategy", "least"), [("fast", 0.82), ("quality", 0.92)])
def test_most_of_the_authors_boxes_are_near_one_of_ours(authors, strategy, least):
    image, boxes = authors
    ours = selective_search(image, strategy, min_side=1)
    assert geometry.iou(boxes, ours).max(axis=1).mean() > least
