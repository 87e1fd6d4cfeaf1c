from __future__ import annotations

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.voc_xml import parse_annotation
from tests.sources.small_datasets import voc_xml


def test_inclusive_boxes_become_half_open() -> None:
    annotation = parse_annotation(voc_xml("x.jpg", ("dog", 1, 2, 3, 4)).encode(), "x.xml")
    assert annotation.objects == (AnnotatedObject("dog", 0, 1, 3, 4),)
    assert (annotation.filename, annotation.width, annotation.height) == ("x.jpg", 40, 30)


def test_fractions_and_difficult_are_kept() -> None:
    data = voc_xml("x.jpg", ("dog", 1.5, 2, 3.25, 4), difficult=1).encode()
    assert parse_annotation(data, "x").objects == (
        AnnotatedObject("dog", 0.5, 1, 3.25, 4, difficult=True),
    )


def test_parts_of_an_object_are_not_objects() -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part></object>"
    data = voc_xml("x.jpg", ("person", 1, 2, 3, 4)).replace("</object>", part)
    assert [item.label for item in parse_annotation(data.encode(), "x").objects] == ["person"]


@pytest.mark.parametrize("side", ["", "0", "-4", "1e30"])
def test_an_invalid_size_counts_as_missing(side: str) -> None:
    data = f"<annotation><size><width>{side}</width><height>9</height></size></annotation>"
    annotation = parse_annotation(data.encode(), "x")
    assert (annotation.width, annotation.height) == (0, 9)


BOMB = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><annotation>&z;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not well-formed"),
        ("<annotation>", "not well-formed"),
        ("<html></html>", "the root is <html>"),
        (BOMB, "not well-formed"),
        (OUTSIDE, "not well-formed"),
        (voc_xml("x", ("dog", "", 1, 2, 2)), "object 0: field bndbox/xmin is missing"),
        (voc_xml("x", ("dog", "a", 1, 2, 2)), "field bndbox/xmin is 'a', not a number"),
        (voc_xml("x", ("", 1, 1, 2, 2)), "field name is missing"),
        (voc_xml("x", ("dog", 1, 1, 2, 2)).replace("bndbox", "box"), "bndbox/xmin is missing"),
        (voc_xml("x").replace("40", "wide"), "field size/width is 'wide'"),
    ],
)
def test_errors_name_file_and_field(text: str, message: str) -> None:
    with pytest.raises(UnreadableDataset, match=f"here/x.xml.*{message}"):
        parse_annotation(text.encode(), "here/x.xml")


@pytest.mark.parametrize(
    ("encoding", "label"),
    [
        *(("gb2312", "猫"), ("GBK", "猫"), ("gb18030", "猫"), ("big5", "貓"), ("Shift_JIS", "猫")),
        *(("euc-jp", "猫"), ("iso-2022-jp", "猫"), ("euc-kr", "고양이"), ("cp949", "고양이")),
        *(("utf-8", "猫"), ("utf-16", "猫"), ("latin-1", "é"), ("windows-1251", "кот")),
    ],
)
def test_declared_encodings_are_read(encoding: str, label: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + voc_xml("x", (label, 1, 1, 2, 2))
    assert parse_annotation(text.encode(encoding), "x").objects[0].label == label


def test_utf8_under_another_declaration_is_read_where_that_fails() -> None:
    text = '<?xml version="1.0" encoding="gbk"?>' + voc_xml("x", ("猫", 1, 1, 2, 2))
    assert parse_annotation(text.encode(), "x").objects[0].label == "猫"


@pytest.mark.parametrize("encoding", ["zip", "rot13", "no-such", "gb2312"])
def test_other_encodings_and_damaged_bytes_are_named(encoding: str) -> None:
    data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + b"<annotation>\xff\xff"
    with pytest.raises(UnreadableDataset, match="x is not well-formed XML"):
        parse_annotation(data, "x")


@pytest.mark.parametrize(
    ("flag", "difficult", "unset"),
    [
        *(("1", True, 0), ("true", True, 0), ("False", False, 0), ("", False, 0)),
        *((" 0 ", False, 0), ("Unspecified", False, 1)),
    ],
)
def test_difficult_in_words(flag: str, difficult: bool, unset: int) -> None:
    data = voc_xml("x", ("dog", 1, 1, 2, 2)).replace(">0</diff", f">{flag}</diff").encode()
    annotation = parse_annotation(data, "x")
    assert (annotation.objects[0].difficult, annotation.unset_flags) == (difficult, unset)


def test_another_flag_is_named() -> None:
    data = voc_xml("x", ("dog", 1, 1, 2, 2)).replace(">0</diff", ">2</diff").encode()
    with pytest.raises(UnreadableDataset, match="here: object 0: field difficult is '2'"):
        parse_annotation(data, "here")
