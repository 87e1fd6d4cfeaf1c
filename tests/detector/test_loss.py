import math

import pytest
import torch

from pipeline.detector.loss import multi_task_loss


def test_losses_match_values_worked_by_hand():
    # Probabilities 1/2, 1/4, 1/4 and 1/3 each.
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, 0.0, 0.0]])
    deltas = torch.full((2, 12), 50.0)
    deltas[1, 8:12] = torch.tensor([0.5, -3.0, 0.0, 1.0])
    labels = torch.tensor([0, 2])
    targets = torch.tensor([[9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    losses = multi_task_loss(logits, deltas, labels, targets)
    classification = (math.log(2) + math.log(3)) / 2
    localisation = (0.5 * 0.25 + (3 - 0.5) + 0.0 + 0.5) / 2  # smooth L1 with beta 1
    assert losses["class"].item() == pytest.approx(classification)
    assert losses["box"].item() == pytest.approx(localisation)
    assert losses["total"].item() == pytest.approx(classification + localisation)


def test_the_normalizer_divides_and_the_weight_scales_localisation():
    logits, deltas = torch.randn(5, 3), torch.randn(5, 12)
    labels, targets = torch.tensor([0, 1, 2, 1, 0]), torch.randn(5, 4)
    plain = multi_task_loss(logits, deltas, labels, targets)
    halved = multi_task_loss(logits, deltas, labels, targets, normalizer=10.0)
    torch.testing.assert_close(halved["total"] * 2, plain["total"])
    alone = multi_task_loss(logits, deltas, labels, targets, localisation_weight=0.0)
    torch.testing.assert_close(alone["total"], plain["class"])


def test_background_alone_has_no_box_loss():
    deltas = torch.randn(3, 8, requires_grad=True)
    losses = multi_task_loss(
        torch.zeros(3, 2), deltas, torch.zeros(3, dtype=torch.long), torch.randn(3, 4)
    )
    losses["total"].backward()
    assert losses["box"].item() == 0
    assert not deltas.grad.any()


def test_no_sampled_rois_give_a_loss_of_zero():
    losses = multi_task_loss(
        torch.zeros(0, 3), torch.zeros(0, 12), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    )
    assert losses["total"].item() == 0


def test_half_precision_inputs_are_computed_in_single_precision():
    logits = torch.randn(8, 4).bfloat16()
    losses = multi_task_loss(
        logits, torch.randn(8, 16).bfloat16(), torch.arange(8) % 4, torch.randn(8, 4)
    )
    expected = torch.nn.functional.cross_entropy(logits.float(), torch.arange(8) % 4)
    torch.testing.assert_close(losses["class"], expected)


def test_gradients_match_finite_differences():
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    deltas = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    targets = torch.randn(6, 4, dtype=torch.float64)

    def total(logits, deltas):
        return multi_task_loss(logits, deltas, labels, targets)["total"]

    assert torch.autograd.gradcheck(total, (logits, deltas))
