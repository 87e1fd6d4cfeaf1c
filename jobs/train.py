"""Train Fast R-CNN on a manifest and its proposals, with 1..N workers on GPUs or cores.

python jobs/train.py --manifest m.parquet --proposals p --output out --recipe tiny

Writes resumable states below OUTPUT/steps, logs below OUTPUT/logs and, at the end, the checkpoint,
model.safetensors and model.json, into OUTPUT. After an interruption, the same command resumes from the
latest state. Every field of the recipe is an option, whose default comes from the chosen recipe.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import dataclasses
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import tyro

from jobs import entry
from pipeline.engine.planning.plan_training import plan_training
from pipeline.engine.train.run import Execution, run_training
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.plan_options import GpuPlanOptions
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import RECIPES, get_recipe


@dataclass(frozen=True, kw_only=True)
class Train(entry.JobOptions):
    """Options of the train job."""

    manifest: tuple[str, ...]
    """Annotated manifests: Parquet files or folders of them; any fsspec URIs."""
    proposals: tuple[str, ...] = ()
    """Stored proposals (jobs/propose.py), one per manifest in the same order; without them the job computes
    proposals first, into OUTPUT/proposals."""
    output: str
    """Folder for the checkpoint; any fsspec URI."""
    recipe: Annotated[str, tyro.conf.arg(metavar="|".join(sorted(RECIPES)))]
    """The recipe that sets the defaults of the options below."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers, for manifests that list none because another tool filtered them;
    by default all their labels, sorted."""
    weights: str | None = None
    """Pretrained weights: URI of a state dict or safetensors file, or a name that torchvision knows."""
    seed: int = 0
    """Seed of initialisation, order, flips and RoIs."""
    overwrite: bool = False
    """Remove what an earlier training wrote into the output and start from nothing."""
    propose: ProposalSettings = field(default_factory=ProposalSettings)
    validation: Validation = field(default_factory=Validation)
    execution: Annotated[Execution, tyro.conf.OmitArgPrefixes] = field(default_factory=Execution)
    planning: Annotated[GpuPlanOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=GpuPlanOptions
    )
    fields: Annotated[Recipe, tyro.conf.OmitArgPrefixes] = field(default_factory=Recipe)


def make_options_class(arguments: list[str]) -> type[Train]:
    """The options, with defaults from the recipe that the command line names."""
    joined = next((a for a in arguments if a.startswith("--recipe=")), "").partition("=")[2]
    name = next((value for option, value in pairwise(arguments) if option == "--recipe"), joined)
    recipe = RECIPES[name]() if name in RECIPES else Recipe()
    default = field(default_factory=lambda: recipe)
    return dataclasses.make_dataclass(
        "Train",
        [("fields", Annotated[Recipe, tyro.conf.OmitArgPrefixes], default)],
        bases=(Train,),
        namespace={"__doc__": Train.__doc__},
        frozen=True,
        kw_only=True,
    )


def main(options: Train) -> None:
    """Run the job, or plan it.

    Raises:
        InvalidConfiguration: an unknown recipe, or both stored proposals and options to compute them.
    """
    get_recipe(options.recipe)  # rejects an unknown name, which make_options_class ignores
    if options.proposals and options.propose != ProposalSettings():
        raise InvalidConfiguration(
            "--proposals takes stored proposals as they are: leave out the options --propose.*"
        )
    if options.planning.plan:
        plan = plan_training(
            options.manifest,
            options.proposals or options.propose,
            options.output,
            options.fields,
            weights=options.weights,
            seed=options.seed,
            overwrite=options.overwrite,
            execution=options.execution,
            validation=options.validation,
            classes=options.classes,
            plan_options=options.planning,
        )
        entry.print_lines(*plan.format_lines())
        return
    summary = run_training(
        options.manifest,
        options.proposals or options.propose,
        options.output,
        options.fields,
        weights=options.weights,
        seed=options.seed,
        overwrite=options.overwrite,
        execution=options.execution,
        validation=options.validation,
        classes=options.classes,
    )
    entry.print_lines(*summary.format_lines())


if __name__ == "__main__":
    entry.run(make_options_class(sys.argv[1:]), main, __doc__)
