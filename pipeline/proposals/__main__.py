"""Propose boxes for one image and draw the best: `python -m pipeline.proposals IMAGE --draw OUT.png`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from pipeline import imaging, storage, uris
from pipeline.errors import InvalidConfiguration, PipelineError
from pipeline.imaging import Decoding, Exif, Truncated
from pipeline.printable import describe_in_one_line
from pipeline.proposals.backends import Backend
from pipeline.proposals.search import selective_search


@dataclass(frozen=True)
class ProposeOptions:
    """Propose boxes for the objects in one image by selective search."""

    image: Annotated[str, tyro.conf.Positional]
    """The image: a path or any fsspec URI."""
    draw: str | None = None
    """Where to write the image with the best boxes drawn on it (.png, .jpg; a path or URI)."""
    top: int = 50
    """How many of the best boxes to draw, or to print without --draw."""
    strategy: str = "fast"
    """single, fast, quality, lean, balanced, wide, or a custom COLOUR_SPACES:SIMILARITIES:KS such as
    HSV,Lab:CTSF,TSF:50,100."""
    ranking: str | None = None
    """Order of the boxes: authors, learned, or the URI of a model of jobs/rank.py (.json).
    None: learned for lean, balanced and wide, authors for the others."""
    max_boxes: int | None = None
    """Maximum number of boxes; the best ones are kept."""
    min_side: float = 20
    """Drop boxes with a smaller side, in pixels."""
    max_side: int | None = None
    """Shrink an image to this longer side, in pixels, before the search; its boxes are scaled back."""
    seed: int = 0
    """Seed of the random numbers in the authors' ranking."""
    exif: Exif = "ignore"
    """ignore: use the image as stored. apply: turn it by its EXIF orientation, as viewers show it."""
    truncated: Truncated = "reject"
    """Whether a JPEG that ends early is an error, or grey where its pixels are missing: reject or accept."""
    backend: Backend = "native"
    """Who finds the boxes: the project's own code, or another package to compare with."""


def main(options: ProposeOptions) -> None:
    """Propose boxes, then draw or print them."""
    if options.top < 0:
        raise InvalidConfiguration(f"--top must not be negative, got {options.top}")
    if options.draw is not None and not options.draw.lower().endswith((".png", ".jpg", ".jpeg")):
        raise InvalidConfiguration(f"--draw must end in .png, .jpg or .jpeg, got {options.draw}")
    encoded = storage.read(uris.make_absolute(options.image))
    try:
        image = imaging.decode_image(encoded, Decoding(options.exif, options.truncated))
    except PipelineError as error:
        raise type(error)(f"{uris.redact_uri(options.image)}: {error}") from error
    boxes = selective_search(
        image,
        options.strategy,
        options.seed,
        max_boxes=options.max_boxes,
        min_side=options.min_side,
        max_side=options.max_side,
        backend=options.backend,
        ranking=options.ranking,
    )
    height, width = image.shape[:2]
    print(f"{len(boxes)} boxes in {width}x{height} pixels")
    if options.draw is None:
        for box in boxes[: options.top]:
            print(" ".join(f"{value:g}" for value in box))
        return
    # The best box is drawn last, on top.
    drawn = imaging.draw_boxes(image, boxes[: options.top][::-1])
    encode = imaging.encode_png if options.draw.lower().endswith(".png") else imaging.encode_jpeg
    storage.put(uris.make_absolute(options.draw), encode(drawn))
    print(f"drew the best {min(options.top, len(boxes))} in {uris.redact_uri(options.draw)}")


def run_command_line() -> None:
    """Parse the command line and run; a `PipelineError` becomes one line and its exit code."""
    options = tyro.cli(ProposeOptions, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        main(options)
    except PipelineError as error:
        print(describe_in_one_line(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run_command_line()
