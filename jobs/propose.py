"""Compute selective-search proposals for every image of a manifest.

Reads a manifest (jobs/prepare.py), computes proposals on all cores of the cluster and writes one Parquet
part per shard. Running the same command again does only what is left.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.entry import JobOptions, build_closing_lines, print_lines, run
from pipeline.engine.planning.plan_proposals import plan_proposals
from pipeline.engine.propose.run import run_proposals
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import PlanOptions


@dataclass(frozen=True, kw_only=True)
class Propose(JobOptions):
    """Options of the propose job."""

    manifest: str
    """Manifest: a Parquet file or a folder of them; any fsspec URI."""
    output: str
    """Folder for the proposals; any fsspec URI."""
    proposals: Annotated[ProposalSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ProposalSettings
    )
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)
    planning: Annotated[PlanOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=PlanOptions)


def main(options: Propose) -> None:
    """Run the job, or plan it."""
    if options.planning.plan:
        plan = plan_proposals(
            options.manifest, options.output, options.proposals, options.run, options.planning
        )
        print_lines(*plan.format_lines())
        return
    summary = run_proposals(
        options.manifest, options.output, options.proposals, options=options.run
    )
    shared = ("--manifest", options.manifest, "--proposals", options.output)
    next_command: tuple[str, ...]
    if summary.labelled:
        next_command = ("jobs/analyze.py", "proposals", *shared, "--output", options.output)
    else:
        next_command = (
            "jobs/detect.py",
            *shared,
            "--checkpoint",
            "CHECKPOINT",
            "--output",
            "DETECTIONS",
        )
    print_lines(*build_closing_lines(options, summary, *next_command))


if __name__ == "__main__":
    run(Propose, main, __doc__)
