import pytest
import torch

from pipeline.detector import checkpoint
from pipeline.detector.network import Architecture, build
from pipeline.detector.svd import compressed, truncated
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import SMALL, random_model

IMAGES, ROIS = torch.randn(1, 3, 64, 64), torch.tensor([[0, 4.0, 5.0, 60.0, 50.0]])


def test_a_layer_of_rank_t_is_exact():
    torch.manual_seed(0)
    weight = torch.randn(20, 6) @ torch.randn(6, 30)
    first, second = truncated(weight, 6)
    assert first.shape == (6, 30)
    assert second.shape == (20, 6)
    torch.testing.assert_close(second @ first, weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 20)])
def test_the_factors_are_those_of_the_largest_singular_values(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first, second = truncated(weight, 5)
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
    _, sigma, _ = torch.linalg.svd(weight)
    torch.testing.assert_close((weight - second @ first).norm(), sigma[5:].norm())
    torch.testing.assert_close(second.T @ second, torch.eye(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(first @ first.T, torch.diag(sigma[:5] ** 2), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_full_rank_keeps_the_output_and_less_changes_it():
    model = random_model()
    expected = model(IMAGES, ROIS)
    whole = compressed(model, 128, 128)
    for found, wanted in zip(whole(IMAGES, ROIS), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    small = compressed(model, 16, 8)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert not torch.allclose(small(IMAGES, ROIS)[0], expected[0])
    assert model.architecture.fc_ranks is None


@torch.no_grad()
def test_saved_and_loaded(tmp_path):
    small = compressed(random_model(), 16, 8)
    checkpoint.save(str(tmp_path), small, SMALL)
    loaded = checkpoint.load(str(tmp_path)).model
    assert loaded.architecture.fc_ranks == (16, 8)
    assert torch.equal(loaded(IMAGES, ROIS)[0], small(IMAGES, ROIS)[0])


def test_what_cannot_be_factorised():
    with pytest.raises(
        InvalidConfiguration, match="rank 500 of fc6, which is 128 x 1600: expected 1 to 128"
    ):
        compressed(random_model(), 500, 8)
    with pytest.raises(InvalidConfiguration, match="already"):
        compressed(compressed(random_model(), 16, 8), 8, 4)
    with pytest.raises(InvalidConfiguration, match="fc6 and fc7"):
        compressed(build(Architecture(("a",), "mobilenet_v2")), 16, 8)
