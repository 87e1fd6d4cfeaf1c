"""Compute selective-search proposals for every image of a manifest.

Reads a manifest (jobs/prepare.py), computes proposals on all cores of the cluster and writes one Parquet
part per shard. A rerun of the same command does only what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs import entry
from pipeline.engine.propose import run as proposal_run
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Propose(entry.JobOptions):
    """Options of the propose job."""

    manifest: str
    """Manifest: a Parquet file or a folder of them; any fsspec URI."""
    output: str
    """Folder for the proposals; any fsspec URI."""
    proposals: Annotated[ProposalSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ProposalSettings
    )
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)


def main(options: Propose) -> None:
    """Run the job."""
    summary = proposal_run.run(
        options.manifest, options.output, options.proposals, options=options.run
    )
    shared = ("--manifest", options.manifest, "--proposals", options.output)
    following: tuple[str, ...]
    if summary.labelled:
        following = ("jobs/analyze.py", "proposals", *shared, "--output", options.output)
    else:
        following = (
            "jobs/detect.py",
            *shared,
            "--checkpoint",
            "CHECKPOINT",
            "--output",
            "DETECTIONS",
        )
    print(entry.told(options, summary, *following))


if __name__ == "__main__":
    entry.run(Propose, main, __doc__)
