"""What CPU tasks do with the pictures of a piece: read, decode, propose; failures become rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from pipeline import images, schema, storage
from pipeline.engine.work import OF_A_PICTURE, Failure, Picture, Report, time_limit
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableImage


@dataclass(frozen=True)
class ProposalSettings:
    """How proposals are made; equal settings give equal boxes on any worker."""

    strategy: str = "fast"
    """single, fast or quality (1, 8, 80 hierarchies), or one's own: COLOUR_SPACES:SIMILARITIES:KS, as in
    HSV,Lab:CTSF,TSF:50,100, with :sigma=0.8 and :min_size=20 behind it if need be."""
    max_boxes: int | None = 2000
    """At most so many boxes per picture, best first; None keeps all."""
    min_side: int = 20
    """Drop boxes with a side under so many pixels; 1 keeps all."""
    max_side: int | None = None
    """Shrink a picture to this longer side, in pixels, before the search; its boxes are scaled back."""
    seed: int = 0
    """Seed of the ranking; each picture's own seed comes from it and its image_id."""
    backend: Literal["native", "opencv", "selectivesearch"] = "native"
    """Whose selective search; the others are there to compare with."""

    def __post_init__(self) -> None:
        for name in ("max_boxes", "min_side", "max_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise InvalidConfiguration(f"--{option} is {value}, expected at least 1")

    def recorded(self) -> dict[str, Any]:
        """The settings as run.json and the parts' metadata hold them."""
        from pipeline import proposals  # noqa: PLC0415  (numba takes a second: only who needs it)

        return proposals.provenance(**asdict(self))


def read_picture(image_id: str, uri: str, report: Report) -> Picture:
    """Read one picture's bytes; one that is missing or forbidden becomes a failure.

    Raises:
        StorageError: the store itself fails, which is no fault of the picture.
    """
    picture = Picture(image_id, uri)
    try:
        with report.timed("read"):
            picture.data = storage.read(uri)
        report.counts["bytes_read"] += len(picture.data)
    except (storage.MissingObject, storage.AccessDenied) as error:
        picture.failure = Failure.of("read", error)
    return picture


def propose_for(picture: Picture, settings: ProposalSettings, report: Report) -> None:
    """Decode a picture and compute its proposals; what goes wrong becomes its failure."""
    from pipeline import proposals  # noqa: PLC0415

    if picture.failure is not None or picture.data is None:
        return
    try:
        with report.timed("decode"):
            image = images.decode(picture.data)
    except UnreadableImage as error:
        picture.failure, picture.data = Failure.of("decode", error), None
        return
    picture.height, picture.width = image.shape[:2]
    try:
        with report.timed("propose"):
            picture.boxes = proposals.selective_search(
                image,
                settings.strategy,
                seed=proposals.image_seed(settings.seed, picture.image_id),
                max_boxes=settings.max_boxes,
                min_side=settings.min_side,
                max_side=settings.max_side,
                backend=settings.backend,
            )
    except (UnreadableImage, *OF_A_PICTURE) as error:
        picture.failure, picture.data = Failure.of("propose", error), None


def proposed_pictures(
    rows: list[tuple[str, str]], settings: ProposalSettings, seconds: float, report: Report
) -> Iterator[Picture]:
    """Read and propose picture by picture, each within its time limit.

    The limit is not on reading: a store that answers late is no fault of the picture, and has its own.
    """
    for image_id, uri in rows:
        picture = read_picture(image_id, uri, report)
        with time_limit(seconds):
            propose_for(picture, settings, report)
        yield picture


def stored_pictures(
    rows: list[tuple[str, str]], proposals: pa.Table, report: Report
) -> Iterator[Picture]:
    """Read picture by picture and take the boxes that were proposed before.

    Raises:
        MismatchedProposals: the proposals are for another picture.
    """
    boxes = schema.box_arrays(proposals["boxes"])
    stored = proposals.drop_columns(["boxes"]).to_pylist()
    for (image_id, uri), row, its_boxes in zip(rows, stored, boxes, strict=True):
        if row["image_id"] != image_id:
            raise MismatchedProposals(
                f"proposals for {row['image_id']!r} stand where {image_id!r} is expected"
            )
        if row["status"] == "failed":
            failure = Failure("propose", row["error_type"], row["error_message"])
            yield Picture(image_id, uri, row["width"], row["height"], failure=failure)
            continue
        picture = read_picture(image_id, uri, report)
        picture.width, picture.height, picture.boxes = row["width"], row["height"], its_boxes
        yield picture
