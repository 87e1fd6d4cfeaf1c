"""Take proposals that others made, or hand ours to them.

python jobs/exchange.py import --source voc_2007_train.mat --manifest train.parquet --output out/proposals

python jobs/exchange.py export --proposals out/proposals --output proposals.pkl

`import` reads Girshick's selective-search .mat files and detectron2's .pkl (without running what a pickle
may carry) into what jobs/propose.py writes, so that train and detect take it; `export` writes
detectron2's .pkl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.entry import JobOptions, run
from pipeline import storage
from pipeline.engine.propose.exchange import export_proposals, import_proposals
from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True, kw_only=True)
class Import(JobOptions):
    """Bring in boxes from a .mat or .pkl file."""

    source: str
    """Girshick's .mat or detectron2's .pkl; a path or any fsspec URI."""
    manifest: str
    """The images that the boxes are for; its image ids are the file's names."""
    output: str
    """Folder for the proposals; any fsspec URI."""
    max_boxes: int | None = None
    """At most so many boxes per image, the first ones."""
    overwrite: bool = False
    """Remove what an earlier run wrote into the output and start anew."""

    def __post_init__(self) -> None:
        if self.max_boxes is not None and self.max_boxes < 1:
            raise InvalidConfiguration(f"--max-boxes is {self.max_boxes}, expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Export(JobOptions):
    """Write proposals as detectron2's .pkl."""

    proposals: str
    """Output of propose: a folder on any store."""
    output: str
    """The .pkl to write; a path or any fsspec URI."""


Exchange = (
    Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def main(options: Import | Export) -> None:
    """Read one form, write the other, print one line."""
    if isinstance(options, Import):
        done = import_proposals(
            options.source,
            options.manifest,
            options.output,
            max_boxes=options.max_boxes,
            overwrite=options.overwrite,
        )
        left_out = "of the file are not in the manifest"
    else:
        done = export_proposals(options.proposals, options.output)
        left_out = "failed and are left out"
    told = f"{done.images} images, {done.boxes} boxes"
    told += f"; {done.left_out} images {left_out}" if done.left_out else ""
    print(f"{told}: {storage.shown(storage.absolute(options.output))}")


if __name__ == "__main__":
    run(Exchange, main, __doc__)
