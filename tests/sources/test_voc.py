from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources import voc
from pipeline.sources.options import SourceOptions
from pipeline.sources.voc import STANDARD_CLASSES, open_voc
from pipeline.sources.voc_xml import VocAnnotation, parse_annotation
from tests.sources.small_datasets import voc_xml, write_image, write_voc

LENIENT = SourceOptions(max_invalid=1.0)


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
    assert dataset.tally.objects == {"dog": 1, "cat": 1}
    assert dataset.tally.images == 2


@pytest.mark.parametrize(("most_kept", "reads"), [(50_000, 3), (1, 4)])
def test_annotations_are_read_once_within_a_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch, most_kept: int, reads: int
) -> None:
    """Three files for the classes, then the two of the list; of these, some are still in memory."""
    read: list[str] = []

    def parse(data: bytes, where: str) -> VocAnnotation:
        read.append(where)
        return parse_annotation(data, where)

    monkeypatch.setattr(voc, "parse_annotation", parse)
    monkeypatch.setattr(voc, "MOST_KEPT", most_kept)
    assert [row.image_id for row in open_voc(str(root), "train").rows] == ["a", "b"]
    assert len(read) == reads


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
    assert dataset.tally.dropped_boxes == 1


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        (("dog", 20, 5, 10, 9), "inverted"),
        (("dog", 100, 1, 110, 9), "outside the image"),
        (("dog", "nan", 1, 10, 9), "not finite"),
    ],
)
def test_impossible_boxes_are_named(root: Path, box: tuple[str, ...], fault: str) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml("a.jpg", ("cat", 1, 1, 2, 2), box))
    with pytest.raises(InvalidBox, match=rf"a\.xml.*object 1 \(dog\) .*x1=.*{fault}"):
        list(open_voc(str(root), "train", options=SourceOptions(strict=True)).rows)
    dataset = open_voc(str(root), "train")
    assert [item.label for item in next(dataset.rows).objects or ()] == ["cat"]
    assert dataset.tally.describe_repairs() == f"1 box dropped: {fault}"


def test_invalid_images_are_skipped_on_request(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "Annotations" / "a.xml").write_text("<annotation>")
    dataset = open_voc(str(root), "train", options=LENIENT)
    assert [row.image_id for row in dataset.rows] == ["b"]
    assert dataset.tally.invalid_images == 1
    assert "a.xml is not well-formed XML" in caplog.text


def test_an_unknown_split_names_the_lists(root: Path) -> None:
    with pytest.raises(UnreadableDataset, match=r"trian\.txt does not exist.*test, train"):
        open_voc(str(root), "trian")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no images"),
        ("a 1\nb -1\n", "line 1, has 2 columns .*list of one class"),
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
def test_the_id_decides_and_no_file_name_leaves_the_dataset(root: Path, filename: str) -> None:
    write_image(root / "secret.jpg")
    (root / "Annotations" / "a.xml").write_text(voc_xml(filename))
    assert next(open_voc(str(root), "train").rows).uri == str(root / "JPEGImages" / "a.jpg")
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(
        TooManyInvalidImages, match=r"a\.xml has no image: .*holds no image named a"
    ):
        list(open_voc(str(root), "train").rows)


@pytest.mark.parametrize("filename", ["C:\\data\\seen.jpg", "/home/me/seen.JPG", "./seen.jpg"])
def test_an_image_of_another_name_than_its_id_is_found(root: Path, filename: str) -> None:
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "seen.jpg")
    (root / "Annotations" / "a.xml").write_text(voc_xml(filename))
    row = next(open_voc(str(root), "train").rows)
    assert (row.image_id, row.uri) == ("a", str(root / "JPEGImages" / "seen.jpg"))


def test_an_annotation_that_names_the_image_of_another_id_is_counted(root: Path) -> None:
    (root / "Annotations" / "a.xml").write_text(voc_xml("c.jpg"))
    dataset = open_voc(str(root), "train")
    assert next(dataset.rows).uri.endswith("/a.jpg")
    assert dataset.tally.describe_repairs() == (
        "1 annotation that names the image of another id: its own id decides"
    )


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tif", "Jpg", "JPEG"])
def test_every_ending_of_an_accepted_format_is_found(root: Path, ending: str) -> None:
    image = root / "JPEGImages" / "a.jpg"
    image.rename(image.with_suffix(f".{ending}"))
    assert next(open_voc(str(root), "train").rows).uri.endswith(f"/a.{ending}")


def test_of_several_images_the_annotated_ending_is_used_and_counted(root: Path) -> None:
    write_image(root / "JPEGImages" / "a.png", 20, 10)
    dataset = open_voc(str(root), "train", unlabelled=True)
    assert next(dataset.rows).uri.endswith("/a.jpg")
    (root / "Annotations" / "a.xml").write_text(voc_xml("a.png", width=20, height=10))
    dataset = open_voc(str(root), "train")
    assert next(dataset.rows).uri.endswith("/a.png")
    assert "1 id with several images" in dataset.tally.describe_repairs()


NAMES_WITH_BLANKS = ("b (1)", "WhatsApp Image 2020-01-01 at 10.00.00", "IMG 1", "x.y", "é")


def test_lists_may_hold_blanks_endings_and_other_spellings(root: Path) -> None:
    for name in NAMES_WITH_BLANKS:
        write_image(root / "JPEGImages" / f"{name}.jpg")
        stored = unicodedata.normalize("NFD", name)
        (root / "Annotations" / f"{stored}.xml").write_text(voc_xml(f"{name}.jpg"))
    lines = [*NAMES_WITH_BLANKS[:2], "IMG 1.jpg", "x.y", "é.JPG", "./a", "c.jpeg"]
    (root / "ImageSets" / "Main" / "odd.txt").write_text("\ufeff" + "\r\n".join(lines))
    ids = [row.image_id for row in open_voc(str(root), "odd").rows]
    assert ids == [*NAMES_WITH_BLANKS, "a", "c"]


def test_an_image_that_is_listed_twice_is_read_once(root: Path) -> None:
    (root / "ImageSets" / "Main" / "twice.txt").write_text("a\nb\na\nb.jpg\n")
    dataset = open_voc(str(root), "twice")
    assert [row.image_id for row in dataset.rows] == ["a", "b"]
    assert dataset.tally.describe_repairs() == "2 images listed again: left out there"
    with pytest.raises(UnreadableDataset, match=r"lists a twice \(lines 1 and 3\)"):
        open_voc(str(root), "twice", options=SourceOptions(strict=True))


def test_a_flag_that_nobody_set_is_counted(root: Path) -> None:
    annotation = voc_xml("a.jpg", ("dog", 1, 1, 9, 9), ("dog", 2, 2, 9, 9))
    annotation = annotation.replace(">0</difficult>", ">Unspecified</difficult>")
    (root / "Annotations" / "a.xml").write_text(annotation)
    dataset = open_voc(str(root), "train")
    assert not any(item.difficult for item in next(dataset.rows).objects or ())
    assert dataset.tally.describe_repairs() == (
        "2 objects with difficult unspecified: taken as not difficult"
    )


def test_an_unreadable_annotation_of_another_split_is_counted(root: Path) -> None:
    (root / "Annotations" / "c.xml").write_text("<annotation>")
    dataset = open_voc(str(root), "train")
    assert len(list(dataset.rows)) == 2
    assert "1 annotation of another split unreadable" in dataset.tally.describe_repairs()
    with pytest.raises(UnreadableDataset, match=r"c\.xml is not well-formed"):
        open_voc(str(root), "train", options=SourceOptions(strict=True))


def test_sizes_are_checked_on_request(root: Path) -> None:
    annotation = voc_xml("a.jpg", ("dog", 1, 1, 9, 9), width=400, height=300)
    (root / "Annotations" / "a.xml").write_text(annotation)
    assert next(open_voc(str(root), "train").rows).width == 400
    options = SourceOptions(check_sizes=True)
    with pytest.raises(TooManyInvalidImages, match="annotated as 400x300, stored as 40x30"):
        list(open_voc(str(root), "train", options=options).rows)


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
    assert dataset.tally.objects.total() == 1277
    assert dataset.tally.dropped_boxes == 0


def test_a_real_folder_is_read(dev_data: Path) -> None:
    counts = []
    for split in ("train", "val", "test"):
        dataset = open_voc(str(dev_data / "BCCD"), split)
        assert dataset.classes == ("Platelets", "RBC", "WBC")
        counts.append(sum(1 for _ in dataset.rows))
    assert counts == [205, 87, 72]


def test_a_folder_of_images_and_xml_files_needs_no_lists(tmp_path: Path) -> None:
    for name in ("night/b.bmp", "a.PNG"):
        write_image((tmp_path / name).with_suffix(".png"))
        (tmp_path / name).with_suffix(".png").rename(tmp_path / name)
        text = voc_xml(Path(name).name, ("dog", 1, 1, 10, 20))
        (tmp_path / name).with_suffix(".xml").write_text(text)
    (tmp_path / "classes.txt").write_text("dog")
    dataset = open_voc(str(tmp_path), None)
    rows = list(dataset.rows)
    assert [row.image_id for row in rows] == ["a", "night/b"]
    assert [row.uri for row in rows] == [f"{tmp_path}/a.PNG", f"{tmp_path}/night/b.bmp"]
    assert [len(row.objects or ()) for row in rows] == [1, 1]


@pytest.mark.parametrize("folders", [("images", "annotations"), ("JPEGImages", "Annotations")])
def test_images_may_be_in_folders_below(tmp_path: Path, folders: tuple[str, str]) -> None:
    images, annotations = (tmp_path / name for name in folders)
    write_image(images / "day" / "a.jpg")
    annotations.mkdir()
    (annotations / "a.XML").write_text(voc_xml("a.jpg", ("dog", 1, 1, 10, 20)))
    (annotations / "b.xml").write_text(voc_xml("b.jpg"))
    dataset = open_voc(str(tmp_path), None, options=LENIENT)
    assert [(row.image_id, row.uri) for row in dataset.rows] == [("a", f"{images}/day/a.jpg")]
    assert dataset.tally.invalid_images == 1
    unlabelled = open_voc(str(tmp_path), None, unlabelled=True)
    assert [(row.image_id, row.objects) for row in unlabelled.rows] == [("day/a", None)]


def test_a_stem_in_several_folders_is_ambiguous(tmp_path: Path) -> None:
    for name in ("day/a.jpg", "night/a.jpg"):
        write_image(tmp_path / "images" / name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text(voc_xml("a.jpg"))
    dataset = open_voc(str(tmp_path), None, options=SourceOptions(strict=True))
    with pytest.raises(UnreadableDataset, match=r"id 'a' may be any of 'day/a\.jpg', 'night"):
        list(dataset.rows)


def test_a_folder_without_annotations_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    with pytest.raises(UnreadableDataset, match=r"holds no annotation \(\.xml\) at any depth"):
        open_voc(str(tmp_path), None)


def test_a_devkit_needs_its_year_without_a_list_too(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007")
    with pytest.raises(UnreadableDataset, match="is a devkit: set the year to one of 2007"):
        open_voc(str(tmp_path), None)
    assert len(list(open_voc(str(tmp_path), None, 2007).rows)) == 3


def test_without_lists_no_split_can_be_chosen(root: Path) -> None:
    shutil.rmtree(root / "ImageSets")
    with pytest.raises(UnreadableDataset, match="no folder ImageSets; leave out the split"):
        open_voc(str(root), "train")
    assert [row.image_id for row in open_voc(str(root), None).rows] == ["a", "b", "c"]
    with pytest.raises(MissingObject, match="gone is not a folder"):
        open_voc(str(root / "gone"), None)
