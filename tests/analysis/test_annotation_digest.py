from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.annotation_digest import digest_annotations
from pipeline.manifests import open_manifest
from tests.outputs import make_object, write_annotations

IMAGES = {
    "one": [make_object("cat", (0, 0, 10, 10)), make_object("dog", (0, 0, 20, 10), crowd=True)],
    "two": None,
    "three": [],
    "four": [make_object("cat", (5, 0, 10, 10), difficult=True)],
}
CLASSES = ("cat", "dog")


def digest(path: Path | str, images: int = 4, classes: tuple[str, ...] = CLASSES) -> str:
    return digest_annotations(open_manifest(str(path)), images, classes)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    return write_annotations(f"{tmp_path}/m.parquet", IMAGES, CLASSES)


def test_the_digest_does_not_depend_on_how_the_manifest_is_stored(manifest, tmp_path):
    table = pq.read_table(manifest)
    pq.write_table(table, tmp_path / "groups.parquet", row_group_size=1)
    assert digest(tmp_path / "groups.parquet") == digest(manifest)
    (tmp_path / "folder").mkdir()
    pq.write_table(table.slice(0, 1), tmp_path / "folder/a.parquet")
    pq.write_table(table.slice(1), tmp_path / "folder/b.parquet")
    assert digest(tmp_path / "folder") == digest(manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[0]["objects"][0].update(x2=11.0),
        lambda rows: rows[0]["objects"][0].update(label="dog"),
        lambda rows: rows[0]["objects"][0].update(difficult=True),
        lambda rows: rows[3]["objects"][0].update(crowd=True, difficult=False),
        lambda rows: rows[1].update(objects=[]),
        lambda rows: rows[2].update(objects=[rows[0]["objects"].pop()]),
    ],
)
def test_each_change_of_an_annotation_changes_it(manifest, tmp_path, change):
    table = pq.read_table(manifest)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "changed.parquet")
    assert digest(tmp_path / "changed.parquet") != digest(manifest)


def test_it_covers_the_images_that_are_scored_and_the_order_of_classes(manifest):
    assert digest(manifest, images=1) != digest(manifest)
    assert digest(manifest, classes=("dog", "cat")) != digest(manifest)
