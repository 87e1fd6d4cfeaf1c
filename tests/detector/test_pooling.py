import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_pool

from pipeline.detector.pooling import roi_max_pool

COUNTING = torch.arange(48.0).reshape(1, 1, 6, 8)  # the value at (y, x) is 8 y + x


def rois(*boxes, image=0):
    return torch.tensor([[image, *box] for box in boxes], dtype=torch.float32)


def test_pooling_of_a_hand_worked_map():
    # At scale 1/2, [2, 2, 10, 10) has its last pixel at 9: cells 1 to round(4.5) = 5, five per side.
    # Bins of 2.5 cells: rows and columns [1, 4) and [3, 6), whose largest values are the last ones.
    pooled = roi_max_pool(COUNTING, rois((2, 2, 10, 10)), 2, 0.5)
    assert pooled.tolist() == [[[[27.0, 29.0], [43.0, 45.0]]]]


def test_a_box_of_whole_cells_includes_the_cell_of_its_rounded_last_pixel():
    # [0, 0, 64, 32) at 1/16: last pixels 63 and 31 round to cells 4 and 2, as in the released layer.
    pooled = roi_max_pool(COUNTING, rois((0, 0, 64, 32)), 1, 1 / 16)
    assert pooled.item() == 8 * 2 + 4


def test_a_box_within_one_cell_repeats_that_cell():
    pooled = roi_max_pool(COUNTING, rois((33, 17, 34, 18)), 3, 1 / 16)
    assert pooled.tolist() == [[[[8 * 1 + 2] * 3] * 3]]


def test_cells_beyond_the_map_are_zero():
    pooled = roi_max_pool(COUNTING - 100, rois((0, 0, 16, 12)), 2, 1.0)
    assert pooled[0, 0].tolist() == [[47 - 100.0, 0.0], [0.0, 0.0]]


def test_no_rois_give_an_empty_result_and_the_index_selects_the_image():
    two = torch.cat([COUNTING, -COUNTING])
    assert roi_max_pool(two, torch.zeros(0, 5), 3, 1.0).shape == (0, 1, 3, 3)
    assert roi_max_pool(two, rois((2, 2, 4, 4), image=1), 1, 1.0).item() == -(8 * 2 + 2)


def draw_case(seed, channels=5, height=9, width=13, count=12):
    """Draw features with ties, and RoIs: tiny ones, large ones and some beyond the map."""
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(
        rng.integers(-9, 10, (2, channels, height, width)).astype(np.float32)
    )
    low = rng.uniform(0, [width * 16, height * 16], (count, 2))
    sides = rng.uniform(0, [width * 20, height * 20], (count, 2)) * rng.integers(0, 2, (count, 1))
    boxes = np.concatenate([low, low + sides + rng.uniform(0.01, 3, (count, 2))], axis=1)
    boxes[rng.random(count) < 0.3] = np.round(boxes[0] / 8) * 8  # halves to round
    index = rng.integers(0, 2, (count, 1))
    return features, torch.from_numpy(np.concatenate([index, boxes], axis=1).astype(np.float32))


def pool_by_torchvision(features, boxes, size, scale):
    return roi_pool(features, boxes - torch.tensor([0.0, 0, 0, 1, 1]), size, scale)


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 5, 7]), st.sampled_from([1 / 16, 1 / 8, 0.3]))
def test_values_and_gradients_equal_torchvision(seed, size, scale):
    features, boxes = draw_case(seed)
    own, reference = features.clone().requires_grad_(), features.clone().requires_grad_()
    pooled = roi_max_pool(own, boxes, size, scale)
    expected = pool_by_torchvision(reference, boxes, size, scale)
    assert torch.equal(pooled, expected)
    assert torch.equal(roi_max_pool(features, boxes, size, scale), expected)  # without argmax
    weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(seed))
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(own.grad, reference.grad)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_pool_the_same_cells(dtype, layout, trained):
    features, boxes = draw_case(3)
    features = features.to(dtype).contiguous(memory_format=layout).requires_grad_(trained)
    pooled = roi_max_pool(features, boxes, 7, 1 / 16)
    assert pooled.dtype == dtype
    reference = features.detach().float().requires_grad_()
    expected = pool_by_torchvision(reference, boxes, 7, 1 / 16)
    assert torch.equal(pooled.detach().float(), expected)
    if trained:
        pooled.sum().backward()
        expected.sum().backward()
        assert features.grad.dtype == dtype
        assert torch.equal(features.grad.float(), reference.grad.to(dtype).float())


def test_the_gradient_is_right_in_double_precision():
    features, boxes = draw_case(5, channels=2, height=4, width=5, count=4)
    features = (features + torch.rand(features.shape) / 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: roi_max_pool(f, boxes, 2, 1 / 16), features)


def test_autocast_keeps_the_dtype_of_the_features():
    features, boxes = draw_case(1)
    convolution = torch.nn.Conv2d(5, 4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = roi_max_pool(convolution(features), boxes, 3, 1 / 16)
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert convolution.weight.grad.abs().sum() > 0


def test_the_operators_pass_torchs_registration_checks():
    features, boxes = draw_case(2)
    everything = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, inputs in (
        (torch.ops.fast_rcnn.roi_max_pool, (features, boxes, 3, 1 / 16)),
        (
            torch.ops.fast_rcnn.roi_max_pool_with_argmax,
            (features.clone().requires_grad_(), boxes, 3, 1 / 16),
        ),
    ):
        torch.library.opcheck(operator, inputs, test_utils=everything)


def test_torch_compile_traces_pooling_into_one_graph():
    features, boxes = draw_case(4)
    compiled = torch.compile(roi_max_pool, backend="aot_eager", fullgraph=True)
    own, reference = features.clone().requires_grad_(), features.clone().requires_grad_()
    pooled, expected = compiled(own, boxes, 3, 1 / 16), roi_max_pool(reference, boxes, 3, 1 / 16)
    assert torch.equal(pooled, expected)
    pooled.sum().backward()
    expected.sum().backward()
    assert torch.equal(own.grad, reference.grad)
