"""Fine-tuning on windows of all images: a classifier of K + 1 classes, before SVMs take its place."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, optim
from torch.nn import functional

from pipeline.baselines.networks import BaselineNetwork, SppNetwork
from pipeline.baselines.regions import build_whole_rois
from pipeline.baselines.window_sampling import Windows, join_windows
from pipeline.detector.device_selection import compute_in_ieee, select_dtype
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidCheckpoint, TrainingFailed
from pipeline.training.optimisation import build_optimiser, compute_rate_factor, set_rates
from pipeline.training.recipe import Recipe
from pipeline.training.sample_order import make_generator

WindowInputs = NDArray[np.uint8] | NDArray[np.float32]
"""R-CNN: uint8 windows `(N, S, S, 3)`; SPPnet: pooled pyramids `(N, C * cells)`."""
MOST_BLOCK_BYTES = 256_000_000
"""Inputs of windows that are read together: of so many steps that they fit."""


@dataclass
class FineTuningState:
    """Where fine-tuning is: what `to_bytes` keeps resumes it exactly."""

    network: BaselineNetwork
    optimiser: optim.Optimizer
    step: int = 0
    """Steps done."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of each step that had windows."""
    bytes_read: int = 0
    """Bytes of images or maps that these steps read."""

    def to_bytes(self) -> bytes:
        """Network, optimiser and step as the bytes of a torch file."""
        buffer = io.BytesIO()
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "losses": self.losses,
                "bytes_read": self.bytes_read,
            },
            buffer,
        )
        return buffer.getvalue()

    def restore(self, data: bytes, uri: str) -> None:
        """Go on from a stored state.

        Raises:
            InvalidCheckpoint: it is damaged, or of another network.
        """
        try:
            stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            self.network.load_state_dict(stored["network"])
            self.optimiser.load_state_dict(stored["optimiser"])
            self.step = int(stored["step"])
            self.losses = [float(loss) for loss in stored["losses"]]
            self.bytes_read = int(stored["bytes_read"])
        except Exception as error:  # torch's unpickler fails in many ways
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InvalidCheckpoint(
                f"{uri} is no state of this fine-tuning ({reason}): train again with --overwrite"
            ) from error


class FineTuning:
    """Trains a network's classifier and unfrozen layers on windows."""

    def __init__(
        self,
        network: BaselineNetwork,
        recipe: Recipe,
        preprocessing: Preprocessing,
        *,
        pretrained: frozenset[str],
        steps: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """Prepare the training.

        Args:
            network: trained in place; its box layer is not.
            recipe: optimiser, rates, decay, flips, precision.
            preprocessing: what the weights expect.
            pretrained: names of the parameters with pretrained weights.
            steps: of the whole training, for the schedule.
            seed: of flips and dropout.
            device: where to compute.
        """
        network.bbox_pred.requires_grad_(False)
        network.to(device)
        self.state = FineTuningState(network, build_optimiser(network, recipe, pretrained, 1.0))
        self._recipe = recipe
        self._preprocessing = preprocessing
        self._steps = steps
        self._seed = seed
        self._device = device
        self._dtype = select_dtype(recipe.precision, device)

    def run_step(self, inputs: WindowInputs, labels: NDArray[np.int64]) -> float:
        """Do the next step on these windows; returns the mean loss.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        state = self.state
        state.network.train()
        torch.manual_seed(int(make_generator(self._seed, "step", state.step).integers(1 << 62)))
        set_rates(state.optimiser, compute_rate_factor(self._recipe, state.step, self._steps))
        state.optimiser.zero_grad(set_to_none=True)
        with compute_in_ieee(self._device, self._dtype):
            value = self._backward(inputs, labels)
        trained = [p for p in state.network.parameters() if p.requires_grad]
        clip = self._recipe.gradient_clip
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        state.optimiser.step()
        state.step += 1
        return value

    def _backward(self, inputs: WindowInputs, labels: NDArray[np.int64]) -> float:
        """Compute the gradients; returns the mean loss."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits = self._forward(inputs)
        loss = functional.cross_entropy(logits.float(), torch.from_numpy(labels).to(self._device))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingFailed(
                f"the loss of fine-tuning is {value} at step {self.state.step}: lower --learning-rate"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        return value

    def _forward(self, inputs: WindowInputs) -> Tensor:
        values = torch.from_numpy(inputs).to(self._device)
        network = self.state.network
        if isinstance(network, SppNetwork):
            logits: Tensor = network(values)
            return logits
        windows = self._preprocessing.normalise(self._flip(values))
        rois = build_whole_rois(len(windows), windows.shape[2]).to(self._device)
        return network(windows, rois)[0]  # type: ignore[no-any-return]

    def _flip(self, windows: Tensor) -> Tensor:
        """Mirror each window `(N, S, S, 3)` with the recipe's probability."""
        rng = make_generator(self._seed, "flip", self.state.step)
        is_mirrored = torch.from_numpy(rng.random(len(windows)) < self._recipe.flip)
        return torch.where(
            is_mirrored.to(windows.device)[:, None, None, None], windows.flip(2), windows
        )


def fine_tune(
    training: FineTuning,
    draw: Callable[[int], Windows],
    load: Callable[[Windows], tuple[WindowInputs, NDArray[np.bool_]]],
    *,
    steps: int,
    block_steps: int,
    keep: Callable[[FineTuningState, Mapping[str, Any]], None],
) -> None:
    """Train from the state's step to the end.

    Args:
        training: the network at work.
        draw: the windows of a step.
        load: their inputs, and which of them could be read; others are left out.
        steps: of the whole training.
        block_steps: steps whose windows are loaded together, image by image.
        keep: called after each block with the state and figures for the log.
    """
    losses = training.state.losses
    first = training.state.step
    while first < steps:
        end = min(steps, first - first % block_steps + block_steps)
        drawn = [draw(step) for step in range(first, end)]
        inputs, is_readable, labels, counts = _load_block(drawn, load)
        ends = np.cumsum(counts)
        for start, stop in zip(ends - counts, ends, strict=True):
            rows = start + np.flatnonzero(is_readable[start:stop])
            if len(rows):
                losses.append(training.run_step(inputs[rows], labels[rows]))
            else:
                training.state.step += 1
        first = end
        keep(training.state, {"step": end, "loss": losses[-1] if losses else 0.0})


def _load_block(
    drawn: list[Windows], load: Callable[[Windows], tuple[WindowInputs, NDArray[np.bool_]]]
) -> tuple[WindowInputs, NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    windows = join_windows(drawn)
    inputs, is_readable = load(windows)
    return inputs, is_readable, windows.labels, np.array([len(w) for w in drawn])


def count_block_steps(windows_per_step: int, bytes_per_window: int) -> int:
    """Steps whose windows fit in memory together."""
    return max(1, MOST_BLOCK_BYTES // (windows_per_step * bytes_per_window))
