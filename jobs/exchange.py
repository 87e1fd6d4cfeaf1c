"""Import proposals of other tools, or export proposals to them.

python jobs/exchange.py import --source voc_2007_train.mat --manifest train.parquet --output out/proposals

python jobs/exchange.py export --proposals out/proposals --format detectron2 --output proposals.pkl

`import` reads Girshick's selective-search .mat files and detectron2's .pkl files (without running code that
a pickle may contain) and writes the same output as jobs/propose.py, for train and detect; `export` writes
what the loaders of detectron2, DETReg, SoCo, wetectron or Fast R-CNN (girshick) read.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.entry import JobOptions, print_lines, run
from pipeline import uris
from pipeline.engine.propose.exchange import export_proposals, import_proposals
from pipeline.engine.propose.imported_boxes import BoxLimits
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields
from pipeline.proposals.peer_formats import PeerFormat


@dataclass(frozen=True, kw_only=True)
class Import(JobOptions):
    """Import boxes from a .mat or .pkl file."""

    source: str
    """Girshick's .mat or detectron2's .pkl; a local path or any fsspec URI."""
    manifest: str
    """Manifest of the images; its image ids are the names in the file."""
    output: str
    """Folder for the proposals; any fsspec URI."""
    max_boxes: int | None = None
    """Maximum number of boxes per image, the first ones; None keeps all."""
    overwrite: bool = False
    """Remove what an earlier run wrote into the output and start from nothing."""
    max_invalid: float = 0.05
    """Share of the boxes that may have no area, no finite corners or no score, or be outside their image.
    These are dropped, or clipped to the image, and counted; above the share, the job fails."""
    skip_invalid: bool = False
    """Drop any number of invalid boxes."""
    strict: bool = False
    """Fail at the first box that would be dropped or clipped."""

    def __post_init__(self) -> None:
        check_fields(self, "max_boxes", at_least=1)
        check_fields(self, "max_invalid", at_least=0, at_most=1)
        if self.strict and self.skip_invalid:
            raise InvalidConfiguration(
                "--strict fails at what --skip-invalid leaves out: pass one of them"
            )

    @property
    def limits(self) -> BoxLimits:
        """How many boxes may be invalid."""
        return BoxLimits(1.0 if self.skip_invalid else self.max_invalid, self.strict)


@dataclass(frozen=True, kw_only=True)
class Export(JobOptions):
    """Write proposals for another project's loader."""

    proposals: str
    """Output folder of jobs/propose.py; any fsspec URI."""
    output: str
    """What to write: a .pkl (detectron2, wetectron), .json (soco), .mat (girshick) or an empty folder
    (detreg); a local path or any fsspec URI."""
    format: PeerFormat = "detectron2"
    """The project whose loader reads it."""
    manifest: str | None = None
    """Manifest of the images, whose file names detreg and soco look up; without it, the image ids are taken
    for them. The other formats look up image ids."""
    max_boxes: int | None = None
    """Maximum number of boxes per image, best first; None writes all."""

    def __post_init__(self) -> None:
        check_fields(self, "max_boxes", at_least=1)


Exchange = (
    Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def main(options: Import | Export) -> None:
    """Convert the proposals and print one line."""
    if isinstance(options, Import):
        counts = import_proposals(
            options.source,
            options.manifest,
            options.output,
            max_boxes=options.max_boxes,
            overwrite=options.overwrite,
            limits=options.limits,
        )
        reason = "of the file are not in the manifest"
    else:
        counts = export_proposals(
            options.proposals,
            options.output,
            options.format,
            manifest_uri=options.manifest,
            max_boxes=options.max_boxes,
        )
        reason = "failed and are left out"
    line = f"{counts.images} images, {counts.boxes} boxes"
    line += f"; {counts.left_out} images {reason}" if counts.left_out else ""
    line += f"; left out or repaired: {counts.repairs}" if counts.repairs else ""
    print_lines(f"{line}: {uris.redact_uri(uris.make_absolute(options.output))}")


if __name__ == "__main__":
    run(Exchange, main, __doc__)
