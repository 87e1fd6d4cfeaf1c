"""Full memory halves the rows that go through at once; a process's share leaves room for its context."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.detector.device_memory import (
    CONTEXT_BYTES,
    PartLimit,
    choose_rois_at_once,
    compute_fraction,
    is_out_of_memory,
    limit_memory,
)
from pipeline.detector.predictor import Predictor
from tests.detector.networks import (
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)

FULL = torch.OutOfMemoryError("full")


class SmallDevice:
    """Doubles rows, as long as they are few."""

    def __init__(self, most, error=FULL):
        self.most, self.error, self.sizes = most, error, []

    def __call__(self, rows):
        self.sizes.append(len(rows))
        if len(rows) > self.most:
            raise self.error
        return 2 * rows


def test_rows_go_through_in_the_largest_parts_that_fit():
    limit, device, rows = PartLimit("rows"), SmallDevice(3), torch.arange(10)
    assert torch.equal(limit.compute(device, rows, 8), 2 * rows)
    assert device.sizes == [8, 4, 2, 2, 2, 2, 2]
    device.sizes.clear()
    assert torch.equal(limit.compute(device, rows[:5], 8), 2 * rows[:5])
    assert device.sizes == [2, 2, 1]  # it remembers


def test_all_rows_go_through_at_once_if_they_fit():
    limit, device = PartLimit("rows"), SmallDevice(10)
    rows = torch.arange(10)
    assert torch.equal(limit.compute(device, rows, 10), 2 * rows)
    assert torch.equal(limit.compute(device, rows[:0], 10), rows[:0])
    assert device.sizes == [10, 0]
    assert limit.rows is None


def test_a_row_that_never_fits_and_other_errors_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        PartLimit("rows").compute(SmallDevice(0), torch.arange(4), 4)
    device = SmallDevice(0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        PartLimit("rows").compute(device, torch.arange(4), 4)
    assert device.sizes == [4]


def test_a_single_row_is_tried_again_after_memory_was_released():
    class OnceFull(SmallDevice):
        def __call__(self, rows):
            if not self.sizes:
                self.sizes.append(len(rows))
                raise self.error
            return super().__call__(rows)

    device = OnceFull(1)
    assert torch.equal(PartLimit("rows").compute(device, torch.arange(1), 1), torch.zeros(1).long())
    assert device.sizes == [1, 1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("memory"), False),
    ],
)
def test_errors_of_full_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_share_of_a_gpu_includes_the_context():
    total = 80_000_000_000
    both = 2 * (compute_fraction(0.5, total) * total + CONTEXT_BYTES)
    assert both == pytest.approx(total)
    assert compute_fraction(0.01, total) == 0.005  # a share smaller than a context: half of it


def test_detections_are_the_same_if_memory_is_full():
    rng = np.random.default_rng(0)
    images = [draw_random_image(rng, 60, 80) for _ in range(4)]
    boxes = [draw_random_boxes(rng, 30, 60, 80) for _ in images]
    trained = build_random_trained_network()
    expected = Predictor(trained, precision="fp32", max_images_per_batch=4)(images, boxes)
    predictor = Predictor(trained, precision="fp32", max_images_per_batch=4)
    network = predictor.network
    trunk, head = network._trunk, network._head

    def apply_trunk(values):
        if len(values) > 2:
            raise torch.OutOfMemoryError("full")
        return trunk(values)

    def apply_head(pooled):
        if len(pooled) > 20:
            raise torch.OutOfMemoryError("full")
        return head(pooled)

    network._trunk, network._head = apply_trunk, apply_head
    actual = predictor(images, boxes)
    assert network.image_limit.rows == 2
    assert network.roi_limit.rows <= 20
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(("name", "index"), [("cuda", 3), ("cuda:1", 1)])
def test_a_share_is_set_for_the_gpu_by_its_number(monkeypatch, name, index):
    """torch's function rejects a device without one, such as `select_device("auto")` gives."""
    limits = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9)
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit)
    )
    limit_memory(torch.device(name), 0.5)
    assert limits == [(0.5 - CONTEXT_BYTES / 80e9, index)]


@pytest.mark.parametrize(
    ("gigabytes", "values", "rois"),
    [
        (85, 512 * 7 * 7, 16_384),  # vgg16
        (85, 1024 * 14 * 14, 4096),  # resnet50
        (16, 1024 * 14 * 14, 1024),
        (85, 64 * 7 * 7, 16_384),
        (1, 1024 * 14 * 14, 256),
    ],
)
def test_the_rois_of_a_head_fit_the_memory(gigabytes, values, rois):
    assert choose_rois_at_once(gigabytes * 10**9, values) == rois
