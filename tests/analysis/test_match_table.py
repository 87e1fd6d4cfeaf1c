from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, shards
from pipeline.analysis.manifest_join import JoinedBatch, join_manifest
from pipeline.analysis.match_table import build_matches, match_batch, read_matches
from pipeline.errors import UnreadableDataset
from pipeline.manifests import open_manifest
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

A, B = (0, 0, 10, 10), (50, 50, 90, 90)
CLASSES = ("cat", "dog")


@pytest.fixture
def batch(tmp_path) -> JoinedBatch:
    manifest = write_annotations(
        str(tmp_path / "manifest.parquet"),
        {
            "one": [make_object("dog", A), make_object("cat", B)],
            "two": [make_object("cat", A, difficult=True), make_object("dog", B, crowd=True)],
            "three": None,
            "four": [make_object("cat", A)],
        },
        CLASSES,
    )
    found = {
        "one": [("owl", 0.9, A), ("dog", 0.8, A), ("cat", 0.7, A)],
        "two": [("cat", 0.6, A)],
        "three": [("cat", 0.5, A)],
        "four": FailedImage(),
    }
    detections = write_detections(
        str(tmp_path / "detections"), manifest, found, ("owl", *CLASSES), shard_size=4
    )
    (only,) = join_manifest(shards.open_parts(detections), open_manifest(manifest), ["detections"])
    return only


@pytest.fixture
def table(batch) -> pa.Table:
    return build_matches(batch, CLASSES, shard=5)


def get_values(table: pa.Table, name: str) -> list:
    return table.column(name).to_pylist()


def test_a_table_has_the_schema_and_the_classes_with_those_that_only_detections_have(table):
    assert table.schema.remove_metadata() == schema.MATCHES
    assert schema.read_metadata(table.schema, "classes") == ["cat", "dog", "owl"]
    assert schema.read_metadata(table.schema, schema.VERSION_KEY) == schema.VERSION
    table.validate(full=True)


def test_rows_of_detections_and_objects(table):
    assert get_values(table, "image_id") == ["one"] * 4 + ["two"] * 3 + ["three", "four"]
    assert get_values(table, "row") == [0, 0, 0, 0, 1, 1, 1, 2, 3]
    assert set(get_values(table, "shard")) == {5}
    labels = ["cat", "dog", "owl", "cat", "cat", "cat", "dog", "cat", "cat"]
    assert get_values(table, "label") == labels
    assert get_values(table, "kind") == [
        *("detection", "detection", "detection", "missed"),
        *("detection", "ignored", "ignored"),
        *("detection", "missed"),
    ]
    assert get_values(table, "true_all") == [0, 1023, 0, None, 0, None, None, None, None]
    assert get_values(table, "ignored_all") == [0, 0, 0, None, 1023, None, None, None, None]
    assert get_values(table, "voc") == [0, 1, 0, None, -1, None, None, None, None]
    assert get_values(table, "error") == ["cls", None, "cls", "miss", *[None] * 4, "miss"]
    assert get_values(table, "error_index") == [0, None, 0, *[None] * 6]
    assert get_values(table, "object_index") == [None, 0, None, 1, 0, 0, 1, None, 0]
    assert get_values(table, "object_crowd")[5:] == [False, True, None, False]
    assert get_values(table, "iou") == [None, 1, None, None, 1, None, None, None, None]
    assert get_values(table, "nearest_label") == ["dog"] * 3 + [None, "cat"] + [None] * 4
    assert get_values(table, "rank") == [0, 0, 0, None, 0, None, None, 0, None]
    assert get_values(table, "covered50") == [None] * 9


def test_coverage_is_known_for_the_rows_that_stand_for_objects(batch):
    boxes = [np.array([A], np.float32), *[np.empty((0, 4), np.float32)] * 3]
    table = build_matches(batch, CLASSES, 0, boxes)
    expected = [None, True, None, False, None, False, False, None, False]
    assert get_values(table, "covered50") == get_values(table, "covered70") == expected


def test_a_table_read_back_gives_the_same_matches(batch, table):
    matches = match_batch(batch, ("cat", "dog", "owl"))
    stored = read_matches(table)
    for field in fields(matches):
        expected, actual = getattr(matches, field.name), getattr(stored, field.name)
        np.testing.assert_array_equal(actual, expected, field.name)
        assert actual.dtype == expected.dtype, field.name


def test_some_columns_are_enough(table):
    whole = read_matches(table)
    some = read_matches(table.select(["kind", "label", "true_small", "covered50"]))
    np.testing.assert_array_equal(some.class_id, whole.class_id)
    np.testing.assert_array_equal(some.true_small, whole.true_small)
    np.testing.assert_array_equal(some.is_annotated, whole.is_annotated)
    assert (some.object_index == -1).all()
    assert np.isnan(some.score).all()


def test_no_images_give_no_rows(batch):
    empty = JoinedBatch(0, batch.results.slice(0, 0), batch.manifest.slice(0, 0))
    assert len(build_matches(empty, CLASSES, 0)) == 0
    empty = JoinedBatch(0, batch.results.schema.empty_table(), batch.manifest.schema.empty_table())
    assert len(read_matches(build_matches(empty, CLASSES, 0))) == 0


def replace_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace_schema_metadata(None), "has no metadata 'classes'"),
        (lambda t: t.drop_columns(["kind"]), "has no column kind"),
        (lambda t: replace_column(t, "kind", ["found"] * len(t)), "column kind has a value"),
        (lambda t: replace_column(t, "label", ["emu"] * len(t)), "not among cat, dog, owl"),
        (lambda t: replace_column(t, "label", [None] * len(t)), "column label, row 0"),
        (lambda t: replace_column(t, "true_all", ["x"] * len(t)), "column true_all is string"),
        (lambda t: replace_column(t, "rank", [2**40] * len(t)), "column rank is int64"),
    ],
)
def test_another_table_is_rejected_with_its_name(table, change, message):
    with pytest.raises(UnreadableDataset, match=rf"part\.parquet.*{message}"):
        read_matches(change(table), "part.parquet")


@pytest.fixture
def part(table, tmp_path):
    pq.write_table(table, tmp_path / "part.parquet")
    return str(tmp_path / "part.parquet")


def test_duckdb_reads_bits(part):
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT sum(true_all & 1), sum((true_all >> 5) & 1), count(error) FROM '{part}'"
    assert duckdb.sql(query).fetchall() == [(1, 1, 4)]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_data_frames_have_all_columns(part, table, package):
    frame = pytest.importorskip(package).read_parquet(part)
    assert list(frame.columns) == table.column_names
    assert list(frame["label"]) == get_values(table, "label")
    assert int((frame["error"] == "miss").sum()) == 2
