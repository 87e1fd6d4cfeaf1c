"""Decoding of images whose boxes are known: the pixels, or the failure of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging
from pipeline.errors import UnreadableImage
from pipeline.imaging import Decoding
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Failure
from pipeline.stated_sizes import check_proposed_size, check_size


def decode_for_boxes(encoded: EncodedImage, decoding: Decoding) -> NDArray[np.uint8] | None:
    """The image, of the size that its annotation and its proposals are for; else None and its failure."""
    if encoded.failure is not None or encoded.data is None:
        return None
    proposed = None
    if encoded.width is not None and encoded.height is not None:
        proposed = (encoded.width, encoded.height)
    try:
        image = imaging.decode_image(encoded.data, decoding)
        encoded.height, encoded.width = image.shape[:2]
        size = (encoded.width, encoded.height)
        check_size(size, encoded.stated_size, turned=decoding.exif == "apply")
        check_proposed_size(size, proposed)
    except UnreadableImage as error:
        encoded.failure = Failure.from_error("decode", error)
        return None
    return image
