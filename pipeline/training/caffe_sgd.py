"""Caffe's stochastic gradient descent with momentum, as the released code trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import optim


class CaffeSGD(optim.Optimizer):
    """V <- momentum V + rate (gradient + decay W), then W <- W - V.

    torch's SGD sums gradients and multiplies the sum by the current rate, so a cut of the rate also cuts the
    steps that momentum still carries. Here, as in Caffe, V holds the rates at which its gradients came.
    Under a constant rate both are equal.
    """

    def __init__(self, params: Any, lr: float, momentum: float) -> None:
        """Prepare the optimiser.

        Args:
            params: parameters, or groups of them with their own `lr` and `weight_decay`.
            lr: rate of groups without their own.
            momentum: share of V that each step keeps.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        velocities, gradients = [], []
        for parameter in parameters:
            assert parameter.grad is not None
            gradients.append(parameter.grad)
            state = self.state[parameter]
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(parameter)
            velocities.append(state["velocity"])
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients, alpha=group["lr"])
        torch._foreach_sub_(parameters, velocities)
