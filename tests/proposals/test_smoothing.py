import numpy as np
import pytest

from pipeline.proposals.smoothing import gaussian, smooth
from tests.proposals import reference
from tests.proposals.sample_images import noise


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(17, 23), (1, 1), (1, 9), (9, 1), (3, 2)])
def test_it_is_a_gaussian_with_repeated_borders(sigma, shape):
    planes = np.moveaxis(noise(3, *shape), 2, 0).copy()
    out = np.empty(planes.shape, np.float32)
    smooth(planes, sigma, out)
    kernel = reference.bell(sigma, len(gaussian(sigma)) - 1)
    for plane, found in zip(planes, out, strict=True):
        expected = reference.correlate(plane, kernel, kernel)
        np.testing.assert_allclose(found, expected, rtol=0, atol=255e-6)


def test_sigma_zero_changes_nothing():
    planes = np.moveaxis(noise(4, 5, 6), 2, 0).copy()
    out = np.empty(planes.shape, np.float32)
    smooth(planes, 0, out)
    assert (out == planes).all()


def test_weights_sum_to_one():
    weights = gaussian(0.8)
    assert len(weights) == 5
    assert 2 * weights.sum() - weights[0] == pytest.approx(1)
