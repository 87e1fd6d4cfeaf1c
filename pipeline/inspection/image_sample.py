"""Tries to decode some images of a dataset, so that one whose images are all broken is rejected at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline import imaging
from pipeline.errors import PipelineError, StorageError, UnreadableDataset
from pipeline.image_members import Member
from pipeline.image_reader import read_image
from pipeline.imaging import Decoding
from pipeline.inspection.signature import DECODED_SIDE

SAMPLED_IMAGES = 16
"""Images that are decoded before anything is written."""
_THREADS = 8


@dataclass(frozen=True)
class SampledImage:
    """An image to try."""

    image_id: str
    uri: str
    member: Member | None


class ImageSample:
    """A seeded sample of images that come one by one, each as likely as any other (reservoir sampling)."""

    def __init__(self) -> None:
        self.images: list[SampledImage] = []
        """Up to `SAMPLED_IMAGES` of those that came so far."""
        self._count = 0
        self._random = random.Random(0)

    def add(self, image_id: str, uri: str, member: Member | None) -> None:
        """Take the next image into the sample, or not."""
        self._count += 1
        if len(self.images) < SAMPLED_IMAGES:
            self.images.append(SampledImage(image_id, uri, member))
            return
        place = self._random.randrange(self._count)
        if place < SAMPLED_IMAGES:
            self.images[place] = SampledImage(image_id, uri, member)


def check_some_decode(
    images: Sequence[SampledImage], decoding: Decoding, dataset: str, *, own_disk: bool
) -> None:
    """Decode some images.

    Args:
        images: a sample of the dataset.
        decoding: how its images are decoded.
        dataset: what the message calls it.
        own_disk: the images are read on this machine, so one that is missing here is missing.

    Raises:
        UnreadableDataset: none of them can be decoded; the message names the first.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        errors = list(threads.map(lambda image: _find_error(image, decoding), images))
    if all(
        error is not None and (own_disk or not isinstance(error, StorageError)) for error in errors
    ):
        raise UnreadableDataset(
            f"{dataset}: none of the {len(errors)} images tried can be read; the first: {errors[0]}"
        )


def _find_error(image: SampledImage, decoding: Decoding) -> PipelineError | None:
    try:
        data = read_image(image.uri, image.member)
        imaging.decode_image(data, decoding, enough=DECODED_SIDE)
    except StorageError as error:
        return error
    except PipelineError as error:
        return type(error)(f"image {image.image_id!r:.200}: {error}")
    return None
