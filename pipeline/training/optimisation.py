"""The optimiser and its learning rates: groups of parameters, and a schedule that is a plain function."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn, optim

from pipeline.training.caffe_sgd import CaffeSGD
from pipeline.training.recipe import Recipe


def compute_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """The factor of the learning rates at step `step` (from 0) of `steps`.

    It depends on the step alone, so a resumed run needs no state for it.
    """
    warm_up = recipe.warm_up * steps
    rise = min(1.0, (step + 1) / warm_up) if warm_up > 0 else 1.0
    if recipe.schedule == "cosine":
        progress = max(0.0, step - warm_up) / max(1.0, steps - warm_up)
        return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return rise * (recipe.step_factor if step >= recipe.step_at * steps else 1.0)


def build_optimiser(
    network: nn.Module, recipe: Recipe, pretrained: Collection[str], rate_factor: float
) -> optim.Optimizer:
    """The optimiser of the trainable parameters; each group stores its rate as `base_rate`.

    Args:
        network: frozen parameters are left out.
        recipe: rates, decay, and how biases are treated.
        pretrained: names of the parameters with pretrained weights.
        rate_factor: multiplies all rates.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if name in pretrained and recipe.pretrained_learning_rate is not None:
            rate = recipe.pretrained_learning_rate
        if name.endswith("bias"):
            rate *= recipe.bias_rate_factor
        if parameter.ndim == 1 and not recipe.decay_biases:  # biases, gains of a normalisation
            decay = 0.0
        groups.setdefault((rate * rate_factor, decay), []).append(parameter)
    options = [
        {"params": parameters, "lr": rate, "base_rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if recipe.optimiser == "adamw":
        return optim.AdamW(options, fused=True)  # a third of the time on the CPU
    sgd = CaffeSGD if recipe.velocity_holds_rate else optim.SGD
    return sgd(options, lr=recipe.learning_rate, momentum=recipe.momentum)


def set_rates(optimiser: optim.Optimizer, factor: float) -> float:
    """Set each group's rate to `factor` times its base; returns the largest."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_rate"] * factor
    return max(float(group["lr"]) for group in optimiser.param_groups)
