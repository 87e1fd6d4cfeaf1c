"""What CPU tasks do with the pictures of a piece: read, decode, propose; failures become rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from pipeline import images, schema, storage
from pipeline.engine.work import OF_A_PICTURE, Failure, Picture, Report, time_limit
from pipeline.errors import (
    InvalidConfiguration,
    MismatchedProposals,
    PipelineError,
    StorageError,
    UnreadableImage,
)


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


class Reading:
    """Reads and proposes for the pictures of one piece; tells a picture's fault from its store's or node's.

    As long as the piece has another chance, only what is a picture's own for sure fails it; all else raises.
    On the last chance any error fails its picture, unless no other picture came through in its stead.
    """

    def __init__(self, report: Report, seconds: float, *, last_chance: bool = False) -> None:
        """Prepare it.

        Args:
            report: told of seconds and bytes.
            seconds: how long decoding and proposing may take for a picture.
            last_chance: whether the piece is given up if this raises.
        """
        self.report = report
        self.seconds = seconds
        self.last_chance = last_chance
        self._came_through: set[str] = set()
        self._troubles: dict[str, Exception] = {}

    def proposed(
        self, rows: list[tuple[str, str]], settings: ProposalSettings
    ) -> Iterator[Picture]:
        """Read and propose picture by picture, each within its time limit.

        The limit is not on reading: a store that answers late is no fault of the picture, and has its own.

        Raises:
            StorageError: a store fails, which is no fault of the picture.
        """
        for image_id, uri in rows:
            picture = self._read(image_id, uri)
            with time_limit(self.seconds):
                self._propose(picture, settings)
            yield picture
        self._check()

    def stored(self, rows: list[tuple[str, str]], proposals: pa.Table) -> Iterator[Picture]:
        """Read picture by picture and take the boxes that were proposed before.

        Raises:
            MismatchedProposals: the proposals are for another picture.
            StorageError: a store fails, which is no fault of the picture.
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
            picture = self._read(image_id, uri)
            picture.width, picture.height, picture.boxes = row["width"], row["height"], its_boxes
            yield picture
        self._check()

    def _read(self, image_id: str, uri: str) -> Picture:
        """One picture's bytes; one that is missing or forbidden becomes a failure."""
        picture = Picture(image_id, uri)
        try:
            with self.report.timed("read"):
                picture.data = storage.read(uri)
            self.report.counts["bytes_read"] += len(picture.data)
            self._came_through.add(_store(uri))
        except (storage.MissingObject, storage.AccessDenied) as error:
            picture.failure = Failure.of("read", error)
        except StorageError as error:
            picture.failure = self._unless_first_tries("read", _store(uri), error)
        return picture

    def _propose(self, picture: Picture, settings: ProposalSettings) -> None:
        """Decode a picture and compute its proposals; what goes wrong becomes its failure."""
        from pipeline import proposals  # noqa: PLC0415

        if picture.failure is not None or picture.data is None:
            return
        try:
            with self.report.timed("decode"):
                image = images.decode(picture.data)
        except UnreadableImage as error:
            picture.failure, picture.data = Failure.of("decode", error), None
            return
        picture.height, picture.width = image.shape[:2]
        try:
            with self.report.timed("propose"):
                picture.boxes = proposals.selective_search(
                    image,
                    settings.strategy,
                    seed=proposals.image_seed(settings.seed, picture.image_id),
                    max_boxes=settings.max_boxes,
                    min_side=settings.min_side,
                    max_side=settings.max_side,
                    backend=settings.backend,
                )
            self._came_through.add("propose")
        except (UnreadableImage, *OF_A_PICTURE) as error:
            picture.failure, picture.data = Failure.of("propose", error), None
        except PipelineError:  # of the settings
            raise
        except Exception as error:
            picture.failure = self._unless_first_tries("propose", "propose", error)
            picture.data = None

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
