"""COCO's integer ids of images: a decimal image_id is that number, and the others are numbered.

The same manifest gives the same numbers, so that results and annotations of separate exports agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.shards import Shard

_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)
_NONE = -1


def number_images(batches: Iterable[list[str]]) -> NDArray[np.int64]:
    """The number of each image, `(R,)`, all different; takes 10 bytes of memory per image.

    A decimal id of up to 18 digits is its number. If several ids are the same number, such as `1` and `01`,
    the one without leading zeros has it, else the first. All other images are numbered in order, from the
    largest of these numbers + 1.

    Args:
        batches: the image ids in the order of the manifest.
    """
    pieces: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    plain: list[NDArray[np.bool_]] = [np.empty(0, np.bool_)]
    for image_ids in batches:
        values = [int(text) if _DECIMAL.fullmatch(text) else _NONE for text in image_ids]
        pieces.append(np.array(values, np.int64))
        is_plain = [str(value) == text for value, text in zip(values, image_ids, strict=True)]
        plain.append(np.array(is_plain, np.bool_))
    numbers = np.concatenate(pieces)
    _drop_repeated(numbers, np.concatenate(plain))
    is_missing = numbers == _NONE
    numbers[is_missing] = np.arange(is_missing.sum()) + numbers.max(initial=0) + 1
    return numbers


def _drop_repeated(numbers: NDArray[np.int64], is_plain: NDArray[np.bool_]) -> None:
    """Keep each number once."""
    order = np.lexsort((~is_plain, numbers))  # stable: of equal ones the first comes first
    ordered = numbers[order]
    numbers[order[1:][ordered[1:] == ordered[:-1]]] = _NONE


def slice_numbers(numbers: NDArray[np.int64] | None, shard: Shard) -> NDArray[np.int64] | None:
    """The numbers of a shard's images; None if the format needs none."""
    return None if numbers is None else numbers[shard.first_row : shard.first_row + shard.rows]
