"""Training on the device: a step against fp64 on the CPU, fp16's scale, resuming, and what it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from pipeline.detector.architecture import Architecture
from pipeline.detector.network import FastRCNN, build_network
from pipeline.detector.predictor import Predictor
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidConfiguration
from pipeline.training import state
from pipeline.training.logs import TrainingRecord, read_log
from pipeline.training.optimisation import build_optimiser
from pipeline.training.recipe import Recipe
from pipeline.training.sample_loader import Sample
from pipeline.training.step import TrainingStep
from pipeline.training.trainer import Trainer
from tests.detector.networks import draw_random_boxes, draw_random_image
from tests.gpu.checks import Setting, SkippedCheck, measure_error
from tests.gpu.drawn_scenes import (
    BRIEF_MAP,
    DEMO_MAP,
    build_spec,
    draw_scenes,
    get_tiny_recipe,
    score_scenes,
    train_tiny,
)

TOLERANCE = 1e-3
CLASSES = ("cat", "dog")
PREPROCESSING = Preprocessing()


def draw_samples(seed: int, count: int, size: tuple[int, int], rois: int) -> list[Sample]:
    """Random samples of a step, whose RoIs are a third foreground."""
    rng = np.random.default_rng(seed)
    return [
        Sample(
            f"drawn {number}",
            draw_random_image(rng, *size),
            draw_random_boxes(rng, rois, *size),
            np.where(np.arange(rois) % 3 == 0, rng.integers(1, 3, rois), 0).astype(np.int64),
            rng.normal(size=(rois, 4)).astype(np.float32),
        )
        for number in range(count)
    ]


def build_step(network: FastRCNN, recipe: Recipe, device: torch.device) -> TrainingStep:
    """A training step of one worker."""
    optimiser = build_optimiser(network, recipe, (), 1)
    return TrainingStep(network, optimiser, recipe, PREPROCESSING, device=device)


def check_step_in_fp32(setting: Setting) -> dict[str, Any]:
    """Losses and gradients of a step equal those of equation 1 in fp64 on the CPU."""
    names = ("tiny",) if setting.is_quick else ("tiny", "mobilenet_v2_expanded", "resnet18")
    samples = draw_samples(0, 2, (96, 128), 12)
    errors = {}
    for name in names:
        network = build_network(Architecture(CLASSES, name, freeze_until="none"), seed=1).train()
        plain = copy.deepcopy(network).double()
        expected = _compute_loss(plain, samples)
        expected.backward()
        result = build_step(network, Recipe(network=name), setting.device)(samples, 0)
        loss = measure_error(result.losses["total"], expected)
        pairs = zip(network.parameters(), plain.parameters(), strict=True)
        gradients = [(own.grad, other.grad) for own, other in pairs if other.grad is not None]
        scale = max(float(other.abs().max()) for _, other in gradients)
        worst = max(float((own.cpu().double() - other).abs().max()) for own, other in gradients)
        errors[name] = max(loss, worst / scale)
        assert errors[name] < TOLERANCE, errors
    return errors


def _compute_loss(network: FastRCNN, samples: list[Sample]) -> torch.Tensor:
    """Equation 1 over all RoIs, one image at a time, in the network's dtype."""
    count = sum(len(sample.labels) for sample in samples)
    total = torch.zeros((), dtype=torch.float64)
    for sample in samples:
        image = PREPROCESSING.normalise(torch.from_numpy(sample.image)[None]).double()
        rois = torch.from_numpy(np.insert(sample.rois, 0, 0, axis=1))
        logits, deltas = network(image, rois)
        labels = torch.from_numpy(sample.labels)
        total = total + functional.cross_entropy(logits, labels, reduction="sum")
        for row, label in enumerate(sample.labels):
            if label:
                predicted = deltas[row, 4 * label : 4 * label + 4]
                target = torch.from_numpy(sample.targets[row]).double()
                total = total + functional.smooth_l1_loss(predicted, target, reduction="sum")
    return total / count


def check_gradient_scale(setting: Setting) -> dict[str, Any]:
    """In fp16 an overflow leaves the weights and halves the scale; then training goes on."""
    recipe = Recipe(network="tiny", precision="fp16", learning_rate=0.01)
    network = build_network(Architecture(CLASSES, "tiny"), seed=1).train()
    try:
        step = build_step(network, recipe, setting.device)
    except InvalidConfiguration as error:
        raise SkippedCheck(f"fp16: {error}") from error
    samples = draw_samples(0, 2, (96, 128), 12)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step.scaler = torch.amp.GradScaler(setting.device.type, init_scale=2.0**40)
    assert step(samples, 0).gradient_norm == 0.0
    assert step.scaler.get_scale() == 2.0**39
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    step.scaler = torch.amp.GradScaler(setting.device.type, init_scale=1024.0)
    losses = [float(step(samples, number).losses["total"]) for number in range(1, 31)]
    assert losses[-1] < 0.8 * losses[0], losses
    return {"first_loss": losses[0], "last_loss": losses[-1], "scale": step.scaler.get_scale()}


class _Interrupted(Exception):
    """The end of a training in its middle."""


def check_resume(setting: Setting) -> dict[str, Any]:
    """A training that was interrupted ends with the weights of one that was not."""
    recipe = replace(get_tiny_recipe(setting), iterations=12)
    weights = {}
    for name in ("whole", "resumed"):
        output = setting.folder / name
        spec = build_spec(setting, str(output), recipe, checkpoint_every=5, log_every=3)
        if name == "resumed":
            _train_until_first_state(setting, spec)
            latest = state.read_latest_state(str(output))
            assert latest is not None
            assert latest.step == 5
        Trainer(spec, device=setting.device).train()
        weights[name] = load_file(output / "model.safetensors")
    records = [[record.step for record in read_log(str(setting.folder / name))] for name in weights]
    assert records[0] == records[1], records
    worst = max(
        float((tensor - weights["whole"][name]).norm() / weights["whole"][name].norm())
        for name, tensor in weights["resumed"].items()
    )
    # On a GPU, RoI pooling adds gradients in any order, and AdamW turns small ones into whole steps.
    assert worst <= (0.05 if setting.on_gpu else 0.0), worst
    return {"largest_difference": worst}


def _train_until_first_state(setting: Setting, spec: Any) -> None:
    def interrupt(_: TrainingRecord) -> None:
        raise _Interrupted

    try:
        Trainer(spec, device=setting.device, on_state=interrupt).train()
    except _Interrupted:
        return
    raise AssertionError("the training ended before its first state")


def check_learning(setting: Setting) -> dict[str, Any]:
    """The demo's network, trained on the device, reaches the demo's mean AP on images it never saw."""
    output = train_tiny(setting)
    predictor = Predictor(output, device=str(setting.device), precision="fp32")
    score = score_scenes(predictor, draw_scenes(setting))
    records = read_log(output)
    if setting.is_quick:
        setting.skipped_parts.append("the demo's mean AP: trained briefly")
    assert score > (BRIEF_MAP if setting.is_quick else DEMO_MAP), score
    return {
        "voc07_map50": score,
        "steps": records[-1].step,
        "images_per_second": float(np.median([r.images_per_second for r in records])),
        "checkpoint_bytes": (Path(output) / "model.safetensors").stat().st_size,
    }


CHECKS = (check_step_in_fp32, check_gradient_scale, check_resume, check_learning)
