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

from pipeline import imaging, storage, uris
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import ImageDetections, Predictor
from pipeline.detector.pyramid import Pyramid
from pipeline.errors import InvalidConfiguration, PipelineError, UnreadableImage
from pipeline.imaging import Decoding, Exif, Truncated
from pipeline.printable import describe_in_one_line, escape_unprintable
from pipeline.proposals import selective_search

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class DetectOptions:
    """Detect objects in one image: selective search, then Fast R-CNN."""

    image: Annotated[str, tyro.conf.Positional]
    """The image: a path or any fsspec URI."""
    checkpoint: str
    """Folder of a trained network: a path or any fsspec URI."""
    draw: str | None = None
    """Write the image with its detections to this path or URI (.png or .jpg)."""
    shown_from: float = 0.3
    """Lowest score of the detections to print and draw."""
    strategy: str = "fast"
    """Strategy of selective search: single, fast, quality, lean, balanced or wide."""
    ranking: str | None = None
    """Order of the proposals: authors, learned, or the URI of a model of jobs/rank.py (.json).
    None: learned for lean, balanced and wide, authors for the others."""
    max_boxes: int = 2000
    """Maximum number of proposals."""
    seed: int = 0
    """Seed of the authors' ranking of the proposals."""
    exif: Exif = "ignore"
    """ignore: use the image as stored. apply: turn it by its EXIF orientation, as viewers show it."""
    truncated: Truncated = "reject"
    """Whether a JPEG that ends early is an error, or grey where its pixels are missing: reject or accept."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the network; auto uses bf16 if the device supports it."""
    pyramid: Annotated[Pyramid, tyro.conf.arg(name="")] = field(default_factory=Pyramid)
    """Scales at which the network sees the image."""
    cascade: Annotated[CascadeSettings, tyro.conf.arg(name="")] = field(
        default_factory=CascadeSettings
    )
    """When to stop scoring proposals."""
    postprocessing: Annotated[PostprocessingSettings, tyro.conf.arg(name="")] = field(
        default_factory=PostprocessingSettings
    )
    """How scored boxes become detections."""


def main(options: DetectOptions) -> None:
    """Propose, detect, print and draw.

    Raises:
        PipelineError: an option, the checkpoint or the image cannot be used.
    """
    if options.draw is not None and not options.draw.lower().endswith((".png", ".jpg", ".jpeg")):
        raise InvalidConfiguration(
            f"--draw is {options.draw}, expected a name that ends in .png, .jpg or .jpeg"
        )
    read_checkpoint_record(uris.make_absolute(options.checkpoint))  # before the slow parts
    try:
        encoded = storage.read(uris.make_absolute(options.image))
        image = imaging.decode_image(encoded, Decoding(options.exif, options.truncated))
    except UnreadableImage as error:
        raise UnreadableImage(f"{uris.redact_uri(options.image)}: {error}") from error
    predictor = Predictor(
        uris.make_absolute(options.checkpoint),
        device=options.device,
        precision=options.precision,
        postprocessing=options.postprocessing,
        pyramid=options.pyramid,
        cascade=options.cascade,
    )
    proposals = selective_search(
        image,
        options.strategy,
        options.seed,
        max_boxes=options.max_boxes,
        ranking=options.ranking,
    )
    (detections,) = predictor([image], [proposals])
    shown = detections.filter_by_score(options.shown_from)
    Console().print(_build_table(shown, predictor.classes))
    count, total = len(shown.boxes), len(detections.boxes)
    print(f"{count} of {total} detections, from {len(proposals)} proposals")
    if options.draw is not None:
        _draw(image, shown, predictor.classes, options.draw)
        print(f"wrote the drawing to {uris.redact_uri(options.draw)}")


def _build_table(detections: ImageDetections, classes: Sequence[str]) -> Table:
    table = Table("class", *(Column(name, justify="right") for name in ("score", *_CORNERS)))
    for box, score, label in zip(*detections[:3], strict=True):
        table.add_row(
            Text(escape_unprintable(classes[label])),
            f"{score:.3f}",
            *(f"{value:.1f}" for value in box),
        )
    return table


def _draw(
    image: NDArray[np.uint8], detections: ImageDetections, classes: Sequence[str], target: str
) -> None:
    """Put the image with its detections drawn, the best on top."""
    captions = [
        f"{classes[label]} {score:.2f}"
        for score, label in zip(detections.scores, detections.labels, strict=True)
    ]
    drawn = imaging.draw_boxes(
        image,
        detections.boxes[::-1],
        captions[::-1],
        [int(label) for label in detections.labels[::-1]],
    )
    encode = imaging.encode_png if target.lower().endswith(".png") else imaging.encode_jpeg
    storage.put(uris.make_absolute(target), encode(drawn))


def run_command_line() -> None:
    """Parse the command line and run; print an error as one line and exit with its code."""
    try:
        main(tyro.cli(DetectOptions, config=(tyro.conf.FlagCreatePairsOff,)))
    except PipelineError as error:
        print(describe_in_one_line(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_command_line()
