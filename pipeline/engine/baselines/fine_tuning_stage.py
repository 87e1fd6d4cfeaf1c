"""The stage that fine-tunes a network on windows; a start goes on from the last state."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import storage, uris
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import FINE_TUNED, build_initial
from pipeline.engine.baselines.window_reading import PooledWindowReader, WarpedWindowReader
from pipeline.errors import MissingObject
from pipeline.shards import Parts

if TYPE_CHECKING:
    from pipeline.baselines.fine_tuning import FineTuning, FineTuningState

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
        Figures of the stage, over all its starts.

    Raises:
        UnreadableDataset: there is no window to learn from.
        TrainingFailed: the loss is not finite.
    """
    from pipeline.baselines.fine_tuning import count_block_steps, fine_tune  # noqa: PLC0415
    from pipeline.baselines.window_sampling import Windows, index_windows  # noqa: PLC0415
    from pipeline.training.sample_order import make_generator  # noqa: PLC0415

    training = _build_training(plan)
    reader = WarpedWindowReader(plan) if maps is None else PooledWindowReader(plan, maps)
    keeper = _StateKeeper(plan, training.state, reader)
    index = index_windows(plan.dataset, plan.recipe, plan.system)
    count, fraction = plan.settings.windows_per_step, plan.recipe.foreground_fraction

    def draw(step: int) -> Windows:
        return index.draw(count, fraction, make_generator(plan.seed, "fine-tune", step))

    fine_tune(
        training,
        draw,
        reader,
        steps=plan.settings.fine_tune_steps,
        block_steps=count_block_steps(count, reader.bytes_per_window),
        keep=keeper,
    )
    keeper.finish()
    return {
        "steps": training.state.step,
        "foreground_windows": len(index.foreground),
        "background_windows": len(index.background),
        "losses": summarise_losses(training.state.losses),
        "bytes_read": training.state.bytes_read,
    }


def _build_training(plan: BaselinePlan) -> FineTuning:
    import torch  # noqa: PLC0415

    from pipeline.baselines.fine_tuning import FineTuning  # noqa: PLC0415
    from pipeline.detector.device_selection import select_device  # noqa: PLC0415

    torch.set_num_threads(plan.threads)
    network, pretrained = build_initial(plan)
    return FineTuning(
        network,
        plan.recipe,
        plan.preprocessing,
        pretrained=pretrained,
        steps=plan.settings.fine_tune_steps,
        seed=plan.seed,
        device=select_device("cuda" if plan.gpu else "cpu"),
    )


class _StateKeeper:
    """Puts the state of fine-tuning every `PUT_EVERY` seconds, and at the end the network."""

    def __init__(
        self,
        plan: BaselinePlan,
        state: FineTuningState,
        reader: WarpedWindowReader | PooledWindowReader,
    ) -> None:
        """Go on from a stored state, if there is one; the reader counts on from its bytes."""
        self._plan = plan
        self._state = state
        self._reader = reader
        uri = plan.locate(STATE)
        with contextlib.suppress(MissingObject):
            state.restore(storage.read(uri), uris.redact_uri(uri))
        reader.bytes_read = state.bytes_read
        self._last_put = monotonic()

    def __call__(self, state: FineTuningState, figures: Mapping[str, Any]) -> None:
        """Put the figures for the log, and the state if the last one is old."""
        storage.put(self._plan.locate(PROGRESS), json.dumps(dict(figures)).encode())
        state.bytes_read = self._reader.bytes_read
        if monotonic() - self._last_put > PUT_EVERY:
            storage.put(self._plan.locate(STATE), state.to_bytes())
            self._last_put = monotonic()

    def finish(self) -> None:
        """Put the network, which takes the place of the state."""
        import safetensors.torch  # noqa: PLC0415
        import torch  # noqa: PLC0415

        weights = {
            name: tensor.detach().to("cpu", torch.float32).contiguous()
            for name, tensor in self._state.network.state_dict().items()
        }
        storage.put(self._plan.locate(FINE_TUNED), safetensors.torch.save(weights))
        for name in (STATE, PROGRESS):
            storage.remove(self._plan.locate(name))


def summarise_losses(losses: Sequence[float], most: int = 10) -> list[float]:
    """The mean losses of up to `most` equal spans of steps, in order."""
    spans = np.array_split(np.asarray(losses, np.float64), max(1, min(most, len(losses))))
    return [round(float(span.mean()), 5) for span in spans if len(span)]
