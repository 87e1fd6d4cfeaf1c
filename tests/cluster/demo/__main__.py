"""A cluster on this machine, used as cluster/README.md says: `make cluster-demo`.

Starts an S3 store, a Ray head without cores and two nodes of one core, with token authentication, as
separate processes on free ports. Submits prepare, propose, train, detect and analyze with `ray job submit`,
all paths on s3://. Stops one of the jobs and submits it again, and kills a node under another. Checks that
every image is in the outputs exactly once, writes cluster-demo.json, and stops what it started.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from jobs.entry import StopHandler
from tests.cluster.demo.outcome import JSON_NAME, Outcome
from tests.cluster.demo.walkthrough import Walkthrough
from tests.swift import Swift

WRITTEN = ("logs", "report", "metrics.json", JSON_NAME)
"""What the demo writes into its folder."""


def main() -> int:
    """Run the demo and return the exit code: 0 if every image is there once."""
    parser = argparse.ArgumentParser(
        prog="tests.cluster.demo", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--output", type=Path, default=Path("cluster-demo-output"))
    parser.add_argument("--train-images", type=int, default=160, help="images to draw, to train on")
    parser.add_argument("--test-images", type=int, default=160, help="images to draw, to detect in")
    options = parser.parse_args()
    is_linux = sys.platform == "linux"
    obstacle = Swift.find_obstacle() if is_linux else "it needs Linux"
    if obstacle is not None:
        print(f"error: the demo's S3 store cannot run here: {obstacle}", file=sys.stderr)
        return 2
    stop = StopHandler()
    stop.install()
    _remove_earlier(options.output)
    console = Console(soft_wrap=True)
    walkthrough = Walkthrough(options.output, options.train_images, options.test_images, console)
    try:
        outcome = walkthrough.run()
    except KeyboardInterrupt:
        print(
            "stopped: the cluster and the store are gone, and with the store what the jobs had written; "
            f"the logs so far are in {options.output}/logs",
            file=sys.stderr,
        )
        return 128 + stop.number
    except (RuntimeError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    _print_outcome(console, outcome, options.output)
    return 0 if outcome.is_right else 1


def _remove_earlier(output: Path) -> None:
    """Remove what an earlier demo wrote into its folder."""
    for name in WRITTEN:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _print_outcome(console: Console, outcome: Outcome, output: Path) -> None:
    console.rule("[bold]done", align="left")
    outcome.print_tables(console)
    stopped = outcome.stopped_job
    assert stopped is not None
    verdict = "every image is there exactly once" if outcome.is_right else "WRONG, see the table"
    for line in (
        f"nodes: {outcome.nodes_started} started, {outcome.nodes_killed} killed when "
        f"{outcome.parts_at_kill} of {outcome.parts} parts were committed",
        f"the stopped job reported {stopped.reported} of {stopped.images} images as committed; submitted "
        f"again, it went on from {stopped.resumed_from}",
        f"result: {verdict}",
        f"counts:  {outcome.write(output)}",
        f"logs:    {output}/logs",
        f"metrics: {output}/metrics.json",
        f"report:  {output}/report/index.html",
    ):
        console.print(line, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
