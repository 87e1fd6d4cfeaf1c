"""The training step against a plain re-computation; accumulation; steps without RoIs."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.detector.network import Architecture, build
from pipeline.detector.preprocessing import Preprocessing
from pipeline.training.dataset import Sample
from pipeline.training.optimisation import optimiser
from pipeline.training.recipe import Recipe
from pipeline.training.step import TrainingStep

RECIPE = Recipe(network="tiny", channels_last=False)
PREPROCESSING = Preprocessing()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def sample(seed, height=96, width=128, rois=12, name="p"):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, [width - 40, height - 40], (rois, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(16, 40, (rois, 2))], axis=1)
    labels = generator.integers(0, 3, rois)
    targets = np.where(labels[:, None] > 0, generator.normal(size=(rois, 4)), 0)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(name, image, boxes.astype(np.float32), labels, targets.astype(np.float32))


def network():
    return build(Architecture(("cat", "dog"), "tiny"), seed=1).train()


def stepper(model, recipe=RECIPE):
    made = optimiser(model, recipe, (), 1)
    return TrainingStep(model, made, recipe, PREPROCESSING, device=torch.device("cpu"))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_minimises_equation_1_over_all_rois():
    model = network()
    plain = copy.deepcopy(model)
    samples = [sample(0), sample(1, height=80, width=160)]
    result = stepper(model)(samples, 0)

    count = sum(len(s.labels) for s in samples)
    classification = localisation = 0.0
    for s in samples:  # one image at a time, through the network's own forward
        image = PREPROCESSING.normalised(torch.from_numpy(s.image)[None])
        rois = torch.cat([torch.zeros(len(s.rois), 1), torch.from_numpy(s.rois)], 1)
        logits, deltas = plain(image, rois)
        classification += functional.cross_entropy(
            logits, torch.from_numpy(s.labels), reduction="sum"
        )
        for row, label in enumerate(s.labels):
            if label:
                mine = deltas[row, 4 * label : 4 * label + 4]
                difference = (mine - torch.from_numpy(s.targets[row])).abs()
                localisation += torch.where(
                    difference < 1, 0.5 * difference**2, difference - 0.5
                ).sum()
    loss = (classification + localisation) / count
    loss.backward()
    torch.testing.assert_close(result.classification, classification.detach() / count)
    torch.testing.assert_close(result.localisation, localisation.detach() / count)
    norm = torch.cat([p.grad.flatten() for p in plain.parameters()]).norm()
    assert result.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    with torch.no_grad():
        for name, p in plain.named_parameters():  # momentum is empty at the first step
            bias = name.endswith("bias")
            decay = 0.0 if p.ndim == 1 else RECIPE.weight_decay
            p.sub_(RECIPE.learning_rate * (2 if bias else 1) * (p.grad + decay * p))
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-4, atol=1e-6)


def test_counts_are_those_of_the_samples():
    samples = [sample(0, rois=9), sample(1, rois=7)]
    result = stepper(network())(samples, 0)
    assert (result.images, result.foreground + result.background) == (2, 16)
    assert result.foreground == sum(int((s.labels > 0).sum()) for s in samples)


def test_accumulating_parts_changes_nothing():
    samples = [sample(seed, height=64 + 16 * seed) for seed in range(4)]
    models = [network(), network()]
    for model, parts in zip(models, (1, 4), strict=True):
        recipe = dataclasses.replace(RECIPE, images_per_step=4, accumulate=parts)
        stepper(model, recipe)(samples, 0)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-5, atol=1e-6)


def test_memory_layout_changes_nothing():
    models = [network(), network()]
    for model, channels_last in zip(models, (False, True), strict=True):
        recipe = dataclasses.replace(RECIPE, channels_last=channels_last)
        stepper(model, recipe)([sample(0)], 0)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2_expanded"])
def test_a_step_without_rois_changes_no_weight(backbone, precision, monkeypatch):
    monkeypatch.setattr("pipeline.training.step.dtype_named", lambda name, _: DTYPES[name])
    model = build(Architecture(("cat", "dog"), backbone), seed=1).train()
    before = weights(model)
    recipe = dataclasses.replace(
        RECIPE, network=backbone, weight_decay=0.0, channels_last=True, precision=precision
    )
    result = stepper(model, recipe)([sample(0, rois=0)], 0)
    assert (result.images, result.gradient_norm) == (0, 0.0)
    torch.testing.assert_close(weights(model), before)


def test_gradients_are_clipped_to_the_norm():
    moved = []
    for clip in (None, 0.01):
        model = network()
        before = weights(model)
        recipe = dataclasses.replace(
            RECIPE, gradient_clip=clip, weight_decay=0.0, bias_rate_factor=1.0
        )
        result = stepper(model, recipe)([sample(0)], 0)
        moved.append(float((weights(model) - before).norm()))
    assert result.gradient_norm > 0.01  # as it was before clipping
    assert moved[1] == pytest.approx(0.01 * RECIPE.learning_rate, rel=1e-2)
    assert moved[0] > 2 * moved[1]


def test_gradients_that_are_not_finite_leave_the_weights():
    model = network()
    before = weights(model)
    broken = dataclasses.replace(sample(0), targets=np.full((12, 4), np.nan, np.float32))
    result = stepper(model)([broken], 0)
    assert not np.isfinite(result.gradient_norm)
    torch.testing.assert_close(weights(model), before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("backbone", ["tiny", "resnet18", "mobilenet_v2_expanded"])
def test_half_precision_comes_close_to_the_step_in_fp32(
    backbone, channels_last, precision, monkeypatch
):
    monkeypatch.setattr("pipeline.detector.inference._computes_fp16", lambda device: True)
    moved = {}
    for chosen in ("fp32", precision):
        model = build(Architecture(("cat", "dog"), backbone), seed=1).train()
        before = weights(model)
        recipe = dataclasses.replace(
            RECIPE, network=backbone, precision=chosen, channels_last=channels_last
        )
        step = stepper(model, recipe)
        step.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=chosen == "fp16")
        result = step([sample(0), sample(1)], 0)
        assert np.isfinite(result.gradient_norm)
        assert result.gradient_norm > 0
        moved[chosen] = weights(model) - before
    direction = torch.cosine_similarity(moved["fp32"], moved[precision], 0)
    length = moved[precision].norm() / moved["fp32"].norm()
    assert direction > 0.98
    assert float(length) == pytest.approx(1.0, abs=0.05)


def test_an_overflow_in_fp16_lowers_the_scale_and_a_loss_that_is_not_finite_is_told(monkeypatch):
    monkeypatch.setattr("pipeline.detector.inference._computes_fp16", lambda device: True)
    model = network()
    before = weights(model)
    step = stepper(model, dataclasses.replace(RECIPE, precision="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    assert step([sample(0)], 0).gradient_norm == 0.0
    assert step.scaler.get_scale() == 2.0**39
    torch.testing.assert_close(weights(model), before)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    assert step([sample(0)], 1).gradient_norm > 0
    assert not torch.equal(weights(model), before)
    broken = dataclasses.replace(sample(0), targets=np.full((12, 4), np.nan, np.float32))
    assert not np.isfinite(step([broken], 2).gradient_norm)
