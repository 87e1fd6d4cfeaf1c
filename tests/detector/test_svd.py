import pytest
import torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint import load_checkpoint, save_checkpoint
from pipeline.detector.network import build_network
from pipeline.detector.svd import factorise_network, factorise_weight
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import SMALL, build_random_network

IMAGES, ROIS = torch.randn(1, 3, 64, 64), torch.tensor([[0, 4.0, 5.0, 60.0, 50.0]])


def test_a_layer_of_rank_t_is_exact():
    torch.manual_seed(0)
    weight = torch.randn(20, 6) @ torch.randn(6, 30)
    first, second = factorise_weight(weight, 6)
    assert first.shape == (6, 30)
    assert second.shape == (20, 6)
    torch.testing.assert_close(second @ first, weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 20)])
def test_factors_hold_the_largest_singular_values(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first, second = factorise_weight(weight, 5)
    assert (first.dtype, second.dtype) == (torch.float32, torch.float32)
    _, sigma, _ = torch.linalg.svd(weight)
    torch.testing.assert_close((weight - second @ first).norm(), sigma[5:].norm())
    torch.testing.assert_close(second.T @ second, torch.eye(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(first @ first.T, torch.diag(sigma[:5] ** 2), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_full_rank_keeps_the_output_and_lower_rank_changes_it():
    network = build_random_network()
    expected = network(IMAGES, ROIS)
    whole = factorise_network(network, 128, 128)
    for output, whole_output in zip(whole(IMAGES, ROIS), expected, strict=True):
        torch.testing.assert_close(output, whole_output, rtol=1e-3, atol=1e-4)
    small = factorise_network(network, 16, 8)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    assert not torch.allclose(small(IMAGES, ROIS)[0], expected[0])
    assert network.architecture.fc_ranks is None


@torch.no_grad()
def test_a_factorised_network_survives_saving_and_loading(tmp_path):
    small = factorise_network(build_random_network(), 16, 8)
    save_checkpoint(str(tmp_path), small, SMALL)
    loaded = load_checkpoint(str(tmp_path)).network
    assert loaded.architecture.fc_ranks == (16, 8)
    assert torch.equal(loaded(IMAGES, ROIS)[0], small(IMAGES, ROIS)[0])


def test_networks_that_cannot_be_factorised_are_rejected():
    with pytest.raises(
        InvalidConfiguration, match="rank 500 of fc6, which is 128 x 1600: expected 1 to 128"
    ):
        factorise_network(build_random_network(), 500, 8)
    with pytest.raises(InvalidConfiguration, match="already"):
        factorise_network(factorise_network(build_random_network(), 16, 8), 8, 4)
    with pytest.raises(InvalidConfiguration, match="fc6 and fc7"):
        factorise_network(build_network(Architecture(("a",), "mobilenet_v2")), 16, 8)
