from __future__ import annotations

from pipeline.sources.tally import Repair, Tally


def test_repairs_are_one_line_in_the_singular_and_plural() -> None:
    tally = Tally(invalid_images=1)
    tally.add_repairs([Repair("box", "dropped: no area", "a", is_loss=True)] * 3)
    tally.add_repairs([Repair("box", "clipped to the image", "a")])
    tally.add_repairs([Repair("category", "listed again: left out there", "a", is_loss=True)])
    tally.files_left_out.update({".txt": 9, ".mp4": 3})
    assert tally.describe_repairs() == (
        "1 image invalid: left out; 3 boxes dropped: no area; 1 box clipped to the image; "
        "1 category listed again: left out there; 12 files left out (.txt 9, .mp4 3)"
    )
    assert tally.dropped_boxes == 3


def test_a_tally_without_repairs_says_so() -> None:
    assert Tally(images=4).describe_repairs() == "nothing"


def test_rare_endings_are_summed() -> None:
    tally = Tally()
    tally.files_left_out.update({f".e{i}": 1 for i in range(10)} | {".txt": 2})
    assert tally.describe_repairs().startswith("12 files left out (.txt 2, .e0 1,")
    assert tally.describe_repairs().endswith(", others 3)")
