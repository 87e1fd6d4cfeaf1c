"""The training step against a plain re-computation; accumulation; steps without RoIs."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.detector.preprocessing import Preprocessing
from pipeline.training.optimisation import build_optimiser
from pipeline.training.recipe import Recipe
from pipeline.training.sample_loader import Sample
from pipeline.training.step import TrainingStep

RECIPE = Recipe(network="tiny", channels_last=False)
PREPROCESSING = Preprocessing()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def make_sample(seed, height=96, width=128, rois=12, name="p"):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, [width - 40, height - 40], (rois, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(16, 40, (rois, 2))], axis=1)
    labels = generator.integers(0, 3, rois)
    targets = np.where(labels[:, None] > 0, generator.normal(size=(rois, 4)), 0)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(name, image, boxes.astype(np.float32), labels, targets.astype(np.float32))


def build_tiny_network():
    return build_network(Architecture(("cat", "dog"), "tiny"), seed=1).train()


def make_step(model, recipe=RECIPE):
    optimiser = build_optimiser(model, recipe, (), 1)
    return TrainingStep(model, optimiser, recipe, PREPROCESSING, device=torch.device("cpu"))


def flatten_weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_minimises_equation_1_over_all_rois():
    model = build_tiny_network()
    plain = copy.deepcopy(model)
    samples = [make_sample(0), make_sample(1, height=80, width=160)]
    result = make_step(model)(samples, 0)

    count = sum(len(s.labels) for s in samples)
    classification = localisation = 0.0
    for s in samples:  # one image at a time, through the network's own forward
        image = PREPROCESSING.normalise(torch.from_numpy(s.image)[None])
        rois = torch.cat([torch.zeros(len(s.rois), 1), torch.from_numpy(s.rois)], 1)
        logits, deltas = plain(image, rois)
        classification += functional.cross_entropy(
            logits, torch.from_numpy(s.labels), reduction="sum"
        )
        for row, label in enumerate(s.labels):
            if label:
                predicted = deltas[row, 4 * label : 4 * label + 4]
                difference = (predicted - torch.from_numpy(s.targets[row])).abs()
                localisation += torch.where(
                    difference < 1, 0.5 * difference**2, difference - 0.5
                ).sum()
    loss = (classification + localisation) / count
    loss.backward()
    torch.testing.assert_close(result.losses["total"], loss.detach())
    torch.testing.assert_close(result.losses["class"], classification.detach() / count)
    torch.testing.assert_close(result.losses["box"], localisation.detach() / count)
    norm = torch.cat([p.grad.flatten() for p in plain.parameters()]).norm()
    assert result.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    with torch.no_grad():
        for name, p in plain.named_parameters():  # momentum is empty at the first step
            bias = name.endswith("bias")
            decay = 0.0 if p.ndim == 1 else RECIPE.weight_decay
            p.sub_(RECIPE.learning_rate * (2 if bias else 1) * (p.grad + decay * p))
    torch.testing.assert_close(flatten_weights(model), flatten_weights(plain), rtol=1e-4, atol=1e-6)


def test_a_step_counts_images_and_rois_of_its_samples():
    samples = [make_sample(0, rois=9), make_sample(1, rois=7)]
    result = make_step(build_tiny_network())(samples, 0)
    assert (result.images, result.foreground + result.background) == (2, 16)
    assert result.foreground == sum(int((s.labels > 0).sum()) for s in samples)


def test_accumulating_parts_does_not_change_the_update():
    samples = [make_sample(seed, height=64 + 16 * seed) for seed in range(4)]
    models = [build_tiny_network(), build_tiny_network()]
    for model, parts in zip(models, (1, 4), strict=True):
        recipe = dataclasses.replace(RECIPE, images_per_step=4, accumulate=parts)
        make_step(model, recipe)(samples, 0)
    torch.testing.assert_close(
        flatten_weights(models[0]), flatten_weights(models[1]), rtol=1e-5, atol=1e-6
    )


def test_the_memory_layout_does_not_change_the_update():
    models = [build_tiny_network(), build_tiny_network()]
    for model, channels_last in zip(models, (False, True), strict=True):
        recipe = dataclasses.replace(RECIPE, channels_last=channels_last)
        make_step(model, recipe)([make_sample(0)], 0)
    torch.testing.assert_close(
        flatten_weights(models[0]), flatten_weights(models[1]), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2_expanded"])
def test_a_step_without_rois_changes_no_weight(backbone, precision, monkeypatch):
    monkeypatch.setattr("pipeline.training.step.select_dtype", lambda name, _: DTYPES[name])
    model = build_network(Architecture(("cat", "dog"), backbone), seed=1).train()
    before = flatten_weights(model)
    recipe = dataclasses.replace(
        RECIPE, network=backbone, weight_decay=0.0, channels_last=True, precision=precision
    )
    result = make_step(model, recipe)([make_sample(0, rois=0)], 0)
    assert (result.images, result.gradient_norm) == (0, 0.0)
    assert {name: float(loss) for name, loss in result.losses.items()} == dict.fromkeys(
        ("total", "class", "box"), 0.0
    )
    torch.testing.assert_close(flatten_weights(model), before)


def test_gradients_are_clipped_to_the_norm_of_the_recipe():
    moved = []
    for clip in (None, 0.01):
        model = build_tiny_network()
        before = flatten_weights(model)
        recipe = dataclasses.replace(
            RECIPE, gradient_clip=clip, weight_decay=0.0, bias_rate_factor=1.0
        )
        result = make_step(model, recipe)([make_sample(0)], 0)
        moved.append(float((flatten_weights(model) - before).norm()))
    assert result.gradient_norm > 0.01  # as it was before clipping
    assert moved[1] == pytest.approx(0.01 * RECIPE.learning_rate, rel=1e-2)
    assert moved[0] > 2 * moved[1]


def test_gradients_that_are_not_finite_leave_the_weights_unchanged():
    model = build_tiny_network()
    before = flatten_weights(model)
    broken = dataclasses.replace(make_sample(0), targets=np.full((12, 4), np.nan, np.float32))
    result = make_step(model)([broken], 0)
    assert not np.isfinite(result.gradient_norm)
    torch.testing.assert_close(flatten_weights(model), before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("backbone", ["tiny", "resnet18", "mobilenet_v2_expanded"])
def test_half_precision_comes_close_to_the_step_in_fp32(
    backbone, channels_last, precision, monkeypatch
):
    monkeypatch.setattr("pipeline.detector.device_selection._supports_fp16", lambda device: True)
    moved = {}
    for chosen in ("fp32", precision):
        model = build_network(Architecture(("cat", "dog"), backbone), seed=1).train()
        before = flatten_weights(model)
        recipe = dataclasses.replace(
            RECIPE, network=backbone, precision=chosen, channels_last=channels_last
        )
        step = make_step(model, recipe)
        step.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=chosen == "fp16")
        result = step([make_sample(0), make_sample(1)], 0)
        assert np.isfinite(result.gradient_norm)
        assert result.gradient_norm > 0
        moved[chosen] = flatten_weights(model) - before
    direction = torch.cosine_similarity(moved["fp32"], moved[precision], 0)
    length = moved[precision].norm() / moved["fp32"].norm()
    assert direction > 0.98
    assert float(length) == pytest.approx(1.0, abs=0.05)


def test_an_overflow_in_fp16_lowers_the_scale_and_a_loss_that_is_not_finite_is_reported(
    monkeypatch,
):
    monkeypatch.setattr("pipeline.detector.device_selection._supports_fp16", lambda device: True)
    model = build_tiny_network()
    before = flatten_weights(model)
    step = make_step(model, dataclasses.replace(RECIPE, precision="fp16"))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    assert step([make_sample(0)], 0).gradient_norm == 0.0
    assert step.scaler.get_scale() == 2.0**39
    torch.testing.assert_close(flatten_weights(model), before)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    assert step([make_sample(0)], 1).gradient_norm > 0
    assert not torch.equal(flatten_weights(model), before)
    broken = dataclasses.replace(make_sample(0), targets=np.full((12, 4), np.nan, np.float32))
    assert not np.isfinite(step([broken], 2).gradient_norm)
