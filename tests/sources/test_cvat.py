from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.cvat import open_cvat
from pipeline.sources.dataset import Dataset
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)
META = """<meta><task><id>1</id><name>pets</name><size>2</size><mode>annotation</mode><labels>
<label><name>dog</name><color>#fff</color><type>any</type><attributes><attribute><name>difficult</name>
<mutable>False</mutable><input_type>checkbox</input_type></attribute></attributes></label>
<label><name>cat</name><attributes></attributes></label>
<label><name>nose</name><parent>dog</parent></label></labels></task></meta>"""
BOX = '<box label="dog" occluded="0" xtl="4" ytl="6.5" xbr="14" ybr="16" z_order="0"></box>'


def write_cvat(root: Path, *shapes: str, meta: str = META, images: str = "") -> tuple[str, str]:
    """Images a.jpg with the shapes and sub/b.jpg without, each 40x30; `images` replaces both elements."""
    write_image(root / "images" / "a.jpg")
    write_image(root / "images" / "sub" / "b.jpg")
    elements = images or (
        f'<image id="0" name="a.jpg" width="40" height="30">{"".join(shapes)}</image>'
        '<image id="1" name="sub/b.jpg" subset="default" width="40" height="30"></image>'
    )
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{elements}'
    (root / "annotations.xml").write_text(f"{text}</annotations>")
    return str(root / "annotations.xml"), str(root / "images")


def read(dataset: Dataset) -> dict[str, tuple[AnnotatedObject, ...] | None]:
    return {row.image_id: row.objects for row in dataset.rows}


def get_corners(item: AnnotatedObject) -> tuple[float, ...]:
    return item.x1, item.y1, item.x2, item.y2


def test_images_boxes_and_labels_are_read(tmp_path: Path) -> None:
    dataset = open_cvat(*write_cvat(tmp_path, BOX))
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("a.jpg", f"{tmp_path}/images/a.jpg")
    assert (a.width, a.height) == (40, 30)
    assert a.objects == (AnnotatedObject("dog", 4, 6.5, 14, 16),)
    assert (b.image_id, b.objects) == ("sub/b.jpg", ())
    assert dataset.classes == ("dog", "cat")
    assert dataset.tally.describe_repairs() == "nothing"


@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        # Turned by 90 degrees about the centre (9, 11.25), the sides 10 and 9.5 change places.
        (BOX.replace('occluded="0"', 'rotation="90.0"'), (4.25, 6.25, 13.75, 16.25)),
        ('<polygon label="cat" points="1,2;9.5,3;4,8"/>', (1, 2, 9.5, 8)),
        ('<ellipse label="cat" cx="20" cy="10" rx="5" ry="2" rotation="90"/>', (18, 5, 22, 15)),
        ('<mask label="cat" rle="1, 2" left="3" top="4" width="5" height="6"/>', (3, 4, 8, 10)),
    ],
)
def test_shapes_become_upright_boxes(
    tmp_path: Path, shape: str, corners: tuple[float, ...]
) -> None:
    (item,) = read(open_cvat(*write_cvat(tmp_path, shape)))["a.jpg"] or ()
    assert get_corners(item) == pytest.approx(corners, abs=1e-5)


@pytest.mark.parametrize("kind", ["polyline", "points", "cuboid", "skeleton"])
def test_shapes_without_an_area_are_counted(tmp_path: Path, kind: str) -> None:
    arguments = write_cvat(tmp_path, BOX, f'<{kind} label="cat" points="1,2;3,4"></{kind}>')
    dataset = open_cvat(*arguments)
    assert len(read(dataset)["a.jpg"] or ()) == 1
    assert dataset.tally.describe_repairs() == f"1 object without a box ({kind}): left out"
    with pytest.raises(UnreadableDataset, match=rf"image 0 \(a\.jpg\), shape 1 \({kind}\)"):
        list(open_cvat(*arguments, options=STRICT).rows)


def test_tags_are_no_objects(tmp_path: Path) -> None:
    dataset = open_cvat(*write_cvat(tmp_path, '<tag label="dog" source="manual"></tag>', BOX))
    assert len(read(dataset)["a.jpg"] or ()) == 1
    assert dataset.tally.describe_repairs() == "nothing"


def test_attributes_set_the_flags(tmp_path: Path) -> None:
    attributes = (
        '<attribute name="difficult">true</attribute><attribute name="is_crowd">1</attribute>'
        '<attribute name="colour">brown</attribute>'
    )
    (item,) = (
        read(open_cvat(*write_cvat(tmp_path, BOX.replace("></", f">{attributes}</"))))["a.jpg"]
        or ()
    )
    assert (item.difficult, item.crowd) == (True, True)


def test_the_order_of_classes(tmp_path: Path) -> None:
    cat = BOX.replace("dog", "cat")
    assert open_cvat(*write_cvat(tmp_path, BOX, cat, meta="")).classes == ("cat", "dog")
    chosen = open_cvat(*write_cvat(tmp_path, BOX), classes=("cat", "dog", "cow"))
    assert chosen.classes == ("cat", "dog", "cow")
    with pytest.raises(UnreadableDataset, match=r"image a\.jpg: object 0 is of class 'dog'"):
        list(open_cvat(*write_cvat(tmp_path, BOX), classes=("cat",), options=STRICT).rows)


def test_a_project_has_a_folder_per_subset(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    image = '<image id="{}" name="a.jpg" subset="{}" width="40" height="30"></image>'
    arguments = write_cvat(tmp_path, images=image.format(0, "train") + image.format(1, "default"))
    assert set(read(open_cvat(*arguments))) == {"train/a.jpg", "a.jpg"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (BOX.replace('xtl="4"', ""), "field xtl is missing"),
        (BOX.replace('xtl="4"', 'xtl="4,5"'), "field xtl is '4,5', not a number"),
        (BOX.replace('label="dog" ', ""), "field label is missing"),
        (BOX.replace("dog", "cow"), "object 0 is of class 'cow'"),
        ('<polygon label="cat" points="1,2;3,4"/>', "field points is '1,2;3,4'"),
        ('<polygon label="cat" points="1,2;3;4,5"/>', "field points"),
        ('<polygon label="cat" points="1,2;3,x;4,5"/>', "field points is 'x', not a number"),
        (BOX.replace("></", '><attribute name="difficult">maybe</attribute></'), "'maybe'"),
    ],
)
def test_a_malformed_shape_leaves_its_image_out(tmp_path: Path, shape: str, message: str) -> None:
    arguments = write_cvat(tmp_path, shape)
    dataset = open_cvat(*arguments, options=ANY)
    assert list(read(dataset)) == ["sub/b.jpg"]
    with pytest.raises(TooManyInvalidImages, match=rf"annotations\.xml: image.*a\.jpg.*{message}"):
        list(open_cvat(*arguments).rows)


@pytest.mark.parametrize(
    ("corners", "outcome"),
    [
        ((14, 6, 4, 16), "dropped: inverted"),
        (("nan", 6, 4, 16), "dropped: not finite"),
        ((4, 6, 4, 16), "dropped: no area"),
        ((-9, 6, -4, 16), "dropped: outside the image"),
        ((-9, 6, 4, 16), "clipped to the image"),
    ],
)
def test_boxes_without_an_area_in_the_image(
    tmp_path: Path, corners: tuple[float | str, ...], outcome: str
) -> None:
    x1, y1, x2, y2 = corners
    box = f'<box label="dog" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>'
    arguments = write_cvat(tmp_path, box, BOX)
    dataset = open_cvat(*arguments)
    assert len(list(dataset.rows)) == 2
    assert dataset.tally.describe_repairs() == f"1 box {outcome}"
    if "dropped" in outcome:
        with pytest.raises(InvalidBox, match=r"annotations\.xml: image a\.jpg"):
            list(open_cvat(*arguments, options=STRICT).rows)


def test_images_and_shapes_that_lack_each_other(tmp_path: Path) -> None:
    names = ("a.jpg", "gone.jpg", "../secret.jpg", "sub/b.jpg", "sub/b.jpg")
    images = "".join(f'<image id="0" name="{name}"></image>' for name in names)
    arguments = write_cvat(tmp_path, images=images)
    write_image(tmp_path / "secret.jpg")
    write_image(tmp_path / "images" / "new.jpg")
    dataset = open_cvat(*arguments, options=ANY)
    assert list(read(dataset)) == ["a.jpg"]
    assert dataset.tally.describe_repairs() == (
        "4 images invalid: left out; 1 image without an annotation: left out"
    )
    for name, message in (
        ("gone.jpg", "does not exist in"),
        ("../secret.jpg", "leaves the dataset's folder"),
        ("a.jpg", "2 images of the file name a"),
    ):
        pair = f'<image id="0" name="{name}"></image>' * 2
        with pytest.raises(UnreadableDataset, match=message):
            list(open_cvat(*write_cvat(tmp_path, images=pair), options=STRICT).rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not well-formed XML"),
        (b"<annotations><image", "not well-formed XML"),
        (b"<html></html>", "the root is <html>, expected <annotations>"),
        (b"<annotations></annotations>", "holds no images"),
        (b'<annotations><track id="0"></track></annotations>', "tracks of a video"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "which are never read"),
        (b'<?xml version="1.0" encoding="utf-8"?><annotations>\xe9</annotations>', "not well"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    annotations, images = write_cvat(tmp_path)
    Path(annotations).write_bytes(content)
    with pytest.raises(UnreadableDataset, match=rf"annotations\.xml.*{message}"):
        open_cvat(annotations, images)


def test_byte_order_marks_and_line_ends(tmp_path: Path) -> None:
    annotations, images = write_cvat(tmp_path, BOX)
    text = Path(annotations).read_bytes().replace(b"><", b">\r\n<")
    Path(annotations).write_bytes(b"\xef\xbb\xbf" + text)
    assert len(read(open_cvat(annotations, images))["a.jpg"] or ()) == 1


def test_missing_files_are_named(tmp_path: Path) -> None:
    annotations, images = write_cvat(tmp_path)
    with pytest.raises(MissingObject, match=r"gone\.xml"):
        open_cvat(str(tmp_path / "gone.xml"), images)
    with pytest.raises(MissingObject, match="not a folder"):
        open_cvat(annotations, str(tmp_path / "gone"))
