"""COCO's integer ids of images."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.coco_ids import number_images


def test_decimal_ids_are_their_numbers_and_others_follow_the_largest() -> None:
    assert number_images([["139", "a"], ["0285", "b"]]).tolist() == [139, 286, 285, 287]


def test_of_equal_numbers_the_plain_one_has_it() -> None:
    assert number_images([["01", "1", "001"]]).tolist() == [2, 1, 3]
    assert number_images([["01", "001"]]).tolist() == [1, 2]


def test_what_is_no_plain_decimal_is_numbered() -> None:
    ids = ["-5", "1.0", "٣", "²", "", "9" * 19]
    assert number_images([ids]).tolist() == [1, 2, 3, 4, 5, 6]
    assert number_images([]).tolist() == []


@given(st.lists(st.text("012a", max_size=3), unique=True))
def test_all_numbers_differ(ids: list[str]) -> None:
    assert len(set(number_images([ids]).tolist())) == len(ids)
