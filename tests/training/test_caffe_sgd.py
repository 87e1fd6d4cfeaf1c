"""Caffe's SGD against hand-worked sequences, and against torch's under a constant rate."""

import copy

import pytest
import torch

from pipeline.training.caffe_sgd import CaffeSGD


def run_steps(optimiser, weight, rates, gradient=1.0):
    """Take one step per rate with a constant gradient; returns the weight after each."""
    weights = []
    for rate in rates:
        optimiser.param_groups[0]["lr"] = rate
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        weights.append(weight.item())
    return weights


def test_a_cut_of_the_rate_leaves_the_velocity():
    # V: 1, 1.5, then 0.75 + 0.1 = 0.85 and 0.425 + 0.1 = 0.525. torch's steps would be 0.175 and 0.1875.
    weight = torch.nn.Parameter(torch.tensor(10.0))
    optimiser = CaffeSGD([weight], lr=1.0, momentum=0.5)
    weights = run_steps(optimiser, weight, [1.0, 1.0, 0.1, 0.1])
    assert weights == pytest.approx([9.0, 7.5, 6.65, 6.125])


def test_decay_enters_the_velocity_at_the_rate_of_its_time():
    # V: 0.5 (1 + 0.1 * 2) = 0.6, W = 1.4; then 0.3 + 0.05 (1 + 0.14) = 0.357, W = 1.043.
    weight = torch.nn.Parameter(torch.tensor(2.0))
    optimiser = CaffeSGD([{"params": [weight], "weight_decay": 0.1}], lr=0.5, momentum=0.5)
    assert run_steps(optimiser, weight, [0.5, 0.05]) == pytest.approx([1.4, 1.043])


def test_equal_to_torch_under_a_constant_rate():
    torch.manual_seed(0)
    networks = [torch.nn.Linear(5, 3)]
    networks.append(copy.deepcopy(networks[0]))
    options = {"lr": 0.01, "momentum": 0.9}
    ours = CaffeSGD([{"params": networks[0].parameters(), "weight_decay": 0.02}], **options)
    theirs = torch.optim.SGD(networks[1].parameters(), weight_decay=0.02, **options)
    images = torch.randn(20, 8, 5)
    for batch in images:
        for network, optimiser in zip(networks, (ours, theirs), strict=True):
            optimiser.zero_grad()
            network(batch).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(networks[0].weight, networks[1].weight)
    torch.testing.assert_close(networks[0].bias, networks[1].bias)


def test_the_velocity_resumes_from_a_state():
    def build():
        weight = torch.nn.Parameter(torch.tensor(10.0))
        return weight, CaffeSGD([weight], lr=1.0, momentum=0.5)

    weight, optimiser = build()
    run_steps(optimiser, weight, [1.0, 1.0])
    resumed_weight, resumed = build()
    resumed_weight.data.copy_(weight.data)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert run_steps(resumed, resumed_weight, [0.1]) == pytest.approx([6.65])
