"""What training steps cost: the run's own trainer on its first samples, with the settings of its workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pipeline import storage, store_options, uris
from pipeline.engine.planning.time_spent import TimeSpent, read_core_wait
from pipeline.engine.train.validation import Validator
from pipeline.store_options import StoreOptions
from pipeline.training import logs, state
from pipeline.training.logs import TrainingRecord
from pipeline.training.specification import TrainingSpec

if TYPE_CHECKING:
    from pipeline.training.trainer import Trainer

VALIDATED_IMAGES = 8
"""Images on which validation is measured."""
RENDEZVOUS = timedelta(seconds=300)
"""How long a worker waits for the others to start."""


@dataclass
class TrainingCosts:
    """What one worker measured; the first one has the records, which are sums over all workers."""

    ray_train: TimeSpent = field(default_factory=TimeSpent)
    """Importing Ray Train and torch, which the controller does before the workers do."""
    records: list[TrainingRecord] = field(default_factory=list)
    """One per step."""
    waiting_share: float = 0.0
    """Share of the time in which others had the cores."""
    validation: TimeSpent = field(default_factory=TimeSpent)
    """Per image."""
    state: TimeSpent = field(default_factory=TimeSpent)
    """Of putting a state."""
    state_bytes: int = 0
    final_bytes: int = 0
    """Of the final network."""


@dataclass(frozen=True)
class TrainingSample:
    """The task of one measuring process: a few steps as one of the run's workers."""

    spec: TrainingSpec
    """With a scratch folder as output, a record per step, and so many steps as are measured."""
    rank: int
    threads: int
    gpu: bool
    validator: Validator | None = None
    stores: StoreOptions = field(default_factory=store_options.get_options)

    def prepare(self) -> Callable[[], TrainingCosts]:
        """Load torch, find the other workers and build the network."""
        costs = TrainingCosts()
        with costs.ray_train.measure():
            import ray.train.torch  # noqa: F401, PLC0415  takes seconds
        import torch  # noqa: PLC0415  (the driver imports this module and must not load torch)
        from torch import distributed  # noqa: PLC0415

        from pipeline.training.trainer import Trainer  # noqa: PLC0415

        store_options.set_options(self.stores)
        torch.set_num_threads(self.threads)
        device = torch.device("cuda", self.rank) if self.gpu else torch.device("cpu")
        if self.gpu:
            torch.cuda.set_device(device)  # NCCL's, for all collectives
        if self.spec.workers > 1:
            distributed.init_process_group(
                "nccl" if self.gpu else "gloo",
                init_method=f"file://{Path(self.spec.output) / 'rendezvous'}",
                rank=self.rank,
                world_size=self.spec.workers,
                timeout=RENDEZVOUS,
            )
        trainer = Trainer(
            self.spec,
            rank=self.rank,
            device=device,
            ingest_threads=min(8, self.threads) if self.gpu else 1,
        )
        return lambda: self._measure(trainer, costs)

    def _measure(self, trainer: Trainer, costs: TrainingCosts) -> TrainingCosts:
        began, waited = perf_counter(), read_core_wait()
        trainer.train()
        costs.waiting_share = (read_core_wait() - waited) / (perf_counter() - began)
        if self.rank > 0:
            return costs
        costs.records = logs.read_log(self.spec.output)
        states = storage.list_sizes(uris.join(self.spec.output, state.FOLDER))
        costs.state_bytes = max(states.values())
        own_files = storage.list_sizes(self.spec.output)
        costs.final_bytes = sum(
            size for name, size in own_files.items() if name.startswith("model.")
        )
        self._time_state(trainer, costs)
        self._time_validation(trainer, costs)
        return costs

    def _time_state(self, trainer: Trainer, costs: TrainingCosts) -> None:
        values = {
            "model": trainer.network.state_dict(),
            "optimiser": trainer.optimiser.state_dict(),
        }
        with costs.state.measure():
            state.save_state(self.spec.output, trainer.step + 1, values)

    def _time_validation(self, trainer: Trainer, costs: TrainingCosts) -> None:
        if self.validator is None:
            return
        from pipeline.training.export import copy_with_raw_deltas  # noqa: PLC0415  imports torch

        few = replace(self.validator, images=min(VALIDATED_IMAGES, self.validator.images))
        exported = copy_with_raw_deltas(trainer.network, self.spec, trainer.step)
        with costs.validation.measure():
            few(exported, trainer.preprocessing, str(trainer.device))
        costs.validation.wall /= few.images
        costs.validation.cpu /= few.images
