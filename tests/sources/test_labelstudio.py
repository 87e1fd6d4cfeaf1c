from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidBox, MissingObject, TooManyInvalidImages, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.dataset import Dataset
from pipeline.sources.labelstudio import open_labelstudio
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)


def region(kind: str = "rectangle", labels: Any = ("dog",), **value: Any) -> dict[str, Any]:
    """A result as Label Studio 1.x exports it, of an image of 40x30; by default a box of a quarter."""
    name = f"{kind}labels"
    box = {"x": 10.0, "y": 20.0, "width": 25.0, "height": 50.0, "rotation": 0}
    return {
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "value": {**(box if kind == "rectangle" else {}), **value, name: list(labels)},
        "id": "t5sp3TyXPo",
        "from_name": "label",
        "to_name": "image",
        "type": name,
        "origin": "manual",
    }


def task(image: str, *results: dict[str, Any], **fields: Any) -> dict[str, Any]:
    annotation = {"id": 5, "was_cancelled": False, "ground_truth": False, "result": list(results)}
    predictions = [{"model_version": "m", "result": [region(labels=["wrong"])]}]
    content = {"id": 1, "data": {"image": image}, "annotations": [annotation]}
    return {**content, "predictions": predictions, **fields}


def write_export(root: Path, *tasks: Any) -> tuple[str, str]:
    """Images a.jpg and sub/b.jpg, each 40x30, and the tasks."""
    write_image(root / "images" / "a.jpg")
    write_image(root / "images" / "sub" / "b.jpg")
    (root / "export.json").write_text(json.dumps(list(tasks)))
    return str(root / "export.json"), str(root / "images")


def read(dataset: Dataset) -> dict[str, tuple[AnnotatedObject, ...] | None]:
    return {row.image_id: row.objects for row in dataset.rows}


def get_corners(item: AnnotatedObject) -> tuple[float, ...]:
    return item.x1, item.y1, item.x2, item.y2


B = task("sub/b.jpg")


def test_percentages_become_pixels(tmp_path: Path) -> None:
    dataset = open_labelstudio(*write_export(tmp_path, task("a.jpg", region()), B))
    a, b = dataset.rows
    assert (a.image_id, a.uri) == ("a.jpg", f"{tmp_path}/images/a.jpg")
    assert (a.width, a.height) == (40, 30)
    assert a.objects == (AnnotatedObject("dog", 4, 6, 14, 21),)
    assert (b.image_id, b.objects) == ("sub/b.jpg", ())
    assert dataset.classes == ("dog",)
    assert dataset.tally.describe_repairs() == "nothing"


@pytest.mark.parametrize(
    ("result", "corners"),
    [
        # A quarter turn clockwise about the corner (20, 6): the sides 10 and 15 change places.
        (region(x=50, rotation=90), (5, 6, 20, 16)),
        (region("ellipse", x=50, y=50, radiusX=25, radiusY=10), (10, 12, 30, 18)),
        (region("ellipse", x=50, y=50, radiusX=25, radiusY=10, rotation=90), (17, 5, 23, 25)),
        (region("polygon", points=[[10, 10], [50, 20], [30, 90]]), (4, 3, 20, 27)),
    ],
)
def test_shapes_become_upright_boxes(
    tmp_path: Path, result: dict[str, Any], corners: tuple[float, ...]
) -> None:
    dataset = open_labelstudio(*write_export(tmp_path, task("a.jpg", result)))
    (item,) = read(dataset)["a.jpg"] or ()
    assert get_corners(item) == pytest.approx(corners, abs=1e-5)


def test_a_region_may_have_several_labels_or_a_result_for_them(tmp_path: Path) -> None:
    bare = {**region(), "type": "rectangle", "id": "r"}
    separate = {"id": "r", "type": "labels", "value": {"labels": ["cow"]}}
    choice = {"id": "c", "type": "choices", "value": {"choices": ["night"]}}
    tasks = [task("a.jpg", region(labels=["dog", "cat"])), task("b.jpg", bare, choice, separate)]
    dataset = open_labelstudio(*write_export(tmp_path, *tasks), options=ANY)
    (a,) = dataset.rows
    assert [item.label for item in a.objects or ()] == ["dog", "cat"]
    (row,) = open_labelstudio(*write_export(tmp_path, task("a.jpg", bare, choice, separate))).rows
    assert [item.label for item in row.objects or ()] == ["cow"]


def test_regions_without_a_box_are_counted(tmp_path: Path) -> None:
    arguments = write_export(tmp_path, task("a.jpg", region("keypoint", x=1, y=2), region()))
    dataset = open_labelstudio(*arguments)
    assert len(read(dataset)["a.jpg"] or ()) == 1
    assert dataset.tally.repairs["object", "without a box (keypoint): left out"] == 1
    with pytest.raises(UnreadableDataset, match=r"export\.json: task 0, region 0"):
        list(open_labelstudio(*arguments, options=STRICT).rows)


def test_the_annotation_that_counts(tmp_path: Path) -> None:
    def made(label: str, at: str, **fields: Any) -> dict[str, Any]:
        return {"result": [region(labels=[label])], "updated_at": f"2024-01-{at}", **fields}

    first = [made("new", "03"), made("old", "01"), made("skipped", "09", was_cancelled=True)]
    second = [made("truth", "01", ground_truth=True), made("new", "02")]
    tasks = [
        task("a.jpg", annotations=first),
        task("b.jpg", annotations=second),
    ]
    annotations, images = write_export(tmp_path, *tasks)
    dataset = open_labelstudio(annotations, f"{images}/sub", options=ANY)
    assert [item.label for item in read(dataset)["b.jpg"] or ()] == ["truth"]
    dataset = open_labelstudio(annotations, images, options=ANY)
    assert [item.label for item in read(dataset)["a.jpg"] or ()] == ["new"]
    assert "with several annotations" in dataset.tally.describe_repairs()


@pytest.mark.parametrize("annotations", [[], [{"was_cancelled": True, "result": []}]])
def test_a_task_that_nobody_annotated_is_unlabelled(tmp_path: Path, annotations: Any) -> None:
    skipped = task("a.jpg", annotations=annotations)
    dataset = open_labelstudio(*write_export(tmp_path, skipped, B))
    a, b = dataset.rows
    assert (a.objects, b.objects) == (None, ())
    assert (a.width, a.height) == (40, 30)
    assert dataset.tally.describe_repairs() == ("1 image without an annotation: kept as unlabelled")


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/a.jpg",
        "/data/upload/3/1a2b3c4d-a.jpg",
        "/data/local-files/?d=project%2Fa.jpg",
        "https://host.org/some/a.jpg?token=secret",
        "s3://bucket/images/a.jpg",
        "C:\\images\\a.jpg",
    ],
)
def test_an_image_is_found_by_the_end_of_its_address(tmp_path: Path, image: str) -> None:
    dataset = open_labelstudio(*write_export(tmp_path, task(image, region())))
    assert list(read(dataset)) == ["a.jpg"]


def test_images_may_stay_in_their_store(tmp_path: Path) -> None:
    tasks = [
        task("s3://bucket/a.jpg", region()),
        task("/data/upload/1/a.jpg", region()),
        task("file:///etc/passwd", region()),
        task("https://alice:canary@host.org/a.jpg", region()),
    ]
    annotations, _ = write_export(tmp_path, *tasks)
    dataset = open_labelstudio(annotations, options=ANY)
    (row,) = dataset.rows
    assert (row.image_id, row.uri, row.width) == ("s3://bucket/a.jpg", "s3://bucket/a.jpg", 40)
    assert dataset.tally.invalid_images == 3
    with pytest.raises(UnreadableDataset, match="pass a folder") as caught:
        list(open_labelstudio(write_export(tmp_path, tasks[3])[0], options=STRICT).rows)
    assert "canary" not in str(caught.value)


def test_the_key_of_the_image_can_be_chosen(tmp_path: Path) -> None:
    data = {"photo": "a.jpg", "caption": "a dog"}
    arguments = write_export(tmp_path, task("", region(), data=data))
    assert list(read(open_labelstudio(*arguments, image_key="photo"))) == ["a.jpg"]
    with pytest.raises(UnreadableDataset, match=r"fields photo, caption; choose .*--image-key"):
        list(open_labelstudio(*arguments, options=STRICT).rows)
    del data["caption"]
    assert list(read(open_labelstudio(*write_export(tmp_path, task("", data=data))))) == ["a.jpg"]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (region(labels=[]), "region 0 has no label"),
        (region(labels=[7]), "field labels is 7, expected a text"),
        (region(x="1%"), "field x is '1%', not a number"),
        (region(x=None), "field x is None, not a number"),
        (region("polygon", points=[[1, 2], [3, 4]]), "field points"),
        (region("polygon", points=[[1, 2], [3, 4], [5]]), "field points"),
        ({**region(), "value": 3}, "field value is 3"),
        ({**region(), "original_width": 0}, "an image of 0x30 pixels"),
        ({**region(), "original_width": "wide"}, "field original_width is 'wide'"),
        ({**region(), "image_rotation": 90}, "displayed turned .image_rotation 90"),
        (
            {k: v for k, v in region().items() if not k.startswith("original")},
            "states no original_width",
        ),
    ],
)
def test_a_malformed_region_leaves_its_image_out(
    tmp_path: Path, result: dict[str, Any], message: str
) -> None:
    arguments = write_export(tmp_path, task("a.jpg", result), B)
    assert list(read(open_labelstudio(*arguments, options=ANY))) == ["sub/b.jpg"]
    with pytest.raises(TooManyInvalidImages, match=rf"export\.json: task 0.*{message}"):
        list(open_labelstudio(*arguments).rows)


def test_sizes_must_agree(tmp_path: Path) -> None:
    other = {**region(), "original_width": 80}
    arguments = write_export(tmp_path, task("a.jpg", region(), other), B)
    with pytest.raises(UnreadableDataset, match="its regions state the sizes 40x30 and 80x30"):
        list(open_labelstudio(*arguments, options=STRICT).rows)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ({"width": -5}, "dropped: inverted"),
        ({"width": float("nan")}, "dropped: not finite"),
        ({"width": 0}, "dropped: no area"),
        ({"x": 120}, "dropped: outside the image"),
        ({"x": 90}, "clipped to the image"),
    ],
)
def test_boxes_without_an_area_in_the_image(
    tmp_path: Path, value: dict[str, Any], outcome: str
) -> None:
    arguments = write_export(tmp_path, task("a.jpg", region(**value), region()), B)
    dataset = open_labelstudio(*arguments)
    assert len(list(dataset.rows)) == 2
    assert dataset.tally.describe_repairs() == f"1 box {outcome}"
    if "dropped" in outcome:
        with pytest.raises(InvalidBox, match=r"export\.json: task 0"):
            list(open_labelstudio(*arguments, options=STRICT).rows)


def test_images_and_tasks_that_lack_each_other(tmp_path: Path) -> None:
    tasks = [task("gone.jpg"), task("../secret.jpg"), task("a.jpg"), task("/data/upload/1/a.jpg")]
    write_image(tmp_path / "secret.jpg")
    annotations, images = write_export(tmp_path, *tasks, {"id": 4, "image": "a.jpg"})
    dataset = open_labelstudio(annotations, images, options=ANY)
    assert list(read(dataset)) == []
    assert dataset.tally.describe_repairs() == (
        "5 images invalid: left out; 1 image without an annotation: left out"
    )
    for number, message in ((0, "'gone.jpg' does not exist"), (1, "secret.jpg' does not exist")):
        arguments = write_export(tmp_path, tasks[number])
        with pytest.raises(UnreadableDataset, match=message):
            list(open_labelstudio(*arguments, options=STRICT).rows)
    arguments = write_export(tmp_path, *tasks[2:])
    with pytest.raises(UnreadableDataset, match=r"task 0: 2 tasks of a\.jpg"):
        list(open_labelstudio(*arguments, options=STRICT).rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no list of tasks"),
        (b"{}", "is no list of tasks"),
        (b"[]", "holds no tasks"),
        (b"[{]", "not well-formed JSON"),
        (b'[{"data": {"image": "\xe9"}}]', "not well-formed JSON"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    annotations, images = write_export(tmp_path)
    Path(annotations).write_bytes(content)
    with pytest.raises(UnreadableDataset, match=rf"export\.json.*{message}"):
        open_labelstudio(annotations, images)


def test_a_record_without_annotation_is_named(tmp_path: Path) -> None:
    arguments = write_export(tmp_path, {"id": 1, "image": "a.jpg", "label": []})
    with pytest.raises(
        UnreadableDataset, match=r"task 0 has no field data; export .* as JSON or JSON-MIN"
    ):
        list(open_labelstudio(*arguments, options=STRICT).rows)


def test_byte_order_marks_and_line_ends(tmp_path: Path) -> None:
    annotations, images = write_export(tmp_path, task("a.jpg", region()))
    text = Path(annotations).read_bytes().replace(b", ", b",\r\n")
    Path(annotations).write_bytes(b"\xef\xbb\xbf" + text)
    assert len(read(open_labelstudio(annotations, images))["a.jpg"] or ()) == 1


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=r"gone\.json"):
        open_labelstudio(str(tmp_path / "gone.json"), str(tmp_path))


def test_json_min_says_the_same(tmp_path: Path) -> None:
    full, images = write_export(
        tmp_path, task("a.jpg", region(), region("ellipse", x=50, y=50, radiusX=5, radiusY=10)), B
    )
    expected = read(open_labelstudio(full, images))

    def shorten(whole: dict[str, Any]) -> dict[str, Any]:
        results = whole["annotations"][0]["result"]
        sizes = ("original_width", "original_height", "image_rotation")
        regions = [{**r["value"], **{name: r[name] for name in sizes}} for r in results]
        fields = {"id": 1, "annotator": 1, "annotation_id": 5, "created_at": "2026-01-01T00:00:00Z"}
        return {
            "image": whole["data"]["image"],
            **fields,
            **({"label": regions} if regions else {}),
        }

    tasks = [shorten(item) for item in json.loads(Path(full).read_text())]
    small, _ = write_export(tmp_path, *tasks)
    assert read(open_labelstudio(small, images)) == expected
    assert [len(objects or ()) for objects in expected.values()] == [2, 0]
    unlabelled, _ = write_export(tmp_path, {"image": "a.jpg", "label": []}, *tasks[1:])
    with pytest.raises(UnreadableDataset, match="task 0 has no field data"):
        list(open_labelstudio(unlabelled, images, options=STRICT).rows)
