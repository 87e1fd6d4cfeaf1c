"""Copies of drawn images are found in the right view; unrelated, flat and broken images are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.inspection import near_duplicates
from pipeline.inspection.near_duplicates import describe_copy, find_near_duplicates
from tests.inspection.signed_images import build_signatures, draw_smooth

ORIGINALS = [draw_smooth(seed) for seed in range(12)]


def _find(*images: NDArray[np.uint8] | None) -> list[tuple[int, int, str]]:
    pairs = find_near_duplicates([build_signatures(images)])
    return [
        (int(a), int(b), describe_copy(int(view)))
        for a, b, view in zip(pairs.first, pairs.second, pairs.view, strict=True)
    ]


def test_unrelated_images_are_no_pairs() -> None:
    assert _find(*ORIGINALS) == []


@pytest.mark.parametrize(
    ("copy", "name"),
    [
        (ORIGINALS[3].copy(), "equal files"),
        (ORIGINALS[3][:, ::-1].copy(), "mirrored"),
        (np.asarray(Image.fromarray(ORIGINALS[3]).resize((60, 70))), "as it is"),
        (np.clip(ORIGINALS[3] * 1.2, 0, 255).astype(np.uint8), "as it is"),
        (ORIGINALS[3][6:, 8:].copy(), "cropped"),
        (ORIGINALS[3][:-6, 8:][:, ::-1].copy(), "cropped and mirrored"),
    ],
)
def test_a_copy_is_found_in_its_view(copy: NDArray[np.uint8], name: str) -> None:
    assert _find(*ORIGINALS, copy) == [(3, 12, name)]


def test_the_cropped_copy_may_come_first() -> None:
    assert _find(ORIGINALS[3][6:, 8:].copy(), *ORIGINALS) == [(0, 4, "cropped")]


def test_images_are_numbered_through_tables_and_failed_ones_count() -> None:
    tables = [
        build_signatures([ORIGINALS[0], None]),
        build_signatures([ORIGINALS[1], ORIGINALS[0]]),
    ]
    pairs = find_near_duplicates(tables)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [3])
    assert pairs.similarity.tolist() == [1.0]


def test_flat_images_are_duplicates_only_as_equal_files() -> None:
    black, grey = (np.full((60, 80, 3), value, np.uint8) for value in (0, 90))
    assert _find(black, grey, black.copy()) == [(0, 2, "equal files")]


def test_many_equal_images_are_pairs_of_the_first_one() -> None:
    """So that a thousand copies are a thousand pairs, not half a million."""
    assert len(_find(*[ORIGINALS[0].copy() for _ in range(9)])) == 8


def test_many_images_of_one_hash_are_all_connected() -> None:
    copies = []
    for number in range(9):  # other files, hardly other pixels
        copy = ORIGINALS[0].copy()
        copy[0, 0, 0] = number
        copies.append(copy)
    pairs = _find(*copies)
    assert {number for a, b, _ in pairs for number in (a, b)} == set(range(9))
    assert len(pairs) < 9 * 8 / 2


def test_a_bucket_of_too_many_images_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_OF_A_BUCKET", 0)
    pairs = find_near_duplicates([build_signatures(ORIGINALS[:2])])
    assert pairs.full_buckets > 0
    assert len(pairs) == 0
