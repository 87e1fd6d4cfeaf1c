from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import manifest_writer, schema, storage
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.imaging import Decoding
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.shards import cut_manifest


def _rows(first: int, count: int) -> list[ManifestRow]:
    return [
        ManifestRow(f"p{i:04}", f"/data/p{i}.jpg", 10 + i, 20, None)
        for i in range(first, first + count)
    ]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_writer, "ROW_GROUP", 4)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, place: str) -> None:
    uri = f"memory://{tmp_path.name}/m.parquet" if place == "memory" else f"{tmp_path}/m.parquet"
    rows = [
        ManifestRow(
            "a", "s3://b/a", 640, 480, (AnnotatedObject("dog", 1, 2, 3.5, 4, True, False),)
        ),
        ManifestRow("b", "s3://b/b", None, None, ()),
        ManifestRow("c", "s3://b/c", 1, 1, None),
    ]
    assert write_manifest(uri, rows, ["cat", "dog"], [3, 18]) == 3
    opened = open_manifest(uri)
    assert (opened.rows, opened.classes, opened.category_ids) == (3, ("cat", "dog"), (3, 18))
    table = opened.read(0, 3)
    assert table.schema.equals(schema.MANIFEST)
    assert table.column("objects").to_pylist() == [
        [{"label": "dog", "x1": 1, "y1": 2, "x2": 3.5, "y2": 4, "difficult": True, "crowd": False}],
        [],
        None,
    ]
    assert table.column("width").to_pylist() == [640, None, 1]


@pytest.mark.usefixtures("small_groups")
def test_slices_and_batches_cross_row_groups_and_files(tmp_path: Path) -> None:
    for name, first, count in (("0", 0, 9), ("1", 9, 1), ("2", 10, 7)):
        write_manifest(f"{tmp_path}/{name}.parquet", _rows(first, count), None)
    opened = open_manifest(str(tmp_path))
    assert [(file.first_row, file.rows) for file in opened.files] == [(0, 9), (9, 1), (10, 7)]
    ids = [f"p{i:04}" for i in range(17)]
    for first in range(17):
        for count in range(17 - first + 1):
            table = opened.read(first, count, ["image_id"])
            assert table.column("image_id").to_pylist() == ids[first : first + count]
    for limit in (None, 0, 1, 9, 10, 13, 99):
        batches = opened.read_batches(["image_id"], limit, batch_size=3)
        ids_read = [i for batch in batches for i in batch.column("image_id").to_pylist()]
        assert ids_read == ids[:limit]


def test_a_slice_reads_only_its_row_groups(
    tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(f"{tmp_path}/m.parquet", _rows(0, 20), None)
    groups_read: list[list[int]] = []
    original = pq.ParquetFile.read_row_groups

    def spy(self: pq.ParquetFile, groups: list[int], **options: object) -> pa.Table:
        groups_read.append(list(groups))
        return original(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    open_manifest(f"{tmp_path}/m.parquet").read(7, 3)
    assert groups_read == [[1, 2]]


def test_other_writers_may_omit_columns_and_use_other_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "uri": pa.array(["/a", "/b"], pa.large_string()),
            "image_id": ["a", "b"],
            "width": pa.array([7, None], pa.int64()),
            "note": ["x", "y"],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    opened = open_manifest(f"{tmp_path}/m.parquet")
    assert opened.classes is None
    read = opened.read(0, 2)
    assert read.schema.equals(schema.MANIFEST)
    assert read.to_pylist()[0] == {
        "image_id": "a",
        "uri": "/a",
        "width": 7,
        "height": None,
        "objects": None,
    }


def test_an_absent_column_reads_as_nulls(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a", "b"], "uri": ["/a", "/b"]}), tmp_path / "m.parquet")
    read = open_manifest(f"{tmp_path}/m.parquet").read(1, 1, ["objects"])
    assert read.to_pylist() == [{"objects": None}]


def test_objects_of_other_writers_are_cast(tmp_path: Path) -> None:
    fields = [(name, pa.float64()) for name in ("x1", "y1", "x2", "y2")]
    kind = pa.struct(
        [*fields, ("crowd", pa.bool_()), ("difficult", pa.bool_()), ("label", pa.string())]
    )
    item = {"x1": 1, "y1": 2, "x2": 3, "y2": 4, "crowd": False, "difficult": True, "label": "owl"}
    objects = pa.array([[item]], pa.large_list(kind))
    pq.write_table(
        pa.table({"image_id": ["a"], "uri": ["/a"], "objects": objects}), tmp_path / "m.parquet"
    )
    read = open_manifest(f"{tmp_path}/m.parquet").read(0, 1)
    assert read.column("objects").to_pylist() == [[item]]


def test_an_objects_column_may_be_all_null(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "uri": ["/a"], "objects": pa.nulls(1)})
    pq.write_table(table, tmp_path / "m.parquet")
    assert open_manifest(f"{tmp_path}/m.parquet").read(0, 1).column("objects").to_pylist() == [None]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(str(path), _rows(0, 50), None)
    whole = path.read_bytes()
    for data in (b"", b"text", whole[:-20], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UnreadableDataset, match=r"m\.parquet is not readable Parquet"):
            open_manifest(str(path))


def test_a_file_with_damaged_pages_fails_on_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(str(path), _rows(0, 50), None)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(bytes(data))
    opened = open_manifest(str(path))
    with pytest.raises(UnreadableDataset, match=r"m\.parquet is not readable Parquet"):
        opened.read(0, 50)
    with pytest.raises(UnreadableDataset, match=r"m\.parquet is not readable Parquet"):
        list(opened.read_batches(["image_id"]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"uri": ["a"]}, "has no column image_id.*this file has uri"),
        ({"image_id": ["a"]}, "has no column uri"),
        ({"image_id": [1], "uri": ["a"]}, "column image_id is int64, expected string"),
        ({"image_id": ["a"], "uri": ["a"], "objects": [[{"label": "x"}]]}, "objects lack x1"),
        ({"image_id": ["a"], "uri": ["a"], "objects": ["x"]}, "objects lack label"),
        ({"image_id": ["a"], "uri": ["a"], "objects": [[1]]}, "objects lack label"),
    ],
)
def test_wrong_columns_are_named(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match=message):
        open_manifest(f"{tmp_path}/m.parquet")


def test_a_column_that_cannot_be_cast_names_the_file(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "uri": ["a"], "width": ["wide"]})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match=r"m\.parquet"):
        open_manifest(f"{tmp_path}/m.parquet").read(0, 1)


def test_a_manifest_without_files_or_rows_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match=r"holds no \*\.parquet file"):
        open_manifest(str(tmp_path))
    with pytest.raises(MissingObject, match="does not exist"):
        open_manifest(f"{tmp_path}/gone.parquet")
    pq.write_table(schema.MANIFEST.empty_table(), tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match="a manifest without images"):
        open_manifest(str(tmp_path))


def test_files_with_different_classes_are_rejected(tmp_path: Path) -> None:
    write_manifest(f"{tmp_path}/0.parquet", _rows(0, 1), ["cat"])
    write_manifest(f"{tmp_path}/1.parquet", _rows(1, 1), ["dog"])
    with pytest.raises(
        UnreadableDataset, match=r"1\.parquet lists other classes than .*0\.parquet"
    ):
        open_manifest(str(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_rows(0, 2) + _rows(1, 1), "'p0001' occurs twice"),
        ([], "no images"),
        (
            [ManifestRow("a", "/a", 9, 9, (AnnotatedObject("owl", 0, 0, 1, 1),))],
            "class 'owl', which is not among the classes cat",
        ),
    ],
)
def test_rejected_rows_leave_no_file(tmp_path: Path, rows: list[ManifestRow], message: str) -> None:
    with pytest.raises(UnreadableDataset, match=message):
        write_manifest(f"{tmp_path}/m.parquet", rows, ["cat"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_groups")
def test_duplicates_are_found_across_row_groups(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match="'p0000' occurs twice"):
        write_manifest(f"{tmp_path}/m.parquet", _rows(0, 9) + _rows(0, 1), None)


class _CountingFile:
    """A file that counts the bytes read from it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.bytes_read = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = bytes(self.file.read(size))
        self.bytes_read += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, _CountingFile]:
    """The files opened in the test, by name."""
    opened: dict[str, _CountingFile] = {}
    open_file = storage.open_file

    @contextlib.contextmanager
    def open_counting(uri: str) -> Iterator[_CountingFile]:
        with open_file(uri) as file:
            opened[uri.rpartition("/")[2]] = _CountingFile(file)
            yield opened[uri.rpartition("/")[2]]

    monkeypatch.setattr(storage, "open_file", open_counting)
    return opened


def test_memory_and_reads_stay_within_the_requested_row_groups(
    tmp_path: Path, files_read: dict[str, _CountingFile]
) -> None:
    rows, group, folder = 40_000, 1000, tmp_path / "manifest"
    folder.mkdir()
    for number in range(3):
        names = [f"{random.Random(number * rows + i).getrandbits(256):064x}" for i in range(rows)]
        table = pa.table({"image_id": names, "uri": [f"s3://b/{name}" for name in names]})
        pq.write_table(
            table, folder / f"{number}.parquet", row_group_size=group, use_dictionary=False
        )
    whole = (folder / "1.parquet").stat().st_size
    opened = open_manifest(str(folder))
    assert sum(file.bytes_read for file in files_read.values()) < 0.2 * whole  # footers

    files_read.clear()
    assert len(opened.read(rows + group + 3, 5)) == 5
    assert list(files_read) == ["1.parquet"]
    assert files_read["1.parquet"].bytes_read < 0.1 * whole

    files_read.clear()
    batches = opened.read_batches(["image_id", "uri"], batch_size=group)
    for _ in range(5):
        assert len(next(batches)) == group
    assert list(files_read) == ["0.parquet"]
    assert files_read["0.parquet"].bytes_read < 0.25 * whole
    batches.close()

    files_read.clear()
    before = pa.total_allocated_bytes()
    peak, rows_read = 0, 0
    for batch in opened.read_batches(["image_id", "uri"]):
        rows_read += len(batch)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows_read == 3 * rows
    assert peak < 0.5 * whole


def test_a_manifest_has_the_schema_version_and_a_newer_one_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(str(path), _rows(0, 2), ["cat"])
    table = pq.read_table(path)
    assert schema.read_metadata(table.schema, "schema_version") == schema.VERSION
    newer = {**table.schema.metadata, b"schema_version": b"%d" % (schema.MEMBERS_VERSION + 1)}
    pq.write_table(table.replace_schema_metadata(newer), path)
    newest = schema.MEMBERS_VERSION
    expected = rf"m\.parquet has schema version {newest + 1}, .* up to {newest}:"
    with pytest.raises(UnreadableDataset, match=expected):
        open_manifest(str(path))
    older = {key: value for key, value in newer.items() if key != b"schema_version"}
    pq.write_table(table.replace_schema_metadata(older), path)
    assert open_manifest(str(path)).classes == ("cat",)


def test_the_orientation_is_kept_and_must_be_known_and_alike(tmp_path: Path) -> None:
    write_manifest(f"{tmp_path}/a.parquet", _rows(0, 1), None, decoding=Decoding(exif="apply"))
    write_manifest(f"{tmp_path}/b.parquet", _rows(1, 1), None)
    assert open_manifest(f"{tmp_path}/a.parquet").exif == "apply"
    assert open_manifest(f"{tmp_path}/b.parquet").exif == "ignore"
    with pytest.raises(UnreadableDataset, match=r"b\.parquet was prepared with --exif ignore"):
        open_manifest(str(tmp_path))
    odd = schema.MANIFEST.with_metadata({b"exif": b'"sideways"'})
    pq.write_table(odd.empty_table(), tmp_path / "c.parquet")
    with pytest.raises(UnreadableDataset, match=r"c\.parquet: .*'exif' is 'sideways', expected"):
        open_manifest(f"{tmp_path}/c.parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x2": float("nan")}, "row 3 (image 'p3'): a box is (0, 0, nan, 4)"),
        ({"x1": float("-inf")}, "row 3 (image 'p3'): a box is (-inf, 0, 4, 4)"),
        ({"y2": -1.0}, "row 3 (image 'p3'): a box is (0, 0, 4, -1)"),
        ({"x2": 0.0}, "row 3 (image 'p3'): a box is (0, 0, 0, 4)"),
        ({"label": None}, "row 3 (image 'p3'): a label is null"),
        ({"y1": None}, "row 3 (image 'p3'): a y1 is null"),
    ],
)
def test_objects_of_other_writers_without_a_box_are_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    good = {
        "label": "a",
        "x1": 0.0,
        "y1": 0.0,
        "x2": 4.0,
        "y2": 4.0,
        "difficult": False,
        "crowd": False,
    }
    objects = [[good], [], None, [good, good | changes]]
    ids = [f"p{index}" for index in range(4)]
    table = pa.table(
        {
            "image_id": ids,
            "uri": ids,
            "objects": pa.array(objects, schema.MANIFEST.field("objects").type),
        }
    )
    path = str(tmp_path / "m.parquet")
    pq.write_table(table, path)
    manifest = open_manifest(path)
    assert manifest.read(0, 3)["objects"].to_pylist() == objects[:3]
    with pytest.raises(UnreadableDataset) as caught:
        manifest.read(2, 2)
    assert str(caught.value).startswith(f"{path}: column objects, {message}")


@pytest.mark.parametrize("name", ["uri", "width", "objects"])
def test_a_repeated_column_is_named(tmp_path: Path, name: str) -> None:
    table = schema.MANIFEST.empty_table()
    repeated = table.append_column(schema.MANIFEST.field(name), table.column(name))
    pq.write_table(repeated, tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match=f"several columns {name}"):
        open_manifest(str(tmp_path / "m.parquet"))


def test_a_repeated_class_is_named(tmp_path: Path) -> None:
    classes = schema.add_metadata(schema.MANIFEST, {"classes": ["cat", "dog", "cat"]})
    pq.write_table(classes.empty_table(), tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match="lists a class twice"):
        open_manifest(str(tmp_path / "m.parquet"))


def test_a_manifest_says_whether_truncated_images_are_used(tmp_path: Path) -> None:
    datasets = []
    for decoding in (Decoding(), Decoding(truncated="accept")):
        uri = f"{tmp_path}/{decoding.truncated}.parquet"
        write_manifest(uri, _rows(0, 1), None, decoding=decoding)
        assert open_manifest(uri).decoding == decoding
        datasets.append(cut_manifest(open_manifest(uri), 1, None).dataset)
    assert datasets[0] != datasets[1]  # a run over one never resumes the output of the other
    with pytest.raises(
        UnreadableDataset, match=r"reject\.parquet was prepared with .*--truncated reject"
    ):
        open_manifest(str(tmp_path))


def test_classes_that_name_one_twice_write_nothing(tmp_path: Path) -> None:
    uri = str(tmp_path / "m.parquet")
    with pytest.raises(UnreadableDataset, match="the classes name one twice: cat, dog, cat"):
        write_manifest(uri, [ManifestRow("a", "/a.jpg", 4, 4, ())], ["cat", "dog", "cat"])
    assert not list(tmp_path.iterdir())


def test_a_note_says_that_another_program_dropped_the_metadata(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prepared.parquet"
    decoding = Decoding(exif="apply")
    write_manifest(str(path), [ManifestRow("a", "/a.jpg", 1, 1, ())], ["cat"], None, decoding)
    table = pq.read_table(path)
    assert open_manifest(str(path)).exif == "apply"
    own_table = tmp_path / "own.parquet"
    pq.write_table(table.select(["image_id", "uri"]).replace_schema_metadata(None), own_table)
    assert open_manifest(str(own_table)).exif == "ignore"
    assert not caplog.messages
    filtered = tmp_path / "filtered.parquet"
    pq.write_table(table.replace_schema_metadata({b"pandas": b"{}"}), filtered)
    assert open_manifest(str(filtered)).exif == "ignore"
    (message,) = caplog.messages
    assert message.startswith(f"{filtered} has lost the metadata that prepare writes")
