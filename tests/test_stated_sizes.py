from __future__ import annotations

from pipeline.stated_sizes import describe_mismatch, sizes_agree


def test_sizes_agree_up_to_rounding() -> None:
    assert sizes_agree((120, 90), (121, 89))
    assert not sizes_agree((120, 90), (122, 90))
    assert describe_mismatch((120, 90), (119, 90)) is None


def test_a_mismatch_names_both_sizes_and_the_likely_cause() -> None:
    expected = "annotated as 90x120, stored as 120x90: rotated by EXIF?"
    assert describe_mismatch((90, 120), (120, 90)) == expected
    expected = "annotated as 1200x900, stored as 120x90: resized or replaced?"
    assert describe_mismatch((1200, 900), (120, 90)) == expected
    expected = "annotated as 9x9, displayed as 120x90: resized or replaced?"
    assert describe_mismatch((9, 9), (120, 90), turned=True) == expected
