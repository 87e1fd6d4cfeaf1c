"""One training step: forward, multi-task loss, backward over all workers' RoIs alike, update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel

from pipeline.detector.fusion import can_fuse, frozen_layers_fused
from pipeline.detector.inference import dtype_named
from pipeline.detector.loss import multi_task_loss
from pipeline.detector.network import FastRCNN
from pipeline.detector.pooling import roi_max_pool
from pipeline.detector.preprocessing import Preprocessing
from pipeline.training.dataset import Sample
from pipeline.training.recipe import Recipe


@dataclass(frozen=True)
class StepResult:
    """What a step found, summed over this worker's images; `rois` over all workers'."""

    classification: Tensor
    """This worker's part of the loss, a scalar on the device."""
    localisation: Tensor
    gradient_norm: float
    """Of the averaged gradient before clipping, the same on all workers; 0 where it overflowed."""
    images: int
    foreground: int
    background: int
    target_squares: float
    """Sum over the foreground of the mean square of its four normalised targets."""


class ImagesForward(nn.Module):
    """The network over several images of any size: the trunk for each, the head once for all RoIs.

    Images are not padded to a common size, which would waste work and let the padding reach RoIs.
    """

    def __init__(self, model: FastRCNN, frozen: torch.dtype | None = None) -> None:
        """Frozen layers are computed as inference does, in the precision `frozen` if it is given."""
        super().__init__()
        self.model = model
        self._frozen = frozen
        self._trunk: tuple[Callable[[Tensor], Tensor], ...] = ()

    def _features(self, image: Tensor) -> Tensor:
        if self._frozen is None:
            return self.model.features(image)
        if (
            not self._trunk
        ):  # now, not before: weights may be loaded into a step that was made already
            # In a tuple, lest torch take its parameters for other ones than the model's.
            self._trunk = (frozen_layers_fused(self.model.backbone, "trunk", self._frozen),)
        return self._trunk[0](image.to(self._frozen))

    def forward(self, images: list[Tensor], rois: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits `(R, K + 1)` and deltas `(R, 4 (K + 1))` of all RoIs, in the images' order.

        Args:
            images: preprocessed, each `(1, 3, h, w)`.
            rois: one `(S, 5)` per image, with batch index 0.
        """
        model = self.model
        pooled = [
            roi_max_pool(self._features(image), boxes, model.roi_size, model.spatial_scale)
            for image, boxes in zip(images, rois, strict=True)
        ]
        vectors = model.backbone.head(torch.cat(pooled))
        return model.cls_score(vectors), model.bbox_pred(vectors)


class TrainingStep:
    """Applies steps to a model; with several workers the process group must be up."""

    def __init__(
        self,
        model: FastRCNN,
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
        self._trained = [p for p in model.parameters() if p.requires_grad]
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._layout = layout
        model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self._dtype = dtype = dtype_named(recipe.precision, device)
        self._autocast = dtype != torch.float32
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        """Keeps gradients inside fp16's range; does nothing in other precisions."""
        fuse = can_fuse(device, dtype) and (dtype == torch.float32 or recipe.channels_last)
        forward = ImagesForward(model, dtype if fuse else None)
        self._forward: nn.Module = forward
        if workers > 1:
            # The only buffers, those of frozen norms, never change: none are sent around.
            self._forward = DistributedDataParallel(
                forward, gradient_as_bucket_view=True, forward_sync_buffers=False
            )

    def __call__(self, samples: Sequence[Sample], number: int) -> StepResult:
        """Do step `number` with this worker's samples, of which there may be none.

        The loss is divided by the RoIs of all workers, so that W workers with N images each do what
        one worker with W N images does. Gradients that are not finite leave the weights as they are;
        in fp16, where the loss is finite on all workers, they are scaled less from the next step on.
        """
        # Dropout draws from a state that depends on the step alone: a resumed run draws the same.
        torch.manual_seed(_seed(*self._key, number))
        samples = [sample for sample in samples if len(sample.labels)]
        total = self._rois_of_all_workers(sum(len(sample.labels) for sample in samples))
        # DistributedDataParallel takes the mean over workers, so each divides by its share.
        normalizer = max(total, 1.0) / self._workers
        self._optimiser.zero_grad(set_to_none=True)
        classification = torch.zeros((), device=self._device)
        localisation = torch.zeros((), device=self._device)
        parts = _parts(samples, self._recipe.accumulate)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last or self._workers == 1 else self._forward.no_sync():  # type: ignore[operator]
                losses = self._backward(part, normalizer)
            classification += losses[0]
            localisation += losses[1]
        self.scaler.unscale_(self._optimiser)
        clip = self._recipe.gradient_clip
        norm = float(nn.utils.clip_grad_norm_(self._trained, clip or float("inf")))
        if np.isfinite(norm):
            self.scaler.step(self._optimiser)
        elif self.scaler.is_enabled() and self._overflowed(classification + localisation):
            norm = 0.0
        self.scaler.update()
        labels = np.concatenate([sample.labels for sample in samples] or [np.zeros(0, np.int64)])
        return StepResult(
            classification,
            localisation,
            norm,
            len(samples),
            int((labels > 0).sum()),
            int((labels == 0).sum()),
            float(sum(np.square(s.targets[s.labels > 0]).sum() for s in samples)) / 4,
        )

    def _backward(self, samples: Sequence[Sample], normalizer: float) -> tuple[Tensor, Tensor]:
        images = [self._image(sample.image) for sample in samples]
        rois = [self._rois(sample.rois) for sample in samples]
        if not any(len(boxes) for boxes in rois):
            return self._take_part()
        labels = torch.from_numpy(np.concatenate([sample.labels for sample in samples]))
        targets = torch.from_numpy(np.concatenate([sample.targets for sample in samples]))
        with torch.autocast(self._device.type, self._dtype, self._autocast):
            logits, deltas = self._forward(images, rois)
        losses = multi_task_loss(
            logits.float(),
            deltas.float(),
            labels.to(self._device),
            targets.to(self._device),
            normalizer=normalizer,
            localisation_weight=self._recipe.box_loss_weight,
        )
        self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        return losses.classification.detach(), losses.localisation.detach()

    def _overflowed(self, loss: Tensor) -> bool:
        """Whether gradients that are not finite come from their scale alone."""
        told = torch.isfinite(loss).to(torch.float32).reshape(1)
        if self._workers > 1:
            distributed.all_reduce(told, distributed.ReduceOp.MIN)
        return bool(told) and self.scaler.get_scale() > 1.0

    def _take_part(self) -> tuple[Tensor, Tensor]:
        """A backward pass of zeros: the other workers wait for this one's gradients."""
        blank = torch.zeros(1, 3, 64, 64, device=self._device)
        roi = torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]], device=self._device)
        with torch.autocast(self._device.type, self._dtype, self._autocast):
            logits, deltas = self._forward([blank], [roi])
        nothing = 0.0 * (logits.float().sum() + deltas.float().sum())
        self.scaler.scale(nothing).backward()
        zero = torch.zeros((), device=self._device)
        return zero, zero

    def _image(self, image: np.ndarray) -> Tensor:
        stored = torch.from_numpy(image).to(self._device, non_blocking=True)
        values = self._preprocessing.normalised(stored[None])
        return values.contiguous(memory_format=self._layout)

    def _rois(self, rois: np.ndarray) -> Tensor:
        with_index = np.concatenate([np.zeros((len(rois), 1), np.float32), rois], axis=1)
        return torch.from_numpy(with_index).to(self._device)

    def _rois_of_all_workers(self, count: int) -> float:
        if self._workers == 1:
            return float(count)
        told = torch.tensor([float(count)], device=self._device)
        distributed.all_reduce(told)
        return float(told)


def _parts(samples: Sequence[Sample], parts: int) -> list[Sequence[Sample]]:
    size = max(1, -(-len(samples) // parts))
    cut = [samples[i : i + size] for i in range(0, len(samples), size)]
    return cut or [samples]


def _seed(*key: int) -> int:
    told = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(told[:8]) >> 1
