"""The stage that fine-tunes a network on windows; a start goes on from the last state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np

from pipeline import storage, uris
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import FINE_TUNED, build_initial
from pipeline.engine.baselines.window_reading import PooledWindowReader, WarpedWindowReader
from pipeline.errors import MissingObject
from pipeline.shards import Parts

STATE = "fine-tune-state.pt"
PROGRESS = "fine-tune-progress.json"
PUT_EVERY = 60.0
"""Seconds between states: after each block of steps that ends later."""


def run_fine_tuning(plan: BaselinePlan, maps: Parts | None) -> Mapping[str, Any]:
    """Fine-tune, and put the network into the folder of the stages.

    Args:
        plan: the training.
        maps: SPPnet's stored maps.

    Returns:
        Figures of the stage.

    Raises:
        UnreadableDataset: there is no window to learn from.
        TrainingFailed: the loss is not finite.
    """
    import safetensors.torch  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from pipeline.baselines.fine_tuning import (  # noqa: PLC0415
        FineTuning,
        FineTuningState,
        count_block_steps,
        fine_tune,
    )
    from pipeline.baselines.window_sampling import Windows, index_windows  # noqa: PLC0415
    from pipeline.detector.device_selection import select_device  # noqa: PLC0415
    from pipeline.training.sample_order import make_generator  # noqa: PLC0415

    torch.set_num_threads(plan.threads)
    network, pretrained = build_initial(plan)
    training = FineTuning(
        network,
        plan.recipe,
        plan.preprocessing,
        pretrained=pretrained,
        steps=plan.settings.fine_tune_steps,
        seed=plan.seed,
        device=select_device("auto" if plan.gpu else "cpu"),
    )
    seconds_before = _restore(plan, training.state)
    began = last_put = monotonic()
    index = index_windows(plan.dataset, plan.recipe, plan.system)
    reader = WarpedWindowReader(plan) if maps is None else PooledWindowReader(plan, maps)
    count, fraction = plan.settings.windows_per_step, plan.recipe.foreground_fraction

    def draw(step: int) -> Windows:
        return index.draw(count, fraction, make_generator(plan.seed, "fine-tune", step))

    def keep(state: FineTuningState, figures: Mapping[str, Any]) -> None:
        nonlocal last_put
        storage.put(plan.locate(PROGRESS), json.dumps(dict(figures)).encode())
        if monotonic() - last_put > PUT_EVERY:
            state.seconds = seconds_before + monotonic() - began
            storage.put(plan.locate(STATE), state.to_bytes())
            last_put = monotonic()

    losses = fine_tune(
        training,
        draw,
        reader,
        steps=plan.settings.fine_tune_steps,
        block_steps=count_block_steps(count, reader.bytes_per_window),
        keep=keep,
    )
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
    }
    storage.put(plan.locate(FINE_TUNED), safetensors.torch.save(weights))
    for name in (STATE, PROGRESS):
        storage.remove(plan.locate(name))
    return {
        "steps": training.state.step,
        "foreground_windows": len(index.foreground),
        "background_windows": len(index.background),
        "losses": summarise_losses(losses),
        "bytes_read": reader.bytes_read,
        "seconds_before": seconds_before,
    }


def summarise_losses(losses: Sequence[float], most: int = 10) -> list[float]:
    """The mean losses of up to `most` equal spans of steps, in order."""
    spans = np.array_split(np.asarray(losses, np.float64), max(1, min(most, len(losses))))
    return [round(float(span.mean()), 5) for span in spans if len(span)]


def _restore(plan: BaselinePlan, state: Any) -> float:
    """Go on from a stored state, if there is one; returns the seconds of earlier starts."""
    uri = plan.locate(STATE)
    try:
        state.restore(storage.read(uri), uris.redact_uri(uri))
    except MissingObject:
        return 0.0
    return float(state.seconds)
