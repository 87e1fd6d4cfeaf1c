"""The claims of the Fast R-CNN paper, measured: R-CNN, SPPnet and Fast R-CNN, and the paper's tables.

python -m tests.benchmarks.paper --output DIR --quick
python -m tests.benchmarks.paper --manifest train.parquet --proposals train --test-manifest val.parquet \
    --test-proposals val --weights mobilenet_v2.pth --output DIR [--only speed,quality]

`--quick` draws images, pretrains the network `tiny` on windows of others, and runs all tables on these. Every
step is a job whose command is printed; the same command skips finished steps. Each table joins those of
`DIR/paper.json`, `DIR/paper.md` and `DIR/figures`. Options after `--` go to each training of Fast R-CNN, such
as `-- --workers 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import platform
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from tests.benchmarks.paper_drawn_data import prepare_drawn_data
from tests.benchmarks.paper_inputs import find_stored_limit
from tests.benchmarks.paper_report import Report
from tests.benchmarks.paper_runs import Runs
from tests.benchmarks.paper_sizes import SIZES, Size
from tests.benchmarks.paper_steps import Steps
from tests.benchmarks.paper_tables import TABLES

DATA = ("manifest", "proposals", "test_manifest", "test_proposals")
OF_TABLES = (
    *("--system", "--recipe", "--manifest", "--proposals", "--weights", "--output", "--seed"),
    *("--network", "--roi-size", "--padding", "--fc-widths", "--freeze-until"),
    *("--short-sides", "--max-side", "--max-proposals", "--epochs", "--iterations", "--log-every"),
    *("--images-per-step", "--accumulate", "--box-loss-weight", "--box-epochs"),
)
"""Options that the tables set. After `--`, they would change what a table compares, or the trunk of Fast
R-CNN alone."""


def main() -> None:
    """Run the requested tables."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the job at work, too
    try:
        run(parse_options(sys.argv[1:]))
    except PipelineError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The options of a command line; what follows `--` is `training`."""
    words, training = arguments, list[str]()
    if "--" in arguments:
        split = arguments.index("--")
        words, training = arguments[:split], arguments[split + 1 :]
    parser = _build_parser()
    command = f"python -m tests.benchmarks.paper {shlex.join(arguments)}"
    options = parser.parse_args(words, argparse.Namespace(training=training, command=command))
    present = [name for name in DATA if getattr(options, name) is not None]
    if options.quick and present:
        parser.error(f"--quick draws its own images: leave out --{present[0].replace('_', '-')}")
    if not options.quick and len(present) < len(DATA):
        missing = next(name for name in DATA if name not in present)
        parser.error(f"--{missing.replace('_', '-')} is missing; --quick draws images")
    if options.images is not None and not options.quick:
        parser.error("--images is the number of images that --quick draws: leave it out")
    for word in training:
        name = word.partition("=")[0].replace("_", "-")
        if name in OF_TABLES:
            parser.error(f"the tables set {name}: leave it out after --")
    return options


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--manifest", help="manifest for training")
    parser.add_argument("--proposals", help="stored proposals for training")
    parser.add_argument("--test-manifest", help="manifest for testing")
    parser.add_argument("--test-proposals", help="stored proposals for testing")
    parser.add_argument("--weights", help="pretrained weights of the backbone")
    parser.add_argument("--output", required=True, help="folder for networks, detections, tables")
    parser.add_argument("--quick", action="store_true", help="drawn images, in minutes")
    parser.add_argument("--recipe", choices=tuple(SIZES), default="mobilenet_v2")
    parser.add_argument(
        "--epochs", type=_parse_positive, help="epochs of each training of Fast R-CNN"
    )
    parser.add_argument(
        "--fine-tune-steps", type=_parse_count, help="steps of R-CNN's and SPPnet's"
    )
    parser.add_argument(
        "--max-proposals",
        type=_parse_count,
        help="best proposals per image in training and testing",
    )
    parser.add_argument(
        "--proposal-counts",
        type=_parse_count,
        nargs="+",
        help="best proposals of the table proposals",
    )
    parser.add_argument(
        "--own-recipe", action="store_true", help="leave out the rows with the paper's recipe"
    )
    parser.add_argument("--seeds", type=_parse_count, default=1, help="trainings per row")
    parser.add_argument(
        "--rule",
        choices=("paper", "default"),
        default="paper",
        help="how boxes become detections, as in jobs/detect.py (default: paper). Choose default where "
        "images have more than about ten objects of a class: its best 100 boxes may leave some out",
    )
    parser.add_argument("--images", type=_parse_count, help="with --quick: images that are drawn")
    parser.add_argument(
        "--only",
        type=parse_tables,
        default=tuple(TABLES),
        help=f"comma-separated; all by default: {','.join(TABLES)}",
    )
    return parser


def _parse_count(argument: str) -> int:
    count = int(argument)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{argument} is not at least 1")
    return count


def _parse_positive(argument: str) -> float:
    value = float(argument)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{argument} is not a number above 0")
    return value


def parse_tables(argument: str) -> tuple[str, ...]:
    """The tables of a comma-separated list."""
    names = tuple(argument.split(","))
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown table {unknown[0]!r} (choose from {', '.join(TABLES)})"
        )
    return names


def run(options: argparse.Namespace) -> None:
    """Run the tables in order, and write the report after each."""
    steps = Steps(Path(options.output).absolute(), in_process=options.quick)
    with contextlib.ExitStack() as stack:
        if options.quick:
            stack.enter_context(_share_ray())
            options.recipe = "tiny"
            prepare_drawn_data(options, steps)
        runs = Runs(steps, choose_size(options), options)
        report = Report(steps.folder, _describe(options, runs.size))
        for name in TABLES:
            if name in options.only:
                report.add(name, TABLES[name](runs))
    print((steps.folder / "paper.md").read_text())


def choose_size(options: argparse.Namespace) -> Size:
    """The size of the recipe, with what the command line changes.

    Numbers of proposals that are not stored are left out, or rejected if the command line asks for them.

    Raises:
        SystemExit: it does.
    """
    size = SIZES[options.recipe]
    limits = [find_stored_limit(uri) for uri in (options.proposals, options.test_proposals)]
    limit = min((limit for limit in limits if limit is not None), default=None)
    stored = "" if limit is None else f"the proposals have at most {limit} boxes per image"
    wanted = [*(options.proposal_counts or ()), *filter(None, [options.max_proposals])]
    if limit is not None and max(wanted, default=0) > limit:
        print(
            f"{stored}, not {max(wanted)}: run propose with --max-boxes {max(wanted)} or more, "
            "or choose lower numbers",
            file=sys.stderr,
        )
        sys.exit(2)
    proposals = options.max_proposals or size.proposals
    counts = tuple(options.proposal_counts or size.proposal_counts)
    if limit is not None:
        left_out = [count for count in counts if count > limit]
        if left_out:
            print(f"{stored}: no row with {', '.join(map(str, left_out))}")
        counts = tuple(count for count in counts if count <= limit)
        proposals = min(proposals, limit)
    return replace(
        size,
        epochs=options.epochs or size.epochs,
        fine_tune_steps=options.fine_tune_steps or size.fine_tune_steps,
        proposals=proposals,
        proposal_counts=counts or (proposals,),
    )


def _share_ray() -> Any:
    """One Ray for all jobs: starting it takes longer than a small job."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from pipeline.engine import cluster

    return cluster.connect_to_cluster()


def _describe(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """What the tables were measured on."""
    from pipeline.manifests import open_manifest

    trained, tested = (
        f"{uri}, {open_manifest(uri).rows} images"
        for uri in (options.manifest, options.test_manifest)
    )
    return {
        "command": options.command,
        "trained on": trained,
        "tested on": tested,
        "proposals": f"the best {size.proposals} of {options.proposals}",
        "recipe": f"{options.recipe}, {size.epochs:g} epochs; {size.fine_tune_steps} steps of fine-tuning",
        "rule of detection": options.rule,
        "seeds": options.seeds,
        "machine": f"{os.cpu_count()} cores, {_find_processor()}",
    }


def _find_processor() -> str:
    """The processor's name, where the system says it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
