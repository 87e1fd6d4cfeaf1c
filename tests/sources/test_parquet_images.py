from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import imaging
from pipeline.errors import UnreadableDataset
from pipeline.image_reader import read_image
from pipeline.sources.object_fields import ObjectFields
from pipeline.sources.options import SourceOptions
from pipeline.sources.parquet_images import ParquetLayout, open_parquet_images
from tests.sources.containers import encode_image, write_image_table

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)
LISTS = {"bbox": [[5, 6, 10, 20]], "category": [1]}
NAMES = {"names": ["cat", "dog"], "_type": "ClassLabel"}


def write_pets(root: Path, metadata: Any = None) -> Path:
    """Three images of brightness 0, 50 and 100; the first shows one object, the last none."""
    objects = [LISTS, None, {"bbox": [], "category": []}]
    images = [encode_image(n) for n in (0, 50, 100)]
    return write_image_table(root / "pets.parquet", images, {"objects": objects}, metadata)


def test_rows_point_into_the_file(tmp_path: Path) -> None:
    features = {"objects": {"bbox": {"_type": "List"}, "category": {"feature": NAMES}}}
    path = write_pets(tmp_path, {"info": {"features": features}})
    dataset = open_parquet_images([str(tmp_path)])
    a, b, c = dataset.rows
    assert [row.image_id for row in (a, b, c)] == ["pets/0", "pets/1", "pets/2"]
    assert dataset.classes == ("cat", "dog")
    (item,) = a.objects or ()
    assert (item.label, item.x1, item.y1, item.x2, item.y2) == ("dog", 5, 6, 15, 26)
    assert (b.objects, c.objects) == (None, ())
    assert (a.width, a.height, a.uri) == (40, 30, str(path))
    means = [imaging.decode_image(read_image(r.uri, r.member)).mean() for r in (a, b, c)]
    assert means == pytest.approx([0, 50, 100], abs=1)


def test_the_package_datasets_writes_what_is_read(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["cat", "dog"])
    for number, boxes in enumerate(
        (
            {"bbox": datasets.List(datasets.List(datasets.Value("float32"), 4))}
            | {"category": datasets.List(label)},
            datasets.List({"bbox": datasets.List(datasets.Value("float32"), 4), "category": label}),
        )
    ):
        features = datasets.Features(
            {"image": datasets.Image(), "name": datasets.Value("string"), "objects": boxes}
        )
        image = Image.fromarray(np.full((30, 40, 3), 60, np.uint8))
        lists: Any = {"bbox": [[1, 2, 3, 4], [0, 0, 9, 9]], "category": [1, 0]}
        structs = [{"bbox": [1, 2, 3, 4], "category": 1}, {"bbox": [0, 0, 9, 9], "category": 0}]
        row = {"image": image, "name": "one", "objects": structs if number else lists}
        path = tmp_path / f"{number}.parquet"
        datasets.Dataset.from_list([row], features=features).to_parquet(str(path))
        dataset = open_parquet_images([str(path)], ParquetLayout(id_column="name"))
        (read,) = dataset.rows
        assert dataset.classes == ("cat", "dog"), f"file {number}"
        assert read.image_id == "one"
        labels = [(item.label, item.x1, item.x2) for item in read.objects or ()]
        assert labels == [("dog", 1, 4), ("cat", 0, 9)]
        assert imaging.decode_image(read_image(read.uri, read.member)).mean() == pytest.approx(60)


def test_columns_of_sizes_spare_reading_the_images(tmp_path: Path) -> None:
    columns = {"width": pa.array([40, 40]), "height": pa.array([30, 31])}
    images = [b"no image, which nobody reads here", encode_image(1)]
    path = write_image_table(tmp_path / "a.parquet", images, columns)
    rows = list(open_parquet_images([str(path)]).rows)
    assert [(row.width, row.height) for row in rows] == [(40, 30), (40, 31)]
    checked = open_parquet_images([str(path)], options=SourceOptions(1.0, check_sizes=True))
    assert [row.image_id for row in checked.rows] == ["a/1"]


def test_labels_are_names_or_numbers_of_given_classes(tmp_path: Path) -> None:
    path = write_pets(tmp_path)
    assert open_parquet_images([str(path)]).classes == ("1",)
    dataset = open_parquet_images([str(path)], ParquetLayout(classes=("a", "b")))
    assert [item.label for row in dataset.rows for item in row.objects or ()] == ["b"]
    short = open_parquet_images([str(path)], ParquetLayout(classes=("a",)), STRICT)
    numbers = [{"bbox": [[1, 2, 3, 4]], "category": [number]} for number in (2, 10, 9)]
    path2 = write_image_table(
        tmp_path / "n.parquet", [encode_image(n) for n in range(3)], {"objects": numbers}
    )
    plain = open_parquet_images([str(path2)])
    assert [item.label for row in plain.rows for item in row.objects or ()] == ["2", "10", "9"]
    assert plain.classes == ("10", "2", "9")
    with pytest.raises(UnreadableDataset, match=r"pets\.parquet: row 0, object 0: .*from 0 to 0"):
        list(short.rows)


@pytest.mark.parametrize(
    ("box_format", "units", "box", "corners"),
    [
        ("xyxy", "pixels", [1, 2, 3, 4], (1, 2, 3, 4)),
        ("xywh", "pixels", [1, 2, 3, 4], (1, 2, 4, 6)),
        ("cxcywh", "pixels", [10, 10, 4, 6], (8, 7, 12, 13)),
        ("xyxy", "relative", [0.1, 0.2, 0.5, 1], (4, 6, 20, 30)),
        ("yolo", "pixels", [0.5, 0.5, 0.5, 0.2], (10, 12, 30, 18)),
    ],
)
def test_formats_of_boxes(
    tmp_path: Path, box_format: Any, units: Any, box: list[float], corners: tuple[float, ...]
) -> None:
    objects = [{"bbox": [[float(side) for side in box]], "category": ["cat"]}]
    path = write_image_table(tmp_path / "a.parquet", [encode_image(1)], {"objects": objects})
    fields = ObjectFields(box_format=box_format, box_units=units)
    (row,) = open_parquet_images([str(path)], ParquetLayout(fields=fields)).rows
    (item,) = row.objects or ()
    assert (item.x1, item.y1, item.x2, item.y2) == pytest.approx(corners, abs=1e-5)


def test_wrong_columns_and_cells_are_named(tmp_path: Path) -> None:
    path = write_image_table(tmp_path / "a.parquet", [encode_image(1), None, b"<html>"])
    with pytest.raises(
        UnreadableDataset, match=r"no column photo \(--image-column\); it has image"
    ):
        open_parquet_images([str(path)], ParquetLayout(image_column="photo"))
    with pytest.raises(UnreadableDataset, match="no column key"):
        open_parquet_images([str(path)], ParquetLayout(id_column="key"))
    dataset = open_parquet_images([str(path)], options=ANY)
    assert [row.image_id for row in dataset.rows] == ["a/0"]
    assert dataset.tally.invalid_images == 2
    with pytest.raises(UnreadableDataset, match=r"row 1 has no bytes in column image\.bytes"):
        list(open_parquet_images([str(path)], options=STRICT).rows)
    text = write_image_table(tmp_path / "b.parquet", [encode_image(1)], {"name": ["x"]})
    with pytest.raises(UnreadableDataset, match="column name is string, expected binary"):
        open_parquet_images([str(text)], ParquetLayout(image_column="name"))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UnreadableDataset, match=r"c\.parquet"):
        open_parquet_images([f"{tmp_path}/c.parquet"])
    fields = ObjectFields(label_field="label")
    with pytest.raises(UnreadableDataset, match="row 0: field label of the objects is missing"):
        open_parquet_images([str(write_pets(tmp_path))], ParquetLayout(fields=fields))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableDataset, match=r"holds no file with the ending \.parquet"):
        open_parquet_images([f"{tmp_path}/empty"])


def test_the_metadata_must_be_sound(tmp_path: Path) -> None:
    features = {"objects": {"category": {**NAMES, "names": ["cat", "cat"]}}}
    write_pets(tmp_path, {"info": {"features": features}})
    with pytest.raises(UnreadableDataset, match="lists a class twice"):
        open_parquet_images([str(tmp_path)])
