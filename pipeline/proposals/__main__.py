"""Propose boxes for one image and draw the best: `python -m pipeline.proposals IMAGE --draw OUT.png`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from pipeline import imaging, storage
from pipeline.errors import InvalidConfiguration, PipelineError
from pipeline.proposals.search import Backend, selective_search


@dataclass(frozen=True)
class Options:
    """Propose boxes for the objects in one image by selective search."""

    image: Annotated[str, tyro.conf.Positional]
    """The image: a path or any fsspec URI."""
    draw: str | None = None
    """Where to put the image with the best boxes drawn in (.png, .jpg; a path or URI)."""
    top: int = 50
    """How many of the best boxes to draw, or to print where nothing is drawn."""
    strategy: str = "fast"
    """single, fast or quality, or one's own: COLOUR_SPACES:SIMILARITIES:KS, as in HSV,Lab:CTSF,TSF:50,100."""
    max_boxes: int | None = None
    """Keep so many boxes at most, the best ones."""
    min_side: float = 20
    """Leave out boxes with a smaller side, in pixels."""
    max_side: int | None = None
    """Work at this size if the image's longer side is larger; boxes are scaled back."""
    seed: int = 0
    """Of the random numbers in the ranking."""
    backend: Backend = "native"
    """Who finds the boxes: the project's own code, or another package to compare with."""


def main(options: Options) -> None:
    """Propose, then draw or print."""
    if options.top < 0:
        raise InvalidConfiguration(f"--top must not be negative, got {options.top}")
    if options.draw is not None and not options.draw.lower().endswith((".png", ".jpg", ".jpeg")):
        raise InvalidConfiguration(f"--draw must end in .png, .jpg or .jpeg, got {options.draw}")
    data = storage.read(storage.absolute(options.image))
    try:
        image = imaging.decode(data)
    except PipelineError as error:
        raise type(error)(f"{storage.shown(options.image)}: {error}") from error
    boxes = selective_search(
        image,
        options.strategy,
        options.seed,
        max_boxes=options.max_boxes,
        min_side=options.min_side,
        max_side=options.max_side,
        backend=options.backend,
    )
    height, width = image.shape[:2]
    print(f"{len(boxes)} boxes in {width}x{height} pixels")
    if options.draw is None:
        for box in boxes[: options.top]:
            print(" ".join(f"{value:g}" for value in box))
        return
    drawn = imaging.draw_boxes(image, boxes[: options.top][::-1])
    encode = imaging.encode_png if options.draw.lower().endswith(".png") else imaging.encode_jpeg
    storage.put(storage.absolute(options.draw), encode(drawn))
    print(f"drew the best {min(options.top, len(boxes))} in {storage.shown(options.draw)}")


def run() -> None:
    """Parse the command line, run, and end with one line and the error's code if that is due."""
    options = tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        main(options)
    except PipelineError as error:
        print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run()
