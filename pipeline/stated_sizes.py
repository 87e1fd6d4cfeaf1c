"""The size that an annotation states against that of the image: if they differ, boxes are elsewhere."""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import SizeMismatch

LARGEST_DIFFERENCE = 1
"""Pixels by which a stated side may differ from the image's: labelling tools round odd sides."""


def sizes_agree(stated: tuple[int, int], actual: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) in pixels differ by no more than rounding."""
    return all(abs(a - b) <= LARGEST_DIFFERENCE for a, b in zip(stated, actual, strict=True))


def describe_mismatch(
    stated: tuple[int, int], actual: tuple[int, int], *, turned: bool = False
) -> str | None:
    """Why boxes drawn in an image of the stated size are elsewhere in this one; None if they are not.

    Args:
        stated: width and height in the annotation, in pixels.
        actual: width and height of the image as it is decoded.
        turned: the image is decoded as viewers display it, not as it is stored.
    """
    if sizes_agree(stated, actual):
        return None
    place = "displayed" if turned else "stored"
    cause = (
        "rotated by EXIF?"
        if sizes_agree(stated[::-1], actual) and not turned
        else "resized or replaced?"
    )
    return f"annotated as {stated[0]}x{stated[1]}, {place} as {actual[0]}x{actual[1]}: {cause}"


def check_size(
    actual: tuple[int, int], stated: tuple[int, int] | None, *, turned: bool = False
) -> None:
    """Check that a decoded image has the size that its annotation states.

    Args:
        actual: width and height of the decoded image.
        stated: width and height in the manifest; None if it states none.
        turned: the image is decoded as viewers display it, not as it is stored.

    Raises:
        SizeMismatch: the sizes differ by more than rounding.
    """
    reason = None if stated is None else describe_mismatch(stated, actual, turned=turned)
    if reason is not None:
        raise SizeMismatch(reason)


def check_proposed_size(actual: tuple[int, int], proposed: tuple[int, int] | None) -> None:
    """Check that a decoded image has the size of the image that its stored proposals were computed for.

    Args:
        actual: width and height of the decoded image.
        proposed: width and height in the proposals; None if they state none.

    Raises:
        SizeMismatch: the sizes differ: the image was replaced, or is decoded otherwise.
    """
    if proposed is not None and proposed != actual:
        raise SizeMismatch(
            f"its proposals are for {proposed[0]}x{proposed[1]} pixels, the image has "
            f"{actual[0]}x{actual[1]}: replaced since, or proposed with another --exif?"
        )


def pair_sizes(rows: pa.Table) -> list[tuple[int, int] | None]:
    """Width and height of each row of a table with these columns; None where one of them is null."""
    sides = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
    return [None if None in pair else pair for pair in sides]
