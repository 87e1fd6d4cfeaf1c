import numpy as np
import pytest

from pipeline.proposals import features
from tests.proposals import reference
from tests.proposals.sample_images import draw_blocks

CHANNELS = [1, 2, 3]


def _make_regions(channels):
    planes = np.moveaxis(draw_blocks(7, 18, 25), 2, 0)[:channels].copy()
    labels = np.zeros((18, 25), np.int32)
    labels[5:, :9] = 1
    labels[10:, 12:] = 2
    return planes, labels, np.bincount(labels.ravel()).astype(np.int32)


@pytest.mark.parametrize("channels", CHANNELS)
def test_colour_histograms_equal_the_reference(channels):
    planes, labels, sizes = _make_regions(channels)
    codes = np.empty(labels.shape, np.uint32)
    features.encode_colours(planes, codes)
    histograms = np.zeros((5, 25 * channels), np.int32)
    features.build_colour_histograms(labels, sizes, codes, channels, histograms)
    for region in range(3):
        expected = reference.compute_colour_histogram(planes, labels == region)
        assert np.abs(histograms[region] / features.UNIT - expected).max() < 1e-6
        assert abs(int(histograms[region].sum()) - features.UNIT) <= 25 * channels
        counts = np.rint(histograms[region] / features.UNIT * channels * sizes[region])
        assert (counts == np.rint(expected * channels * sizes[region])).all()
    assert (histograms[3:] == 0).all()


@pytest.mark.parametrize("channels", CHANNELS)
def test_texture_histograms_equal_the_reference(channels):
    planes, labels, sizes = _make_regions(channels)
    derivatives = reference.compute_orientations(planes)
    # A pixel exactly on the edge of a bin may fall to either side: this image has none.
    steps = np.abs(derivatives) / (0.43 * 255) * 9 + 0.5
    assert np.abs(steps - np.rint(steps)).min() > 1e-5
    codes = np.empty(planes.shape, np.uint32)
    features.encode_textures(planes, codes)
    histograms = np.zeros((3, 80 * channels), np.int32)
    features.build_texture_histograms(labels, sizes, codes, histograms)
    for region in range(3):
        expected = reference.compute_texture_histogram(derivatives, labels == region)
        assert np.abs(histograms[region] / features.UNIT - expected).max() < 1e-6


def test_a_ramp_to_the_right_has_one_orientation():
    # Slope 24.36 levels per pixel is bin 2 of its orientation, its projections on the diagonals bin 1.
    ramp = np.rint(np.arange(10) * 0.43 * 255 / 9 * 2).astype(np.uint8)
    planes = np.broadcast_to(ramp, (1, 12, 10)).copy()
    codes = np.empty(planes.shape, np.uint32)
    features.encode_textures(planes, codes)
    labels = np.zeros((12, 10), np.int32)
    labels[:, :4] = labels[:, 6:] = 1  # the border's repeated pixels flatten the ramp
    histograms = np.zeros((2, 80), np.int32)
    features.build_texture_histograms(labels, np.array([24, 96], np.int32), codes, histograms)
    per_orientation = np.rint(histograms[0].reshape(8, 10) / features.UNIT * 8)
    # Axes right, right-down, down, left-down, each first with its own sign and then with the other.
    assert per_orientation.argmax(axis=1).tolist() == [2, 0, 1, 0, 0, 0, 0, 1]


def test_equal_histograms_intersect_fully_and_disjoint_ones_not_at_all():
    histograms = np.array(
        [[features.UNIT, 0, 0], [0, features.UNIT // 2, features.UNIT // 2]], np.int32
    )
    pairs = np.array([[0, 0], [0, 1], [1, 1]], np.int32)
    assert features.intersect_pairs(histograms, pairs).tolist() == [features.UNIT, 0, features.UNIT]
