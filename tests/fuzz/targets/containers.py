"""Images in damaged tar and Parquet files: each row must give the image that its name stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

from pipeline import imaging
from pipeline.errors import PipelineError
from pipeline.image_reader import read_image
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.sources.dataset import Dataset
from pipeline.sources.img2dataset import open_img2dataset
from pipeline.sources.parquet_images import ParquetLayout, open_parquet_images
from pipeline.sources.webdataset import WebDatasetLayout, open_webdataset
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.mutators.table_mutator import encode_table, mutate_table
from tests.fuzz.target import Target
from tests.fuzz.targets.source_answers import OPTIONS, find_fault_in_rows
from tests.sources.containers import encode_image, write_image_table, write_tar
from tests.sources.test_img2dataset import KEYS, write_shard

_BRIGHTNESS = {"a": 40, "b": 120, "c": 200}
"""Of each image, by its name."""
_OBJECTS = {"bbox": [[5, 6, 10, 20], [0, 0, 4, 4]], "category": ["dog", "cat"]}
_ALIKE = 3.0
"""Levels by which the mean of an image may differ from what was drawn: JPEG rounds."""


@dataclass(frozen=True)
class _Answer:
    rows: list[ManifestRow]
    classes: tuple[str, ...] | None
    skipped: int


def _write_webdataset(folder: Path, random: Random) -> str:
    content, change = mutate_json(json.loads(json.dumps(_OBJECTS)), random)
    is_json = random.random() < 0.5
    annotation = encode_json(content if is_json else _OBJECTS, random)[0]
    members: dict[str, bytes | str] = {}
    for name, level in _BRIGHTNESS.items():
        members[f"{name}.jpg"] = encode_image(level)
        members[f"{name}.json"] = annotation
    path = write_tar(folder / "a.tar", members)
    if not is_json:
        data, change = mutate_bytes(path.read_bytes(), random)
        path.write_bytes(data)
    return change


def _write_table(folder: Path, random: Random) -> str:
    path = folder / "a.parquet"
    columns = {"name": list(_BRIGHTNESS), "objects": [_OBJECTS, None, _OBJECTS]}
    write_image_table(path, [encode_image(level) for level in _BRIGHTNESS.values()], columns)
    table, change = mutate_table(pq.read_table(path), random)
    data, form = encode_table(table, random)
    path.write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _write_img2dataset(folder: Path, random: Random) -> str:
    write_shard(folder, random.choice(("webdataset", "files", "parquet")))
    path = folder / random.choice(("00000.parquet", "00000.tar"))
    if path.suffix == ".tar" and path.exists():
        data, change = mutate_bytes(path.read_bytes(), random)
    else:
        path = folder / "00000.parquet"
        table, change = mutate_table(pq.read_table(path), random)
        data, form = encode_table(table, random)
        change = ", ".join(filter(None, (change, form)))
    path.write_bytes(data)
    return change


def _find_fault(levels: dict[str, int], answer: _Answer) -> str | None:
    tables = [vars(row) | {"objects": _list_objects(row)} for row in answer.rows]
    fault = find_fault_in_rows(tables, answer.classes, sized=False)
    return fault or next(filter(None, (_compare(row, levels) for row in answer.rows)), None)


def _list_objects(row: ManifestRow) -> list[dict[str, object]] | None:
    return None if row.objects is None else [vars(item) for item in row.objects]


def _compare(row: ManifestRow, levels: dict[str, int]) -> str | None:
    """Whether an image that can be read is the one that its name stands for."""
    try:
        image = imaging.decode_image(read_image(row.uri, row.member))
    except PipelineError:
        return None  # a failed image of a run
    if row.width is not None and image.shape[:2] != (row.height, row.width):
        return f"{row.image_id} is stated as {row.width}x{row.height} and decoded as {image.shape}"
    expected = levels.get(row.image_id)
    is_flat = float(image.std()) < 1.0  # damaged pixels are no other image's
    if expected is None or not is_flat or abs(float(image.mean()) - expected) < _ALIKE:
        return None
    others = [level for level in levels.values() if abs(float(image.mean()) - level) < _ALIKE]
    return f"{row.image_id} gives the image of brightness {others[0]}" if others else None


def _make_target(
    kind: str,
    write: Callable[[Path, Random], str],
    open_source: Callable[[Path], Dataset],
    levels: dict[str, int],
) -> Target:
    def read(folder: Path) -> _Answer:
        dataset = open_source(folder)
        rows = list(dataset.rows)
        uri = str(folder / "manifest" / "m.parquet")
        write_manifest(uri, rows, dataset.classes, has_members=dataset.has_members)
        assert open_manifest(uri).has_members
        tally = dataset.tally
        return _Answer(rows, dataset.classes, tally.invalid_images + tally.repairs.total())

    def find_fault(folder: Path, answer: _Answer) -> str | None:
        return _find_fault(levels, answer)

    return Target(kind, write, read, find_fault, lambda answer: answer.skipped)


TARGETS = (
    _make_target(
        "webdataset",
        _write_webdataset,
        lambda root: open_webdataset(
            [f"{root}/a.tar"], WebDatasetLayout(objects_key="json"), OPTIONS
        ),
        _BRIGHTNESS,
    ),
    _make_target(
        "image_table",
        _write_table,
        lambda root: open_parquet_images(
            [f"{root}/a.parquet"], ParquetLayout(id_column="name"), OPTIONS
        ),
        {},
    ),
    _make_target(
        "img2dataset",
        _write_img2dataset,
        lambda root: open_img2dataset(str(root), OPTIONS),
        {KEYS[0]: 10, KEYS[2]: 30},
    ),
)
