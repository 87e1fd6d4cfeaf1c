"""What a user asks to train: a training and its plan take the same request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.train.validation import Validation
from pipeline.option_ranges import check_fields
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.placement import Placement, parse_placement
from pipeline.training.recipe import Recipe


@dataclass(frozen=True)
class Execution:
    """How a training runs. `workers` changes the result only if it changes the images of a step."""

    workers: int | None = None
    """Largest number of workers. They divide a step's images, so at most one per image works; with
    --scale-rate-with-workers each takes a whole step's images. None: one per GPU. Without GPUs: one per core
    that gets an image of the step, with the remaining cores as its threads; the step is then divided even
    with --scale-rate-with-workers."""
    gpu: bool | None = None
    """Whether every worker has a GPU. None: if the cluster has one; True waits for nodes with GPUs."""
    checkpoint_every: int = 250
    """Steps between resumable states."""
    log_every: int = 20
    """Steps between records of the log."""
    max_failures: int = 3
    """Number of worker deaths that the run survives; a rerun resumes from the latest state."""
    no_capacity_after: float = 300.0
    """Seconds to wait for nodes that can hold the workers."""
    resources: str | None = None
    """JSON with amounts of custom resources that a node must have for a worker: {"fast": 0.01}."""
    label_selector: str | None = None
    """JSON with conditions on the labels of nodes that hold workers, such as {"market": "!spot"}. Proposals
    that the job computes first use all nodes."""

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint_every", "log_every", at_least=1)
        check_fields(self, "max_failures", at_least=0)
        check_fields(self, "no_capacity_after", above=0)
        parse_placement(self.resources, self.label_selector)  # rejects wrong values

    @property
    def placement(self) -> Placement:
        """Which nodes may hold a worker."""
        return parse_placement(self.resources, self.label_selector)


@dataclass(frozen=True)
class TrainingRequest:
    """A training before anything of it is opened."""

    manifests: Sequence[str]
    """URIs of annotated datasets with the same classes."""
    proposals: Sequence[str] | ProposalSettings
    """Stored ones, a URI per manifest in the same order, or how to compute them into the output."""
    output: str
    """URI of the folder for the final network, states, logs and run.json."""
    recipe: Recipe
    weights: str | None = None
    """Pretrained weights, as `load_pretrained` takes them."""
    seed: int = 0
    """Of initialisation, order, flips and RoIs."""
    overwrite: bool = False
    """Remove an earlier training from the output and start again."""
    execution: Execution = Execution()
    validation: Validation = Validation()
    """Held-out images; the network with the best score is kept in OUTPUT/best."""
    classes: Sequence[str] = ()
    """The labels in the order of their numbers, for manifests that do not list them."""
    exclude: str | None = None
    """URI of a list of images to leave out (`excluded_images`)."""
