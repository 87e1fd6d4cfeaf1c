"""Reading the images of a piece, alone or with the proposals that a run stored for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline import schema
from pipeline.engine.propose.faults import PieceFaults
from pipeline.errors import (
    AccessDenied,
    MismatchedProposals,
    MissingObject,
    StorageError,
    UnreadableDataset,
)
from pipeline.image_reader import ImageReader
from pipeline.runs.encoded_image import EncodedImage, ListedImage
from pipeline.runs.report import Failure, Report


class PieceReader:
    """Reads the images of one piece, in order; one that does not exist becomes a failure."""

    def __init__(self, rows: Sequence[ListedImage], report: Report, faults: PieceFaults) -> None:
        """Read these images; `report` receives seconds and bytes."""
        self._rows = rows
        self._report = report
        self._faults = faults
        self._reader = ImageReader([(image.uri, image.member) for image in rows])

    def read(self, index: int) -> EncodedImage:
        """Read an image's bytes; one that is missing, forbidden or no regular file becomes a failure.

        Raises:
            StorageError: the store fails, which is not the image's fault.
        """
        image = self._rows[index]
        encoded = EncodedImage(
            image.image_id, image.uri, stated_size=image.stated_size, key=image.key
        )
        try:
            with self._report.time_stage("read"):
                data = self._reader.read(index)
                encoded.set_data(data)
            self._report.counts["bytes_read"] += len(data)
            self._faults.note_success("read")
        except (MissingObject, AccessDenied, UnreadableDataset) as error:
            encoded.failure = Failure.from_error("read", error)
        except StorageError as error:
            encoded.failure = self._faults.fail_or_raise("read", error)
        return encoded


def read_with_stored_proposals(
    rows: Sequence[ListedImage],
    proposals: pa.Table,
    report: Report,
    *,
    is_last_chance: bool = False,
) -> Iterator[EncodedImage]:
    """Read image by image and attach the stored boxes; images that failed when proposing stay failed.

    Args:
        rows: the images.
        proposals: rows of `schema.PROPOSALS` for the same images.
        report: receives seconds and bytes.
        is_last_chance: whether the piece is not tried again if this raises.

    Raises:
        MismatchedProposals: the proposals are for another image.
        StorageError: a store fails, which is not the image's fault.
    """
    faults = PieceFaults(is_last_chance=is_last_chance)
    boxes_by_row = schema.split_box_column(proposals["boxes"])
    stored_rows = proposals.drop_columns(["boxes"]).to_pylist()
    reader = PieceReader(rows, report, faults)
    joined = zip(rows, stored_rows, boxes_by_row, strict=True)
    for index, (image, stored, boxes) in enumerate(joined):
        if stored["image_id"] != image.image_id:
            raise MismatchedProposals(
                f"the stored proposals have image {stored['image_id']!r} where {image.image_id!r} is expected"
            )
        width, height = stored["width"], stored["height"]
        if stored["status"] == "failed":
            failure = Failure("propose", stored["error_type"], stored["error_message"])
            yield EncodedImage(
                image.image_id, image.uri, width, height, failure=failure, key=image.key
            )
            continue
        encoded = reader.read(index)
        encoded.width, encoded.height, encoded.boxes = width, height, boxes
        yield encoded
    faults.check()
