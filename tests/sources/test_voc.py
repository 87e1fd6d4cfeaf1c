from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InvalidBox, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.voc import STANDARD_CLASSES, open_voc
from tests.sources.small_datasets import voc_xml, write_image, write_voc


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc")


def test_rows_follow_the_order_of_the_list(root: Path) -> None:
    dataset = open_voc(str(root), "train")
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("a", str(root / "JPEGImages" / "a.jpg"))
    assert (a.width, a.height) == (40, 30)
    assert a.objects == (
        AnnotatedObject("dog", 0, 0, 10, 20),
        AnnotatedObject("cat", 4, 5, 40, 30),
    )
    assert b.objects == ()
    assert dataset.classes == ("cat", "dog")
    assert dataset.counts.objects == {"dog": 1, "cat": 1}
    assert dataset.counts.images == 2


def test_every_split_numbers_labels_alike(root: Path) -> None:
    assert open_voc(str(root), "test").classes == open_voc(str(root), "train").classes


def test_a_devkit_of_standard_labels_has_the_standard_classes(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007")
    assert open_voc(str(tmp_path), "train", 2007).classes == STANDARD_CLASSES


def test_a_devkit_with_another_label_has_its_own_classes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "VOC2007")
    (folder / "Annotations" / "c.xml").write_text(voc_xml("c.jpg", ("zebra", 1, 1, 5, 5)))
    assert open_voc(str(tmp_path), "train", 2007).classes == ("cat", "dog", "zebra")


def test_chosen_classes_keep_their_order_and_exclude_others(root: Path) -> None:
    assert open_voc(str(root), "train", classes=("dog", "cat")).classes == ("dog", "cat")
    with pytest.raises(UnreadableDataset, match=r"object 1 is of class 'cat'.*dog"):
        list(open_voc(str(root), "train", classes=("dog",)).rows)


def test_a_dataset_may_be_in_an_object_store(root: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{root}/", "/voc-in-memory/", recursive=True)
    rows = list(open_voc("memory://voc-in-memory", "train").rows)
    assert [row.uri for row in rows] == [
        "memory://voc-in-memory/JPEGImages/a.jpg",
        "memory://voc-in-memory/JPEGImages/b.jpg",
    ]
    assert rows[0].objects == next(open_voc(str(root), "train").rows).objects


@pytest.mark.parametrize("annotated", [0, 17])
def test_a_size_that_is_missing_or_too_small_for_a_box_comes_from_the_header(
    root: Path, annotated: int
) -> None:
    annotation = voc_xml("a.jpg", ("dog", 1, 1, 39, 29), width=annotated, height=annotated)
    (root / "Annotations" / "a.xml").write_text(annotation)
    row = next(open_voc(str(root), "train").rows)
    assert (row.width, row.height) == (40, 30)
    assert row.objects == (AnnotatedObject("dog", 0, 0, 39, 29),)


def test_the_image_may_be_a_png(root: Path) -> None:
    (root / "JPEGImages" / "a.jpg").unlink()
    write_image(root / "JPEGImages" / "a.png")
    assert next(open_voc(str(root), "train").rows).uri.endswith("/a.png")


def test_one_pixel_boxes_stay_and_boxes_without_area_are_dropped(root: Path) -> None:
    annotation = voc_xml("a.jpg", ("dog", 7, 7, 7, 7), ("dog", 7, 7, 6, 9), ("dog", 38, 1, 50, 2))
    (root / "Annotations" / "a.xml").write_text(annotation)
    dataset = open_voc(str(root), "train")
    row = next(dataset.rows)
    assert row.objects == (
        AnnotatedObject("dog", 6, 6, 7, 7),
        AnnotatedObject("dog", 37, 0, 40, 2),
    )
    assert dataset.counts.dropped_boxes == 1


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        (("dog", 20, 5, 10, 9), "is inverted"),
        (("dog", 100, 1, 110, 9), "is wholly outside"),
        (("dog", "nan", 1, 10, 9), "is not finite"),
    ],
)
def test_impossible_boxes_are_named(root: Path, box: tuple[str, ...], fault: str) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml("a.jpg", ("cat", 1, 1, 2, 2), box))
    with pytest.raises(InvalidBox, match=rf"a\.xml.*object 1 \(dog\) {fault}.*x1="):
        list(open_voc(str(root), "train").rows)


def test_invalid_images_are_skipped_on_request(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "Annotations" / "a.xml").write_text("<annotation>")
    dataset = open_voc(str(root), "train", skip_invalid=True)
    assert [row.image_id for row in dataset.rows] == ["b"]
    assert dataset.counts.skipped_images == 1
    assert "a.xml is not well-formed XML" in caplog.text


def test_an_unknown_split_names_the_lists(root: Path) -> None:
    with pytest.raises(UnreadableDataset, match=r"trian\.txt does not exist.*test, train"):
        open_voc(str(root), "trian")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no images"),
        ("a\nb\na\n", "lists a twice"),
        ("a 1\nb -1\n", "2 columns in line 1.*list of one class"),
        ("../../a\n", "leaves the dataset's folder"),
        ("/etc/a\n", "leaves the dataset's folder"),
    ],
)
def test_invalid_lists_are_rejected(root: Path, lines: str, message: str) -> None:
    (root / "ImageSets" / "Main" / "bad.txt").write_text(lines)
    with pytest.raises(UnreadableDataset, match=message):
        open_voc(str(root), "bad")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("Annotations/a.xml", "a lacks an annotation:"),
        ("JPEGImages/a.jpg", r"a\.xml has no image"),
    ],
)
def test_a_missing_annotation_or_image_is_named(root: Path, missing: str, message: str) -> None:
    (root / missing).unlink()
    with pytest.raises(UnreadableDataset, match=message):
        list(open_voc(str(root), "train").rows)


def test_an_image_without_annotation_and_image_is_named(root: Path) -> None:
    (root / "ImageSets" / "Main" / "train.txt").write_text("ghost\n")
    with pytest.raises(UnreadableDataset, match="ghost lacks an annotation and an image:"):
        list(open_voc(str(root), "train").rows)


@pytest.mark.parametrize("filename", ["../secret.jpg", "/etc/secret.jpg", "C:\\x.jpg", "s3://b/x"])
def test_file_names_that_leave_the_dataset_are_rejected(root: Path, filename: str) -> None:
    write_image(root / "secret.jpg")
    (root / "Annotations" / "a.xml").write_text(voc_xml(filename))
    with pytest.raises(UnreadableDataset, match=r"a\.xml: field filename names .* leaves"):
        list(open_voc(str(root), "train").rows)


def test_annotations_may_be_missing_only_if_unlabelled(root: Path) -> None:
    for file in (root / "Annotations").iterdir():
        file.unlink()
    (root / "Annotations").rmdir()
    with pytest.raises(UnreadableDataset, match="no folder Annotations"):
        open_voc(str(root), "train")
    dataset = open_voc(str(root), "train", unlabelled=True)
    assert [(row.image_id, row.width, row.objects) for row in dataset.rows] == [
        ("a", 40, None),
        ("b", 40, None),
    ]
    assert dataset.classes is None


def test_a_wrong_year_names_the_years_of_the_devkit(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2012")
    for year in (None, 2007):
        with pytest.raises(UnreadableDataset, match="is a devkit: set the year to one of 2012"):
            open_voc(str(tmp_path), "train", year)
    with pytest.raises(UnreadableDataset, match="omit the year"):
        open_voc(str(tmp_path / "VOC2012"), "train", 2012)


def test_a_real_devkit_is_read(dev_data: Path) -> None:
    dataset = open_voc(str(dev_data / "VOCdevkit"), "devval", 2007)
    rows = list(dataset.rows)
    assert len(rows) == 400
    assert dataset.classes == STANDARD_CLASSES
    assert dataset.counts.objects.total() == 1277
    assert dataset.counts.dropped_boxes == 0


def test_a_real_folder_is_read(dev_data: Path) -> None:
    counts = []
    for split in ("train", "val", "test"):
        dataset = open_voc(str(dev_data / "BCCD"), split)
        assert dataset.classes == ("Platelets", "RBC", "WBC")
        counts.append(sum(1 for _ in dataset.rows))
    assert counts == [205, 87, 72]
