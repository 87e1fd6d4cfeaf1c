import numpy as np
import pytest

from pipeline.proposals.smoothing import build_gaussian, smooth_planes
from tests.proposals import reference
from tests.proposals.sample_images import draw_noise


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(17, 23), (1, 1), (1, 9), (9, 1), (3, 2)])
def test_smoothing_is_a_gaussian_with_repeated_borders(sigma, shape):
    planes = np.moveaxis(draw_noise(3, *shape), 2, 0).copy()
    out = np.empty(planes.shape, np.float32)
    smooth_planes(planes, sigma, out)
    kernel = reference.build_bell(sigma, len(build_gaussian(sigma)) - 1)
    for plane, smoothed in zip(planes, out, strict=True):
        expected = reference.correlate(plane, kernel, kernel)
        np.testing.assert_allclose(smoothed, expected, rtol=0, atol=255e-6)


def test_sigma_zero_changes_nothing():
    planes = np.moveaxis(draw_noise(4, 5, 6), 2, 0).copy()
    out = np.empty(planes.shape, np.float32)
    smooth_planes(planes, 0, out)
    assert (out == planes).all()


def test_weights_sum_to_one():
    weights = build_gaussian(0.8)
    assert len(weights) == 5
    assert 2 * weights.sum() - weights[0] == pytest.approx(1)
