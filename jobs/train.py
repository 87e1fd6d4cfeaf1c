"""Train Fast R-CNN, R-CNN or SPPnet on a manifest and its proposals, on GPUs or cores.

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
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated

import tyro

from jobs import entry
from pipeline.baselines.settings import BaselineSettings, System
from pipeline.baselines.system_options import check_options
from pipeline.engine import cluster
from pipeline.engine.baselines.inputs import open_baseline_inputs
from pipeline.engine.baselines.run import run_baseline_training
from pipeline.engine.planning.plan_training import plan_training
from pipeline.engine.train.run import run_training
from pipeline.engine.train.training_request import Execution, TrainingRequest
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.plan_options import GpuPlanOptions
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import RECIPES, get_recipe

RecipeOptions = Annotated[Recipe, tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff]
"""A flag takes True or False, so that a command is valid whatever the recipe's default is."""


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
    system: System = "fast-rcnn"
    """The system to train. rcnn and sppnet are trained in stages on stored features, for comparison;
    fast-rcnn-svm trains SVMs on the features of the Fast R-CNN whose checkpoint is --weights."""
    recipe: Annotated[str, tyro.conf.arg(metavar="|".join(sorted(RECIPES)))]
    """The recipe that sets the defaults of the options below."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers, for manifests that list none because another tool filtered them;
    by default all their labels, sorted."""
    exclude: str | None = None
    """Parquet list of images to leave out, such as exclude.parquet of analyze dataset."""
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
    baseline: Annotated[BaselineSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=BaselineSettings
    )
    fields: RecipeOptions = field(default_factory=Recipe)


def make_options_class(arguments: list[str]) -> type[Train]:
    """The options, with defaults from the recipe that the command line names."""
    joined = next((a for a in arguments if a.startswith("--recipe=")), "").partition("=")[2]
    name = next((value for option, value in pairwise(arguments) if option == "--recipe"), joined)
    recipe = RECIPES[name]() if name in RECIPES else Recipe()
    default = field(default_factory=lambda: recipe)
    return dataclasses.make_dataclass(
        "Train",
        [("fields", RecipeOptions, default)],
        bases=(Train,),
        namespace={"__doc__": Train.__doc__},
        frozen=True,
        kw_only=True,
    )


def main(options: Train) -> None:
    """Run the job, or plan it.

    Raises:
        InvalidConfiguration: an unknown recipe, both stored proposals and options to compute them, or options
            that the system does not use.
    """
    recipe = get_recipe(options.recipe)  # rejects an unknown name, which make_options_class ignores
    if options.proposals and options.propose != ProposalSettings():
        raise InvalidConfiguration(
            "--proposals takes stored proposals as they are: leave out the options --propose.*"
        )
    check_options(options.system, options.fields, recipe, options.baseline)
    if options.system != "fast-rcnn":
        _train_baseline(options)
        return
    if options.planning.plan:
        plan = plan_training(_build_request(options), options.planning)
        entry.print_lines(*plan.format_lines())
        return
    summary = run_training(_build_request(options))
    entry.print_lines(*summary.format_lines())


def _build_request(options: Train) -> TrainingRequest:
    return TrainingRequest(
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
        exclude=options.exclude,
    )


def _train_baseline(options: Train) -> None:
    """Train R-CNN or SPPnet.

    Raises:
        InvalidConfiguration: an option that only the training of Fast R-CNN has.
    """
    execution, default = options.execution, Execution()
    used = replace(
        default,
        gpu=execution.gpu,
        max_failures=execution.max_failures,
        no_capacity_after=execution.no_capacity_after,
    )
    if execution != used:
        raise InvalidConfiguration(
            f"--system {options.system} has no {_name_changed_option(execution, used)}: leave it out"
        )
    if options.validation != Validation() or options.planning.plan:
        name = "--plan" if options.planning.plan else "--validation.*"
        raise InvalidConfiguration(f"--system {options.system} has no {name}: leave it out")
    cluster.check_ray_address()
    inputs = open_baseline_inputs(
        options.system,
        options.manifest,
        options.proposals or options.propose,
        options.output,
        options.fields,
        weights=options.weights,
        seed=options.seed,
        classes=options.classes,
        exclude=options.exclude,
    )
    summary = run_baseline_training(
        inputs,
        options.fields,
        options.baseline,
        seed=options.seed,
        overwrite=options.overwrite,
        gpu=execution.gpu,
        max_failures=execution.max_failures,
        no_capacity_after=execution.no_capacity_after,
        compute=options.propose,
    )
    entry.print_lines(*summary.format_lines())


def _name_changed_option(options: object, default: object) -> str:
    """The first option of a dataclass that is not its default."""
    names = [item.name for item in dataclasses.fields(options)]  # type: ignore[arg-type]
    changed = next(n for n in names if getattr(options, n) != getattr(default, n))
    return f"--{changed.replace('_', '-')}"


if __name__ == "__main__":
    entry.run(make_options_class(sys.argv[1:]), main, __doc__)
