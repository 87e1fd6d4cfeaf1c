"""Train Fast R-CNN on a manifest and its proposals, with 1..N workers on GPUs or cores.

python jobs/train.py --manifest m.parquet --proposals p --output out --recipe tiny

Writes resumable states below OUTPUT/steps, logs below OUTPUT/logs and at last the checkpoint,
model.safetensors and model.json, into OUTPUT. A rerun of the same command goes on where an interrupted
one stopped. Every field of the recipe is an option, whose default is the chosen recipe's.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import tyro

from jobs import entry
from pipeline.engine.train import run as training_run
from pipeline.engine.train.run import Execution
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import RECIPES, named


@dataclass(frozen=True, kw_only=True)
class Train(entry.JobOptions):
    """Options of the train job."""

    manifest: tuple[str, ...]
    """Manifests with objects: Parquet files or folders of them; any fsspec URIs."""
    proposals: tuple[str, ...] = ()
    """Stored proposals (jobs/propose.py) of each manifest, in the same order; without them they are
    computed first, into OUTPUT/proposals."""
    output: str
    """Folder for the checkpoint; any fsspec URI."""
    recipe: Annotated[str, tyro.conf.arg(metavar="|".join(sorted(RECIPES)))]
    """The named recipe that the options below start from."""
    weights: str | None = None
    """Pretrained weights: a URI of a state dict or safetensors, or a name that torchvision knows."""
    seed: int = 0
    """Seed of initialisation, order, flips and RoIs."""
    overwrite: bool = False
    """Remove what an earlier training wrote into the output and start anew."""
    propose: ProposalSettings = field(default_factory=ProposalSettings)
    validation: Validation = field(default_factory=Validation)
    execution: Annotated[Execution, tyro.conf.OmitArgPrefixes] = field(default_factory=Execution)
    fields: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = field(default_factory=Recipe)


def options_for(arguments: list[str]) -> type[Train]:
    """The options with the defaults of the recipe that the command line names."""
    joined = next((a for a in arguments if a.startswith("--recipe=")), "").partition("=")[2]
    name = next((value for option, value in pairwise(arguments) if option == "--recipe"), joined)
    start = RECIPES[name]() if name in RECIPES else Recipe()
    changed = field(default_factory=lambda: start)
    return dataclasses.make_dataclass(
        "Train",
        [("fields", Annotated[Recipe, tyro.conf.OmitArgPrefixes], changed)],
        bases=(Train,),
        namespace={"__doc__": Train.__doc__},
        frozen=True,
        kw_only=True,
    )


def main(options: Train) -> None:
    """Run the job.

    Raises:
        InvalidConfiguration: an unknown recipe, or stored proposals and how to compute them.
    """
    named(options.recipe)  # an unknown name is an error, not the defaults
    if options.proposals and options.propose != ProposalSettings():
        raise InvalidConfiguration(
            "--proposals takes stored boxes as they are: leave out the options --propose.*"
        )
    summary = training_run.run(
        options.manifest,
        options.proposals or options.propose,
        options.output,
        options.fields,
        weights=options.weights,
        seed=options.seed,
        overwrite=options.overwrite,
        execution=options.execution,
        validation=options.validation,
    )
    print("\n".join(summary.lines()))


if __name__ == "__main__":
    entry.run(options_for(sys.argv[1:]), main, __doc__)
