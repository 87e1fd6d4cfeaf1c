"""Proposals for the images of a piece: read, decode and search each; what fails becomes its failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline import imaging
from pipeline.engine.propose.faults import PieceFaults
from pipeline.engine.propose.reading import read_image
from pipeline.engine.watchdog import time_limit
from pipeline.errors import PipelineError, UnreadableImage
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report


def read_and_propose(
    rows: Sequence[tuple[str, str]],
    settings: ProposalSettings,
    report: Report,
    *,
    image_seconds: float,
    is_last_chance: bool = False,
) -> Iterator[EncodedImage]:
    """Read and propose image by image, each within its time limit.

    The limit does not include reading: a store that answers late is not the image's fault, and has a limit
    of its own.

    Args:
        rows: image_id and URI of each image.
        settings: how to compute the boxes.
        report: receives seconds and bytes.
        image_seconds: how long decoding and searching an image may take; after it the process ends.
        is_last_chance: whether the piece is not tried again if this raises.

    Raises:
        StorageError: a store fails, which is not the image's fault.
        InvalidConfiguration: no image can be searched with these settings.
    """
    faults = PieceFaults(is_last_chance=is_last_chance)
    for image_id, uri in rows:
        encoded = read_image(image_id, uri, report, faults)
        with time_limit(image_seconds):
            _propose(encoded, settings, report, faults)
        yield encoded
    faults.check()


def _propose(
    encoded: EncodedImage, settings: ProposalSettings, report: Report, faults: PieceFaults
) -> None:
    """Decode an image and compute its proposals; an error becomes its failure, and drops its bytes."""
    from pipeline import proposals  # noqa: PLC0415  (the driver needs no kernels)

    if encoded.failure is not None or encoded.data is None:
        return
    try:
        with report.time_stage("decode"):
            image = imaging.decode_image(encoded.data)
    except UnreadableImage as error:
        encoded.failure, encoded.data = Failure.from_error("decode", error), None
        return
    encoded.height, encoded.width = image.shape[:2]
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
            )
        faults.note_success("propose")
    except (UnreadableImage, *IMAGE_ERRORS) as error:
        encoded.failure, encoded.data = Failure.from_error("propose", error), None
    except PipelineError:  # the settings are wrong
        raise
    except Exception as error:
        encoded.failure = faults.fail_or_raise("propose", "propose", error)
        encoded.data = None
