"""One training step: forward, multi-task loss, backward, update; the RoIs of all workers weigh the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel

from pipeline.detector.device_selection import compute_in_ieee, select_dtype
from pipeline.detector.fusion import can_fuse, fuse_frozen_layers
from pipeline.detector.host_transfer import move_array
from pipeline.detector.loss import multi_task_loss
from pipeline.detector.loss_names import TOTAL
from pipeline.detector.network import FastRCNN
from pipeline.detector.pooling import roi_max_pool
from pipeline.detector.preprocessing import Preprocessing
from pipeline.training.recipe import Recipe
from pipeline.training.sample_loader import Sample


@dataclass(frozen=True)
class StepResult:
    """Losses and counts of one step, summed over this worker's images."""

    losses: Mapping[str, Tensor]
    """This worker's share of each loss, by the names of `multi_task_loss`: scalars on the device."""
    gradient_norm: float
    """Of the averaged gradient before clipping, the same on all workers; 0 where it overflowed."""
    images: int
    foreground: int
    background: int
    target_squares: float
    """Sum over the foreground of the mean square of its four normalised targets."""


class MultiImageNetwork(nn.Module):
    """The network over several images of any size: the trunk once per image, the head once for all RoIs.

    Images are not padded to a common size: padding wastes computation and would reach RoIs.
    """

    def __init__(self, network: FastRCNN, frozen: torch.dtype | None = None) -> None:
        """If `frozen` is a precision, compute frozen layers in it, fused as in inference."""
        super().__init__()
        self.network = network
        self._frozen = frozen
        self._trunk: tuple[Callable[[Tensor], Tensor], ...] = ()

    def _extract_features(self, image: Tensor) -> Tensor:
        if self._frozen is None:
            return self.network.extract_features(image)
        # Fused on first use: weights may be loaded after the step is built.
        if not self._trunk:
            # In a tuple, so that torch does not register its parameters a second time.
            self._trunk = (fuse_frozen_layers(self.network.backbone, "trunk", self._frozen),)
        return self._trunk[0](image.to(self._frozen))

    def forward(self, images: list[Tensor], rois: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `(R, K + 1)` and deltas `(R, 4 (K + 1))` of all RoIs, in the images' order.

        Args:
            images: preprocessed, `(1, 3, h, w)` each.
            rois: one `(S, 5)` per image, with batch index 0.
        """
        network = self.network
        pooled = [
            roi_max_pool(
                self._extract_features(image), boxes, network.roi_size, network.spatial_scale
            )
            for image, boxes in zip(images, rois, strict=True)
        ]
        vectors = network.backbone.head(torch.cat(pooled))
        return network.cls_score(vectors), network.bbox_pred(vectors)


class TrainingStep:
    """Applies training steps to a network; several workers need an initialised process group."""

    def __init__(
        self,
        network: FastRCNN,
        optimiser: optim.Optimizer,
        recipe: Recipe,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        workers: int = 1,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        self._optimiser = optimiser
        self._recipe = recipe
        self._preprocessing = preprocessing
        self._device = device
        self._workers = workers
        self._key = (seed, rank)
        self._trained = [p for p in network.parameters() if p.requires_grad]
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._layout = layout
        network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self._dtype = dtype = select_dtype(recipe.precision, device)
        self._autocast = dtype != torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        """Keeps gradients inside fp16's range; does nothing in other precisions."""
        fuse = can_fuse(device, dtype) and (dtype == torch.float32 or recipe.channels_last)
        forward = MultiImageNetwork(network, dtype if fuse else None)
        self._forward: nn.Module = forward
        if workers > 1:
            # The only buffers, those of frozen norms, never change, so they are not broadcast.
            self._forward = DistributedDataParallel(
                forward, gradient_as_bucket_view=True, forward_sync_buffers=False
            )

    def __call__(self, samples: Sequence[Sample], number: int) -> StepResult:
        """Do step `number` with this worker's samples, which may be none.

        The loss is divided by the RoIs of all workers, so that W workers with N images each do what
        one worker with W N images does. If the gradients are not finite, the weights stay as they are;
        in fp16, if the loss is finite on all workers, the gradient scale falls from the next step on.
        """
        # Dropout draws from a state that depends on the step alone: a resumed run draws the same.
        torch.manual_seed(_derive_seed(*self._key, number))
        samples = [sample for sample in samples if len(sample.labels)]
        self._optimiser.zero_grad(set_to_none=True)
        with compute_in_ieee(self._device, self._dtype):
            losses = self._backward_all(samples)
        norm = self._update_weights(losses)
        labels = np.concatenate([sample.labels for sample in samples] or [np.zeros(0, np.int64)])
        return StepResult(
            losses,
            norm,
            len(samples),
            int((labels > 0).sum()),
            int((labels == 0).sum()),
            float(sum(np.square(s.targets[s.labels > 0]).sum() for s in samples)) / 4,
        )

    def _backward_all(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Accumulate the gradients of all samples; returns this worker's share of each loss."""
        total = self._count_rois_of_all_workers(sum(len(sample.labels) for sample in samples))
        # DistributedDataParallel takes the mean over workers, so each divides by its share.
        normalizer = max(total, 1.0) / self._workers
        sums: dict[str, Tensor] = {}
        parts = _split(samples, self._recipe.accumulate)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last or self._workers == 1 else self._forward.no_sync():  # type: ignore[operator]
                losses = self._backward(part, normalizer)
            for name, loss in losses.items():
                sums[name] = sums[name] + loss if name in sums else loss
        return sums

    def _backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, Tensor]:
        images = [self._normalise_image(sample.image) for sample in samples]
        rois = [self._add_batch_index(sample.rois) for sample in samples]
        has_rois = any(len(boxes) for boxes in rois)
        if not has_rois:
            # The other workers wait for this one's gradients: a blank image and RoI give zeros.
            images = [torch.zeros(1, 3, 64, 64, device=self._device)]
            rois = [torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]], device=self._device)]
        labels = np.concatenate([np.zeros(0, np.int64), *(s.labels for s in samples)])
        targets = np.concatenate([np.zeros((0, 4), np.float32), *(s.targets for s in samples)])
        with torch.autocast(self._device.type, self._dtype, self._autocast):
            logits, deltas = self._forward(images, rois)
        if not has_rois:
            logits, deltas = logits[:0], deltas[:0]
        losses = multi_task_loss(
            logits.float(),
            deltas.float(),
            move_array(labels, self._device),
            move_array(targets, self._device),
            normalizer=normalizer,
            localisation_weight=self._recipe.box_loss_weight,
        )
        self.scaler.scale(losses[TOTAL]).backward()  # type: ignore[no-untyped-call]
        return {name: loss.detach() for name, loss in losses.items()}

    def _update_weights(self, losses: Mapping[str, Tensor]) -> float:
        """Clip the gradients and update; returns their norm before clipping, 0 after an overflow."""
        self.scaler.unscale_(self._optimiser)
        clip = self._recipe.gradient_clip
        norm = float(nn.utils.clip_grad_norm_(self._trained, clip or float("inf")))
        if np.isfinite(norm):
            self.scaler.step(self._optimiser)
        elif self.scaler.is_enabled() and self._is_overflow(losses):
            norm = 0.0
        self.scaler.update()
        return norm

    def _is_overflow(self, losses: Mapping[str, Tensor]) -> bool:
        """Whether the gradient scale alone made gradients infinite: all workers' losses are finite."""
        is_finite = torch.isfinite(torch.stack(list(losses.values()))).all()
        agreed = is_finite.to(torch.float32).reshape(1)
        if self._workers > 1:
            distributed.all_reduce(agreed, distributed.ReduceOp.MIN)
        return bool(agreed) and self.scaler.get_scale() > 1.0

    def _normalise_image(self, image: np.ndarray) -> Tensor:
        values = self._preprocessing.normalise(move_array(image, self._device)[None])
        return values.contiguous(memory_format=self._layout)

    def _add_batch_index(self, rois: np.ndarray) -> Tensor:
        with_index = np.concatenate([np.zeros((len(rois), 1), np.float32), rois], axis=1)
        return move_array(with_index, self._device)

    def _count_rois_of_all_workers(self, count: int) -> float:
        if self._workers == 1:
            return float(count)
        total = torch.tensor([float(count)], device=self._device)
        distributed.all_reduce(total)
        return float(total)


def _split(samples: Sequence[Sample], parts: int) -> list[Sequence[Sample]]:
    size = max(1, -(-len(samples) // parts))
    return [samples[i : i + size] for i in range(0, len(samples), size)] or [samples]


def _derive_seed(*key: int) -> int:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1
