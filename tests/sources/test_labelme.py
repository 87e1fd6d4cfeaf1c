from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.dataset import Dataset
from pipeline.sources.labelme import open_labelme
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)


def shape(label: str, *points: tuple[float, float], **fields: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": [list(point) for point in points],
        "group_id": None,
        "description": "",
        "shape_type": "rectangle",
        "flags": {},
        **fields,
    }


DOG = shape("dog", (14, 16.5), (4, 6))


def annotation(image: str | None, *shapes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
        **fields,
    }


def write_labelme(root: Path, *shapes: dict[str, Any], **fields: Any) -> Path:
    """Images a.jpg with the shapes and b.png without, each 40x30."""
    for name, content in (("a.jpg", shapes), ("b.png", ())):
        write_image(root / name)
        text = json.dumps(annotation(name, *content, **(fields if content else {})))
        (root / name).with_suffix(".json").write_text(text)
    return root


def read(dataset: Dataset) -> dict[str, tuple[AnnotatedObject, ...] | None]:
    return {row.image_id: row.objects for row in dataset.rows}


def test_rectangles_may_be_drawn_from_any_corner(tmp_path: Path) -> None:
    dataset = open_labelme(str(write_labelme(tmp_path, DOG)))
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("a.jpg", f"{tmp_path}/a.jpg")
    assert (a.width, a.height) == (40, 30)
    assert a.objects == (AnnotatedObject("dog", 4, 6, 14, 16.5),)
    assert (b.image_id, b.objects) == ("b.png", ())
    assert dataset.classes == ("dog",)
    assert dataset.tally.describe_repairs() == "nothing"


@pytest.mark.parametrize(
    ("kind", "points", "corners"),
    [
        ("polygon", [(1, 2), (9.5, 3), (4, 8)], (1, 2, 9.5, 8)),
        (None, [(1, 2), (9.5, 3), (4, 8)], (1, 2, 9.5, 8)),
        ("circle", [(20, 10), (23, 14)], (15, 5, 25, 15)),
        ("oriented_rectangle", [(10, 0), (20, 10), (10, 20), (0, 10)], (0, 0, 20, 20)),
        ("rectangle", [(1, 2), (9, 2), (9, 8), (1, 8)], (1, 2, 9, 8)),
        ("mask", [(3, 4), (7, 9)], (3, 4, 8, 10)),
    ],
)
def test_shapes_become_upright_boxes(
    tmp_path: Path, kind: str | None, points: list[Any], corners: tuple[float, ...]
) -> None:
    root = write_labelme(tmp_path, shape("dog", *points, shape_type=kind))
    (item,) = read(open_labelme(str(root)))["a.jpg"] or ()
    assert (item.x1, item.y1, item.x2, item.y2) == pytest.approx(corners)


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_shapes_without_an_area_are_counted(tmp_path: Path, kind: str) -> None:
    root = write_labelme(tmp_path, DOG, shape("cat", (1, 2), (3, 4), shape_type=kind))
    dataset = open_labelme(str(root))
    assert len(read(dataset)["a.jpg"] or ()) == 1
    assert dataset.tally.describe_repairs() == f"1 object without a box ({kind}): left out"
    with pytest.raises(UnreadableDataset, match=r"a\.json: shape 1"):
        list(open_labelme(str(root), options=STRICT).rows)


def test_shapes_of_one_group_and_label_are_one_object(tmp_path: Path) -> None:
    shapes = [
        shape("dog", (1, 2), (4, 5), group_id=0),
        shape("cat", (1, 2), (4, 5), group_id=0),
        shape("dog", (9, 3), (12, 7), group_id=0),
        shape("dog", (20, 20), (22, 22), group_id=1),
    ]
    dataset = open_labelme(str(write_labelme(tmp_path, *shapes)))
    objects = read(dataset)["a.jpg"] or ()
    assert objects[0] == AnnotatedObject("dog", 1, 2, 12, 7)
    assert [item.label for item in objects] == ["dog", "cat", "dog"]
    assert dataset.tally.describe_repairs() == "1 object joined with the one of its group"


def test_flags_and_classes(tmp_path: Path) -> None:
    root = str(write_labelme(tmp_path, {**DOG, "flags": {"difficult": True, "blurred": "x"}}))
    dataset = open_labelme(root, classes=("cat", "dog"))
    assert dataset.classes == ("cat", "dog")
    assert [item.difficult for item in read(dataset)["a.jpg"] or ()] == [True]
    with pytest.raises(UnreadableDataset, match=r"a\.json: object 0 is of class 'dog'"):
        list(open_labelme(root, classes=("cat",), options=STRICT).rows)


@pytest.mark.parametrize(
    "path", ["../img/x.jpg", "..\\img\\x.jpg", "C:\\data\\x.jpg", "/data/x.jpg", "gone.jpg", None]
)
def test_an_image_is_found_however_it_is_named(tmp_path: Path, path: str | None) -> None:
    is_elsewhere = path is not None and path.startswith("..")
    write_image(tmp_path / ("img" if is_elsewhere else "ann") / "x.jpg")
    (tmp_path / "ann").mkdir(exist_ok=True)
    (tmp_path / "ann" / "x.json").write_text(json.dumps(annotation(path, DOG)))
    (row,) = open_labelme(str(tmp_path)).rows
    assert row.image_id == ("img/x.jpg" if is_elsewhere else "ann/x.jpg")


def test_an_image_outside_the_dataset_is_never_read(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.jpg")
    root = write_labelme(tmp_path / "set", DOG)
    (root / "c.json").write_text(json.dumps(annotation("../secret.jpg", DOG)))
    dataset = open_labelme(str(root), options=ANY)
    assert list(read(dataset)) == ["a.jpg", "b.png"]
    with pytest.raises(UnreadableDataset, match=r"c\.json has no image: '../secret\.jpg'"):
        list(open_labelme(str(root), options=STRICT).rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "field label is missing"),
        ({"label": 7}, "field label is 7, expected a text"),
        ({"points": []}, r"field points is \[\], expected pairs"),
        ({"points": [[1, 2]]}, "field points has 1 points, expected 2 for a rectangle"),
        ({"points": [[1, 2], [3, 4, 5]]}, "expected pairs x, y"),
        ({"points": [[1, 2], [3, "x"]]}, "field points is 'x', not a number"),
        ({"shape_type": "cube"}, "field shape_type is 'cube'"),
        ({"shape_type": ["polygon"]}, "field shape_type"),
        ({"flags": {"crowd": "maybe"}}, "field crowd is 'maybe'"),
        ({"group_id": {}}, "field group_id"),
    ],
)
def test_a_malformed_shape_leaves_its_image_out(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    root = str(write_labelme(tmp_path, DOG, {**DOG, **change}))
    assert list(read(open_labelme(root, options=ANY))) == ["b.png"]
    with pytest.raises(TooManyInvalidImages, match=rf"a\.json: shape 1.*{message}"):
        list(open_labelme(root).rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not well-formed JSON"),
        (b'{"shapes": [', "not well-formed JSON"),
        (b'{"shapes": 3, "imagePath": "a.jpg"}', "field shapes is not a list"),
        (b'{"imagePath": "a.jpg"}', "field shapes is not a list"),
        (b'{"shapes": [], "x": "\xe9"}', "not well-formed JSON: byte 21 is not utf-8"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    root = write_labelme(tmp_path, DOG)
    (root / "a.json").write_bytes(content)
    assert list(read(open_labelme(str(root), options=ANY))) == ["b.png"]
    with pytest.raises(UnreadableDataset, match=rf"a\.json.*{message}"):
        list(open_labelme(str(root), options=STRICT).rows)


@pytest.mark.parametrize(
    ("points", "outcome"),
    [
        ([(float("nan"), 6), (4, 16)], "dropped: not finite"),
        ([(4, 6), (4, 16)], "dropped: no area"),
        ([(-9, 6), (-4, 16)], "dropped: outside the image"),
        ([(-9, 6), (4, 16)], "clipped to the image"),
    ],
)
def test_boxes_without_an_area_in_the_image(
    tmp_path: Path, points: list[Any], outcome: str
) -> None:
    root = str(write_labelme(tmp_path, shape("cat", *points), DOG))
    dataset = open_labelme(root)
    assert len(list(dataset.rows)) == 2
    assert dataset.tally.describe_repairs() == f"1 box {outcome}"
    if "dropped" in outcome:
        with pytest.raises(InvalidBox, match=r"a\.json"):
            list(open_labelme(root, options=STRICT).rows)


def test_another_size_than_the_image_has(tmp_path: Path) -> None:
    root = str(write_labelme(tmp_path, DOG, imageWidth=30, imageHeight=40))
    options = SourceOptions(max_invalid=1.0, check_sizes=True)
    assert list(read(open_labelme(root, options=options))) == ["b.png"]


def test_images_and_files_that_lack_each_other(tmp_path: Path) -> None:
    root = write_labelme(tmp_path, DOG)
    write_image(root / "new.jpg")
    (root / "settings.json").write_text('{"zoom": 2}')
    (root / "copy.json").write_text(json.dumps(annotation("b.png")))
    dataset = open_labelme(str(root), options=ANY)
    assert list(read(dataset)) == ["a.jpg"]
    assert dataset.tally.describe_repairs() == (
        "2 images invalid: left out; 1 image without an annotation: left out; "
        "1 file left out (.json of another kind 1)"
    )
    with pytest.raises(UnreadableDataset, match=r"b\.json: 2 annotations of b\.png|copy\.json: 2"):
        list(open_labelme(str(root), options=STRICT).rows)


def test_byte_order_marks_and_encodings(tmp_path: Path) -> None:
    root = write_labelme(tmp_path, DOG)
    text = json.dumps(annotation("a.jpg", shape("chien né", (1, 2), (3, 4))), ensure_ascii=False)
    for encoding in ("utf-8-sig", "utf-16"):
        (root / "a.json").write_bytes(text.replace(", ", ",\r\n").encode(encoding))
        (item,) = read(open_labelme(str(root)))["a.jpg"] or ()
        assert item.label == "chien né"


def test_a_folder_without_annotations_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UnreadableDataset, match=r"holds no LabelMe annotation.*files there: 1"):
        open_labelme(str(tmp_path))
    with pytest.raises(MissingObject, match="not a folder"):
        open_labelme(str(tmp_path / "gone"))
