import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import imaging
from pipeline.detector.preprocessing import CAFFE, SMALLEST_SIDE, TENSORFLOW, Preprocessing
from pipeline.errors import InvalidConfiguration


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (600, 800)),  # the short side decides
        ((300, 900), (333, 1000)),  # the cap decides
        ((1, 1), (600, 600)),
        ((1, 5000), (SMALLEST_SIDE, 1000)),
        ((5000, 3), (1000, SMALLEST_SIDE)),
    ],
)
def test_short_side_and_cap_decide_the_resized_shape(size, expected):
    assert Preprocessing().compute_resized_shape(*size) == expected


def test_another_short_side_and_cap_replace_the_own_ones():
    other = Preprocessing().compute_resized_shape(375, 500, short_side=1200, max_side=2000)
    assert other == (1200, 1600)


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_no_side_exceeds_the_cap_and_one_is_reached(height, width):
    shape = Preprocessing(short_side=480, max_side=800).compute_resized_shape(height, width)
    assert max(shape) <= 800
    assert min(shape) == 480 or max(shape) == 800


def test_values_are_scaled_and_normalised_in_the_networks_channel_order():
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 10, 20, 255
    settings = Preprocessing(
        channel_order="BGR",
        scale=0.5,
        mean=(1.0, 2.0, 3.0),
        std=(1.0, 2.0, 4.0),
        short_side=64,
        max_side=96,
    )
    tensor = settings(image)
    assert tensor.shape == (3, 64, 96)
    assert tensor.dtype == torch.float32
    expected = torch.tensor([126.5, 4.0, 0.5])  # (255/2 - 1) / 1, (20/2 - 2) / 2, (10/2 - 3) / 4
    torch.testing.assert_close(tensor, expected[:, None, None].expand(3, 64, 96))


def test_white_in_the_settings_of_tensorflow_and_caffe():
    white = np.full((600, 600, 3), 255, np.uint8)
    assert torch.allclose(TENSORFLOW(white), torch.tensor(1.0))
    assert torch.allclose(CAFFE(white)[0], torch.tensor(255 - 102.9801))


def test_resizing_equals_imaging_and_does_not_change_the_original():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    before = image.copy()
    settings = Preprocessing(scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, short_side=100)
    resized = imaging.resize(image, 140, 100)
    np.testing.assert_array_equal(settings.resize(image), resized)
    np.testing.assert_array_equal(settings(image).permute(1, 2, 0).numpy(), resized)
    same_size = rng.integers(0, 256, (100, 140, 3), dtype=np.uint8)
    copy = same_size.copy()
    settings(same_size)
    np.testing.assert_array_equal(same_size, copy)
    np.testing.assert_array_equal(image, before)


def test_settings_survive_a_round_trip_through_json():
    for settings in (CAFFE, replace(CAFFE, shift_rois_first=True)):
        assert Preprocessing.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_a_record_from_before_the_order_of_projection_reads_as_it_was():
    assert "shift_rois_first" not in CAFFE.to_json()  # the digest of older checkpoints stays
    stored = json.loads(json.dumps(CAFFE.to_json()))
    assert Preprocessing.from_json(stored).shift_rois_first is False


@pytest.mark.parametrize(
    "fields",
    [
        {"channel_order": "GRB"},
        {"std": (1.0, 0.0, 1.0)},
        {"short_side": 900, "max_side": 800},
        {"short_side": 5},
    ],
)
def test_invalid_settings_are_rejected(fields):
    with pytest.raises(InvalidConfiguration):
        Preprocessing(**fields)
