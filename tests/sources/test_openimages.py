from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.openimages import open_openimages
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)
HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
ROWS = (
    "000a,xclick,/m/bird,1,0.25,0.5,0.1,0.9,0,1,0,0,0",
    "000b,activemil,/m/cat,1,0,1,0,1,0,0,1,0,0",
    "000a,xclick,/m/cat,1,0.5,0.75,0.2,0.4,-1,-1,-1,-1,-1",
)
CLASSES = '/m/cat,Cat\n/m/bird,"Bird, small"\n/m/dog,Dog\n'


def write_openimages(
    root: Path, rows: Sequence[str] = ROWS, header: str = HEADER, classes: str | None = CLASSES
) -> tuple[str, str, str | None]:
    """Images 000a and 000b, in two folders, each 40x30; returns the arguments of `open_openimages`."""
    write_image(root / "images" / "train_0" / "000a.jpg")
    write_image(root / "images" / "train_1" / "000b.jpg")
    boxes = root / "boxes.csv"
    boxes.write_bytes("\n".join([header, *rows, ""]).encode("utf-8", "surrogateescape"))
    if classes is None:
        return str(root / "images"), str(boxes), None
    (root / "classes.csv").write_bytes(classes.encode())
    return str(root / "images"), str(boxes), str(root / "classes.csv")


def get_boxes(row: ManifestRow) -> list[tuple[str, list[float], bool]]:
    return [
        (item.label, [item.x1, item.y1, item.x2, item.y2], item.crowd) for item in row.objects or ()
    ]


def test_boxes_are_grouped_by_image_and_named(tmp_path: Path) -> None:
    dataset = open_openimages(*write_openimages(tmp_path))
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("000a", f"{tmp_path}/images/train_0/000a.jpg")
    assert (a.width, a.height) == (40, 30)
    assert get_boxes(a) == [
        ("Bird, small", pytest.approx([10, 3, 20, 27], abs=1e-5), False),
        ("Cat", pytest.approx([20, 6, 30, 12], abs=1e-5), False),
    ]
    assert get_boxes(b) == [("Cat", [0, 0, 40, 30], True)]
    assert dataset.classes == ("Cat", "Bird, small", "Dog")
    assert dataset.tally.crowd == 1
    assert dataset.tally.describe_repairs() == ("1 object with IsGroupOf unknown: taken as not set")


def test_without_class_descriptions_labels_stay(tmp_path: Path) -> None:
    dataset = open_openimages(*write_openimages(tmp_path, classes=None))
    assert dataset.classes == ("/m/bird", "/m/cat")
    assert [item.label for item in next(dataset.rows).objects or ()] == ["/m/bird", "/m/cat"]


def test_a_file_of_classes_may_have_a_header_and_equal_names(tmp_path: Path) -> None:
    classes = "\ufeffLabelName,DisplayName\r\n/m/cat,Pet\r\n/m/bird,Pet\r\n/m/cat,Pet\r\n"
    dataset = open_openimages(*write_openimages(tmp_path, classes=classes))
    assert dataset.classes == ("Pet (/m/cat)", "Pet (/m/bird)")
    assert "1 category listed again" in dataset.tally.describe_repairs()


def test_other_columns_and_line_ends_are_accepted(tmp_path: Path) -> None:
    header = "\ufeffYMax,YMin,XMax,XMin,LabelName,ImageID\r"
    rows = ["0.9,0.1,0.5,0.25,/m/bird,000a\r", "\r"]
    dataset = open_openimages(*write_openimages(tmp_path, rows, header))
    assert get_boxes(next(dataset.rows))[0][1] == pytest.approx([10, 3, 20, 27], abs=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("000a,x,/m/cat,1,0.1,0.2,0.1", r"line 5 \(image 000a\) has 7 columns, and .* 13"),
        ("000a,x,/m/fish,1,0,1,0,1,0,0,0,0,0", "line 5 .*'/m/fish' is not among the 3 classes"),
        ("000a,x,/m/cat,1,0,1,0,one,0,0,0,0,0", "line 5 .*field YMax is 'one', not a number"),
        ("000a,x,/m/cat,1,0,1,0,1_0,0,0,0,0,0", "line 5 .*field YMax is '1_0', not a number"),
        ("000a,x,/m/cat,1,0,1,0,1,0,0,2,0,0", "line 5 .*IsGroupOf is '2'"),
    ],
)
def test_a_malformed_row_leaves_its_image_out(tmp_path: Path, row: str, message: str) -> None:
    arguments = write_openimages(tmp_path, [*ROWS, row])
    dataset = open_openimages(*arguments, ANY)
    assert [item.image_id for item in dataset.rows] == ["000b"]
    with pytest.raises(TooManyInvalidImages, match=rf"boxes\.csv, {message}"):
        list(open_openimages(*arguments).rows)


def test_a_row_without_an_image_is_counted(tmp_path: Path) -> None:
    arguments = write_openimages(tmp_path, [*ROWS, ",x,/m/cat,1,0,1,0,1,0,0,0,0,0"])
    dataset = open_openimages(*arguments)
    assert len(list(dataset.rows)) == 2
    assert "1 line malformed: left out" in dataset.tally.describe_repairs()
    with pytest.raises(UnreadableDataset, match=r"boxes\.csv, line 5 has no ImageID"):
        open_openimages(*arguments, STRICT)


@pytest.mark.parametrize(
    ("sides", "outcome"),
    [
        ("0.5,0.2,0.1,0.2", "dropped: inverted"),
        ("nan,0.2,0.1,0.2", "dropped: not finite"),
        ("0.1,0.1,0.1,0.2", "dropped: no area"),
        ("-0.5,-0.1,0.1,0.2", "dropped: outside the image"),
        ("-0.5,0.5,0.1,0.2", "clipped to the image"),
    ],
)
def test_boxes_without_an_area_in_the_image(tmp_path: Path, sides: str, outcome: str) -> None:
    rows = [f"000b,x,/m/cat,1,{sides},0,0,0,0,0", ROWS[0]]
    arguments = write_openimages(tmp_path, rows)
    dataset = open_openimages(*arguments)
    assert len(list(dataset.rows)) == 2
    assert dataset.tally.describe_repairs() == f"1 box {outcome}"
    if "dropped" in outcome:
        with pytest.raises(InvalidBox, match=r"boxes\.csv: image 000b"):
            list(open_openimages(*arguments, STRICT).rows)


def test_repeated_rows_count_once(tmp_path: Path) -> None:
    dataset = open_openimages(*write_openimages(tmp_path, [ROWS[1], ROWS[1], ROWS[0]]))
    assert [len(row.objects or ()) for row in dataset.rows] == [1, 1]
    assert dataset.tally.describe_repairs() == "1 object listed again: left out there"


def test_images_and_boxes_that_lack_each_other(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[1].replace("000b", "../../000c")]
    arguments = write_openimages(tmp_path, rows)
    write_image(tmp_path / "000c.jpg")
    write_image(tmp_path / "images" / "train_1" / "000d.png")
    dataset = open_openimages(*arguments, ANY)
    assert [row.image_id for row in dataset.rows] == ["000a", "000b"]
    assert "1 image without an annotation: left out" in dataset.tally.describe_repairs()
    assert dataset.tally.invalid_images == 1
    with pytest.raises(UnreadableDataset, match=r"image \.\./\.\./000c does not exist"):
        list(open_openimages(*arguments, STRICT).rows)


def test_an_id_of_two_files_is_ambiguous(tmp_path: Path) -> None:
    arguments = write_openimages(tmp_path)
    write_image(tmp_path / "images" / "train_1" / "000a.png")
    with pytest.raises(UnreadableDataset, match=r"image 000a may be any of .*000a\.jpg"):
        list(open_openimages(*arguments, STRICT).rows)


@pytest.mark.parametrize(
    ("header", "rows", "classes", "message"),
    [
        ("", (), CLASSES, r"boxes\.csv has no column .*the file is empty"),
        (HEADER, (), CLASSES, r"boxes\.csv holds no boxes"),
        (HEADER.replace("XMin,", ""), ROWS, CLASSES, "has no column XMin: its first line has"),
        ("<html>", ROWS, CLASSES, "has no column ImageID, LabelName"),
        (HEADER, ["caf\udce9,x"], CLASSES, r"boxes\.csv, behind line .*0xe9 is not UTF-8"),
        (HEADER, ROWS, "", r"classes\.csv lists no classes"),
        (HEADER, ROWS, "/m/cat\n", r"classes\.csv, line 1 has the cells"),
        (HEADER, ROWS, "/m/cat,Cat\n/m/cat,Dog\n", "line 2: label /m/cat occurs twice"),
    ],
)
def test_wrong_files_fail_at_once(
    tmp_path: Path, header: str, rows: Sequence[str], classes: str, message: str
) -> None:
    with pytest.raises(UnreadableDataset, match=message):
        open_openimages(*write_openimages(tmp_path, rows, header, classes), ANY)


def test_missing_files_are_named(tmp_path: Path) -> None:
    images, boxes, classes = write_openimages(tmp_path)
    with pytest.raises(MissingObject, match=r"gone\.csv"):
        open_openimages(images, str(tmp_path / "gone.csv"), classes)
    with pytest.raises(MissingObject, match="not a folder"):
        open_openimages(str(tmp_path / "gone"), boxes, classes)


HIERARCHY = """{"LabelName": "/m/entity", "Subcategory": [
    {"LabelName": "/m/animal", "Subcategory": [{"LabelName": "/m/cat"}, {"LabelName": "/m/bird"}]},
    {"LabelName": "/m/pet", "Part": [{"LabelName": "/m/tail"}], "Subcategory": [{"LabelName": "/m/cat"}]}]}"""


def write_hierarchy(root: Path, text: str = HIERARCHY) -> str:
    (root / "hierarchy.json").write_text(text)
    return str(root / "hierarchy.json")


def test_objects_also_count_as_the_classes_above_their_own(tmp_path: Path) -> None:
    classes = CLASSES + "/m/animal,Animal\n/m/pet,Pet\n"
    rows = [*ROWS, "000b,activemil,/m/animal,1,0,1,0,1,0,0,1,0,0"]
    arguments = write_openimages(tmp_path, rows, classes=classes)
    dataset = open_openimages(*arguments, ANY, write_hierarchy(tmp_path))
    a, b = dataset.rows
    assert [label for label, _, _ in get_boxes(a)] == [
        "Bird, small",
        "Cat",
        "Animal",
        "Animal",
        "Pet",
    ]
    boxes = [box for _, box, _ in get_boxes(a)]
    assert boxes == [boxes[0], boxes[1], boxes[0], boxes[1], boxes[1]]
    whole = [0, 0, 40, 30]
    assert get_boxes(b) == [("Cat", whole, True), ("Animal", whole, True), ("Pet", whole, True)]
    assert dataset.tally.objects["Animal"] == 3


def test_without_names_the_classes_above_have_their_label_names(tmp_path: Path) -> None:
    arguments = write_openimages(tmp_path, classes=None)
    dataset = open_openimages(*arguments, ANY, write_hierarchy(tmp_path))
    assert dataset.classes == ("/m/animal", "/m/bird", "/m/cat", "/m/pet")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HIERARCHY, "/m/bird is below /m/animal, which --classes does not list"),
        ("{", "is not well-formed JSON"),
        ("[]", "is no hierarchy of classes"),
        ('{"LabelName": "/m/entity"}', "is no hierarchy of classes"),
        ('{"Subcategory": {"LabelName": "/m/cat"}}', "a field Subcategory is no list"),
        ('{"Subcategory": [{"Subcategory": []}]}', "has no LabelName"),
        ('{"Subcategory": [7]}', "has no LabelName"),
        (
            '{"Subcategory": [{"LabelName": "a", "Subcategory": [{"LabelName": "a"}]}]}',
            "class a is below itself",
        ),
    ],
)
def test_a_hierarchy_that_is_none(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match=reason):
        open_openimages(*write_openimages(tmp_path), ANY, write_hierarchy(tmp_path, text))
