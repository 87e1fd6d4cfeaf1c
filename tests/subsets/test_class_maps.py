"""Class maps: the merged classes, and conflicts by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.subsets.class_maps import merge_classes, read_class_map

NAMES = ("a", "b")


def test_the_first_order_stays_and_new_classes_follow() -> None:
    maps = ({"automobile": "car"}, {"unsure": None})
    classes = (["dog", "automobile"], ["car", "unsure", "cat"])
    assert merge_classes(NAMES, classes, maps) == ("dog", "car", "cat")


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (({"dgo": "dog"}, {}), "names 'dgo', which is no class of a: car, dog"),
        (({"dog": "animal"}, {}), "class 'dog' becomes 'animal' in a and 'dog' in b"),
        (({"dog": None}, {}), "class 'dog' becomes nothing in a and 'dog' in b"),
        (({"car": "Dog"}, {}), "classes 'Dog' of a and 'dog' of a differ in case or spaces only"),
    ],
)
def test_what_contradicts_itself_is_named(
    maps: tuple[dict[str, str | None], dict[str, str | None]], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        merge_classes(NAMES, (["car", "dog"], ["dog"]), maps)


def test_one_map_for_all_may_name_classes_that_only_one_has() -> None:
    shared: dict[str, str | None] = {"car": "vehicle"}
    assert merge_classes(NAMES, (["dog"], ["car"]), (shared, shared)) == ("dog", "vehicle")


@pytest.mark.parametrize("text", ["[1]", '{"a": 3}', '{"a": " "}', "{"])
def test_a_file_that_is_no_map_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(InvalidConfiguration, match="--class-map"):
        read_class_map(str(tmp_path / "map.json"))
