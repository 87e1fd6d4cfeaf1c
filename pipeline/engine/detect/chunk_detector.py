"""Detection in a chunk of encoded images: decodes ahead, detects in groups, fails only the image at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging
from pipeline.engine.lost_device import end_if_device_is_lost
from pipeline.engine.watchdog import end_after, time_limit
from pipeline.errors import UnreadableImage
from pipeline.imaging import AS_STORED, Decoding
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report
from pipeline.stated_sizes import check_proposed_size, check_size

if TYPE_CHECKING:
    from pipeline.detector.predictor import ImageDetections

    DetectFunction = Callable[
        [Sequence[NDArray[np.uint8]], Sequence[NDArray[np.float32]]], Sequence[ImageDetections]
    ]
    """A network at work: images `(H, W, 3)` and their proposals `(R, 4)` to each image's detections."""

GROUP_ON_CORES, GROUP_ON_GPU = 16, 128
"""Images decoded together: the next group is decoded while the network detects in this one. A GPU has nothing
to do between two groups, and a small one has few images of one size, which a GPU detects in together."""
MAX_GROUP_BYTES = 256_000_000
"""Decoded pixels of a group; a larger image forms a group of its own."""

DecodedImage = NDArray[np.uint8]


class ChunkDetector:
    """Detects in the images of a chunk, each under a time limit."""

    def __init__(
        self,
        detect: DetectFunction,
        *,
        one_by_one: bool,
        image_seconds: float,
        threads: int,
        decoding: Decoding = AS_STORED,
    ) -> None:
        """Prepare a detector.

        Args:
            detect: the network.
            one_by_one: detect in one image at a time, each with its own time limit, as CPUs gain nothing
                from groups.
            image_seconds: the time limit of an image, or of a group; after it the process ends.
            threads: threads that decode.
            decoding: how the manifest's images are decoded.
        """
        self._detect = detect
        self._one_by_one = one_by_one
        self._group_images = GROUP_ON_CORES if one_by_one else GROUP_ON_GPU
        self._image_seconds = image_seconds
        self._threads = ThreadPoolExecutor(max(1, threads))
        self._decode = partial(_decode, decoding=decoding)

    def detect(
        self, encoded_images: Sequence[EncodedImage], report: Report
    ) -> list[ImageDetections | None]:
        """Detect in a chunk; returns None for an image that failed, and sets its `failure`.

        Times go to `report`. Any error that is not an image's own raises.
        """
        detections: list[ImageDetections | None] = []
        # One limit over all of it that each step puts off: a decoder that holds the interpreter's lock may
        # stop this thread at any moment.
        with time_limit(self._image_seconds):
            groups = split_into_groups(encoded_images, self._group_images)
            for group, images in self._decode_ahead(groups, report):
                end_after(self._image_seconds)
                with report.time_stage("detect"):
                    detections.extend(self._detect_group(group, images))
                end_after(self._image_seconds)
        return detections

    def _decode_ahead(
        self, groups: Iterable[list[EncodedImage]], report: Report
    ) -> Iterator[tuple[list[EncodedImage], list[DecodedImage | None]]]:
        """Decode one group ahead, so that the device does not wait for it."""
        pending = None
        for group in groups:
            following = (group, [self._threads.submit(self._decode, encoded) for encoded in group])
            if pending is not None:
                yield pending[0], self._await_images(pending[1], report)
            pending = following
        if pending is not None:
            yield pending[0], self._await_images(pending[1], report)

    def _await_images(
        self, futures: Sequence[Future[tuple[DecodedImage | None, float]]], report: Report
    ) -> list[DecodedImage | None]:
        end_after(self._image_seconds)
        with report.time_stage("wait"):
            decoded = [future.result() for future in futures]
        report.add_seconds("decode", sum(seconds for _, seconds in decoded))
        return [image for image, _ in decoded]

    def _detect_group(
        self, group: Sequence[EncodedImage], images: Sequence[DecodedImage | None]
    ) -> list[ImageDetections | None]:
        """Detect in a group; if that fails, image by image, so that only the culprit fails."""
        usable = {index: image for index, image in enumerate(images) if image is not None}
        detections: list[ImageDetections | None] = [None] * len(group)
        if usable and not self._one_by_one and len(usable) > 1:
            boxes = [group[index].boxes for index in usable]
            try:
                group_detections = self._detect(list(usable.values()), boxes)  # type: ignore[arg-type]
            except (RuntimeError, *IMAGE_ERRORS) as error:
                end_if_device_is_lost(error)
            else:
                for index, image_detections in zip(usable, group_detections, strict=True):
                    detections[index] = image_detections
                return detections
        for index, image in usable.items():
            detections[index] = self._detect_alone(group[index], image)
        return detections

    def _detect_alone(self, encoded: EncodedImage, image: DecodedImage) -> ImageDetections | None:
        end_after(self._image_seconds)
        try:
            (detections,) = self._detect([image], [encoded.boxes])  # type: ignore[list-item]
        except (RuntimeError, *IMAGE_ERRORS) as error:
            end_if_device_is_lost(error)
            encoded.failure = Failure.from_error("detect", error)
            return None
        return detections


def split_into_groups(
    encoded_images: Iterable[EncodedImage], max_images: int
) -> Iterator[list[EncodedImage]]:
    """Split images, in order, into groups of at most `max_images` and `MAX_GROUP_BYTES` decoded bytes.

    An image of unknown size counts as empty.
    """
    group: list[EncodedImage] = []
    group_bytes = 0
    for encoded in encoded_images:
        decoded_bytes = 3 * (encoded.width or 0) * (encoded.height or 0)
        if group and (len(group) == max_images or group_bytes + decoded_bytes > MAX_GROUP_BYTES):
            yield group
            group, group_bytes = [], 0
        group.append(encoded)
        group_bytes += decoded_bytes
    if group:
        yield group


def _decode(encoded: EncodedImage, decoding: Decoding) -> tuple[DecodedImage | None, float]:
    """The decoded image, or None with `encoded.failure` set, and the seconds that it took."""
    start = perf_counter()
    image: DecodedImage | None = None
    if encoded.failure is None and encoded.data is not None:
        try:
            image = imaging.decode_image(encoded.data, decoding)
            _check_sizes(encoded, image, decoding)
        except UnreadableImage as error:
            encoded.failure, image = Failure.from_error("decode", error), None
    return image, perf_counter() - start


def _check_sizes(encoded: EncodedImage, image: DecodedImage, decoding: Decoding) -> None:
    """Compare the decoded size with the annotation's and with that of the image proposed for.

    Raises:
        SizeMismatch: the boxes are for an image of another size.
    """
    proposed = None
    if encoded.width is not None and encoded.height is not None:
        proposed = (encoded.width, encoded.height)
    encoded.height, encoded.width = image.shape[:2]
    size = (encoded.width, encoded.height)
    check_size(size, encoded.stated_size, turned=decoding.exif == "apply")
    check_proposed_size(size, proposed)
