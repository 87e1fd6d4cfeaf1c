"""What CPU tasks do with the images of a piece: read, decode, propose; failures become rows."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline import imaging, schema, storage
from pipeline.engine.watchdog import time_limit
from pipeline.errors import (
    MismatchedProposals,
    PipelineError,
    StorageError,
    UnreadableImage,
)
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report


class Reading:
    """Reads and proposes for the images of one piece; tells an image's fault from its store's or node's.

    As long as the piece has another chance, only what is an image's own for sure fails it; all else raises.
    On the last chance any error fails its image, unless no other image came through in its stead.
    """

    def __init__(self, report: Report, seconds: float, *, last_chance: bool = False) -> None:
        """Prepare it.

        Args:
            report: told of seconds and bytes.
            seconds: how long decoding and proposing may take for an image.
            last_chance: whether the piece is given up if this raises.
        """
        self.report = report
        self.seconds = seconds
        self.last_chance = last_chance
        self._came_through: set[str] = set()
        self._troubles: dict[str, Exception] = {}

    def proposed(
        self, rows: list[tuple[str, str]], settings: ProposalSettings
    ) -> Iterator[EncodedImage]:
        """Read and propose image by image, each within its time limit.

        The limit is not on reading: a store that answers late is no fault of the image, and has its own.

        Raises:
            StorageError: a store fails, which is no fault of the image.
        """
        for image_id, uri in rows:
            encoded = self._read(image_id, uri)
            with time_limit(self.seconds):
                self._propose(encoded, settings)
            yield encoded
        self._check()

    def stored(self, rows: list[tuple[str, str]], proposals: pa.Table) -> Iterator[EncodedImage]:
        """Read image by image and take the boxes that were proposed before.

        Raises:
            MismatchedProposals: the proposals are for another image.
            StorageError: a store fails, which is no fault of the image.
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
                yield EncodedImage(image_id, uri, row["width"], row["height"], failure=failure)
                continue
            encoded = self._read(image_id, uri)
            encoded.width, encoded.height, encoded.boxes = row["width"], row["height"], its_boxes
            yield encoded
        self._check()

    def _read(self, image_id: str, uri: str) -> EncodedImage:
        """One image's bytes; one that is missing or forbidden becomes a failure."""
        encoded = EncodedImage(image_id, uri)
        try:
            with self.report.timed("read"):
                encoded.data = storage.read(uri)
            self.report.counts["bytes_read"] += len(encoded.data)
            self._came_through.add(_store(uri))
        except (storage.MissingObject, storage.AccessDenied) as error:
            encoded.failure = Failure.of("read", error)
        except StorageError as error:
            encoded.failure = self._unless_first_tries("read", _store(uri), error)
        return encoded

    def _propose(self, encoded: EncodedImage, settings: ProposalSettings) -> None:
        """Decode an image and compute its proposals; what goes wrong becomes its failure."""
        from pipeline import proposals  # noqa: PLC0415

        if encoded.failure is not None or encoded.data is None:
            return
        try:
            with self.report.timed("decode"):
                image = imaging.decode(encoded.data)
        except UnreadableImage as error:
            encoded.failure, encoded.data = Failure.of("decode", error), None
            return
        encoded.height, encoded.width = image.shape[:2]
        try:
            with self.report.timed("propose"):
                encoded.boxes = proposals.selective_search(
                    image,
                    settings.strategy,
                    seed=proposals.image_seed(settings.seed, encoded.image_id),
                    max_boxes=settings.max_boxes,
                    min_side=settings.min_side,
                    max_side=settings.max_side,
                    backend=settings.backend,
                )
            self._came_through.add("propose")
        except (UnreadableImage, *IMAGE_ERRORS) as error:
            encoded.failure, encoded.data = Failure.of("propose", error), None
        except PipelineError:  # of the settings
            raise
        except Exception as error:
            encoded.failure = self._unless_first_tries("propose", "propose", error)
            encoded.data = None

    def _unless_first_tries(self, stage: str, place: str, error: Exception) -> Failure:
        if not self.last_chance:
            raise error
        self._troubles.setdefault(place, error)
        return Failure.of(stage, error)

    def _check(self) -> None:
        for place, error in self._troubles.items():
            if place not in self._came_through:
                raise error


def _store(uri: str) -> str:
    """What fails as one: a bucket, the local disk, the web as a whole."""
    kind = storage.protocol(uri)
    if kind in ("file", "http", "https", "ftp", "sftp"):
        return kind.removesuffix("s")
    return "/".join(uri.split("/")[:3])
