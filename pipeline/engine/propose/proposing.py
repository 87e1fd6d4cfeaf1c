"""Proposals for the images of a piece: read, decode and search each; what fails becomes its failure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging
from pipeline.engine.propose.faults import PieceFaults
from pipeline.engine.propose.memory import check_memory
from pipeline.engine.propose.reading import PieceReader
from pipeline.engine.watchdog import time_limit
from pipeline.errors import PipelineError, UnreadableImage
from pipeline.imaging import AS_STORED, Decoding
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage, ListedImage
from pipeline.runs.report import Failure, Report
from pipeline.stated_sizes import check_size


def read_and_propose(
    rows: Sequence[ListedImage],
    settings: ProposalSettings,
    report: Report,
    *,
    image_seconds: float,
    is_last_chance: bool = False,
    decoding: Decoding = AS_STORED,
    memory_limit: float = math.inf,
) -> Iterator[EncodedImage]:
    """Read and propose image by image, each within its time limit.

    The limit does not include reading: a store that answers late is not the image's fault, and has a limit
    of its own.

    Args:
        rows: the images.
        settings: how to compute the boxes.
        report: receives seconds and bytes.
        image_seconds: how long decoding and searching an image may take; after it the process ends.
        is_last_chance: whether the piece is not tried again if this raises.
        decoding: how the manifest's images are decoded.
        memory_limit: bytes that an image may take; one that would take more becomes a failure.

    Raises:
        StorageError: a store fails, which is not the image's fault.
        InvalidConfiguration: no image can be searched with these settings.
    """
    faults = PieceFaults(is_last_chance=is_last_chance)
    reader = PieceReader(rows, report, faults)
    for index in range(len(rows)):
        encoded = reader.read(index)
        with time_limit(image_seconds):
            pixels = _decode(encoded, settings, report, decoding, memory_limit)
            if pixels is not None:
                _propose(encoded, pixels, settings, report, faults)
        yield encoded
    faults.check()


def _decode(
    encoded: EncodedImage,
    settings: ProposalSettings,
    report: Report,
    decoding: Decoding,
    memory_limit: float,
) -> NDArray[np.uint8] | None:
    """The image to search, or None with its failure set and its bytes dropped."""
    if encoded.failure is not None or encoded.data is None:
        return None
    try:
        with report.time_stage("decode"):
            image_size = imaging.read_size(encoded.data)
            if math.prod(image_size) <= imaging.MAX_PIXELS:  # decoding rejects a larger one
                check_memory(*image_size, settings.max_side, memory_limit)
            image = imaging.decode_image(encoded.data, decoding)
            encoded.height, encoded.width = image.shape[:2]
            size = (encoded.width, encoded.height)
            check_size(size, encoded.stated_size, turned=decoding.exif == "apply")
    except UnreadableImage as error:
        encoded.failure, encoded.data = Failure.from_error("decode", error), None
        return None
    return image


def _propose(
    encoded: EncodedImage,
    image: NDArray[np.uint8],
    settings: ProposalSettings,
    report: Report,
    faults: PieceFaults,
) -> None:
    """Compute the proposals of a decoded image; an error becomes its failure, and drops its bytes."""
    from pipeline import proposals  # noqa: PLC0415  (the driver needs no kernels)

    try:
        with report.time_stage("propose"):
            encoded.boxes = proposals.selective_search(
                image,
                settings.strategy,
                seed=proposals.derive_image_seed(settings.seed, encoded.image_id),
                max_boxes=settings.max_boxes,
                min_side=settings.min_side,
                max_side=settings.max_side,
                backend=settings.backend,
                ranking=settings.load_ranking(),
            )
        faults.note_success("propose")
    except (UnreadableImage, *IMAGE_ERRORS) as error:
        encoded.failure, encoded.data = Failure.from_error("propose", error), None
    except PipelineError:  # the settings are wrong
        raise
    except Exception as error:
        encoded.failure = faults.fail_or_raise("propose", error)
        encoded.data = None
