import math

import pytest
import torch

from pipeline.detector.loss import multi_task_loss


def test_hand_worked():
    # Probabilities 1/2, 1/4, 1/4 and 1/3 each.
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])
    deltas = torch.full((2, 12), 50.0)
    deltas[1, 8:12] = torch.tensor([0.5, -3.0, 0.0, 1.0])
    labels = torch.tensor([0, 2])
    targets = torch.tensor([[9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    losses = multi_task_loss(logits, deltas, labels, targets)
    classification = (math.log(2) + math.log(3)) / 2
    localisation = (0.5 * 0.25 + (3 - 0.5) + 0.0 + 0.5) / 2  # smooth L1 with beta 1
    assert losses.classification.item() == pytest.approx(classification)
    assert losses.localisation.item() == pytest.approx(localisation)
    assert losses.total.item() == pytest.approx(classification + localisation)


def test_normalizer_and_weight():
    logits, deltas = torch.randn(5, 3), torch.randn(5, 12)
    labels, targets = torch.tensor([0, 1, 2, 1, 0]), torch.randn(5, 4)
    plain = multi_task_loss(logits, deltas, labels, targets)
    halved = multi_task_loss(logits, deltas, labels, targets, normalizer=10.0)
    torch.testing.assert_close(halved.total * 2, plain.total)
    alone = multi_task_loss(logits, deltas, labels, targets, localisation_weight=0.0)
    torch.testing.assert_close(alone.total, plain.classification)


def test_background_alone_has_no_localisation_loss():
    deltas = torch.randn(3, 8, requires_grad=True)
    losses = multi_task_loss(
        torch.zeros(3, 2), deltas, torch.zeros(3, dtype=torch.long), torch.randn(3, 4)
    )
    losses.total.backward()
    assert losses.localisation.item() == 0
    assert not deltas.grad.any()


def test_nothing_sampled():
    losses = multi_task_loss(
        torch.zeros(0, 3), torch.zeros(0, 12), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    )
    assert losses.total.item() == 0


def test_half_precision_is_computed_in_single():
    logits = torch.randn(8, 4).bfloat16()
    losses = multi_task_loss(
        logits, torch.randn(8, 16).bfloat16(), torch.arange(8) % 4, torch.randn(8, 4)
    )
    expected = torch.nn.functional.cross_entropy(logits.float(), torch.arange(8) % 4)
    torch.testing.assert_close(losses.classification, expected)


def test_gradients():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    deltas = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    targets = torch.randn(6, 4, dtype=torch.float64)

    def total(logits, deltas):
        return multi_task_loss(logits, deltas, labels, targets).total

    assert torch.autograd.gradcheck(total, (logits, deltas))
