"""Detect in one image: `python -m pipeline.detector IMAGE --checkpoint URI --draw OUT.png`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline import imaging, storage
from pipeline.detector.checkpoint_record import peek
from pipeline.detector.keep import Keep
from pipeline.detector.predictor import Detections, Predictor
from pipeline.detector.pyramid import Pyramid
from pipeline.errors import InvalidConfiguration, PipelineError, UnreadableImage
from pipeline.proposals import selective_search


@dataclass(frozen=True)
class Options:
    """Detect objects in one image: selective search, then Fast R-CNN."""

    image: Annotated[str, tyro.conf.Positional]
    """The image: a path or any fsspec URI."""
    checkpoint: str
    """The folder of a trained model, or its URI."""
    draw: str | None = None
    """Where to put the image with the detections drawn in (.png, .jpg; a path or URI)."""
    shown_from: float = 0.3
    """Print and draw only detections of this score or a better one."""
    strategy: str = "fast"
    """Of selective search: single, fast or quality."""
    max_boxes: int = 2000
    """Proposals at most."""
    seed: int = 0
    """Of the random numbers in the proposals' ranking."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto takes bf16 where the processor computes in it."""
    pyramid: Annotated[Pyramid, tyro.conf.arg(name="")] = field(default_factory=Pyramid)
    """At which scales the image is looked at."""
    keep: Annotated[Keep, tyro.conf.arg(name="")] = field(default_factory=Keep)
    """Which scored boxes are kept."""


def main(options: Options) -> None:
    """Propose, detect, print, draw."""
    if options.draw is not None and not options.draw.lower().endswith((".png", ".jpg", ".jpeg")):
        raise InvalidConfiguration(f"--draw must end in .png, .jpg or .jpeg, got {options.draw}")
    peek(storage.absolute(options.checkpoint))  # before the slow parts
    try:
        image = imaging.decode(storage.read(storage.absolute(options.image)))
    except UnreadableImage as error:
        raise UnreadableImage(f"{storage.shown(options.image)}: {error}") from error
    predictor = Predictor(
        storage.absolute(options.checkpoint),
        device=options.device,
        precision=options.precision,
        keep=options.keep,
        pyramid=options.pyramid,
    )
    proposals = selective_search(image, options.strategy, options.seed, max_boxes=options.max_boxes)
    (found,) = predictor([image], [proposals])
    good = found.of_score(options.shown_from)
    Console().print(_table(good, predictor.classes))
    print(f"{len(good.boxes)} of {len(found.boxes)} detections, from {len(proposals)} proposals")
    if options.draw is not None:
        _draw(image, good, predictor.classes, options.draw)
        print(f"drew them in {storage.shown(options.draw)}")


def _table(found: Detections, classes: Sequence[str]) -> Table:
    table = Table("class", *(Column(name, justify="right") for name in ("score", *_CORNERS)))
    for box, score, label in zip(*found, strict=True):
        table.add_row(Text(classes[label]), f"{score:.3f}", *(f"{value:.1f}" for value in box))
    return table


_CORNERS = ("x1", "y1", "x2", "y2")


def _draw(image: NDArray[np.uint8], found: Detections, classes: Sequence[str], place: str) -> None:
    """Put the image with the detections, the best on top."""
    captions = [
        f"{classes[label]} {score:.2f}"
        for score, label in zip(found.scores, found.labels, strict=True)
    ]
    drawn = imaging.draw_boxes(
        image, found.boxes[::-1], captions[::-1], [int(label) for label in found.labels[::-1]]
    )
    encode = imaging.encode_png if place.lower().endswith(".png") else imaging.encode_jpeg
    storage.put(storage.absolute(place), encode(drawn))


def run() -> None:
    """Parse the command line, run, and end with one line and the error's code if that is due."""
    try:
        main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
    except PipelineError as error:
        print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run()
