from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.dataset import Dataset
from pipeline.sources.options import SourceOptions
from pipeline.sources.yolo import open_yolo
from tests.sources.small_datasets import write_image

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)
DATA = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"


def write_yolo(root: Path, data: str | bytes = DATA) -> Path:
    """Images train/a (a dog, a cat's polygon), train/b (no labels), val/c (empty labels), each 40x30."""
    for name in ("train/a.jpg", "train/b.jpg", "val/c.png"):
        write_image(root / "images" / name)
    write_labels(root, "train/a", "1 0.5 0.5 0.25 0.2\n0 0.1 0.2 0.3 0.2 0.2 0.6\n")
    write_labels(root, "val/c", "")
    (root / "data.yaml").write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def write_labels(root: Path, name: str, content: str | bytes) -> None:
    path = root / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def read(dataset: Dataset) -> dict[str, tuple[AnnotatedObject, ...] | None]:
    return {row.image_id: row.objects for row in dataset.rows}


def test_boxes_and_polygons_become_pixels(tmp_path: Path) -> None:
    dataset = open_yolo(str(write_yolo(tmp_path)), "train")
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("images/train/a.jpg", f"{tmp_path}/images/train/a.jpg")
    assert (a.width, a.height) == (40, 30)
    dog, cat = a.objects or ()
    # The centre is (20, 15) and the sides 10 and 6; the polygon spans 0.1 to 0.3 and 0.2 to 0.6.
    assert (dog.label, dog.x1, dog.y1, dog.x2, dog.y2) == ("dog", 15, 12, 25, 18)
    assert (cat.x1, cat.y1, cat.x2, cat.y2) == pytest.approx((4, 6, 12, 18), abs=1e-5)
    assert b.objects == ()
    assert dataset.classes == ("cat", "dog")
    assert dataset.category_ids is None
    assert dataset.tally.describe_repairs() == "nothing"


@pytest.mark.parametrize("form", ["\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_are_read(tmp_path: Path, form: str, mark: bytes) -> None:
    root = write_yolo(tmp_path, mark + DATA.replace("\n", "\r\n").encode())
    write_labels(root, "train/a", mark + f"1 0.5 0.5 0.25 0.2{form}{form}0 .1 .1 .1 .1".encode())
    objects = read(open_yolo(str(root), "train"))["images/train/a.jpg"] or ()
    assert [item.label for item in objects] == ["dog", "cat"]


def test_the_file_itself_can_be_named(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    (root / "data.yaml").rename(root / "pets.yaml")
    assert list(read(open_yolo(str(root / "pets.yaml"), "val"))) == ["images/val/c.png"]
    assert list(read(open_yolo(str(root), "val"))) == ["images/val/c.png"]


@pytest.mark.parametrize(
    "data",
    [
        "train: ../train/images\nnames: [cat, dog]\nnc: 2\nroboflow: {project: x}\n",
        "path: /content/datasets/pets\ntrain: train/images\nnames: ['cat', 'dog']\n",
        "path: ../datasets/pets\ntrain: [train/images]\nnames: {1: dog, 0: cat}\n",
        "train: ./train/images/\nnames: [cat, dog]\n",
        "train: train/../train/images\nnames: [cat, dog]\n",
    ],
)
def test_layouts_of_other_exporters(tmp_path: Path, data: str) -> None:
    write_image(tmp_path / "train" / "images" / "a.jpg")
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.2\n")
    (tmp_path / "data.yaml").write_text(data)
    dataset = open_yolo(str(tmp_path), "train")
    assert [len(objects or ()) for objects in read(dataset).values()] == [1]
    assert dataset.classes == ("cat", "dog")


def test_a_split_may_be_a_list_of_images(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, DATA.replace("images/train", "train.txt"))
    lines = ["./images/train/b.jpg", f"{root}/images/train/a.jpg", "images\\train\\gone.jpg"]
    (root / "train.txt").write_text("\n".join(lines))
    dataset = open_yolo(str(root), "train", ANY)
    assert list(read(dataset)) == ["images/train/b.jpg", "images/train/a.jpg"]
    assert dataset.tally.invalid_images == 1
    with pytest.raises(UnreadableDataset, match=r"data\.yaml: split train lists .*gone\.jpg"):
        list(open_yolo(str(root), "train", STRICT).rows)


def test_a_list_of_names_replaces_data_yaml(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "x.jpg")
    write_labels(tmp_path, "x", "1 0.5 0.5 0.25 0.2")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "notes.json").write_text("{}")
    objects = read(open_yolo(str(tmp_path)))["images/x.jpg"] or ()
    assert [item.label for item in objects] == ["dog"]
    with pytest.raises(UnreadableDataset, match="no split 'train'"):
        open_yolo(str(tmp_path), "train")


def test_labels_may_be_beside_their_images(tmp_path: Path) -> None:
    write_image(tmp_path / "obj" / "x.jpg")
    (tmp_path / "obj" / "x.txt").write_text("0 0.5 0.5 0.25 0.2")
    (tmp_path / "data.yaml").write_text("train: obj\nnames: [cat]")
    assert len(read(open_yolo(str(tmp_path), "train"))["obj/x.jpg"] or ()) == 1


def test_numbers_of_classes_may_have_gaps(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, DATA.replace("0: cat", "7: cat"))
    write_labels(root, "train/a", "7 0.5 0.5 0.25 0.2\n1 0.1 0.1 0.1 0.1")
    dataset = open_yolo(str(root), "train")
    assert [item.label for item in read(dataset)["images/train/a.jpg"] or ()] == ["cat", "dog"]
    assert (dataset.classes, dataset.category_ids) == (("dog", "cat"), (1, 7))


def test_keypoints_are_no_polygon(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, DATA + "kpt_shape: [2, 2]\n")
    write_labels(root, "train/a", "1 0.5 0.5 0.25 0.2 0.1 0.1 0.9 0.9")
    (item,) = read(open_yolo(str(root), "train"))["images/train/a.jpg"] or ()
    assert (item.x1, item.y1, item.x2, item.y2) == (15, 12, 25, 18)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("0 0.5 0.5 0.1", "line 1 has 4 columns, expected 5"),
        ("\n0 0.5 0.5 0.1 0.1 0.9", "line 2 has 6 columns.*a score"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 1 has 8 columns"),
        ("0 0.5 0.5 0.1 zero", "line 1: field height is 'zero', not a number"),
        ("0 0.5 0.5 0.1 1_0", "not a number"),
        ("0 0,5 0,5 0,1 0,1", "line 1: field x is '0,5', not a number"),
        ("cat 0.5 0.5 0.1 0.1", "line 1: field class is 'cat', expected an integer"),
        ("0 .5 .5 .1 .1\r\n2 .5 .5 .1 .1", r"line 2 is of class 2, .*0 to 1\)"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        (b"0 0.5 0.5 0.1 0.1\n\xff\xfe0", "line 2: byte 0xff is not UTF-8"),
        ("<html>\n", "line 1"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, labels: str | bytes, message: str) -> None:
    root = write_yolo(tmp_path)
    write_labels(root, "train/a", labels)
    with pytest.raises(UnreadableDataset, match=rf"labels/train/a\.txt.*{message}"):
        list(open_yolo(str(root), "train", STRICT).rows)
    dataset = open_yolo(str(root), "train", ANY)
    assert list(read(dataset)) == ["images/train/b.jpg"]
    assert dataset.tally.invalid_images == 1


@pytest.mark.parametrize(
    ("box", "outcome"),
    [
        ("0.5 0.5 -0.2 0.2", "dropped: inverted"),
        ("0.5 0.5 nan 0.2", "dropped: not finite"),
        ("inf 0.5 0.1 0.2", "dropped: not finite"),
        ("0.5 0.5 0 0.2", "dropped: no area"),
        ("1.5 0.5 0.2 0.2", "dropped: outside the image"),
        ("0.95 0.5 0.2 0.2", "clipped to the image"),
        ("20 15 10 6", "dropped: outside the image"),
    ],
)
def test_boxes_without_an_area_in_the_image(tmp_path: Path, box: str, outcome: str) -> None:
    root = write_yolo(tmp_path)
    write_labels(root, "train/a", f"0 {box}\n1 0.5 0.5 0.25 0.2")
    dataset = open_yolo(str(root), "train")
    labels = [item.label for item in read(dataset)["images/train/a.jpg"] or ()]
    assert labels == (["cat", "dog"] if "clipped" in outcome else ["dog"])
    assert dataset.tally.describe_repairs() == f"1 box {outcome}"
    if "dropped" in outcome:
        with pytest.raises(InvalidBox, match=r"labels/train/a\.txt"):
            list(open_yolo(str(root), "train", STRICT).rows)


def test_a_repeated_line_counts_once(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_labels(root, "train/a", "1 0.5 0.5 0.25 0.2\n1  0.5 0.5 0.25 0.2\n")
    dataset = open_yolo(str(root), "train")
    assert len(read(dataset)["images/train/a.jpg"] or ()) == 1
    assert dataset.tally.describe_repairs() == "1 object listed again: left out there"


def test_labels_without_an_image_are_counted(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    write_labels(root, "train/gone", "0 0.5 0.5 0.1 0.1")
    write_labels(root, "train/classes", "cat")  # labelImg writes it there
    write_labels(root, "val/gone", "")  # of another split
    dataset = open_yolo(str(root), "train")
    assert len(read(dataset)) == 2
    assert dataset.tally.describe_repairs() == "1 label file without an image: left out"
    with pytest.raises(UnreadableDataset, match=r"train/gone\.txt has no image"):
        open_yolo(str(root), "train", STRICT)


def test_a_damaged_image_is_left_out(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    (root / "images" / "train" / "b.jpg").write_text("<html>not found</html>")
    with pytest.raises(TooManyInvalidImages, match=r"b\.jpg"):
        list(open_yolo(str(root), "train").rows)
    assert list(read(open_yolo(str(root), "train", ANY))) == ["images/train/a.jpg"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "holds no keys"),
        ("train: images/train", "field names is None"),
        ("names: []", "field names is \\[\\]"),
        ("names: [cat, cat]", "class 'cat' occurs twice, as number 0 and 1"),
        ("names: {0: cat, 0: dog}", "key 0 occurs twice"),
        ("names: {cat: 0}", "class 'cat': field names is 'cat', expected an integer"),
        ("names: [cat, yes]", "class 1: its name is True, expected a text"),
        ("names: [cat]\nnc: 3", "nc is 3, but names has 1 classes"),
        ("names: [cat", "not well-formed YAML"),
        ("names: !!python/object/apply:os.system ['true']", "not well-formed YAML"),
        ("names: &a [*a]", "not well-formed YAML: it holds a reference"),
        (b"names: [caf\xe9]", "line 1: byte 0xe9 is not UTF-8"),
        (DATA.replace("images/train", "images/gone"), "'images/gone', which does not exist below"),
        (DATA.replace("images/train", "../../secret"), "'../../secret', which does not exist"),
        (DATA.replace("images/train", "/etc"), "'/etc', which does not exist below"),
        (DATA.replace("images/train", "labels"), "no images in labels"),
    ],
)
def test_a_wrong_data_yaml_fails_at_once(tmp_path: Path, data: str | bytes, message: str) -> None:
    with pytest.raises(UnreadableDataset, match=rf"data\.yaml.*{message}"):
        open_yolo(str(write_yolo(tmp_path, data)), "train", ANY)


def test_a_split_must_be_chosen_among_several(tmp_path: Path) -> None:
    root = str(write_yolo(tmp_path))
    with pytest.raises(UnreadableDataset, match="splits train, val: choose one with --split"):
        open_yolo(root)
    with pytest.raises(UnreadableDataset, match=r"no split 'trian' \(splits: train, val\)"):
        open_yolo(root, "trian")


def test_a_list_never_leads_out_of_the_dataset(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.jpg")
    root = write_yolo(tmp_path / "set", DATA.replace("images/train", "train.txt"))
    lines = ["../secret.jpg", f"{tmp_path}/secret.jpg", *2 * ["./images/train/a.jpg"]]
    (root / "train.txt").write_text("\n".join(lines))
    dataset = open_yolo(str(root), "train", ANY)
    assert list(read(dataset)) == ["images/train/a.jpg"]
    assert dataset.tally.describe_repairs() == (
        "2 images invalid: left out; 1 image listed again: left out there"
    )
    with pytest.raises(UnreadableDataset, match=r"a\.jpg is listed again in train\.txt"):
        open_yolo(str(root), "train", STRICT)
    (root / "train.txt").write_text("\n".join(lines[:3]))
    with pytest.raises(UnreadableDataset, match="leaves the dataset's folder"):
        list(open_yolo(str(root), "train", STRICT).rows)


def test_a_missing_dataset_is_named(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "data.yaml").unlink()
    with pytest.raises(UnreadableDataset, match=r"neither data\.yaml nor a list of class names"):
        open_yolo(str(root), "train")
    with pytest.raises(MissingObject, match="not a folder"):
        open_yolo(str(tmp_path / "gone"), "train")


def test_links_of_the_disk_are_followed(tmp_path: Path) -> None:
    """DVC and git-annex keep datasets as links; only names in files must stay inside."""
    root = write_yolo(tmp_path / "set")
    for path in (root / "labels" / "train" / "a.txt", root / "images" / "train"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    dataset = open_yolo(str(root), "train")
    assert {name: len(objects or ()) for name, objects in read(dataset).items()} == {
        "images/train/a.jpg": 2,
        "images/train/b.jpg": 0,
    }
